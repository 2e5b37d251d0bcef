//go:build php

package cluster_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2EReserve is about pogo_queue_reserve: who holds what it returned, and until when.
func TestE2EReserve(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue]\nauto_create = true\nmax_attempts = 1\n[queue.brief]\nvisibility_timeout = \"300ms\"\n"+worker(t, "greedy", "plan.php", 1))
	for name, test := range map[string]func(*testing.T, *site){
		"a loop":                   testReserveLoop,
		"ready now":                testReserveNow,
		"nothing comes":            testReserveNothing,
		"a killed process":         testReserveKilled,
		"a page":                   testReservePage,
		"a job":                    testReserveJob,
		"a fork":                   testReserveFork,
		"signal handlers":          testReserveSignals,
		"a time-out":               testReserveTimeOut,
		"wrong arguments":          testReserveWrong,
		"a time limit in the wait": testReserveTimeLimit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// reserved is a delivery.
type reserved struct {
	ID, Queue, Payload, Job string
	Attempts                int
}

func parseReserved(t *testing.T, text string) *reserved {
	t.Helper()
	var d *reserved
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return d
}

// takes reserves what is, or gets, ready in a queue, in a page of its own.
func (s *site) takes(t *testing.T, queue string) *reserved {
	t.Helper()
	d := parseReserved(t, s.call(t, "pogo_queue_reserve", []string{queue}, 5).text(t))
	if d == nil {
		t.Fatalf("nothing is ready in %s: %+v", queue, s.queue(t, queue))
	}
	return d
}

func testReserveLoop(t *testing.T, s *site) {
	for i := range 3 {
		s.push(t, "loop", fmt.Sprint("low ", i))
	}
	s.push(t, "urgent", "high")
	code, out, errs := ran(t, s.pogodPHP(t, "-r", `
		while ($job = json_decode(pogo_queue_reserve(['urgent', 'loop'], 0.4), true)) {
			echo $job['payload'], ' ', $job['attempts'], ' ', pogo_queue_ack($job['queue'], $job['id']), pogo_queue_ack($job['queue'], $job['id']), "\n";
		}
		echo 'over';`))
	if want := "high 1 11\nlow 0 1 11\nlow 1 1 11\nlow 2 1 11\nover"; code != 0 || out != want {
		t.Errorf("%d %q %s, want %q", code, out, errs, want)
	}
	if got := s.queue(t, "loop"); got.Acked != 3 || got.waiting() != 0 || got.ReservedTotal != 3 {
		t.Errorf("%+v", got)
	}
}

// testReserveNow reserves what the same script has pushed, without waiting for more.
func testReserveNow(t *testing.T, s *site) {
	code, out, errs := ran(t, s.pogodPHP(t, "-r", `
		for ($i = 0; $i < 50; $i++) {
			if (pogo_queue_reserve(['now']) !== 'null') exit(10);
			pogo_queue_push('now', "job $i");
			pogo_queue_push('now', 'another');
			$a = json_decode(pogo_queue_reserve(['none', 'now'])) ?? exit(11);
			$b = json_decode(pogo_queue_reserve(['now'])) ?? exit(12); // two are held at once
			if ($a->payload !== "job $i" || $b->payload !== 'another') exit(13);
			if (pogo_queue_ack('now', $b->id) !== 1 || pogo_queue_ack('now', $a->id) !== 1) exit(14);
		}`))
	if code != 0 {
		t.Errorf("%d %s%s: %+v", code, out, errs, s.queue(t, "now"))
	}
}

func testReserveNothing(t *testing.T, s *site) {
	s.push(t, "nothing", "later", 3600)
	began := time.Now()
	if got := s.call(t, "pogo_queue_reserve", []string{"nothing", "never-made"}, 0.5).text(t); got != "null" || time.Since(began) < 500*time.Millisecond {
		t.Errorf("%q after %s", got, time.Since(began))
	}
}

// testReserveKilled kills a script that holds a job: it is ready again, its attempt is not
// spent (max_attempts is 1).
func testReserveKilled(t *testing.T, s *site) {
	job := s.push(t, "killed", "x")
	cmd, lines := s.script(t, `echo pogo_queue_reserve(['killed'], 10), "\n"; sleep(60);`)
	if d := parseReserved(t, lines()); d == nil || d.Job != job || d.Attempts != 1 {
		t.Fatalf("%+v", d)
	}
	if d := s.call(t, "pogo_queue_reserve", []string{"killed"}).text(t); d != "null" {
		t.Errorf("it was given out twice: %s", d)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if d := s.takes(t, "killed"); d.Job != job || d.Attempts != 2 {
		t.Errorf("%+v, want attempt 2 of %s", d, job)
	}
}

// script starts a script; lines returns what it prints, a line at a time.
func (s *site) script(t *testing.T, code string) (cmd *exec.Cmd, lines func() string) {
	t.Helper()
	cmd = s.pogodPHP(t, "-r", code)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	in := bufio.NewReader(out)
	return cmd, func() string {
		t.Helper()
		type read struct {
			line string
			err  error
		}
		c := make(chan read, 1)
		go func() { // ended by a line, or by the script's end
			line, err := in.ReadString('\n')
			c <- read{line, err}
		}()
		select {
		case r := <-c:
			if r.err != nil {
				t.Fatalf("the script ended: %v: %s", r.err, r.line)
			}
			return strings.TrimSuffix(r.line, "\n")
		case <-time.After(readyWithin):
			t.Fatal("the script prints nothing")
			return ""
		}
	}
}

// testReservePage reserves in pages: what a page has not settled goes back at its end.
func testReservePage(t *testing.T, s *site) {
	job := s.push(t, "page", "x")
	for attempt := 1; attempt < 4; attempt++ {
		if d := s.takes(t, "page"); d.Job != job || d.Attempts != attempt {
			t.Errorf("%+v, want attempt %d of %s", d, attempt, job)
		}
	}
	eventually(t, "it is ready again", func() bool { return s.queue(t, "page").Pending == 1 })
	if got := s.queue(t, "page"); got.Failed != 0 || got.Reserved != 0 {
		t.Errorf("%+v", got)
	}
}

// testReserveJob reserves in the handler of a job: it ends with the job's attempt.
func testReserveJob(t *testing.T, s *site) {
	other := s.push(t, "others", "x")
	job := s.push(t, "greedy", always(step{"call", "pogo_queue_reserve", []string{"others"}, 5}, step{"ack"}))
	if n := s.await(t, "greedy", job, "ack", 1); n.code() != "1" {
		t.Errorf("%+v", n)
	}
	if d := s.takes(t, "others"); d.Job != other || d.Attempts != 2 {
		t.Errorf("%+v, want attempt 2 of %s", d, other)
	}
}

// testReserveFork forks while a job is held: it is the parent's, whose connection it is.
func testReserveFork(t *testing.T, s *site) {
	s.push(t, "forks", "parent's")
	s.push(t, "forks", "child's")
	code, out, errs := ran(t, s.pogodPHP(t, "-r", `
		$job = json_decode(pogo_queue_reserve(['forks'], 10));
		if (pcntl_fork() === 0) {
			$own = json_decode(pogo_queue_reserve(['forks'], 10));
			echo $own->payload, "\n";
			exit(0);
		}
		pcntl_wait($status);
		echo $job->payload, ' ', pogo_queue_ack('forks', $job->id), "\n";
		$left = json_decode(pogo_queue_reserve(['forks'], 10));
		echo $left->payload, ' ', $left->attempts, ' ', pogo_queue_ack('forks', $left->id), "\n";`))
	if want := "child's\nparent's 1\nchild's 2 1\n"; code != 0 || out != want {
		t.Errorf("%d %q %s, want %q", code, out, errs, want)
	}
}

// testReserveSignals sends signals to a script that waits: its handlers run, and the wait
// goes on.
func testReserveSignals(t *testing.T, s *site) {
	cmd, lines := s.script(t, `
		pcntl_async_signals(true);
		pcntl_signal(SIGUSR1, function () { echo 'usr1 ', json_decode(pogo_queue_push('heard', 'x'))->code, "\n"; });
		pcntl_signal(SIGUSR2, function () { throw new DomainException('usr2'); });
		pcntl_signal(SIGTERM, function () { echo "term\n"; exit(7); });
		echo "waits\n";
		$job = json_decode(pogo_queue_reserve(['signals'], 60));
		echo $job->payload, ' ', pogo_queue_ack('signals', $job->id), "\n";
		try { pogo_queue_reserve(['signals'], 60); } catch (DomainException $e) { echo $e->getMessage(), "\n"; }
		pogo_queue_reserve(['signals'], 60);
		echo "never\n";`)
	expect := func(want string) {
		t.Helper()
		if got := lines(); got != want {
			t.Fatalf("it printed %q, want %q", got, want)
		}
	}
	signal := func(sig syscall.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	expect("waits")
	for range 3 {
		signal(syscall.SIGUSR1)
		expect("usr1 1")
	}
	s.push(t, "signals", "the job")
	expect("the job 1")
	signal(syscall.SIGUSR2)
	expect("usr2")
	signal(syscall.SIGTERM)
	expect("term")
	_ = cmd.Wait() // its code is asked for below
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("it ended with %d", code)
	}
	if got := s.queue(t, "heard"); got.Enqueued != 3 {
		t.Errorf("%+v", got)
	}
}

// testReserveTimeOut holds a job past its time-out: the state frees it, and the script goes
// on without it.
func testReserveTimeOut(t *testing.T, s *site) {
	s.push(t, "brief", "x")
	_, lines := s.script(t, `
		$job = json_decode(pogo_queue_reserve(['brief'], 10));
		echo $job->id, "\n";
		do { usleep(20_000); } while (json_decode(pogo_queue_status('brief'))->queues[0]->failed === 0);
		echo pogo_queue_ack('brief', $job->id), "\n";
		pogo_queue_push('brief', 'y');
		$job = json_decode(pogo_queue_reserve(['brief'], 10));
		echo $job->payload, ' ', pogo_queue_ack('brief', $job->id), "\n";`)
	lines()
	if got := lines(); got != "5" {
		t.Errorf("the ack of a job whose time was over answered %s", got)
	}
	if got := lines(); got != "y 1" {
		t.Error(got)
	}
	if f := s.failedList(t, "brief"); len(f) != 1 || f[0].Reason != "timed out after 300ms" {
		t.Errorf("%+v", f)
	}
}

func testReserveWrong(t *testing.T, s *site) {
	for _, c := range []struct {
		args []any
		want string
	}{
		{[]any{[]string{}}, "ValueError: pogo_queue_reserve(): Argument #1 ($queues) must name at least one queue"},
		{[]any{[]any{"a", 5}}, "TypeError: pogo_queue_reserve(): Argument #1 ($queues) must be an array of queue names, int given"},
		{[]any{[]string{"a", ""}}, "ValueError: pogo_queue_reserve(): Argument #1 ($queues) must have names of queues, not \"\""},
		{[]any{[]string{"a\nb"}}, "ValueError: pogo_queue_reserve(): Argument #1 ($queues) must have names of queues, not \"a\nb\""},
		{[]any{[]string{"a"}, -0.1}, "ValueError: pogo_queue_reserve(): Argument #2 ($wait) must be between 0 and 86400 seconds (a day)"},
		{[]any{[]string{"a"}, 86401}, "ValueError: pogo_queue_reserve(): Argument #2 ($wait) must be between 0 and 86400 seconds (a day)"},
		{[]any{[]string{"a b"}}, "ValueError: pogo_queue_reserve(): Argument #1 ($queues) must name queues that are declared: \"a b\": the queue is not declared: add it to [queue] or switch auto_create on"},
	} {
		if got := s.call(t, "pogo_queue_reserve", c.args...); got.Error != c.want || got.Result != nil {
			t.Errorf("%v: %s %s", c.args, got.Result, got.Error)
		}
	}
}

// testReserveTimeLimit has PHP's time limit end the wait of a page, and what came to it
// nowhere to go.
func testReserveTimeLimit(t *testing.T, s *site) {
	began := time.Now()
	replies, err := s.tryCalls([]any{"set_time_limit", 1}, []any{"pogo_queue_reserve", []string{"limited"}, 60})
	if err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("after %s: %+v", time.Since(began), replies)
	}
	job := s.push(t, "limited", "x")
	if d := s.takes(t, "limited"); d.Job != job || d.Attempts != 1 {
		t.Errorf("%+v, want attempt 1 of %s", d, job)
	}
}

// TestE2EReserveOutlivesNode kills the node of a script that waits and of one that holds a
// job, and starts it again.
func TestE2EReserveOutlivesNode(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue]\nauto_create = true\nmax_attempts = 1\n")
	if code, out, _ := ran(t, s.pogodPHP(t, "-d", "pogo.socket="+s.home+"/nobody", "-r", `
		$began = microtime(true);
		echo pogo_queue_reserve(['q']), pogo_queue_reserve(['q'], 0.3), microtime(true) - $began >= 0.3 ? 'waited' : 'in haste';`)); code != 0 || out != "nullnullwaited" {
		t.Errorf("without a node: %d %s", code, out)
	}
	held := s.push(t, "held", "x")
	_, lines := s.script(t, `
		$job = json_decode(pogo_queue_reserve(['held'], 10));
		echo $job->job, "\n";
		echo json_decode(pogo_queue_reserve(['awaited'], 60))->payload, "\n";
		echo pogo_queue_ack('held', $job->id), "\n";
		sleep(60);`)
	if got := lines(); got != held {
		t.Fatal(got)
	}
	s.kill()
	s.serve(t)
	s.push(t, "awaited", "it came")
	if got := lines(); got != "it came" {
		t.Error(got)
	}
	if got := lines(); got != "5" {
		t.Errorf("the ack of what was held before answered %s", got)
	}
	if d := s.takes(t, "held"); d.Job != held || d.Attempts != 2 {
		t.Errorf("%+v", d)
	}
}
