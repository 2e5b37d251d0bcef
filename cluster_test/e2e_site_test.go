//go:build php

package cluster_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is a node with PHP, as a user starts it, and its application.
type site struct {
	*node
	args   []string // of pogod
	web    string   // URL of the pages, without a slash at its end
	hub    string   // address of the WebSocket hub; "": none was there before the line about status
	record string   // directory of what the workers noted
	client *http.Client
}

// pogod is the binary under test: make build makes it, scripts/env.sh --php names it.
func pogod(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("POGOD_BIN")
	if bin == "" {
		t.Skip("POGOD_BIN does not name a pogod with PHP: run make build, and the tests by scripts/env.sh --php")
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skipf("POGOD_BIN: %v: run make build", err)
	}
	return bin
}

// inApp is the absolute path of a file of the tests' application.
func inApp(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "app", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// worker is the configuration of a worker of one queue, whose name it has.
func worker(t *testing.T, queue, script string, threads int) string {
	t.Helper()
	return fmt.Sprintf("\n[[worker]]\nname = %q\nqueues = [%q]\nscript = %q\nthreads = %d\n", queue, queue, inApp(t, "workers/"+script), threads)
}

// newSite makes a site that is not started yet. settings are the configuration but for
// paths and addresses; nodeKeys belong to [node].
func newSite(t *testing.T, app, settings string, nodeKeys ...string) *site {
	t.Helper()
	s := &site{node: newNode(t, pogod(t), ""), client: &http.Client{Transport: &http.Transport{}, Timeout: readyWithin}}
	t.Cleanup(s.client.CloseIdleConnections)
	s.record = filepath.Join(s.home, "record")
	if err := os.Mkdir(s.record, 0o700); err != nil {
		t.Fatal(err)
	}
	s.args = []string{"serve", "--config", s.config()}
	conf := fmt.Sprintf("[node]\ndata_dir = %q\nsocket = %q\n%s\n[php]\napp = %q\nmemory_limit = \"64M\"\n[web]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n%s",
		s.dir, s.socket(), strings.Join(nodeKeys, "\n"), app, settings)
	if err := os.WriteFile(s.config(), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) config() string { return filepath.Join(s.home, "pogod.toml") }

// startSite makes a site of the tests' application and waits until it serves.
func startSite(t *testing.T, settings string, nodeKeys ...string) *site {
	t.Helper()
	s := newSite(t, inApp(t, ""), settings, nodeKeys...)
	s.serve(t)
	return s
}

// serve starts the node and waits until it serves.
func (s *site) serve(t *testing.T) {
	t.Helper()
	s.begin(t)
	s.serving()
}

// begin starts the node and reads its addresses off its banner.
func (s *site) begin(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.bin, s.args...)
	cmd.Dir = s.home
	cmd.Env = append(append(os.Environ(), "E2E_RECORD="+s.record), s.env...)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe() // not StdoutPipe, which Wait closes
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() { // ended by the end of the process
		s.err = cmd.Wait()
		close(exited)
	}()
	lines := make(chan string, 64) // a banner; what does not fit is dropped
	go func() {                    // ended by the end of the process
		defer r.Close()
		for in := bufio.NewScanner(r); in.Scan(); {
			select {
			case lines <- in.Text():
			default:
			}
		}
	}()
	s.web, s.hub, s.admin = "", "", ""
	late := time.After(readyWithin)
	for s.web == "" || s.admin == "" {
		select {
		case line := <-lines:
			fields := strings.Fields(line)
			switch {
			case len(fields) > 1 && fields[0] == "pages":
				s.web = fields[1]
			case len(fields) > 1 && fields[0] == "sockets":
				s.hub = strings.TrimPrefix(fields[1], "ws://")
			case len(fields) > 1 && fields[0] == "status":
				s.admin = strings.TrimSuffix(strings.TrimPrefix(fields[1], "http://"), "/status,")
			}
		case <-exited:
			t.Fatalf("the node ended before its banner: %v: %s", s.err, s.lastLine())
		case <-late:
			t.Fatalf("no banner within %s", readyWithin)
		}
	}
}

// reply is what one call of a page returned, or what it threw.
type reply struct {
	Result json.RawMessage
	Error  string
}

// call calls a function in a page of its own.
func (s *site) call(t *testing.T, f string, args ...any) reply {
	t.Helper()
	return s.calls(t, append([]any{f}, args...))[0]
}

// calls calls functions one after the other in one page. Each call is the function's
// name and its arguments.
func (s *site) calls(t *testing.T, calls ...[]any) []reply {
	t.Helper()
	replies, err := s.tryCalls(calls...)
	if err != nil {
		t.Fatal(err)
	}
	return replies
}

func (s *site) tryCalls(calls ...[]any) ([]reply, error) {
	body, err := json.Marshal(calls)
	if err != nil {
		return nil, err
	}
	res, err := s.client.Post(s.web+"/call", "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	var replies []reply
	if err := json.Unmarshal(answer, &replies); err != nil || res.StatusCode != http.StatusOK || len(replies) != len(calls) {
		return nil, errors.Join(err, fmt.Errorf("%s: %s", res.Status, answer))
	}
	return replies, nil
}

// page gets a page or a file.
func (s *site) page(t *testing.T, path string) (int, string) {
	t.Helper()
	res, err := s.client.Get(s.web + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// binary is an argument that is not UTF-8.
func binary(s string) any {
	return map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(s))}
}

// text is a result that is a string.
func (r reply) text(t *testing.T) string {
	t.Helper()
	var s string
	if err := json.Unmarshal(r.Result, &s); err != nil {
		t.Fatalf("%s %s: %v", r.Result, r.Error, err)
	}
	return s
}

// answer is the JSON that a push and the calls on failed jobs return.
type answer struct {
	OK      bool
	ID      string
	Code    *int
	Count   *int
	Message string
	Queue   string
	Failed  []failedEntry
}

type failedEntry struct {
	failedJob
	OriginalID string `json:"original_id"`
	FailedAt   string `json:"failed_at"`
}

func parseAnswer(t *testing.T, text string) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(text), &a); err != nil || a.Code == nil {
		t.Fatalf("%q: %v", text, err)
	}
	if a.OK != (*a.Code == 1) || a.OK == (a.Message != "") {
		t.Errorf("ok, code and message disagree: %s", text)
	}
	return a
}

func (r reply) answer(t *testing.T) answer {
	t.Helper()
	return parseAnswer(t, r.text(t))
}

// code is a result that is an int, or the code of the JSON.
func (r reply) code(t *testing.T) int {
	t.Helper()
	var n int
	if json.Unmarshal(r.Result, &n) == nil {
		return n
	}
	return *r.answer(t).Code
}

// push pushes a job, which must be accepted, and returns its id.
func (s *site) push(t *testing.T, queue string, payload any, delay ...any) string {
	t.Helper()
	text, ok := payload.(string)
	if !ok {
		b, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	a := s.call(t, "pogo_queue_push", append([]any{queue, text}, delay...)...).answer(t)
	if !a.OK {
		t.Fatalf("a push to %s was refused: %+v", queue, a)
	}
	return a.ID
}

// failedList is what pogo_queue_failed shows.
func (s *site) failedList(t *testing.T, queue string, limit ...any) []failedEntry {
	t.Helper()
	return s.call(t, "pogo_queue_failed", append([]any{queue}, limit...)...).answer(t).Failed
}

// plans are what a handler does: its steps, by the attempt's number or "*".
type plans map[string][]step

// step is one of them and its arguments, see testdata/app/workers/plan.php.
type step []any

// always is a plan for every attempt.
func always(steps ...step) plans { return plans{"*": steps} }

// noted is what a handler noted: its start, or a step that it did.
type noted struct {
	What     string
	Job      string
	ID       string
	Payload  string
	Attempts int
	PID      int
	At       int64 // Unix milliseconds
	Result   json.RawMessage
}

// code is the result of a step.
func (n noted) code() string { return string(n.Result) }

// notes are those of a queue's jobs, or of one job, of one kind.
func (s *site) notes(t *testing.T, queue, job, what string) []noted {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.record, queue+".jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var all []noted
	for line := range bytes.Lines(b) {
		var n noted
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		if err := json.Unmarshal(line, &n); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if (job == "" || n.Job == job) && n.What == what {
			all = append(all, n)
		}
	}
	return all
}

// await waits for the n-th note of this kind, the first is 1.
func (s *site) await(t *testing.T, queue, job, what string, n int) noted {
	t.Helper()
	var all []noted
	eventually(t, fmt.Sprintf("%s %d of job %s in queue %s", what, n, job, queue), func() bool {
		all = s.notes(t, queue, job, what)
		return len(all) >= n
	})
	return all[n-1]
}

// open lets the handlers go on that wait at a gate.
func (s *site) open(t *testing.T, gate string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.record, gate+".open"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// log is all that the node has logged.
func (s *site) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
