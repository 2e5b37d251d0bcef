//go:build php

package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// reload has the node start new PHP hosts.
func (s *site) reload(t *testing.T) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.admin+"/api/v1/php/reload", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return err
}

// cli runs a command of pogod against the node and returns what it printed.
func (s *site) cli(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), s.bin, append(args, "--admin", s.admin)...).CombinedOutput()
	return string(out), err
}

// rewrite changes the configuration of a site that is not started yet.
func (s *site) rewrite(t *testing.T, from, to string) {
	t.Helper()
	conf, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config(), []byte(strings.Replace(string(conf), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// visitors ask for pages as clients of all kinds, and count what went wrong.
type visitors struct {
	leaves bool // the node is to leave: once it takes no connection, a visitor goes home
	asked  atomic.Int64
	done   sync.WaitGroup

	mu    sync.Mutex // guards wrong
	wrong []string
}

func (v *visitors) fail(kind string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wrong = append(v.wrong, kind+": "+err.Error())
}

// visit asks again and again until ctx ends, and waits in between for a growing while.
func (v *visitors) visit(ctx context.Context, s *site, kind string, keep bool, body string, pause time.Duration) {
	transport := &http.Transport{DisableKeepAlives: !keep, MaxIdleConnsPerHost: 1}
	client := &http.Client{Transport: transport, Timeout: readyWithin}
	v.done.Go(func() { // ended by ctx
		defer transport.CloseIdleConnections()
		for n := 0; ctx.Err() == nil; n++ {
			var res *http.Response
			var err error
			if body == "" {
				res, err = client.Get(s.web + "/any/page")
			} else {
				res, err = client.Post(s.web+"/call", "application/json", strings.NewReader(body))
			}
			var answer []byte
			if err == nil {
				answer, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if v.leaves && errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
			v.asked.Add(1)
			if err == nil && (res.StatusCode != http.StatusOK || !strings.Contains(string(answer), `page`)) {
				err = fmt.Errorf("%s: %.200s", res.Status, answer)
			}
			if err != nil {
				v.fail(kind, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause * time.Duration(n%5)):
			}
		}
	})
}

// TestE2EReload replaces the hosts every two seconds, under load of all kinds, with pages
// in classic and in worker mode. POGOD_RELOAD_SECONDS says for how long.
func TestE2EReload(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"classic", "worker"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, inApp(t, ""), "[queue.busy]\nmax_attempts = 1\n"+worker(t, "busy", "plan.php", 3))
			if mode == "worker" {
				s.rewrite(t, "[web]\n", "[web]\nworker = \"web-worker.php\"\n")
			}
			s.serve(t)
			testReload(t, s)
			if web := s.document(t).Web; web.Mode != mode || web.Crashes != 0 || web.FailedStarts != 0 {
				t.Errorf("%+v", web)
			}
		})
	}
}

func testReload(t *testing.T, s *site) {
	long := time.Duration(envInt(t, "POGOD_RELOAD_SECONDS", 6)) * time.Second
	ctx, stop := context.WithTimeout(t.Context(), long)
	defer stop()
	var v visitors
	post := `[["str_repeat", "page", 3000]]`
	for _, keep := range []bool{true, false} {
		v.visit(ctx, s, fmt.Sprintf("GET, kept %v", keep), keep, "", 2*time.Millisecond)
		v.visit(ctx, s, fmt.Sprintf("POST, kept %v", keep), keep, post, 2*time.Millisecond)
	}
	v.visit(ctx, s, "GET, seldom", true, "", 400*time.Millisecond)
	v.visit(ctx, s, "POST, seldom", true, post, 700*time.Millisecond)
	v.visit(ctx, s, "POST, slow", true, `[["usleep", 300000], ["strval", "page"]]`, time.Millisecond)
	var jobs []string
	v.done.Go(func() { // ended by ctx
		for i := 0; ctx.Err() == nil; i++ {
			steps := always(step{"ack"})
			if i%10 == 0 { // some run through a reload
				steps = always(step{"call", "usleep", 1_500_000}, step{"ack"})
			}
			text, err := json.Marshal(steps)
			if err != nil {
				panic(err) // no plan that json cannot write
			}
			replies, err := s.tryCalls([]any{"pogo_queue_push", "busy", string(text)})
			if err != nil {
				v.fail("push", err)
				continue
			}
			jobs = append(jobs, replies[0].answer(t).ID)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	reloads := 0
	for next := time.Now(); ctx.Err() == nil; next = next.Add(2 * time.Second) {
		if err := s.reload(t); err != nil {
			t.Errorf("reload %d: %v", reloads+1, err)
		}
		reloads++
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next.Add(2 * time.Second))):
		}
	}
	v.done.Wait()
	for i, wrong := range v.wrong {
		if i < 5 {
			t.Error(wrong)
		}
	}
	eventually(t, "all jobs are acked", func() bool { q := s.queue(t, "busy"); return q.Acked >= len(jobs) || q.Failed > 0 })
	starts, acks, pids := s.notes(t, "busy", "", "start"), s.notes(t, "busy", "", "ack"), map[int]bool{}
	for _, n := range starts {
		pids[n.PID] = true
		if n.Attempts != 1 {
			t.Errorf("%+v", n)
		}
	}
	acked := map[string]int{}
	for _, n := range acks {
		if acked[n.Job]++; n.code() != "1" || acked[n.Job] > 1 {
			t.Errorf("%+v", n)
		}
	}
	if q := s.queue(t, "busy"); len(acked) != len(jobs) || q.Acked != len(jobs) || q.Failed != 0 || q.Released != 0 || q.waiting() != 0 {
		t.Errorf("%d of %d jobs acked: %+v", len(acked), len(jobs), q)
	}
	web := s.document(t).host(t, "web")
	if len(pids) < 2 || web.Restarts != 0 {
		t.Errorf("%d jobs hosts, %+v", len(pids), web)
	}
	eventually(t, "the old hosts are gone", func() bool { return len(s.document(t).PHP.Hosts) == 2 })
	t.Logf("%d reloads, %d requests (%d wrong), %d jobs in %d hosts, each attempt the first", reloads, v.asked.Load(), len(v.wrong), len(jobs), len(pids))
}

// TestE2ELongJobOutlivesReload has a job run through a reload to its end, while both
// processes show in status.
func TestE2ELongJobOutlivesReload(t *testing.T) {
	t.Parallel()
	s := startSite(t, worker(t, "long", "plan.php", 1))
	job := s.push(t, "long", always(step{"gate", "long"}, step{"ack"}))
	old := s.await(t, "long", job, "start", 1).PID
	if out, err := s.cli(t, "php", "reload"); err != nil || !strings.HasPrefix(out, "reloaded in ") {
		t.Fatal(out, err)
	}
	next := s.push(t, "long", always(step{"ack"}))
	if n := s.await(t, "long", next, "ack", 1); n.PID == old {
		t.Error("a new job in the old host")
	}
	out, err := s.cli(t, "php", "status")
	if err != nil || strings.Count(out, "\njobs ") != 2 || !strings.Contains(out, "draining") {
		t.Errorf("%s %v", out, err)
	}
	s.open(t, "long")
	if n := s.await(t, "long", job, "ack", 1); n.PID != old || n.code() != "1" || n.Attempts != 1 {
		t.Errorf("%+v", n)
	}
	eventually(t, "the old host has ended", func() bool { return len(s.document(t).PHP.Hosts) == 2 && !runs(old) })
	if h := s.document(t).host(t, "jobs"); h.Restarts != 0 || h.LastExit != "exit code 0" {
		t.Errorf("%+v", h)
	}
}

// deploy makes an application of the test's own: a page and a worker that tell which release
// they are.
func deploy(t *testing.T, dir, name string) {
	t.Helper()
	for path, text := range map[string]string{
		"public/index.php": "<?php if ($_SERVER['REQUEST_URI'] === '/push') exit(pogo_queue_push('d', 'x')); echo '" + name + " ', basename(dirname(getcwd()));",
		"web.php": "<?php while (frankenphp_handle_request(function () { echo $_SERVER['REQUEST_URI'] === '/push' ? pogo_queue_push('d', 'x') : '" + name +
			" ' . basename(getcwd()); })) {}\n",
		"public/style.css": name,
		"worker.php": "<?php while (frankenphp_handle_request(function (string $m) { $j = json_decode($m, true); " +
			"file_put_contents(getenv('E2E_RECORD') . '/release', '" + name + "' . \"\\n\", FILE_APPEND); pogo_queue_ack($j['queue'], $j['id']); })) {}\n",
	} {
		path = filepath.Join(dir, name, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestE2EDeploy switches a symlink to another release: by SIGHUP the new one is served,
// pages in both modes, files and jobs.
func TestE2EDeploy(t *testing.T) {
	t.Parallel()
	for mode, keys := range map[string]string{"classic": "", "worker": "worker = \"web.php\"\n"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			testDeploy(t, keys)
		})
	}
}

func testDeploy(t *testing.T, webKeys string) {
	dir := t.TempDir()
	deploy(t, dir, "r1")
	deploy(t, dir, "r2")
	current := filepath.Join(dir, "current")
	if err := os.Symlink("r1", current); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, current, "[[worker]]\nname = \"d\"\nqueues = [\"d\"]\nscript = \"worker.php\"\nthreads = 1\n")
	s.rewrite(t, "[web]\n", "[web]\n"+webKeys)
	s.serve(t)
	served := func(name string) bool {
		_, page := s.page(t, "/")
		_, file := s.page(t, "/style.css")
		return page == name+" "+name && file == name
	}
	if !served("r1") {
		t.Error("the first release is not served")
	}
	if err := os.Symlink("r2", current+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(current+".new", current); err != nil {
		t.Fatal(err)
	}
	if !served("r1") {
		t.Error("pages and files of two releases, or the other one, before a reload")
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second release is served", func() bool { return served("r2") })
	eventually(t, "one process each", func() bool { return len(s.document(t).PHP.Hosts) == 2 })
	if _, answer := s.page(t, "/push"); !strings.Contains(answer, `"code":1`) {
		t.Fatal(answer)
	}
	eventually(t, "the second release's worker has done it", func() bool {
		b, err := os.ReadFile(filepath.Join(s.record, "release"))
		if err == nil && string(b) == "r1\n" {
			t.Fatal("the old worker has done it")
		}
		return err == nil && string(b) == "r2\n"
	})
}

// TestE2EWatch changes a PHP file in development mode.
func TestE2EWatch(t *testing.T) {
	t.Parallel()
	for _, watch := range []bool{true, false} {
		t.Run(fmt.Sprint(watch), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			deploy(t, dir, "dev")
			s := newSite(t, filepath.Join(dir, "dev"), "[[worker]]\nname = \"d\"\nqueues = [\"d\"]\nscript = \"worker.php\"\nthreads = 1\n", `mode = "development"`)
			if !watch {
				s.rewrite(t, "[php]\n", "[php]\nwatch = false\n")
			}
			s.serve(t)
			before := s.document(t).host(t, "jobs").PID
			deploy(t, dir, "dev")
			if !watch {
				if err := s.reload(t); err != nil { // it comes behind whatever a change would have begun
					t.Fatal(err)
				}
				if strings.Contains(s.log(t), "a PHP file has changed") {
					t.Error("files are watched")
				}
				return
			}
			eventually(t, "another process", func() bool {
				h := s.document(t).host(t, "jobs")
				return h.PID != before && h.State == "ready"
			})
			if !strings.Contains(s.log(t), "a PHP file has changed") {
				t.Error("the log does not say why")
			}
		})
	}
}

// TestE2EReloadFails has a new process that does not start: the old one goes on.
func TestE2EReloadFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deploy(t, dir, "app")
	app := filepath.Join(dir, "app")
	s := newSite(t, app, "[[worker]]\nname = \"d\"\nqueues = [\"d\"]\nscript = \"worker.php\"\nthreads = 1\n")
	s.serve(t)
	hosts := s.document(t).PHP.Hosts
	if err := os.Rename(app, app+".away"); err != nil { // a host cannot start without its working directory
		t.Fatal(err)
	}
	err := s.reload(t)
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "PHP host web ended before it was ready (exit code 1: the application's directory: ") {
		t.Error(err)
	}
	if err := os.Rename(app+".away", app); err != nil {
		t.Fatal(err)
	}
	if err := s.ready(); err != nil {
		t.Error(err)
	}
	if now := s.document(t).PHP.Hosts; len(now) != 2 || now[0].PID != hosts[0].PID || now[1].PID != hosts[1].PID {
		t.Errorf("%+v, before %+v", now, hosts)
	}
	if code, body := s.page(t, "/"); code != 200 || body != "app app" {
		t.Error(code, body)
	}
	if err := s.reload(t); err != nil {
		t.Error(err)
	}
}

// TestE2EHostsComeBack kills hosts that have served, again and again: each is back within
// a second. POGOD_HOST_DEATHS says how often.
func TestE2EHostsComeBack(t *testing.T) {
	t.Parallel()
	s := startSite(t, worker(t, "back", "plan.php", 1))
	deaths := envInt(t, "POGOD_HOST_DEATHS", 5)
	var waits []time.Duration
	for i := range deaths {
		name := []string{"web", "jobs"}[i%2]
		h := s.document(t).host(t, name)
		pause(t.Context(), 700*time.Millisecond) // it is steady then
		began := time.Now()
		if err := syscall.Kill(h.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" is ready again", func() bool {
			now := s.document(t).host(t, name)
			return now.PID != h.PID && now.State == "ready"
		})
		waits = append(waits, time.Since(began))
	}
	slices.Sort(waits)
	t.Logf("%d deaths: ready again within %s at the median and %s at most", deaths, waits[len(waits)/2], waits[len(waits)-1])
	if got := strings.Count(s.log(t), "ended and is started again after a pause"); got > 0 {
		t.Errorf("%d pauses", got)
	}
	for _, h := range s.document(t).PHP.Hosts {
		if h.LastExit != "SIGKILL" {
			t.Errorf("%+v", h)
		}
	}
}
