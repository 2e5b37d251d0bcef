//go:build php

package cluster_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func parseDocument(t *testing.T, body []byte) *document {
	t.Helper()
	d := new(document)
	if err := json.Unmarshal(body, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestE2ENodeLeaves ends a node while a job runs: well, and by SIGKILL.
func TestE2ENodeLeaves(t *testing.T) {
	t.Parallel()
	s := startSite(t, worker(t, "leave", "plan.php", 2))

	t.Run("second node", func(t *testing.T) { testSecondNode(t, s) })
	t.Run("SIGTERM", func(t *testing.T) { testTerm(t, s) })

	s.serve(t)
	if got := s.queue(t, "leave"); got.Acked < 1 || got.Enqueued != 3 || got.Released != 0 {
		t.Errorf("after the restart: %+v", got)
	}
	eventually(t, "the job that waited is acked", func() bool { return s.queue(t, "leave").Acked == 3 })

	t.Run("SIGKILL", func(t *testing.T) { testKill(t, s) })
}

// testSecondNode starts a second node on the same data.
func testSecondNode(t *testing.T, s *site) {
	cmd := exec.CommandContext(t.Context(), s.bin, "serve", "--config", s.config())
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want code 1", err)
	}
	if !strings.Contains(stderr.String(), fmt.Sprint(s.cmd.Process.Pid)) || strings.Count(stderr.String(), "\n") != 1 || stdout.Len() > 0 {
		t.Errorf("it does not name process %d as the holder, in one line: %s%s", s.cmd.Process.Pid, stdout.String(), stderr.String())
	}
	if code, _ := s.page(t, "/pid"); code != 200 {
		t.Errorf("the first one answers %d", code)
	}
}

// runs tells whether a process lives; one that only its parent has not taken note of
// does not.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := stat[bytes.LastIndexByte(stat, ')')+1:] // the name before it may hold anything
	return !bytes.HasPrefix(rest, []byte(" Z")) && !bytes.HasPrefix(rest, []byte(" X"))
}

// testTerm ends the node while a job runs, and others wait.
func testTerm(t *testing.T, s *site) {
	running := s.push(t, "leave", always(step{"gate", "leave"}, step{"call", "pogo_queue_push", "leave", "from the last job"}, step{"ack"}))
	s.await(t, "leave", running, "start", 1)
	s.push(t, "leave", always(step{"ack"}), 2)
	hosts := s.document(t).PHP.Hosts
	node := s.cmd.Process
	if err := node.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node is not ready", func() bool {
		_, err := s.get(t.Context(), "/readyz")
		return err != nil
	})
	select {
	case <-s.exited:
		t.Fatal("the node did not wait for its job")
	default:
	}
	s.open(t, "leave")
	select {
	case <-s.exited:
	case <-time.After(endWithin):
		t.Fatal("the node does not end")
	}
	s.cmd = nil
	if s.err != nil {
		t.Errorf("it ended with %v", s.err)
	}
	if got := s.notes(t, "leave", running, "call"); len(got) != 1 || !strings.Contains(string(got[0].Result), `\"code\":1}`) {
		t.Errorf("the push of the last job: %+v", got)
	}
	if got := s.notes(t, "leave", running, "ack"); len(got) != 1 || got[0].code() != "1" {
		t.Errorf("the ack of the last job: %+v", got)
	}
	for _, h := range hosts {
		if runs(h.PID) {
			t.Errorf("host %s outlived its node", h.Name)
		}
	}
}

// testKill kills the node alone: its hosts must not outlive it.
func testKill(t *testing.T, s *site) {
	job := s.push(t, "leave", plans{"1": {step{"sleep"}}, "2": {step{"ack"}}})
	s.await(t, "leave", job, "start", 1)
	hosts := s.document(t).PHP.Hosts
	if len(hosts) != 2 {
		t.Errorf("%+v", hosts)
	}
	began := time.Now()
	s.kill()
	eventually(t, "its hosts are gone", func() bool {
		return !slices.ContainsFunc(hosts, func(h hostStatus) bool { return runs(h.PID) })
	})
	t.Logf("the hosts were gone after %s", time.Since(began).Round(time.Millisecond))
	s.serve(t)
	if n := s.await(t, "leave", job, "ack", 1); n.Attempts != 2 || n.code() != "1" {
		t.Errorf("%+v", n)
	}
}

// TestE2EShutdownTimeout ends a node whose jobs do not end in time: their pushes answer 4
// then, what does not end even so is interrupted, which spends none of its attempts.
func TestE2EShutdownTimeout(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue]\nmax_attempts = 1\n[queue.sink]\n"+worker(t, "endless", "plan.php", 3), `shutdown_timeout = "300ms"`)
	var jobs []string
	for _, way := range []string{"spin", "sleep"} {
		job := s.push(t, "endless", plans{"1": {step{way}}, "2": {step{"ack"}}})
		s.await(t, "endless", job, "start", 1)
		jobs = append(jobs, job)
	}
	chained := s.push(t, "endless", plans{"1": {step{"refused", "sink"}, step{"ack"}}})
	s.await(t, "endless", chained, "start", 1)
	s.stop()
	for what, code := range map[string]string{"refused": "4", "ack": "1"} {
		if n := s.await(t, "endless", chained, what, 1); n.code() != code {
			t.Errorf("%s answered %s, want %s", what, n.code(), code)
		}
	}
	s.serve(t)
	if got := s.queue(t, "sink"); got.DroppedShutdown != 1 {
		t.Errorf("%+v", got)
	}
	for _, job := range jobs {
		if n := s.await(t, "endless", job, "ack", 1); n.Attempts != 2 || n.code() != "1" {
			t.Errorf("%+v", n)
		}
	}
	if got := s.queue(t, "endless"); got.Failed != 0 {
		t.Errorf("%+v", got)
	}
}

var pageTests = []sharedTest{
	{"pages and files", nil, testPages},
}

func testPages(t *testing.T, s *site) {
	for path, want := range map[string]string{
		"/static.txt":          "a static file\n",
		"/":                    `{"page":"\/"}`,
		"/index.php":           `{"page":"\/index.php"}`,
		"/any/other/path":      `{"page":"\/any\/other\/path"}`,
		"/.hidden":             `{"page":"\/.hidden"}`,
		"/%2ehidden":           `{"page":"\/%2ehidden"}`,
		"/x/../.hidden":        `{"page":"\/x\/..\/.hidden"}`,
		"/../workers/plan.php": `{"page":"\/..\/workers\/plan.php"}`,
	} {
		if code, body := s.page(t, path); code != 200 || body != want {
			t.Errorf("%s answered %d %q, want %q", path, code, body, want)
		}
	}
}
