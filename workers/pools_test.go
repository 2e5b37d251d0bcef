package workers

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
)

func TestWaitingThreadIsCreditAndGetsItsJob(t *testing.T) {
	t.Parallel()
	b := newBench(t, Pool{Name: "mail", Queues: []string{"q", "low"}}, Pool{Name: "slow", Queues: []string{"s"}})
	s := b.state
	mail, slow := b.thread("mail", 0), b.thread("slow", 1)
	fromMail, fromSlow := mail.next(), slow.next()
	s.await(t, "two credits", func() bool { return s.free("mail") == 1 && s.free("slow") == 1 })
	if c := s.seen().credits; c.Session != 7 || c.Applied != s.seen().applied || strings.Join(c.Pools[0].Queues, " ") != "q low" {
		t.Errorf("%+v", c)
	}
	d := s.reserve(job("slow", "s", "a \"b\" <c>\x00 é\n"))
	a := get(t, fromSlow)
	want := `{"id":"` + d.ID() + `","queue":"s","payload":"a \"b\" <c>\u0000 é\n","attempts":1,"job":"` + d.Job.String() + `"}`
	if a.code != 1 || a.lease != d.Lease || a.msg != want {
		t.Errorf("got %d %d %s\nwant %s", a.code, a.lease, a.msg, want)
	}
	s.await(t, "the credit is taken", func() bool { return s.free("slow") == 0 && s.free("mail") == 1 })
	select {
	case a := <-fromMail:
		t.Errorf("the other pool's thread got %+v", a)
	default:
	}
	if n, ok := b.pools.Named(d.Lease); n != (Named{"s", d.Job.String(), 1}) || !ok {
		t.Error(n, ok)
	}
	if _, ok := b.pools.Named(d.Lease + 1); ok {
		t.Error("an attempt that is none")
	}
	if st := b.pools.Status(); st[0].Waiting != 1 || st[0].Threads != 1 || st[1].Running != 1 || st[1].Waiting != 0 {
		t.Errorf("%+v", st)
	}
}

func TestUnsettledAttemptIsReleasedAtTheNextEntry(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	d := b.deliver(k, job("mail", "q", "x"))
	k.next()
	b.onlyEnd(d.Lease, command.Unsettled, "the handler in worker.php ended without ack, release or fail")
	b.state.await(t, "the thread is free again", func() bool { return b.state.free("mail") == 1 })
}

func TestSettledAttemptIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	d := b.deliver(k, job("mail", "q", "x"))
	b.state.settle(d.Lease)
	b.deliver(k, job("mail", "q", "y"))
	b.reconciled()
	if s := b.state.seen(); len(s.ends)+len(s.gaveBack)+len(s.interrupts) != 0 {
		t.Error(s.ends, s.gaveBack, s.interrupts)
	}
}

func TestScriptThatEndedReleasesItsJobWithItsError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"RuntimeException: no in worker.php:3": "RuntimeException: no in worker.php:3",
		"":                                     "the script ended before the job was settled",
	} {
		b := newBench(t)
		k := b.thread("mail", 0)
		d := b.deliver(k, job("mail", "q", "x"))
		k.ended(d.Lease, text)
		b.onlyEnd(d.Lease, command.Broke, want)
		if st := b.pools.Status()[0]; st.Restarts != 1 || st.LastError != text || st.LastErrorAt.IsZero() != (text == "") {
			t.Errorf("%+v", st)
		}
		// The next script on the same connection.
		b.deliver(k, job("mail", "q", "y"))
		b.onlyEnd(d.Lease, command.Broke, want)
	}
}

func TestScriptThatEndedBetweenAttempts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.thread("mail", 0).ended(0, "Parse error")
	if st := b.pools.Status()[0]; st.Restarts != 1 || st.LastError != "Parse error" {
		t.Errorf("%+v", st)
	}
}

// Only a host that ended by itself makes suspects of its jobs.
func TestLostConnectionIsAnInterruptionOrACrash(t *testing.T) {
	t.Parallel()
	for how, c := range map[Exit]struct {
		cause command.Cause
		want  string
	}{
		{How: "SIGSEGV"}:                {command.Crashed, "PHP host ended by SIGSEGV"},
		{How: "SIGKILL", Planned: true}: {command.Interrupted, "PHP host ended by SIGKILL"},
		{}:                              {command.Interrupted, "the worker's connection was lost"},
	} {
		b := newBench(t)
		s := b.state
		k := b.thread("mail", 5)
		d := b.deliver(k, job("mail", "q", "x"))
		if how != (Exit{}) {
			s.change(func() { s.how[os.Getpid()] = how })
		}
		k.c.Close()
		b.onlyEnd(d.Lease, c.cause, c.want)
		now := s.seen().interrupts
		if lives := how == (Exit{}); (len(now) == 1) != lives || lives && now[0] != (interrupt{os.Getpid(), 5, d.Lease}) {
			t.Errorf("%+v: a handler that lives on is to be stopped: %v", how, now)
		}
		if st := b.pools.Status()[0]; st.Threads != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// PHP's time-out during a call closes the connection; the word of the script's end comes
// on another one.
func TestEndOfTheScriptOverAnotherConnection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	s.asked, s.hold = make(chan struct{}, 1), make(chan struct{})
	k := b.thread("mail", 0)
	d := b.deliver(k, job("mail", "q", "x"))
	k.c.Close()
	<-s.asked // how the process ended
	b.thread("mail", 0).ended(d.Lease, "Maximum execution time exceeded")
	close(s.hold)
	b.onlyEnd(d.Lease, command.Broke, "Maximum execution time exceeded")
}

func TestTimeOutInterruptsAndCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k := b.thread("mail", 3)
	d := b.deliver(k, job("mail", "q", "x"))
	b.clock.Advance(90*time.Second - time.Millisecond)
	if len(s.seen().interrupts) != 0 {
		t.Fatal("it came early")
	}
	b.clock.Advance(time.Millisecond)
	s.await(t, "an interrupt", func() bool { return len(s.interrupts) == 1 })
	if now := s.seen(); now.interrupts[0] != (interrupt{os.Getpid(), 3, d.Lease}) || len(now.ends) != 0 {
		t.Errorf("to be interrupted, and not released while it may still run: %+v", now)
	}
	k.ended(d.Lease, "interrupted")
	b.onlyEnd(d.Lease, command.TimedOut, "timed out after 1m30s")
}

// An attempt that its host's end cuts short after the interrupt has timed out all the same.
func TestTimeOutThenLostConnection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	d := b.deliver(k, job("mail", "q", "x"))
	b.clock.Advance(90 * time.Second)
	k.c.Close()
	b.onlyEnd(d.Lease, command.TimedOut, "timed out after 1m30s")
}

func TestAttemptThatEndedInTimeIsNotInterrupted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	d := b.deliver(k, job("mail", "q", "x"))
	b.state.settle(d.Lease)
	k.next()
	b.state.await(t, "the thread is free", func() bool { return b.state.free("mail") == 1 })
	b.clock.Advance(time.Hour)
	if s := b.state.seen(); len(s.interrupts)+len(s.ends) != 0 {
		t.Error(s.interrupts, s.ends)
	}
}

func TestLostLeaseInterruptsUnlessSettling(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k, other := b.thread("mail", 0), b.thread("mail", 1)
	d := b.deliver(k, job("mail", "q", "x"))
	settling := b.deliver(other, job("mail", "q", "y"))
	s.apply(func() {
		s.settling[settling.Lease] = true
		s.dropLocked(settling.Lease)
	})
	b.reconciled()
	if now := s.seen(); len(now.interrupts) != 0 {
		t.Fatal("a handler that is settling was interrupted:", now.interrupts)
	}
	s.apply(func() { s.dropLocked(d.Lease) })
	b.reconciled()
	b.reconciled()
	if now := s.seen().interrupts; len(now) != 1 || now[0].lease != d.Lease {
		t.Fatal(now)
	}
	k.ended(d.Lease, "interrupted")
	b.onlyEnd(d.Lease, command.Interrupted, "its lease was lost")
}

func TestJobWithoutThreadIsGivenBackOnceAfterOneSecond(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	first := s.reserve(job("mail", "q", "x"))
	b.clock.await(t, time.Second)
	b.clock.Advance(400 * time.Millisecond)
	s.reserve(job("mail", "q", "y"))
	b.clock.await(t, 600*time.Millisecond) // the first to be given back counts, not the last
	if len(s.seen().gaveBack) != 0 {
		t.Fatal("it came early")
	}
	b.clock.Advance(600 * time.Millisecond)
	s.await(t, "the first is given back", func() bool { return len(s.gaveBack) == 1 })
	if now := s.seen().gaveBack; now[0].Lease != first.Lease {
		t.Error(now)
	}
	b.clock.await(t, 400*time.Millisecond)
	b.clock.Advance(400 * time.Millisecond)
	s.await(t, "the second is given back", func() bool { return len(s.gaveBack) == 2 })
	b.reconciled()
	if now := s.seen(); len(now.gaveBack) != 2 || len(now.ends) != 0 || now.running != 0 {
		t.Errorf("%+v", now)
	}
}

// Given back and not yet applied, it is not started nor given back again.
func TestJobThatIsBeingGivenBackIsNotStarted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	s.slow = true
	d := s.reserve(job("mail", "q", "x"))
	b.clock.await(t, time.Second)
	b.clock.Advance(time.Second)
	s.await(t, "it is given back", func() bool { return len(s.gaveBack) == 1 })
	k := b.thread("mail", 0)
	c := k.next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	b.reconciled()
	b.clock.Advance(time.Second)
	b.reconciled()
	if now := s.seen(); len(now.gaveBack) != 1 || now.running != 0 {
		t.Errorf("%+v", now)
	}
	s.apply(func() { s.dropLocked(d.Lease) })
	d = s.reserve(job("mail", "q", "y"))
	if a := get(t, c); a.lease != d.Lease {
		t.Error(a)
	}
}

func TestThreadThatComesInTimeTakesTheWaitingJob(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := b.state.reserve(job("mail", "q", "x"))
	b.clock.await(t, time.Second)
	b.clock.Advance(999 * time.Millisecond)
	if a := get(t, b.thread("mail", 0).next()); a.lease != d.Lease {
		t.Error(a)
	}
}

func TestDrainTellsWaitingThreadsAndLetsRunningOnesEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	running, waiting := b.thread("mail", 0), b.thread("mail", 1)
	d := b.deliver(running, job("mail", "q", "x"))
	left := waiting.next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	drained := make(chan struct{})
	go func() { // ended by the attempt's end
		b.pools.Drain(context.Background())
		close(drained)
	}()
	if a := get(t, left); a.code != 0 || a.err != nil {
		t.Error(a)
	}
	s.await(t, "no credits", func() bool { return s.free("mail") == 0 })
	late := s.reserve(job("mail", "q", "late"))
	s.await(t, "what comes now is given back at once", func() bool { return len(s.gaveBack) == 1 })
	if now := s.seen().gaveBack; now[0].Lease != late.Lease {
		t.Error(now)
	}
	select {
	case <-drained:
		t.Fatal("it did not wait for the attempt that runs")
	default:
	}
	s.settle(d.Lease)
	if a := get(t, running.next()); a.code != 0 || a.err != nil {
		t.Error(a)
	}
	<-drained
	if now := s.seen().ends; len(now) != 0 {
		t.Error(now)
	}
	if a := get(t, b.thread("mail", 2).next()); a.code != 0 {
		t.Error("a thread that comes while draining:", a)
	}
}

func TestDrainReleasesWhatRunsOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 4)
	d := b.deliver(k, job("mail", "q", "x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b.pools.Drain(ctx) {
		t.Error("idle, while an attempt runs")
	}
	b.pools.Cut()
	b.onlyEnd(d.Lease, command.Interrupted, "the node was shut down while it ran")
	if n, ok := b.pools.Named(d.Lease); n.Job != d.Job.String() || !ok {
		t.Error("what it printed last has no name:", n, ok)
	}
	if s := b.state.seen(); len(s.interrupts) != 1 || s.interrupts[0] != (interrupt{os.Getpid(), 4, d.Lease}) {
		t.Error(s.interrupts)
	}
}

func TestTwoPoolsOnOneQueue(t *testing.T) {
	t.Parallel()
	b := newBench(t, Pool{Name: "one", Queues: []string{"q"}}, Pool{Name: "two", Queues: []string{"q"}})
	s := b.state
	one, two := b.thread("one", 0).next(), b.thread("two", 1).next()
	s.await(t, "two credits", func() bool { return s.free("one") == 1 && s.free("two") == 1 })
	d2 := s.reserve(job("two", "q", "b"))
	d1 := s.reserve(job("one", "q", "a"))
	if a := get(t, one); a.lease != d1.Lease {
		t.Error(a)
	}
	if a := get(t, two); a.lease != d2.Lease {
		t.Error(a)
	}
}

func TestUnknownWorkerIsToldToLeave(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if a := get(t, b.thread("nobody", 0).next()); a.code != 0 || a.err != nil {
		t.Error(a)
	}
	if st := b.pools.Status()[0]; st.Threads != 0 {
		t.Errorf("%+v", st)
	}
}

// The thread has died and nobody has noticed: its job never started.
func TestDeliveryToDeadConnectionIsGivenBackUncounted(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, state: newFakeState(), clock: newSpyClock(), closed: make(chan struct{})}
	b.start(nil)
	s := b.state
	k := b.thread("mail", 0)
	c := k.next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	k.c.Close()
	if a := get(t, c); a.err == nil { // the descriptor is closed when its read has ended
		t.Errorf("%+v", a)
	}
	d := s.reserve(job("mail", "q", "x"))
	b.onlyEnd(d.Lease, command.Unstarted, "")
	b.reconciled()
	if s.seen().credits.Pools[0].Free != 0 {
		t.Error("a dead thread is a credit")
	}
	close(b.closed)
	s.await(t, "the thread is gone", func() bool { return b.pools.Status()[0].Threads == 0 })
}

func TestLargePayload(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	payload := strings.Repeat("0123456789abcde<", 10<<20/16)
	s := b.state
	c := b.thread("mail", 0).next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	s.reserve(job("mail", "q", payload))
	if a := get(t, c); !strings.Contains(a.msg, payload) {
		t.Error(a.code, len(a.msg), a.err)
	}
}

// A payload whose JSON passes the link's limit breaks its attempt, so that it fails in
// the end; its thread goes on with the next job.
func TestPayloadThatNoMessageHolds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	c := b.thread("mail", 0).next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	bad := s.reserve(job("mail", "q", strings.Repeat("\x00", link.MaxFrame/6+1)))
	s.await(t, "its end", func() bool { return len(s.ends) == 1 })
	if e := s.seen().ends[0]; e.d.Lease != bad.Lease || e.cause != command.Broke || !strings.Contains(e.reason, "more than a message may have") {
		t.Error(e.d.Lease, e.cause, e.reason)
	}
	s.await(t, "the thread is free again", func() bool { return s.free("mail") == 1 })
	d := s.reserve(job("mail", "q", "good"))
	if a := get(t, c); a.lease != d.Lease {
		t.Error(a)
	}
}

func TestNothingIsStartedOrOfferedWithoutSession(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, state: newFakeState(), clock: newSpyClock()}
	s := b.state
	s.session = 0
	b.start(nil)
	c := b.thread("mail", 0).next()
	s.change(func() { s.session = 8 })
	s.opened <- struct{}{}
	s.await(t, "the credit", func() bool { return s.free("mail") == 1 })
	if c := s.seen().credits; c.Session != 8 {
		t.Errorf("%+v", c)
	}
	d := s.reserve(job("mail", "q", "x"))
	if a := get(t, c); a.lease != d.Lease {
		t.Error(a)
	}
}
