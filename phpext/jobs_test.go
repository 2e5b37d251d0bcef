//go:build php

package phpext

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"pogod/internal/link"
)

// The three scripts are those of applications: they run as they are.
func TestWorkerScripts(t *testing.T) {
	t.Run("acks-in-callback", func(t *testing.T) {
		n := newNode(t)
		startHost(t, n, worker(t, "acks-in-callback.php", 1), "1")
		n.push("mail", "good")
		n.push("mail", "bad")
		if e := n.event(t, "ack"); e.payload != "good" || e.lease != 1 {
			t.Fatal(e)
		}
		if e := n.event(t, "release"); e.payload != "bad" || e.lease != 2 || e.status != 1 {
			t.Fatal(e)
		}
	})
	t.Run("acks-after-callback", func(t *testing.T) {
		n := newNode(t)
		startHost(t, n, worker(t, "acks-after-callback.php", 2), "1")
		for i := range 20 {
			n.push("mail", fmt.Sprint(i))
		}
		seen := map[string]bool{}
		for range 20 {
			e := n.event(t, "ack")
			if seen[e.payload] || e.late {
				t.Fatal(e)
			}
			seen[e.payload] = true
		}
	})
	t.Run("counts-requests", func(t *testing.T) {
		n := newNode(t)
		startHost(t, n, worker(t, "counts-requests.php", 1, "MAX_REQUESTS", "2"), "1")
		for i := range 4 {
			n.push("mail", fmt.Sprint(i))
		}
		for range 2 {
			e := n.event(t, "ack")
			n.printed(t, e.lease, "working on 17-")
			e = n.event(t, "ack")
			n.printed(t, e.lease, fmt.Sprintf("working on 17-%d:%d\n", e.lease, e.lease))
			if end := n.event(t, "ended"); end.lease != e.lease || end.status != 0 || end.reason != "" {
				t.Fatal(end)
			}
		}
	})
}

func TestAttemptsEnd(t *testing.T) {
	n := newNode(t)
	startHost(t, n, worker(t, "ways.php", 1), "1")
	for _, tc := range []struct {
		payload, how string
		status       int64
		reason       string // a regular expression
	}{
		{"ack", "ack", 0, ""},
		{"throw oops\nand more", "ended", 255, `^DomainException: oops\nand more in /.*/ways\.php:\d+$`},
		{"exit 1", "ended", 1, `^exit\(1\)$`},
		{"exit 0", "ended", 0, `^exit\(0\)$`},
		{"memory", "ended", 255, `^Allowed memory size of 33554432 bytes exhausted \(tried to allocate \d+ bytes\) in /.*/ways\.php:\d+$`},
		{"late-throw later", "ended", 255, `^LogicException: later in /`},
		{"handler mine", "ended", 0, `^DomainException: mine in /`},
		{"bad-utf8", "ended", 255, `^DomainException: ü+\?ü+$`},
		{"late", "ack", 0, ""},
		{"forget", "next", 0, ""},
		{"ack", "ack", 0, ""},
	} {
		n.push("q", tc.payload)
		e := n.event(t, tc.how)
		if e.payload != tc.payload || e.status != tc.status || !regexp.MustCompile(tc.reason).MatchString(e.reason) || len(e.reason) > 8192 || !utf8.ValidString(e.reason) {
			t.Errorf("%q: %+v", tc.payload, e)
		}
	}
}

// Interrupted: a loop, a sleep (also when it is only about to begin), and a job that resets its time limit all the time.
func TestInterrupt(t *testing.T) {
	n := newNode(t)
	startHost(t, n, worker(t, "ways.php", 1), "1")
	for _, how := range []struct {
		payload, says string
		rounds        int
	}{{"loop", "looping", 20}, {"sleep", "sleeping", 300}, {"limit", "limiting", 300}} {
		for range how.rounds {
			n.push("q", how.payload)
			n.printed(t, n.nextLease(), how.says)
			slot, lease := n.current()
			n.interrupt(slot, lease+100) // not this one
			n.interrupt(slot, lease)
			if e := n.event(t, "ended"); e.lease != lease || !strings.HasPrefix(e.reason, "Maximum execution time of ") {
				t.Fatalf("%s: %+v", how.payload, e)
			}
		}
	}
	n.push("q", "ack")
	n.event(t, "ack")
}

// An interrupt that overtakes its delivery stops the attempt as it begins.
func TestInterruptBeforeDelivery(t *testing.T) {
	n := newNode(t)
	startHost(t, n, worker(t, "ways.php", 2), "1")
	n.push("q", "loop")
	n.printed(t, 1, "looping\n")
	slot, _ := n.current()
	n.interrupt(1-slot, 2)
	n.interrupt(slot, 1) // the host has read the first when it has read this
	n.event(t, "ended")
	n.prefer(1 - slot)
	n.push("q", "loop")
	if e := n.event(t, "ended"); e.lease != 2 || e.slot != 1-slot {
		t.Fatal(e)
	}
}

func TestNothingLeaksIntoTheNextJob(t *testing.T) {
	n := newNode(t)
	startHost(t, n, worker(t, "ways.php", 1), "1")
	n.push("q", "time-limit 1")
	n.printed(t, 1, "limit is set\n")
	n.event(t, "ack")
	n.push("q", "nap")
	n.event(t, "ack")
	n.push("q", "log hello")
	n.event(t, "ack")
	n.push("q", "buffer ab")
	n.event(t, "ack")
	n.printed(t, 4, "ab")
	n.push("q", "tell-limits")
	n.event(t, "ack")
	n.printed(t, 5, `["0",null,0,0,1,false]`+"\n")
	n.push("q", "tell-limits")
	n.event(t, "ack")
	n.printed(t, 6, `["0",null,0,0,1,false]`+"\n")
}

func TestOutput(t *testing.T) {
	n := newNode(t)
	startHost(t, n, worker(t, "ways.php", 1), "1")
	for i, tc := range []struct{ payload, prints string }{
		{"echo one line\n", "one line\n"},
		{"echo no end", "no end"},
		{"stderr x", "stderr x\nstdout x\nfalse\n"},
		{"log x", "logged x\n"},
		{"log y", "\nWarning: warned y in "},
		{"pcntl", "[false,-1]\n"},
		{"pcntl", "pcntl_fork() is not available in a PHP host"},
		{"late", "late: 1\n"},
		{"echo " + strings.Repeat("long", 100_000), strings.Repeat("long", 100_000)},
	} {
		n.push("q", tc.payload)
		n.event(t, "ack")
		n.printed(t, uint64(i+1), tc.prints)
	}
	n.push("q", "throw at last")
	n.event(t, "ended")
	n.printed(t, 10, "Uncaught DomainException: at last")
}

// What an attempt printed is taken before the word that it went wrong, by a node that is
// slow to take it too. An ack waits for nothing.
func TestOutputComesFirst(t *testing.T) {
	n := newNode(t)
	var taken, syncs atomic.Int64 // bytes; how often the host waited
	told := make(chan int64, 16)
	n.onFrame(func(c *link.Conn, op link.Op, f *link.Fields) (bool, error) {
		switch op {
		case link.Output:
			time.Sleep(10 * time.Millisecond) // a node with much to do
			_, _, _, text := f.String(), f.Int(), f.Int(), f.String()
			taken.Add(int64(len(text)))
			return true, nil
		case link.Sync:
			syncs.Add(1)
		case link.Fail, link.Release, link.Ended, link.Next:
			told <- taken.Swap(0)
		}
		return false, nil
	})
	startHost(t, n, worker(t, "ways.php", 1), "1")
	receive(t, "the first Next", told)
	const printed = int64(len("a line\nand a part"))
	for _, way := range []string{"fail", "release", "throw", "forget"} {
		n.push("q", "print "+way)
		if got := receive(t, way, told); got < printed || way != "throw" && got != printed {
			t.Errorf("%s: the node had %d bytes before, want %d", way, got, printed)
		}
		if way != "forget" {
			receive(t, "Next", told)
		}
		receive(t, way, n.events)
	}
	before := syncs.Load()
	n.push("q", "echo one line\n")
	n.event(t, "ack")
	receive(t, "Next", told)
	n.push("q", "print fail")
	receive(t, "fail", told)
	if got := syncs.Load() - before; got != 1 {
		t.Errorf("the host waited %d times for an acked job and one that failed, want 1", got)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("POGO_WORKER", "outside")
	n := newNode(t)
	spec := worker(t, "ways.php", 1, "COLOUR", "blue")
	spec.App = t.TempDir()
	startHost(t, n, spec, "1")
	n.push("q", "env")
	n.event(t, "ack")
	n.printed(t, 1, fmt.Sprintf(`["blue","blue",%q,"1","w",null,%q,false]`, spec.App, spec.App))
}

func TestIni(t *testing.T) {
	n := newNode(t)
	spec := worker(t, "ways.php", 1)
	spec.Ini = map[string]string{
		"error_prepend_string": `<b class="x">; (${HOME})=`, "error_append_string": `it's "\n" <`,
		"date.timezone": "Europe/Berlin", "error_reporting": "E_ALL & ~E_NOTICE",
	}
	startHost(t, n, spec, "1")
	n.push("q", "ini")
	n.event(t, "ack")
	n.printed(t, 1, `["<b class=\"x\">; (${HOME})=","it's \"\\n\" <","Europe/Berlin",true]`)
}

func TestScriptThatDoesNotBoot(t *testing.T) {
	n := newNode(t)
	startHost(t, n, worker(t, "boot-fails.php", 1), "1")
	for range 2 { // tried again
		if e := n.event(t, "ended"); e.lease != 0 || e.status != 255 || !strings.HasPrefix(e.reason, "RuntimeException: no database in /") {
			t.Fatal(e)
		}
	}
}

func TestDrain(t *testing.T) {
	n := newNode(t)
	h := startHost(t, n, worker(t, "ways.php", 3), "1")
	n.push("q", "nap") // runs to its end
	n.printed(t, 1, "napping")
	n.drain()
	if err := h.wait(t); err != nil {
		t.Fatal(err)
	}
	how := map[string]int{}
	for range 4 {
		e := receive(t, "an end", n.events)
		how[e.how]++
		if e.how == "ended" && (e.lease != 0 || e.reason != "") {
			t.Error(e)
		}
	}
	if how["ack"] != 1 || how["ended"] != 3 {
		t.Fatal(how)
	}
}

// A warning is told once, whatever php.ini says.
func TestWarningsOnce(t *testing.T) {
	for _, ini := range []map[string]string{
		{"log_errors": "1", "display_errors": "1"},
		{"log_errors": "1", "display_errors": "0"},
		{"log_errors": "0", "display_errors": "0"},
		{"log_errors": "1", "error_log": "/dev/null"},
	} {
		n := newNode(t)
		spec := worker(t, "ways.php", 1)
		spec.Ini = ini
		startHost(t, n, spec, "1")
		n.push("q", "log once")
		n.push("q", "echo end")
		n.event(t, "ack")
		n.event(t, "ack")
		if got := n.printed(t, 2, "end"); strings.Count(got[1], "warned once") != 1 {
			t.Errorf("%v: %v", ini, got)
		}
	}
}

func TestNodeGone(t *testing.T) {
	n := newNode(t)
	h := startHost(t, n, worker(t, "ways.php", 2), "1")
	n.stop()
	var exit *exec.ExitError
	if err := h.wait(t); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatal(err)
	}
}

// A second start of PHP in one process has the extension too.
func TestSecondInit(t *testing.T) {
	n := newNode(t)
	h := startHost(t, n, worker(t, "ways.php", 1), "12")
	n.push("q", "ack")
	n.event(t, "ack")
	n.drain()
	n.event(t, "ended")
	receive(t, "the second start", n.ready) // before the node hands out jobs again: the first start may still ask
	n.mu.Lock()
	n.draining = false
	n.mu.Unlock()
	n.push("q", "throw x")
	for n.event(t, "ended").lease == 0 { // scripts that asked before that were told to leave
	}
	n.push("q", "ack")
	n.event(t, "ack")
	n.drain()
	if err := h.wait(t); err != nil {
		t.Fatal(err)
	}
}

func TestCrash(t *testing.T) {
	n := newNode(t)
	h := startHost(t, n, worker(t, "ways.php", 1), "1")
	n.push("q", "segv")
	if err := h.wait(t); err == nil {
		t.Fatal("the host survived")
	}
}

// An interrupt ends a call that waits for the node; the attempt's end is then told
// over a new connection.
func TestInterruptEndsACall(t *testing.T) {
	n := newNode(t)
	acks := make(chan bool, 1)
	n.onFrame(func(_ *link.Conn, op link.Op, _ *link.Fields) (bool, error) {
		if op == link.Ack {
			acks <- true
			return true, nil // never answered
		}
		return false, nil
	})
	startHost(t, n, worker(t, "ways.php", 1), "1")
	for range 20 {
		n.push("q", "ack")
		receive(t, "the ack", acks)
		slot, lease := n.current()
		n.interrupt(slot, lease)
		if e := n.event(t, "ended"); e.lease != lease || e.payload != "ack" || !strings.HasPrefix(e.reason, "Maximum execution time") {
			t.Fatal(e)
		}
	}
}

// A script that goes on after frankenphp_handle_request answered false is ended.
func TestScriptThatDoesNotLeave(t *testing.T) {
	n := newNode(t)
	h := startHost(t, n, worker(t, "leaves.php", 1), "1")
	n.drain()
	n.printed(t, 0, "shutdown\n")
	if e := n.event(t, "ended"); !strings.HasPrefix(e.reason, "Maximum execution time of 5 seconds exceeded") {
		t.Error(e)
	}
	if err := h.wait(t); err != nil {
		t.Error(err)
	}
}

// Many threads, many jobs: each once, each to its own thread.
func TestManyThreads(t *testing.T) {
	n := newNode(t)
	startHost(t, n, worker(t, "ways.php", 16), "1")
	const jobs = 2000
	for range jobs {
		n.push("q", "ack")
	}
	seen := map[uint64]bool{}
	for range jobs {
		e := n.event(t, "ack")
		if e.late || seen[e.lease] {
			t.Fatal(e)
		}
		seen[e.lease] = true
	}
}
