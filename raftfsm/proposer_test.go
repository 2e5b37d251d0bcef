package raftfsm_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/raftfsm"
)

func TestBatchesAreBoundedAndAtMostTwoTravel(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	first, second, a1, a2 := b.fill()
	if first.Session != 1 || first.Number != 1 || first.Watermark != 0 || second.Number != 2 || second.Watermark != 0 {
		t.Errorf("%+v %+v", first.Batch, second.Batch)
	}
	var all []<-chan proposed
	for range 513 {
		all = append(all, b.propose("c", 0))
	}
	half := 256<<10 - 1000
	all = append(all, b.propose("d", half), b.propose("d", half), b.propose("e", half))
	all = append(all, b.propose("large", 600<<10), b.propose("f", 0))
	select {
	case x := <-b.submitter.batches:
		t.Fatal("a third batch travels:", x.names())
	default:
	}
	second.applied()
	b.want(a2, nil)
	third := b.batch()
	if len(third.commands) != 512 || third.Number != 3 || third.Watermark != 0 {
		t.Errorf("%d commands, number %d, watermark %d: the first is not answered", len(third.commands), third.Number, third.Watermark)
	}
	if len(third.pushes) != 1 || third.pushes[0] != (raftfsm.QueueCount{Queue: "c", Count: 512}) {
		t.Error(third.pushes)
	}
	first.applied()
	b.want(a1, nil)
	fourth := b.batch()
	if fourth.names() != "cdd" || fourth.Watermark != 2 {
		t.Error(fourth.names(), fourth.Watermark)
	}
	third.applied()
	if x := b.batch(); x.names() != "e" || x.Watermark != 3 {
		t.Error(x.names(), x.Watermark)
	} else {
		x.applied()
	}
	if x := b.batch(); x.names() != "large" || x.Watermark != 3 {
		t.Error(x.names(), x.Watermark)
	} else {
		x.applied()
	}
	fourth.applied()
	b.batch().applied()
	for i, c := range all {
		if got := b.want(c, nil); i < 512 && got.result.Count != uint64(i) {
			t.Fatalf("call %d got the result of command %d", i, got.result.Count)
		}
	}
}

func TestPushesThatAreDelayedMakeNothingReady(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	for want, c := range map[string]command.Command{"[{q 0}]": {Op: command.Push, Queue: "q", Delay: 1}, "[]": {Op: command.PurgeFailed, Queue: "q"}} {
		go func() { _, _ = b.Propose(t.Context(), &c) }() // ended by the answer
		x := b.batch()
		if got := fmt.Sprint(x.pushes); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		x.applied()
	}
}

// Pushes that a leader without room refuses are answered so, and the rest of their batch
// goes on. A batch that may be in a log already does not name its pushes.
func TestPushesThatTheLeaderHasNoRoomFor(t *testing.T) {
	t.Parallel()
	b := prepareWith(t, 0, raftfsm.ProposerConfig{})
	<-b.Confirmed()
	first := b.propose("a", 0)
	x := b.batch()
	settled := make(chan proposed, 1)
	go func() { // ended by the answer
		r, err := b.Propose(t.Context(), &command.Command{Op: command.PurgeFailed, Queue: "s"})
		settled <- proposed{r, err}
	}()
	b.clock.await(t, timeout, 1)
	refused := b.propose("b", 0)
	x.applied()
	b.want(first, nil)
	x = b.batch()
	if x.names() != "sb" && x.names() != "bs" || len(x.pushes) != 1 {
		t.Fatal(x.names(), x.pushes)
	}
	x.answer(nil, fmt.Errorf("%w: 3 MiB", raftfsm.ErrNoRoom))
	if got := b.want(refused, command.ErrNotAccepted); !strings.Contains(got.err.Error(), "3 MiB") {
		t.Error(got.err)
	}
	if x = b.batch(); x.names() != "s" || x.Number != 2 || len(x.pushes) != 0 {
		t.Errorf("%s %+v", x.names(), x.Batch)
	}
	x.applied()
	b.want(settled, nil)
	// For a moment nobody asks again.
	if _, err := b.Propose(t.Context(), &command.Command{Op: command.Push, Queue: "c"}); !errors.Is(err, raftfsm.ErrNoRoom) {
		t.Error(err)
	}
	b.clock.Advance(time.Second)
	ambiguous := b.propose("d", 0)
	b.batch().answer(nil, errFake)
	b.paused(1)
	if x = b.batch(); x.names() != "d" || len(x.pushes) != 0 {
		t.Error(x.names(), x.pushes)
	}
	x.applied()
	b.want(ambiguous, nil)
}

func TestErrorsAndGapsMeanTheSameNumberAgain(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	first, second, a1, a2 := b.fill()
	first.answer(nil, errFake)
	second.status(raftfsm.Gap)
	b.paused(2)
	seen := map[uint64]*sent{}
	for range 2 {
		x := b.batch()
		seen[x.Number] = x
	}
	if seen[1].names() != "a" || seen[2].names() != "b" || seen[1].Watermark != 0 || seen[2].Watermark != 0 {
		t.Fatalf("%+v", seen)
	}
	seen[1].answer(&raftfsm.Outcome{Err: errFake}, nil)
	seen[2].applied()
	b.want(a2, nil)
	b.paused(1)
	again := b.batch()
	if again.Number != 1 || again.Watermark != 0 {
		t.Errorf("%+v", again.Batch)
	}
	again.applied()
	b.want(a1, nil)
}

func TestEndedSession(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][2]int{"first the first": {0, 1}, "first the second": {1, 0}} {
		b := newProposerBench(t)
		first, second, a1, a2 := b.fill()
		a3 := b.propose("c", 0)
		flying := []*sent{first, second}
		flying[order[0]].status(raftfsm.Ended)
		select {
		case <-b.Confirmed():
			t.Error("a session was opened with a batch of the last one on its way")
		case x := <-b.submitter.batches:
			t.Error("a batch before the last session's have landed", x.names())
		case <-signalled(b):
		}
		flying[order[1]].status(raftfsm.Ended)
		<-b.Confirmed()
		x := b.batch()
		if x.Session != 2 || x.Number != 1 || x.Watermark != 0 || x.names() != "abc" {
			t.Errorf("%s: session %d, number %d, watermark %d, %s", name, x.Session, x.Number, x.Watermark, x.names())
		}
		x.applied()
		b.want(a1, nil)
		b.want(a2, nil)
		b.want(a3, nil)
	}
}

// signalled is closed when the end of the session was noticed.
func signalled(b *proposerBench) <-chan struct{} {
	c := make(chan struct{})
	go func() { // ended by the proposer
		defer close(c)
		for b.Session() != 0 {
			select {
			case <-b.t.Context().Done():
				return
			default:
			}
		}
	}()
	return c
}

func TestEndedSessionOfAnAmbiguousBatch(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	first, second, a1, a2 := b.fill()
	first.answer(nil, errFake)
	b.paused(1)
	again := b.batch()
	again.status(raftfsm.Ended)
	b.want(a1, command.ErrOutcomeUnknown)
	second.status(raftfsm.Ended)
	x := b.batch()
	if x.Session != 2 || x.names() != "b" {
		t.Error(x.Session, x.names())
	}
	x.applied()
	b.want(a2, nil)
}

// The other batch of an ended session may have been applied before the end.
func TestEndedSessionWhoseOtherBatchWasApplied(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	first, second, a1, a2 := b.fill()
	second.status(raftfsm.Ended)
	first.applied()
	b.want(a1, nil)
	x := b.batch()
	if x.Session != 2 || x.Number != 1 || x.names() != "b" {
		t.Error(x.Session, x.Number, x.names())
	}
	x.applied()
	b.want(a2, nil)
}

func TestPassedIsUnknown(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	c := b.propose("a", 0)
	b.batch().status(raftfsm.Passed)
	b.want(c, command.ErrOutcomeUnknown)
}

func TestWrongNumberOfResultsIsUnknown(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	c := b.propose("a", 0)
	b.batch().answer(&raftfsm.Outcome{}, nil)
	b.want(c, command.ErrOutcomeUnknown)
}

// Another time-out goes for the calls to come.
func TestSetTimeout(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	before := b.propose("a", 0)
	b.batch()
	b.SetTimeout(timeout / 4)
	after := make(chan error, 1)
	go func() { // ended by the clock
		_, err := b.Propose(t.Context(), &command.Command{Op: command.Push, Queue: "a"})
		after <- err
	}()
	b.clock.await(t, timeout/4, 1)
	b.clock.Advance(timeout / 4)
	if err := <-after; !errors.Is(err, command.ErrOutcomeUnknown) && !errors.Is(err, command.ErrNotAccepted) {
		t.Error(err)
	}
	select {
	case p := <-before:
		t.Errorf("too early: %+v", p)
	default:
	}
	b.clock.Advance(timeout - timeout/4)
	b.want(before, command.ErrOutcomeUnknown)
}

func TestTimeOutBeforeNumberingWithdraws(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	first, second, a1, a2 := b.fill()
	b.clock.Advance(timeout / 2)
	a3 := b.propose("c", 0)
	b.clock.Advance(timeout / 2)
	b.want(a1, command.ErrOutcomeUnknown)
	b.want(a2, command.ErrOutcomeUnknown)
	b.clock.Advance(timeout / 2)
	b.want(a3, command.ErrNotAccepted)
	// The sent ones are seen through, though nobody waits.
	first.answer(nil, errFake)
	b.paused(1)
	again := b.batch()
	if again.Number != 1 || again.names() != "a" {
		t.Error(again.Number, again.names())
	}
	again.applied()
	second.applied()
	a4 := b.propose("d", 0)
	x := b.batch()
	if x.names() != "d" || x.Number != 3 {
		t.Errorf("the withdrawn command was sent: %s", x.names())
	}
	x.applied()
	b.want(a4, nil)
}

func TestCancelledCallIsWithdrawn(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	b.fill()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() { // ended by cancel
		_, err := b.Propose(ctx, &command.Command{Op: command.Push, Queue: "c"})
		got <- err
	}()
	b.clock.await(t, timeout, 1)
	cancel()
	if err := <-got; !errors.Is(err, command.ErrNotAccepted) {
		t.Error(err)
	}
}

func TestSessionIsOpenedAgainAndAgain(t *testing.T) {
	t.Parallel()
	b := prepare(t, 3)
	c := b.propose("a", 0)
	for range 3 {
		if b.Session() != 0 {
			t.Error("a session")
		}
		b.paused(1)
	}
	x := b.batch()
	if x.Session != 1 || b.Session() != 1 {
		t.Error(x.Session)
	}
	x.applied()
	b.want(c, nil)
	// What may have been applied is asked for again under its number.
	if n := b.submitter.openings; len(n) != 4 || n[3] != n[0] {
		t.Error(n)
	}
}

func TestARefusedOpeningIsFollowedByANewerOne(t *testing.T) {
	t.Parallel()
	b := prepareWith(t, 0, raftfsm.ProposerConfig{}, raftfsm.ErrSessionRefused, errFake, raftfsm.ErrSessionRefused)
	for range 3 {
		b.paused(1)
	}
	<-b.Confirmed()
	if n := b.submitter.openings; !slices.Equal(n, []uint64{1, 2, 2, 3}) {
		t.Error(n)
	}
}

// A batch that reached no log is taken apart again: its calls can be withdrawn, and go
// with those that came later.
func TestABatchThatWasNotSentIsWithdrawnWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	b := prepareWith(t, 0, raftfsm.ProposerConfig{})
	<-b.Confirmed()
	a1 := b.propose("a", 0)
	b.batch().answer(nil, fmt.Errorf("the link is down: %w", raftfsm.ErrNotSent))
	b.clock.await(t, pause, 1)
	a2 := b.propose("b", 0)
	b.clock.Advance(pause)
	x := b.batch()
	if x.names() != "ab" || x.Number != 1 {
		t.Error(x.names(), x.Number)
	}
	b.clock.Advance(timeout - pause - time.Millisecond)
	x.answer(nil, raftfsm.ErrNotSent)
	b.clock.await(t, pause, 1)
	b.clock.Advance(time.Millisecond)
	b.want(a1, command.ErrNotAccepted)
	b.want(a2, command.ErrNotAccepted)
	a3 := b.propose("c", 0)
	b.clock.Advance(pause)
	x = b.batch()
	if x.names() != "c" || x.Number != 1 {
		t.Error(x.names(), x.Number)
	}
	// Once it may be in a log, it stays as it is.
	x.answer(nil, errFake)
	b.paused(1)
	x = b.batch()
	x.answer(nil, raftfsm.ErrNotSent)
	a4 := b.propose("d", 0)
	b.paused(1)
	if x = b.batch(); x.names() != "c" || x.Number != 1 {
		t.Error(x.names(), x.Number)
	}
	x.applied()
	b.want(a3, nil)
	b.batch().applied()
	b.want(a4, nil)
}

// Without a leader: not accepted, and nothing is sent later.
func TestTimeOutWithoutSession(t *testing.T) {
	t.Parallel()
	b := prepare(t, 10_000)
	c := b.propose("a", 0)
	b.clock.Advance(timeout)
	b.want(c, command.ErrNotAccepted)
	b.submitter.mu.Lock()
	b.submitter.refuse = nil
	b.submitter.mu.Unlock()
	for b.Session() == 0 {
		b.clock.Advance(pause)
		runtime.Gosched()
	}
	d := b.propose("b", 0)
	x := b.batch()
	if x.names() != "b" {
		t.Error(x.names())
	}
	x.applied()
	b.want(d, nil)
}

func TestTooLargeCommandIsRefused(t *testing.T) {
	t.Parallel()
	b := newProposerBench(t)
	if _, err := b.Propose(t.Context(), &command.Command{Op: command.Push, Queue: "q", Payload: make([]byte, command.MaxCommand)}); !errors.Is(err, command.ErrTooLarge) {
		t.Error(err)
	}
}
