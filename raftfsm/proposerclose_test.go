package raftfsm_test

import (
	"context"
	"errors"
	"testing"

	"pogod/internal/command"
	"pogod/raftfsm"
)

func TestCloseWaitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	first, second, a1, a2 := b.fill()
	a3 := b.propose("c", 0)
	closed := make(chan error, 1)
	go func() { closed <- b.Close(context.Background()) }() // ended by the answers
	first.applied()
	second.applied()
	b.batch().applied()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	for _, c := range []<-chan proposed{a1, a2, a3} {
		b.want(c, nil)
	}
	if _, err := b.Propose(t.Context(), &command.Command{Op: command.Push, Queue: "q"}); !errors.Is(err, command.ErrClosed) {
		t.Error(err)
	}
	if e := b.submitter.ended; len(e) != 1 || e[0] != 1 {
		t.Error("sessions ended:", e)
	}
}

func TestCloseAnswersEverything(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		last   func(x *sent) // how the first batch ends after Close gave up
		first  error
		opened bool
	}{
		"sent and not answered": {func(x *sent) { x.answer(nil, errFake) }, command.ErrOutcomeUnknown, true},
		"sent, session ended":   {func(x *sent) { x.status(raftfsm.Ended) }, command.ErrClosed, true},
		"sent, gap":             {func(x *sent) { x.status(raftfsm.Gap) }, command.ErrOutcomeUnknown, true},
		"sent and applied":      {func(x *sent) { x.applied() }, nil, true},
	} {
		b := newProposerBench(t)
		first, second, a1, a2 := b.fill()
		a3 := b.propose("c", 0)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		closed := make(chan error, 1)
		go func() { closed <- b.Close(over) }() // ended by the answers
		b.want(a3, command.ErrClosed)
		c.last(first)
		second.applied()
		if err := <-closed; !errors.Is(err, context.Canceled) {
			t.Error(name, err)
		}
		b.want(a1, c.first)
		b.want(a2, nil)
		if len(b.submitter.ended) != 0 {
			t.Error(name, "sessions ended:", b.submitter.ended)
		}
	}
}

// One batch's session has ended, and the other's outcome never comes in time.
func TestCloseAnswersWhatWaitsForANewSession(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	first, second, a1, a2 := b.fill()
	second.status(raftfsm.Ended)
	<-signalled(b)
	closed := make(chan error, 1)
	go func() { closed <- b.Close(context.Background()) }() // ended by the answers
	b.want(a2, command.ErrClosed)
	first.answer(nil, errFake)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	b.want(a1, command.ErrOutcomeUnknown)
}

func TestCloseWithoutSession(t *testing.T) {
	t.Parallel()
	b := prepare(t, 10_000)
	c := b.propose("a", 0)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
	b.want(c, command.ErrClosed)
}

func TestFailAnswersEverythingAtOnce(t *testing.T) {
	t.Parallel()
	b := prepareWith(t, 0, raftfsm.ProposerConfig{})
	<-b.Confirmed()
	sent := b.propose("a", 0)
	x := b.batch()
	waiting := b.propose("b", 0)
	why := errors.New("the disk")
	b.Fail(why)
	b.Fail(errors.New("a second time"))
	b.want(sent, command.ErrOutcomeUnknown)
	b.want(waiting, command.ErrNotAccepted)
	if _, err := b.Propose(t.Context(), &command.Command{Op: command.Push, Queue: "c"}); !errors.Is(err, why) || !errors.Is(err, command.ErrNotAccepted) {
		t.Error(err)
	}
	x.answer(nil, errFake)
}
