//go:build php

package cluster_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var commandLineTests = []sharedTest{
	{"command line", plain("[queue.cli]\n"), testCommandLine},
	{"command line without a node", nil, testNoNode},
	{"command line forks", plain("[queue.fork]\n"), testFork},
	{"command line worker", func(t *testing.T) string { return worker(t, "cliworker", "plan.php", 1) }, testCommandLineWorker},
}

// php is the php command line with pogo.so, connected to a socket.
func (s *site) php(t *testing.T, socket string, args ...string) *exec.Cmd {
	t.Helper()
	config := os.Getenv("POGOD_PHP_CONFIG")
	so := filepath.Join(filepath.Dir(s.bin), "pogo.so")
	if _, err := os.Stat(so); config == "" || err != nil {
		t.Skipf("POGOD_PHP_CONFIG=%q, %v: run make build, and the tests by scripts/env.sh --php", config, err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(config), "php"), append([]string{"-d", "extension=" + so}, args...)...)
	cmd.Env = append(os.Environ(), "POGOD_SOCKET="+socket, "E2E_RECORD="+s.record)
	return cmd
}

// output is what a script printed, as JSON.
func output(t *testing.T, cmd *exec.Cmd, into any) {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, stderr.String())
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
}

// called is what testdata/app/cli/push.php prints.
type called struct {
	Push, Binary, Status, Failed, Retry, Forget, Purge string
	Ack, Release, Fail, Helper                         int
	Empty                                              []int
}

func (c *called) codes(t *testing.T) []int {
	t.Helper()
	all := append([]int{c.Ack, c.Release, c.Fail, c.Helper}, c.Empty...)
	for _, text := range []string{c.Push, c.Binary, c.Failed, c.Retry, c.Forget, c.Purge} {
		all = append(all, *parseAnswer(t, text).Code)
	}
	return all
}

func requireEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	g, _ := json.Marshal(got) // both are made here
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

func testCommandLine(t *testing.T, s *site) {
	var c called
	output(t, s.php(t, s.socket(), inApp(t, "cli/push.php"), "cli"), &c)
	requireEqual(t, "codes", c.codes(t), []int{5, 5, 5, 1, 5, 5, 5, 5, 1, 5, 1, 5, 1, 1})
	if ready, queues := parseStatus(t, c.Status); !ready || queues[0].Pending != 1 {
		t.Error(c.Status)
	}
}

func testNoNode(t *testing.T, s *site) {
	var c called
	output(t, s.php(t, filepath.Join(s.home, "nobody"), inApp(t, "cli/push.php"), "cli"), &c)
	requireEqual(t, "codes", c.codes(t), []int{2, 2, 2, 2, 5, 5, 5, 5, 2, 2, 2, 2, 2, 2})
	if !strings.HasPrefix(c.Push, `{"ok":false,"code":2,"message":"no node is reachable`) {
		t.Error(c.Push)
	}
	if c.Status != `{"ready":false,"queues":[]}` {
		t.Error(c.Status)
	}
}

func testFork(t *testing.T, s *site) {
	var c struct {
		Before, Parent, After string
		Child                 int
	}
	output(t, s.php(t, s.socket(), inApp(t, "cli/fork.php"), "fork"), &c)
	ids := map[string]bool{}
	for _, text := range []string{c.Before, c.Parent, c.After} {
		a := parseAnswer(t, text)
		if !a.OK {
			t.Error(text)
		}
		ids[a.ID] = true
	}
	if c.Child != 0 || len(ids) != 3 {
		t.Errorf("the child ended with %d, ids %v", c.Child, ids)
	}
	if got := s.queue(t, "fork"); got.Enqueued != 4 {
		t.Errorf("%+v", got)
	}
}

// testCommandLineWorker adds a process to a worker whose one thread is busy.
func testCommandLineWorker(t *testing.T, s *site) {
	busy := s.push(t, "cliworker", always(step{"gate", "cliworker"}, step{"ack"}))
	host := s.await(t, "cliworker", busy, "start", 1).PID
	cmd := s.php(t, s.socket(), inApp(t, "workers/plan.php"))
	cmd.Env = append(cmd.Env, "POGO_WORKER=cliworker")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []plans{always(step{"ack"}), {"1": {step{"release"}}, "2": {step{"ack"}}}} {
		job := s.push(t, "cliworker", p)
		if n := s.await(t, "cliworker", job, "ack", 1); n.PID != cmd.Process.Pid || n.PID == host || n.code() != "1" {
			t.Errorf("%+v, on the command line runs process %d", n, cmd.Process.Pid)
		}
	}
	last := s.push(t, "cliworker", plans{"1": {step{"throw", "the end"}}, "2": {step{"ack"}}})
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "the end") {
		t.Errorf("an exception ends the script: %v\n%s", err, out.String())
	}
	s.open(t, "cliworker")
	if n := s.await(t, "cliworker", last, "ack", 1); n.PID != host || n.Attempts != 2 {
		t.Errorf("%+v, want the host, process %d", n, host)
	}
}

// TestE2EWorkerOutlivesNode kills the node of a worker on the command line, once while
// it waits and once while it has a job, and starts it again.
func TestE2EWorkerOutlivesNode(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue]\nmax_attempts = 1\n"+worker(t, "outlives", "boot-fails.php", 1)) // no host takes its jobs
	cmd := s.php(t, s.socket(), inApp(t, "workers/plan.php"))
	cmd.Env = append(cmd.Env, "POGO_WORKER=outlives")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ended by its script, or with the test's context
	again := func() {
		t.Helper()
		s.kill()
		s.serve(t)
	}
	acked := func(job string, attempt int) {
		t.Helper()
		if n := s.await(t, "outlives", job, "ack", attempt); n.PID != cmd.Process.Pid || n.Attempts != attempt || n.code() != "1" {
			t.Errorf("%+v, want attempt %d of process %d", n, attempt, cmd.Process.Pid)
		}
	}
	acked(s.push(t, "outlives", always(step{"ack"})), 1)
	again()
	acked(s.push(t, "outlives", always(step{"ack"})), 1)
	job := s.push(t, "outlives", plans{"1": {step{"gate", "outlives"}, step{"ack"}}, "2": {step{"ack"}}})
	s.await(t, "outlives", job, "start", 1)
	again()
	s.open(t, "outlives")
	if n := s.await(t, "outlives", job, "ack", 1); n.code() != "5" {
		t.Errorf("the ack of an attempt whose node was lost answered %s", n.code())
	}
	acked(job, 2)
	s.stop()
	select {
	case err := <-ended:
		if err != nil || out.Len() > 0 {
			t.Errorf("the script ended with %v\n%s", err, out.String())
		}
	case <-time.After(endWithin):
		t.Error("the script does not end with its node")
	}
}
