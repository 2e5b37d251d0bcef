//go:build php

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// webStatus is the part web of a node's status.
type webStatus struct {
	Mode         string
	Script       string
	Threads      int
	Ready        int
	Busy         int
	Requests     int
	Restarts     int
	Crashes      int
	FailedStarts int    `json:"failed_starts"`
	LastError    string `json:"last_error"`
}

// mark makes a file that the application looks for, or removes it.
func (s *site) mark(t *testing.T, name string, there bool) {
	t.Helper()
	path := filepath.Join(s.record, name)
	err := os.Remove(path)
	if there {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil && there {
		t.Fatal(err)
	}
}

// marked tells whether the application has made a file.
func (s *site) marked(name string) bool {
	_, err := os.Stat(filepath.Join(s.record, name))
	return err == nil
}

// starts counts how often the worker script of pages was started, and how often it has
// come to its own end.
func (s *site) starts(t *testing.T) (begun, ended int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.record, "worker"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "start 1 modes\n"), strings.Count(string(b), "end\n")
}

// served is what /served says.
type served struct {
	PID, Served int
	Ignores     int // what ignore_user_abort is
}

func (s *site) served(t *testing.T) served {
	t.Helper()
	var v served
	code, body := s.page(t, "/served")
	if err := json.Unmarshal([]byte(body), &v); err != nil || code != 200 {
		t.Fatalf("%d %q: %v", code, body, err)
	}
	return v
}

// TestE2EWebWorkerStartsOnce has each thread start the script once for many requests, and
// again after MAX_REQUESTS, which are the script's own; status and metrics count.
func TestE2EWebWorkerStartsOnce(t *testing.T) {
	t.Parallel()
	s := newModeSite(t, true, "threads = 2", "")
	s.env = append(s.env, "MAX_REQUESTS=25")
	s.serve(t)
	const requests = 100
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range requests / 4 {
				if code, body := s.page(t, "/x"); code != 200 || body != "page /x" {
					t.Errorf("%d %q", code, body)
				}
			}
		})
	}
	all.Wait()
	eventually(t, "two threads are ready, and all is counted", func() bool {
		begun, ended := s.starts(t)
		w := s.document(t).Web
		if ended > requests/25 || begun > ended+2 {
			t.Fatalf("%d starts, %d ends", begun, ended)
		}
		return begun == ended+2 && w.Restarts == ended && w.Ready == 2 && w.Busy == 0 && w.Requests == requests
	})
	if w := s.document(t).Web; w.Mode != "worker" || w.Script != filepath.Join(s.app(t), "worker.php") || w.Threads != 2 || w.Restarts < 3 || w.Crashes != 0 || w.FailedStarts != 0 || w.LastError != "" {
		t.Errorf("%+v", w)
	}
	out, err := s.cli(t, "php", "status")
	if err != nil || !strings.Contains(out, "worker worker.php") {
		t.Errorf("%s %v", out, err)
	}
	metrics, err := s.get(t.Context(), "/metrics")
	if err != nil || !strings.Contains(string(metrics), fmt.Sprintf("\npogod_web_requests_total %d\n", requests)) || !strings.Contains(string(metrics), "\npogod_web_threads{state=\"ready\"} 2\n") {
		t.Errorf("%v %s", err, metrics)
	}
	if code, _ := s.page(t, "/file.txt"); code != 200 || s.document(t).Web.Requests != requests {
		t.Error("a file is counted among PHP's requests, or not served")
	}
}

// TestE2EWebWorkerLeaksNothing has a request leave behind what it can, in the one thread
// that answers the next: that one is told the same as a request in classic mode.
func TestE2EWebWorkerLeaksNothing(t *testing.T) {
	t.Parallel()
	classic, worker := modeSite(t, false, "threads = 1", ""), modeSite(t, true, "threads = 1", "")
	state := ask("GET /state?x=1", "")
	want := classic.raw(t, state)
	if got := worker.raw(t, state); got != want {
		t.Errorf("before: %s\nwant %s", got, want)
	}
	dirty := ask("POST /dirty?get=1\nCookie: c=1\nAuthorization: Basic YWRhOnNlY3JldA==\nContent-Type: application/x-www-form-urlencoded", "post=1")
	for i := range 3 {
		if got := worker.raw(t, dirty); !strings.HasPrefix(got, "HTTP/1.1 418 ") || !strings.Contains(got, "DIRTY") {
			t.Error(got)
		}
		if got := worker.raw(t, state); got != want {
			t.Errorf("after %d: %s\nwant %s", i+1, got, want)
		}
	}
	if got := worker.served(t); got.Ignores != 1 {
		t.Errorf("ignore_user_abort is %d in the next request", got.Ignores)
	}
	upload := strings.Replace(form(t), "POST /in", "POST /upload", 1)
	_, body, _ := strings.Cut(worker.raw(t, upload), "\r\n\r\n")
	var files []any
	if err := json.Unmarshal([]byte(body), &files); err != nil || len(files) != 2 {
		t.Fatal(body, err)
	}
	if _, err := os.Stat(files[0].(string)); !os.IsNotExist(err) {
		t.Errorf("an uploaded file is left: %v", err)
	}
	if begun, _ := worker.starts(t); begun != 1 {
		t.Errorf("%d starts: they have not met in one script", begun)
	}
}

// TestE2EWebWorkerEndsRequests has requests reserve a job and dispatch a task, and settle
// neither: both are given back with the request, while the script lives on.
func TestE2EWebWorkerEndsRequests(t *testing.T) {
	t.Parallel()
	s := modeSite(t, true, "threads = 1", fmt.Sprintf("[queue.held]\n[[pool]]\nscript = %q\nthreads = 1\n", inApp(t, "workers/dispatch.php")))
	if _, body := s.page(t, "/push"); !strings.Contains(body, `"code":1`) {
		t.Fatal(body)
	}
	before := s.served(t)
	for i := range 3 {
		code, body := s.page(t, "/reserve")
		var got struct {
			Job  struct{ ID string }
			Task int
			Size int
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || got.Job.ID == "" || got.Task == 0 || got.Size != 1 {
			t.Fatalf("%d: %d %s %v", i, code, body, err)
		}
		eventually(t, "the job is back", func() bool { q := s.figures(t, "held"); return q.Reserved == 0 && q.Pending == 1 })
		eventually(t, "the task is cancelled", func() bool {
			p := s.pool(t, "default")
			return p.Cancelled == uint64(i+1) && p.Running == 0
		})
	}
	if now := s.served(t); now != (served{before.PID, before.Served + 4, 1}) {
		t.Errorf("%+v, before %+v: not one script", now, before)
	}
}

// figures is what the node's status says of a queue.
func (s *site) figures(t *testing.T, name string) (q phpStatus) {
	t.Helper()
	body, err := s.get(t.Context(), "/api/v1/queues/"+name)
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestE2EWebWorkerCrashes has requests end the script in every way while others run in the
// same process: those are answered, and the script is started again.
func TestE2EWebWorkerCrashes(t *testing.T) {
	t.Parallel()
	s := modeSite(t, true, "threads = 3", "")
	pid := s.served(t).PID
	slow := make(chan string, 2)
	for i := range 2 {
		go func() { // ended by the page
			_, body := s.page(t, fmt.Sprint("/slow?n=", i))
			slow <- body
		}()
	}
	eventually(t, "two requests run", func() bool { return s.marked("slow0") && s.marked("slow1") })
	begun, _ := s.starts(t)
	ends := []string{"/exit", "/exits", "/memory", "/sent", "/busy"}
	for i, path := range ends {
		code, _ := s.page(t, path)
		if want := map[string]int{"/busy": 500}[path]; want != 0 && code != want {
			t.Errorf("%s: %d", path, code)
		}
		if got := s.served(t); got != (served{pid, 1, 1}) { // only one thread is free
			t.Errorf("behind %s: %+v", path, got)
		}
		if now, _ := s.starts(t); now != begun+i+1 {
			t.Errorf("behind %s there were %d starts, before %d", path, now, begun)
		}
	}
	s.mark(t, "go", true)
	for range 2 {
		if body := <-slow; body != "slow 0" && body != "slow 1" {
			t.Errorf("%q", body)
		}
	}
	eventually(t, "status shows it", func() bool {
		w := s.document(t).Web
		return w.Ready == 3 && w.Restarts == 1 && w.Crashes == len(ends)-1
	})
}

// TestE2EWebWorkerDoesNotStart has a script that fails before it asks for a request: at
// the node's start, at a reload, and when it is to be started again.
func TestE2EWebWorkerDoesNotStart(t *testing.T) {
	t.Parallel()
	s := newModeSite(t, true, "threads = 2", "")
	s.mark(t, "broken", true)
	const why = "PHP Fatal error:  Uncaught RuntimeException: no database"
	t.Run("at the start", func(t *testing.T) {
		s.begin(t)
		eventually(t, "status says why", func() bool { return strings.Contains(s.document(t).host(t, "web").LastExit, why) })
		s.mark(t, "broken", false)
		s.serving()
		if log := s.log(t); !strings.Contains(log, "the worker script") || !strings.Contains(log, why) {
			t.Errorf("the log does not say why:\n%s", log)
		}
		w := s.document(t).Web
		if w.FailedStarts == 0 || !strings.Contains(w.LastError, why) {
			t.Errorf("%+v", w)
		}
		if code, body := s.page(t, "/x"); code != 200 || body != "page /x" {
			t.Errorf("%d %q", code, body)
		}
	})
	t.Run("at a reload", func(t *testing.T) {
		before := s.served(t)
		s.mark(t, "refuses", true)
		err := s.reload(t)
		if err == nil || !strings.Contains(err.Error(), "ended before it called frankenphp_handle_request: it printed: it does not want to") {
			t.Error(err)
		}
		if now := s.served(t); now.PID != before.PID {
			t.Errorf("%+v, before %+v: the old process has gone", now, before)
		}
		s.mark(t, "refuses", false)
		if err := s.reload(t); err != nil {
			t.Error(err)
		}
		// A kept connection is answered by the old process once more.
		eventually(t, "the new process serves", func() bool { return s.served(t).PID != before.PID })
	})
	t.Run("again", func(t *testing.T) {
		before := s.served(t)
		s.mark(t, "broken", true)
		failed := s.document(t).Web.FailedStarts
		for range 2 { // both threads
			s.page(t, "/exit")
		}
		// A request that came before it was known waits for a thread, 30 seconds at most.
		impatient := &http.Client{Timeout: 2 * time.Second, Transport: s.client.Transport}
		eventually(t, "a page answers 503", func() bool {
			res, err := impatient.Get(s.web + "/x")
			if err != nil {
				return false
			}
			defer res.Body.Close()
			return res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != ""
		})
		if code, _ := s.page(t, "/file.txt"); code != 200 {
			t.Errorf("a file: %d", code)
		}
		eventually(t, "status shows why", func() bool {
			w := s.document(t).Web
			return w.Ready == 0 && w.FailedStarts > failed && strings.Contains(w.LastError, why)
		})
		s.mark(t, "broken", false)
		eventually(t, "it serves again", func() bool { code, _ := s.page(t, "/x"); return code == 200 })
		eventually(t, "status shows it", func() bool { return s.document(t).Web.Ready == 2 })
		if now := s.served(t); now.PID != before.PID {
			t.Errorf("%+v, before %+v: another process", now, before)
		}
	})
}

// TestE2EWebWorkerWatch changes code that the script has loaded at its start, in
// development mode: the new is served.
func TestE2EWebWorkerWatch(t *testing.T) {
	t.Parallel()
	app := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(app, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("public/style.css", "")
	write("worker.php", "<?php require __DIR__ . '/page.php'; while (frankenphp_handle_request(page(...))) {}\n")
	write("page.php", "<?php function page() { echo 'one'; }\n")
	s := newSite(t, app, "", `mode = "development"`)
	s.rewrite(t, "[web]\n", "[web]\nworker = \"worker.php\"\n")
	s.serve(t)
	if _, body := s.page(t, "/"); body != "one" {
		t.Errorf("%q", body)
	}
	write("page.php", "<?php function page() { echo 'two'; }\n")
	eventually(t, "the new code is served", func() bool {
		code, body := s.page(t, "/")
		if code != 200 || body != "one" && body != "two" {
			t.Fatalf("%d %q", code, body)
		}
		return body == "two"
	})
	// One that does not start leaves the old code in service, and the log says why.
	write("page.php", "<?php function page() { echo 'three' }\n")
	eventually(t, "the log names the mistake", func() bool { return strings.Contains(s.log(t), "PHP Parse error:  syntax error") })
	if code, body := s.page(t, "/"); code != 200 || body != "two" {
		t.Errorf("%d %q", code, body)
	}
	write("page.php", "<?php function page() { echo 'four'; }\n")
	eventually(t, "the mended code is served", func() bool { _, body := s.page(t, "/"); return body == "four" })
}

// TestE2EWebWorkerAborted has clients go away: the script sees it, and goes on unless it
// says that it will not; the next request is answered.
func TestE2EWebWorkerAborted(t *testing.T) {
	t.Parallel()
	s := modeSite(t, true, "threads = 1", "")
	for ignore, want := range map[string]string{"1": "saw it", "0": ""} {
		ctx, leave := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.web+"/aborted?ignore="+ignore, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		leave()
		_ = res.Body.Close()
		if code, body := s.page(t, "/x"); code != 200 || body != "page /x" { // it waits for the thread
			t.Errorf("%d %q", code, body)
		}
		note, err := os.ReadFile(filepath.Join(s.record, "aborted"+ignore))
		if got := strings.TrimLeft(string(note), "."); err != nil || got != want {
			t.Errorf("ignore=%s: %q, want %q (%v)", ignore, got, want, err)
		}
	}
}
