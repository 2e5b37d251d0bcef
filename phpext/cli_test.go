//go:build php

package phpext

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pogod/internal/link"
)

// cliWorker starts a worker script on the php command line.
func cliWorker(t testing.TB, n *node, args ...string) (*exec.Cmd, *bytes.Buffer, <-chan error) {
	t.Helper()
	cmd := php(t, n.path, args...)
	cmd.Env = append(cmd.Env, "POGO_WORKER=mail")
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ended with the child
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out, done
}

func TestCommandLineWorker(t *testing.T) {
	script, err := filepath.Abs("testdata/ways.php")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	_, out, done := cliWorker(t, n, script)
	if p := receive(t, "a connection", n.conns); p.Role != link.RoleWorker || p.Name != "mail" {
		t.Fatal(p)
	}
	n.push("q", "echo hello")
	n.push("q", "late")
	n.push("q", "forget")
	n.push("q", "throw it")
	n.event(t, "ack")
	n.event(t, "ack")
	n.event(t, "next")
	if e := n.event(t, "ended"); e.slot != -1 || e.status != 255 || !strings.HasPrefix(e.reason, "DomainException: it in /") {
		t.Error(e)
	}
	if err := receive(t, "the script's end", done); err == nil {
		t.Error("the script ended well")
	}
	if !strings.HasPrefix(out.String(), "hellolate: 1\n") {
		t.Error(out)
	}
}

func TestCommandLineWorkerLeaves(t *testing.T) {
	n := newNode(t)
	_, out, done := cliWorker(t, n, "-r", `while (frankenphp_handle_request(fn () => null)) {} echo "left";`)
	receive(t, "a connection", n.conns)
	n.drain()
	if err := receive(t, "the script's end", done); err != nil || out.String() != "left" {
		t.Error(err, out)
	}
}

func TestCommandLineWorkerNeedsAName(t *testing.T) {
	got := run(t, php(t, "", "-r", `try { frankenphp_handle_request(fn () => null); } catch (RuntimeException $e) { echo $e->getMessage(); }`))
	if !strings.Contains(got, "set POGO_WORKER") {
		t.Error(got)
	}
}

// Signal handlers run while the script waits for a job, may call the node
// themselves, and may end the script.
func TestSignalsWhileWaiting(t *testing.T) {
	n := newNode(t)
	waits := make(chan bool, 8)
	n.onFrame(func(_ *link.Conn, op link.Op, _ *link.Fields) (bool, error) {
		if op == link.Next {
			waits <- true
		}
		return false, nil
	})
	cmd, out, done := cliWorker(t, n, "-r", `
		pcntl_async_signals(true);
		pcntl_signal(SIGUSR1, function () { echo pogo_queue_push('echo', "usr1 "); });
		pcntl_signal(SIGTERM, function () { echo "term "; exit(7); });
		while (frankenphp_handle_request(function ($m) { $j = json_decode($m); echo $j->payload, ' ', pogo_queue_ack($j->queue, $j->id), ' '; })) {}
		echo "left";`)
	receive(t, "Next", waits)
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	// The handler's own connection, and its push.
	receive(t, "the worker's connection", n.conns)
	receive(t, "the handler's connection", n.conns)
	n.push("q", "job")
	n.event(t, "ack")
	receive(t, "Next", waits)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := n.event(t, "ended"); e.status != 7 || e.lease != 0 {
		t.Error(e)
	}
	if err := receive(t, "the script's end", done); err == nil {
		t.Error("the script ended well")
	}
	if got := out.String(); got != "usr1 job 1 term " {
		t.Errorf("%q", got)
	}
}

// A signal does not end a call that is not Next: its answer is still its own.
func TestSignalsDuringACall(t *testing.T) {
	n := newNode(t)
	pushes := make(chan *link.Conn, 1)
	n.onFrame(func(c *link.Conn, op link.Op, _ *link.Fields) (bool, error) {
		if op == link.Push {
			pushes <- c
			return true, nil
		}
		return false, nil
	})
	cmd, out, done := cliWorker(t, n, "-r", `
		pcntl_async_signals(true);
		pcntl_signal(SIGUSR1, function () { echo "usr1 "; });
		echo pogo_queue_push('q', 'p');`)
	c := receive(t, "the push", pushes)
	for range 20 {
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Answer(1, []byte("answer")); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, "the script's end", done); err != nil {
		t.Fatal(err, out)
	}
	if got := out.String(); !strings.HasSuffix(got, "answer") || !strings.HasPrefix(got, "usr1 ") {
		t.Errorf("%q", got)
	}
}

// A worker outlives a restart of its node, and ends when none comes back.
func TestCommandLineWorkerAndNodeRestart(t *testing.T) {
	n := newNode(t)
	_, out, done := cliWorker(t, n, "-r", `while (frankenphp_handle_request(function ($m) { $j = json_decode($m); pogo_queue_ack($j->queue, $j->id); })) {} echo "left";`)
	receive(t, "a connection", n.conns)
	n.stop()
	n.start()
	n.push("q", "p")
	n.event(t, "ack")
	n.stop()
	if err := receive(t, "the script's end", done); err != nil || out.String() != "left" {
		t.Error(err, out)
	}
}

// A child that a job forks has no attempt: its end ends nothing.
func TestForkInAJob(t *testing.T) {
	n := newNode(t)
	_, _, done := cliWorker(t, n, "-r", `while (frankenphp_handle_request(function ($m) {
			$j = json_decode($m);
			if (pcntl_fork() === 0) { pogo_queue_push('q', 'child'); exit(3); }
			pcntl_wait($status);
			pogo_queue_ack($j->queue, $j->id);
		})) {}`)
	n.push("q", "p")
	n.event(t, "ack")
	n.drain()
	if e := n.event(t, "ended"); e.lease != 0 || e.status != 0 {
		t.Error(e)
	}
	if err := receive(t, "the script's end", done); err != nil || len(n.pushes) != 1 {
		t.Error(err, n.pushes)
	}
}

// No memory is left behind, and none is used wrongly.
func TestValgrind(t *testing.T) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		t.Skip("valgrind is not installed")
	}
	if testing.Short() {
		t.Skip("slow")
	}
	n := newNode(t)
	script, err := filepath.Abs("testdata/ways.php")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-r", `for ($i = 0; $i < 3; $i++) { pogo_queue_push('echo', str_repeat('x', $i << 20)); pogo_queue_ack('q', 'd'); pogo_queue_status(); pogo_queue_failed('q');
			pogo_queue_reserve(['q', 'r'], 1); try { pogo_queue_reserve(['q', '']); } catch (ValueError) {} try { pogo_queue_reserve(['q', []]); } catch (TypeError) {}
			try { pogo_queue_push('q', 'p', -1); } catch (ValueError) {} }`},
		{"-r", noNode},
		{script},
	} {
		cmd := php(t, n.path, args...)
		if args[1%len(args)] == noNode {
			cmd = php(t, "", args...)
		}
		cmd.Args = append([]string{"valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"}, cmd.Args...)
		cmd.Path, _ = exec.LookPath("valgrind")
		cmd.Env = append(cmd.Env, "USE_ZEND_ALLOC=0", "POGO_WORKER=w")
		for _, way := range []string{"echo a", "late", "buffer b", "forget", "throw t"} {
			if len(args) == 1 {
				n.push("q", way)
			}
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 99 || bytes.Contains(out, []byte("==")) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
