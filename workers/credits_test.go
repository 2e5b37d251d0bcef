package workers

import (
	"testing"
	"time"
)

// settling is what a handler's ack does: Pools is told first, then it is applied.
func (b *bench) settling(lease uint64) (offered int) {
	b.t.Helper()
	s := b.state
	s.mu.Lock()
	before := s.before[lease]
	s.mu.Unlock()
	before()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free("mail")
}

// A handler that came back right after it had settled is expected to do so again: its
// thread is offered with the settling, and its next job waits for it.
func TestQuickThreadIsOfferedWithItsSettling(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	s := b.state
	first := b.deliver(k, job("mail", "q", "1"))
	if free := b.settling(first.Lease); free != 0 {
		t.Error("offered before it was ever quick:", free)
	}
	s.settle(first.Lease)
	second := b.deliver(k, job("mail", "q", "2"))
	if free := b.settling(second.Lease); free != 1 || !s.seen().credits.Follows {
		t.Error("not offered with its settling:", free, s.seen().credits)
	}
	s.settle(second.Lease)
	third := s.reserve(job("mail", "q", "3"))
	s.await(t, "the job that waits for its thread takes the credit", func() bool { return s.free("mail") == 0 && s.credits.Applied == s.applied })
	if a := get(t, k.next()); a.lease != third.Lease {
		t.Errorf("%+v", a)
	}
	if n := s.seen().gaveBack; len(n) != 0 {
		t.Error("given back:", n)
	}
}

// One that goes on working after it has settled is not, and is not expected again.
func TestSlowThreadIsNotOfferedAhead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	s := b.state
	quick := b.deliver(k, job("mail", "q", "1"))
	b.settling(quick.Lease)
	s.settle(quick.Lease)
	slow := b.deliver(k, job("mail", "q", "2"))
	b.settling(slow.Lease)
	s.settle(slow.Lease)
	b.clock.Advance(quickReturn)
	s.apply(func() {}) // look again
	s.await(t, "the offer is taken back", func() bool { return s.free("mail") == 0 && s.credits.Applied == s.applied })
	next := s.reserve(job("mail", "q", "3")) // it was reserved before that
	b.clock.await(t, startWithin)
	b.clock.Advance(startWithin)
	s.await(t, "it is given back", func() bool { return len(s.gaveBack) == 1 && s.gaveBack[0].Lease == next.Lease })
	last := b.deliver(k, job("mail", "q", "4"))
	if free := b.settling(last.Lease); free != 0 {
		t.Error("offered ahead after it was slow:", free)
	}
}

// A job that was reserved long ago, by a state that may be old, does not start: its lease may
// have ended, and the job be another node's. (The node was sent the data file, say.)
func TestAReservationOfLongAgoIsGivenBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	k := b.thread("mail", 0)
	call := k.next()
	old := job("mail", "q", "old")
	old.Waited = startUntil
	old = b.state.reserve(old)
	b.state.await(t, "it is given back", func() bool { return len(b.state.gaveBack) == 1 && b.state.gaveBack[0].Lease == old.Lease })
	fresh := job("mail", "q", "fresh")
	fresh.Waited = startUntil - time.Millisecond
	fresh = b.state.reserve(fresh)
	if got := get(t, call); got.lease != fresh.Lease {
		t.Errorf("lease %d starts, not %d", got.lease, fresh.Lease)
	}
}
