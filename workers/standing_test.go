package workers

import (
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/raftfsm"
)

// A session that is not freshly confirmed may have ended: its jobs may be another node's.
func TestNothingStartsUnlessTheSessionIsFreshlyConfirmed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	c := b.thread("mail", 0).next()
	s.await(t, "the credit", func() bool { return s.free("mail") == 1 })
	s.change(func() { s.standing = raftfsm.Stale })
	s.opened <- struct{}{}
	s.await(t, "no thread is offered", func() bool { return s.free("mail") == 0 })
	d := s.reserve(job("mail", "q", "x"))
	b.reconciled()
	if now := s.seen(); now.running != 0 {
		t.Fatal("it was started")
	}
	s.change(func() { s.standing = raftfsm.Fresh })
	s.opened <- struct{}{}
	if a := get(t, c); a.lease != d.Lease {
		t.Error(a)
	}
}

func TestAJobThatCannotBeStartedIsGivenBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	b.thread("mail", 0).next()
	s.change(func() { s.standing = raftfsm.Stale })
	d := s.reserve(job("mail", "q", "x"))
	b.clock.await(t, time.Second)
	b.clock.Advance(time.Second)
	s.await(t, "it is given back", func() bool { return len(s.gaveBack) == 1 })
	if now := s.seen(); now.gaveBack[0].Lease != d.Lease || now.running != 0 {
		t.Errorf("%+v", now)
	}
}

// What is seen is older than the confirmation: jobs in it may be long another's.
func TestANodeThatLagsInApplyStartsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	c := b.thread("mail", 0).next()
	s.await(t, "the credit", func() bool { return s.free("mail") == 1 })
	s.change(func() { s.needs = s.applied + 10 })
	d := s.reserve(job("mail", "q", "x"))
	b.reconciled()
	if now := s.seen(); now.running != 0 {
		t.Fatal("it was started")
	}
	s.apply(func() { s.applied += 10 })
	if a := get(t, c); a.lease != d.Lease {
		t.Error(a)
	}
}

func TestAnOverdueSessionsAttemptsAreInterrupted(t *testing.T) {
	t.Parallel()
	for name, over := range map[string]func(s *fakeState){
		"overdue": func(s *fakeState) { s.standing = raftfsm.Overdue },
		"ended":   func(s *fakeState) { s.session = 0 },
	} {
		b := newBench(t)
		s := b.state
		k := b.thread("mail", 0)
		d := b.deliver(k, job("mail", "q", "x"))
		s.change(func() { s.standing = raftfsm.Stale })
		s.opened <- struct{}{}
		b.reconciled()
		if now := s.seen(); len(now.interrupts) != 0 {
			t.Error(name, "interrupted while it may still be confirmed")
		}
		s.change(func() { over(s) })
		s.opened <- struct{}{}
		s.await(t, name+": the interrupt", func() bool { return len(s.interrupts) == 1 })
		k.ended(d.Lease, "interrupted")
		b.onlyEnd(d.Lease, command.Interrupted, "its lease was lost")
	}
}
