package raftfsm_test

import (
	"math"
	"testing"
	"time"

	"pogod/raftfsm"
)

const ttl = 6 * time.Second

// withSession returns a proposer whose session is to be confirmed, just opened.
func withSession(t *testing.T) *proposerBench {
	t.Helper()
	b := prepareWith(t, 0, raftfsm.ProposerConfig{SessionTTL: ttl})
	<-b.Confirmed()
	return b
}

// tick moves the clock in steps that no stall is seen in.
func (b *proposerBench) tick(d time.Duration) {
	for ; d > 0; d -= 500 * time.Millisecond {
		b.clock.Advance(min(d, 500*time.Millisecond))
		b.Standing(0)
	}
}

func (b *proposerBench) wantStanding(applied uint64, want raftfsm.Standing) {
	b.t.Helper()
	if got := b.Standing(applied); got != want {
		b.t.Errorf("standing %d at entry %d, want %d", got, applied, want)
	}
}

func TestASilentSessionIsKeptAlive(t *testing.T) {
	t.Parallel()
	b := withSession(t)
	for i := range 5 {
		b.clock.Advance(ttl / 6)
		x := b.batch()
		if len(x.commands) != 0 || x.Number != uint64(i+1) {
			t.Errorf("%+v", x)
		}
		x.appliedAs(uint64(10 + i))
		<-b.Confirmed()
	}
	// Without a leader it goes on asking, and is confirmed as soon as there is one.
	b.clock.Advance(ttl / 6)
	b.batch().answer(nil, raftfsm.ErrNotSent)
	b.paused(1)
	b.batch().appliedAs(20)
	<-b.Confirmed()
	b.wantStanding(20, raftfsm.Fresh)
	b.Nudge()
	b.batch().applied()
}

func TestAConfirmationCountsFromWhenItWasSent(t *testing.T) {
	t.Parallel()
	b := withSession(t)
	a := b.propose("a", 0)
	x := b.batch()
	b.tick(ttl/2 - time.Millisecond)
	b.wantStanding(0, raftfsm.Fresh) // of the opening
	x.appliedAs(7)
	b.want(a, nil)
	b.tick(time.Millisecond)
	b.wantStanding(7, raftfsm.Stale)
}

func TestANodeThatLagsInApplyStartsNothing(t *testing.T) {
	t.Parallel()
	b := withSession(t)
	b.tick(ttl / 4)
	for range len(b.submitter.batches) { // keep-alives
		b.batch().appliedAs(5)
	}
	for b.Standing(5) != raftfsm.Fresh { // it was answered
		<-b.Confirmed()
	}
	b.tick(ttl/2 - 500*time.Millisecond)
	b.wantStanding(4, raftfsm.Stale) // the opening is too old, and 5 is not applied
}

func TestASessionThatIsNotConfirmedIsOverdue(t *testing.T) {
	t.Parallel()
	b := withSession(t)
	b.tick(ttl - time.Millisecond)
	b.wantStanding(math.MaxUint64, raftfsm.Stale)
	b.tick(time.Millisecond)
	b.wantStanding(math.MaxUint64, raftfsm.Overdue)
	b.tick(ttl / 12) // to the next look: the last may have been a little before
	select {
	case <-b.Confirmed(): // told
	case <-time.After(patience):
		t.Error("nobody was told")
	}
}

// After a pause of everything the session is tried once more before work is given up.
func TestAfterAStallTheSessionIsConfirmedOnceMore(t *testing.T) {
	t.Parallel()
	b := withSession(t)
	b.clock.Advance(time.Minute)
	b.wantStanding(math.MaxUint64, raftfsm.Stale)
	b.batch().appliedAs(9)
	for b.Standing(9) != raftfsm.Fresh {
		<-b.Confirmed()
	}
	b.clock.Advance(time.Minute)
	b.wantStanding(math.MaxUint64, raftfsm.Stale)
	b.tick(ttl / 2)
	b.wantStanding(math.MaxUint64, raftfsm.Overdue)
}

func TestAnEndedSessionIsOverdueUntilTheNextIsOpened(t *testing.T) {
	t.Parallel()
	b := withSession(t)
	b.submitter.mu.Lock()
	b.submitter.refuse = []error{errFake}
	b.submitter.mu.Unlock()
	b.clock.Advance(ttl / 6)
	b.batch().status(raftfsm.Ended)
	b.clock.await(t, pause, 1)
	b.wantStanding(math.MaxUint64, raftfsm.Overdue)
	b.clock.Advance(pause)
	for b.Session() == 0 {
		<-b.Confirmed()
	}
	b.wantStanding(math.MaxUint64, raftfsm.Fresh)
}

func TestTheOnlyVoterNeedsNoConfirmation(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	b.clock.Advance(time.Hour)
	b.wantStanding(0, raftfsm.Fresh)
	if n := len(b.submitter.batches); n != 0 {
		t.Error(n, "batches")
	}
}

func TestLastIndexIsWhatCallersWereTold(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	a := b.propose("a", 0)
	b.batch().appliedAs(31)
	b.want(a, nil)
	if got := b.LastIndex(); got != 31 {
		t.Error(got)
	}
}
