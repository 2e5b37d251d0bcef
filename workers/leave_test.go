package workers

import (
	"os"
	"slices"
	"testing"
	"time"

	"pogod/internal/command"
)

// Threads of a host that is let go get no new jobs and are no credits; what runs there
// goes on. All threads of a bench are of this process.
func TestThreadsOfALeavingHost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	waits, runs := b.thread("mail", 0), b.thread("mail", 1)
	d := b.deliver(runs, job("mail", "q", "x"))
	answer := waits.next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	b.pools.Leave(os.Getpid())
	if a := get(t, answer); a.code != 0 || a.err != nil {
		t.Errorf("%+v", a)
	}
	s.await(t, "no credit", func() bool { return s.free("mail") == 0 })
	s.settle(d.Lease)
	if a := get(t, runs.next()); a.code != 0 || a.err != nil {
		t.Errorf("%+v", a)
	}
	b.reconciled()
	if now := s.seen(); len(now.ends)+len(now.interrupts)+len(now.gaveBack) != 0 || s.free("mail") != 0 {
		t.Errorf("%+v", now)
	}
	b.pools.Left(os.Getpid()) // the process id comes again
	b.deliver(runs, job("mail", "q", "y"))
}

// A job that was reserved for a thread that leaves meanwhile goes to another node,
// no attempt of it counted.
func TestReservedForALeavingHost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	answer := b.thread("mail", 0).next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	b.pools.Leave(os.Getpid())
	get(t, answer)
	d := s.reserve(job("mail", "q", "x"))
	b.clock.await(t, startWithin)
	b.clock.Advance(startWithin)
	s.await(t, "it is given back", func() bool { return len(s.gaveBack) == 1 && s.gaveBack[0].Lease == d.Lease })
}

func TestScriptEndsAfterMaxJobs(t *testing.T) {
	t.Parallel()
	b := newBench(t, Pool{Name: "mail", Queues: []string{"q"}, Script: "worker.php", MaxJobs: 2})
	s := b.state
	k := b.thread("mail", 0)
	for range 2 {
		d := b.deliver(k, job("mail", "q", "x"))
		s.mu.Lock()
		before := s.before[d.Lease]
		s.mu.Unlock()
		before() // it settles, and came back quickly the last time
		s.settle(d.Lease)
	}
	b.reconciled()
	if s.free("mail") != 0 {
		t.Error("a thread that is to leave counts as free")
	}
	if a := get(t, k.next()); a.code != 0 || a.err != nil {
		t.Errorf("%+v", a)
	}
	b.deliver(b.thread("mail", 0), job("mail", "q", "y")) // its successor
}

// stick lets two attempts run, interrupts the first by its time-out and waits until it is
// stuck.
func (b *bench) stick() (stuck, other *caller, leases [2]uint64) {
	b.t.Helper()
	stuck, other = b.thread("mail", 0), b.thread("mail", 1)
	d := job("mail", "q", "x")
	d.Timeout = time.Second
	leases[0] = b.deliver(stuck, d).Lease
	leases[1] = b.deliver(other, job("mail", "q", "y")).Lease
	b.clock.await(b.t, 90*time.Second) // the timer of the second
	b.clock.Advance(time.Second)
	b.clock.await(b.t, stuckAfter)
	b.clock.Advance(stuckAfter - time.Millisecond)
	if now := b.state.seen(); len(now.replaced) != 0 {
		b.t.Fatal("replaced too early")
	}
	b.clock.Advance(time.Millisecond)
	b.state.await(b.t, "it is replaced", func() bool { return slices.Equal(b.state.replaced, []int{os.Getpid()}) })
	return stuck, other, leases
}

// An attempt that does not come back from its interrupt has its host replaced, and killed
// after the grace. The stuck one has timed out, the other was interrupted.
func TestStuckAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	stuck, other, leases := b.stick()
	b.clock.await(t, killGrace-stuckAfter)
	b.clock.Advance(killGrace - stuckAfter - time.Millisecond)
	if now := s.seen(); len(now.killed)+len(now.ends) != 0 {
		t.Fatal("killed too early")
	}
	b.clock.Advance(time.Millisecond)
	s.await(t, "it is killed", func() bool { return slices.Equal(s.killed, []int{os.Getpid()}) })
	stuck.c.Close() // as the death of the process does it
	other.c.Close()
	s.await(t, "both have ended", func() bool { return len(s.ends) == 2 })
	for _, e := range s.seen().ends {
		cause, reason := command.Interrupted, replaced
		if e.d.Lease == leases[0] {
			cause, reason = command.TimedOut, "timed out after 1s"
		}
		if e.cause != cause || e.reason != reason {
			t.Errorf("lease %d: cause %d, %s", e.d.Lease, e.cause, e.reason)
		}
	}
}

func TestStuckAttemptThatComesBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	stuck, _, leases := b.stick()
	stuck.ended(leases[0], "interrupted")
	b.onlyEnd(leases[0], command.TimedOut, "timed out after 1s")
	b.clock.Advance(killGrace)
	b.reconciled()
	if now := s.seen(); len(now.killed) != 0 || len(now.ends) != 1 {
		t.Errorf("%+v", now)
	}
}

// An attempt that comes back from its interrupt in time costs its host nothing.
func TestInterruptedAttemptThatComesBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	d := b.deliver(k, job("mail", "q", "x"))
	b.clock.Advance(90 * time.Second)
	b.clock.await(t, stuckAfter)
	k.ended(d.Lease, "interrupted")
	b.clock.Advance(killGrace)
	b.reconciled()
	if now := b.state.seen(); len(now.killed)+len(now.replaced) != 0 {
		t.Errorf("%+v", now)
	}
}

// A process that is no host is not the node's to kill.
func TestStuckProcessOfSomebodyElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.state.change(func() { b.state.foreign = true })
	b.stick()
	b.clock.Advance(time.Hour)
	b.reconciled()
	if now := b.state.seen(); len(now.killed) != 0 {
		t.Errorf("%+v", now)
	}
}

// The state frees the job of a stuck attempt some seconds after its time-out. What comes
// of the old attempt then settles nothing, and is no reason to interrupt it again.
func TestStuckAttemptWhoseLeaseIsLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	stuck, _, leases := b.stick()
	s.apply(func() {
		s.settled[leases[0]] = true // for End: it is not the attempt's any more
		s.dropLocked(leases[0])
	})
	b.reconciled()
	if now := s.seen(); len(now.interrupts) != 1 {
		t.Errorf("%+v", now.interrupts)
	}
	b.clock.await(t, killGrace-stuckAfter)
	b.clock.Advance(killGrace)
	s.await(t, "it is killed", func() bool { return len(s.killed) == 1 })
	stuck.c.Close()
	s.await(t, "its end", func() bool { return !s.running[leases[0]] })
	if now := s.seen(); len(now.ends) != 0 {
		t.Errorf("%+v", now.ends)
	}
}
