package leader

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/raftfsm"
)

func pushes(queue string, n int) []raftfsm.QueueCount {
	return []raftfsm.QueueCount{{Queue: queue, Count: n}}
}

func want(t *testing.T, e *entry, reserves map[string]uint64) {
	t.Helper()
	if got := e.reserves(); !maps.Equal(got, reserves) {
		t.Errorf("reserves %v, want %v", got, reserves)
	}
}

func TestReserveRidesWithThePush(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.credits(3, "q")
	wait := b.Submit([]byte("batch"), pushes("q", 2))
	e := b.entry()
	want(t, e, map[string]uint64{"p/q": 2})
	if e.batch != "batch" || e.commands[0].Session != 7 || e.commands[0].Pool != "p" {
		t.Errorf("%+v", e)
	}
	b.apply(e)
	if o, err := wait(); err != nil || o.Index != b.index {
		t.Error(o, err)
	}
	// Of another queue, or delayed: nothing to hand out.
	b.Submit([]byte("batch"), pushes("other", 2))
	want(t, b.entry(), map[string]uint64{})
}

func TestCreditsAreNotOverspentByEntriesInFlight(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.credits(5, "q")
	waits := []func() (*raftfsm.Outcome, error){}
	var all []*entry
	for _, n := range []uint64{3, 2, 0} { // 3 pushes each
		waits = append(waits, b.Submit(nil, pushes("q", 3)))
		e := b.entry()
		if e.reserves()["p/q"] != n {
			t.Fatalf("%v, want %d", e.reserves(), n)
		}
		all = append(all, e)
	}
	// Applied, they still count until a credit has seen them.
	b.apply(all[0])
	b.apply(all[1])
	for _, w := range waits[:2] {
		if _, err := w(); err != nil {
			t.Fatal(err)
		}
	}
	b.state.set(func() { b.state.ready["q"] = 1 })
	b.quiet("no credit is left")
	// The first was seen and its three jobs run; two threads are for the second.
	b.Offer(Credits{Session: 7, Applied: b.index - 1, Pools: []Pool{{"p", []string{"q"}, 2}}})
	b.quiet("the credits are for the second entry")
	b.Offer(Credits{Session: 7, Applied: b.index, Pools: []Pool{{"p", []string{"q"}, 1}}})
	want(t, b.entry(), map[string]uint64{"p/q": 1})
}

// While an entry that pushes and reserves is on its way, the next one's pushes are
// handed out as well.
func TestPushesInFlightAreNotMistakenForReservedOnes(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() { b.state.ready["q"] = 2 })
	b.credits(1, "q")
	e := b.entry() // 1 of the 2
	want(t, e, map[string]uint64{"p/q": 1})
	b.credits(10, "q")
	b.Submit(nil, pushes("q", 3)) // 9 threads for 1 + 3
	want(t, b.entry(), map[string]uint64{"p/q": 4})
	b.Submit(nil, pushes("q", 2))
	want(t, b.entry(), map[string]uint64{"p/q": 2})
	b.Submit(nil, nil)
	want(t, b.entry(), map[string]uint64{})
}

func TestReadyJobsAreNotMistakenForPushesInFlight(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.credits(3, "q")
	b.Submit(nil, pushes("q", 3))
	want(t, b.entry(), map[string]uint64{"p/q": 3})
	b.state.set(func() { b.state.ready["q"] = 2 })
	b.credits(9, "q")
	want(t, b.entry(), map[string]uint64{"p/q": 2})
}

func TestStaleCreditsAreIgnored(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.credits(1, "q")
	b.Offer(Credits{Session: 7, Applied: b.index - 1, Pools: []Pool{{"p", []string{"q"}, 50}}})
	b.Submit(nil, pushes("q", 9))
	want(t, b.entry(), map[string]uint64{"p/q": 1})
	// A new session's count from where it begins.
	b.Offer(Credits{Session: 8, Applied: 1, Pools: []Pool{{"p", []string{"q"}, 4}}})
	b.Submit(nil, pushes("q", 9))
	e := b.entry()
	want(t, e, map[string]uint64{"p/q": 4})
	if e.commands[0].Session != 8 {
		t.Error(e.commands[0])
	}
}

func TestReserveThatGotLessGivesTheRestBack(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.credits(4, "q")
	wait := b.Submit(nil, pushes("q", 4))
	e := b.entry()
	want(t, e, map[string]uint64{"p/q": 4})
	b.index++
	e.resolve(&raftfsm.Outcome{Index: b.index, Leader: []command.Result{{Count: 1}}}, nil)
	if _, err := wait(); err != nil {
		t.Fatal(err)
	}
	b.Submit(nil, pushes("q", 9))
	want(t, b.entry(), map[string]uint64{"p/q": 3})
}

func TestFailedApplyForgetsItsReserves(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(e *entry){
		"raft":  func(e *entry) { e.resolve(nil, errFake) },
		"state": func(e *entry) { e.resolve(&raftfsm.Outcome{Err: errFake}, nil) },
	} {
		b := leading(t)
		b.credits(2, "q")
		wait := b.Submit(nil, pushes("q", 2))
		e := b.entry()
		want(t, e, map[string]uint64{"p/q": 2})
		fail(e)
		if _, err := wait(); !errors.Is(err, errFake) {
			t.Error(name, err)
		}
		b.Submit(nil, pushes("q", 2))
		want(t, b.entry(), map[string]uint64{"p/q": 2})
	}
}

// The leader's own entry failed: it is tried again when something happens.
func TestOwnEntryThatFailedIsProposedAgain(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() { b.state.ready["q"] = 1 })
	b.credits(1, "q")
	b.entry().resolve(nil, errFake)
	want(t, b.entry(), map[string]uint64{"p/q": 1})
}

func TestEarlierQueuesFirstAndAShareForTheLater(t *testing.T) {
	t.Parallel()
	b := leading(t)
	got := map[string]uint64{}
	b.state.set(func() { b.state.ready["high"], b.state.ready["mid"], b.state.ready["low"] = 1000, 1000, 1000 })
	const rounds = 16 * laterShare
	for range rounds {
		b.credits(1, "high", "mid", "low")
		e := b.entry()
		for k, n := range e.reserves() {
			got[k] += n
		}
		b.apply(e)
		b.settle()
	}
	if got["p/high"] != rounds-16 || got["p/mid"] != 8 || got["p/low"] != 8 {
		t.Error(got)
	}
	// With threads enough all get what they have, the first in full.
	b.state.set(func() { b.state.ready["high"], b.state.ready["mid"], b.state.ready["low"] = 3, 2, 9 })
	b.credits(10, "high", "mid", "low")
	want(t, b.entry(), map[string]uint64{"p/high": 3, "p/mid": 2, "p/low": 5})
}

// Each pool has its own turns: with a common count one of two pools would never have one.
func TestLaterShareOfTwoPools(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() {
		b.state.ready["a"], b.state.ready["b"], b.state.ready["c"], b.state.ready["d"] = 1000, 1000, 1000, 1000
	})
	got := map[string]uint64{}
	for range 4 * laterShare {
		b.Offer(Credits{Session: 7, Applied: b.index, Pools: []Pool{{"p", []string{"a", "b"}, 1}, {"o", []string{"c", "d"}, 1}}})
		e := b.entry()
		for k, n := range e.reserves() {
			got[k] += n
		}
		b.apply(e)
		b.settle()
	}
	if got["p/b"] != 4 || got["o/d"] != 4 {
		t.Error(got)
	}
}

func TestTwoPoolsShareOneQueue(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.Offer(Credits{Session: 7, Applied: 1, Pools: []Pool{{"one", []string{"q"}, 2}, {"two", []string{"q"}, 2}}})
	b.Submit(nil, pushes("q", 3))
	want(t, b.entry(), map[string]uint64{"one/q": 2, "two/q": 1})
}

func TestReserveIsBounded(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() { b.state.ready["q"] = 5000 })
	b.credits(3000, "q")
	want(t, b.entry(), map[string]uint64{"p/q": command.MaxRecords})
}

func TestTickWhenDueAndNotBefore(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() { b.state.due = begin + 5000 })
	b.state.watch <- struct{}{}
	b.clock.await(t, 5*time.Second)
	b.clock.Advance(4999 * time.Millisecond)
	b.quiet("it is not due")
	b.credits(1, "q")
	b.clock.Advance(time.Millisecond)
	e := b.entry()
	if len(e.commands) != 1 || !e.has(command.Tick) || e.time != begin+5000 || e.batch != "" {
		t.Fatalf("%+v", e)
	}
	// One at a time, until it says when the next is due.
	b.quiet("one is under way")
	b.state.set(func() { b.state.ready["q"] = 1 }) // the job is ready, a second one is due
	b.apply(e)
	e = b.entry()
	if !e.has(command.Tick) || e.reserves()["p/q"] != 1 {
		t.Errorf("the Reserve rides with the next Tick: %+v", e)
	}
	b.state.set(func() { b.state.due = begin + 3_600_000_000 })
	b.apply(e)
	b.quiet("nothing is due")
}

func TestNothingIsProposedBeforeLeading(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.state.set(func() { b.state.ready["q"], b.state.due = 5, 1 })
	b.credits(5, "q")
	b.Submit([]byte("batch"), pushes("q", 1))
	want(t, b.entry(), map[string]uint64{})
	b.quiet("it does not lead")
	b.raft.lead <- true
	barrier := b.barrier()
	b.Submit([]byte("batch"), pushes("q", 1))
	want(t, b.entry(), map[string]uint64{})
	select {
	case <-b.ready:
		t.Error("ready before the entries of earlier terms are applied")
	default:
	}
	barrier.resolve(nil, nil)
	e := b.entry()
	if !e.has(command.Tick) || e.reserves()["p/q"] != 5 {
		t.Errorf("%+v", e.commands)
	}
	b.raft.lead <- false
	for b.Leading() {
		b.settle()
	}
	b.apply(e)
	b.credits(5, "q")
	b.quiet("it leads no more")
}

func TestTakeOverIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.state.set(func() { b.state.hash = "old" })
	b.raft.lead <- true
	b.barrier().resolve(nil, errFake)
	b.clock.await(t, retryPause)
	if b.Leading() {
		t.Error("it leads")
	}
	b.clock.Advance(retryPause)
	b.barrier().resolve(nil, nil)
	b.entry().resolve(nil, errFake) // the definitions
	b.clock.await(t, retryPause)
	b.clock.Advance(retryPause)
	b.barrier().resolve(nil, nil)
	b.apply(b.entry())
	if err := b.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !b.Leading() {
		t.Error("it does not lead")
	}
}

func TestTakeOverIsNotTriedAgainWhenAnotherLeads(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.raft.lead <- true
	b.barrier().resolve(nil, errFake)
	b.clock.await(t, retryPause)
	b.raft.lead <- false
	b.settle()
	b.settle()
	b.clock.Advance(retryPause)
	b.settle()
	select {
	case <-b.raft.barriers:
		t.Error("it tried to take over")
	default:
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	b := leading(t)
	type opened struct {
		id  uint64
		err error
	}
	got := make(chan opened, 1)
	open := func(answer command.Result, err error) opened {
		go func() { // ended by the entry's outcome
			id, err := b.OpenSession("node", 3)
			got <- opened{id, err}
		}()
		e := b.entry()
		if c := e.commands[0]; c.Op != command.OpenSession || c.Node != "node" || c.Number != 3 {
			t.Errorf("%+v", c)
		}
		e.resolve(&raftfsm.Outcome{Index: 5, Leader: []command.Result{answer}}, err)
		return <-got
	}
	if o := open(command.Result{Code: command.Accepted, Session: 9}, nil); o.id != 9 || o.err != nil {
		t.Error(o)
	}
	if o := open(command.Result{Code: command.Failure}, nil); !errors.Is(o.err, raftfsm.ErrSessionRefused) {
		t.Error(o)
	}
	if o := open(command.Result{}, errFake); !errors.Is(o.err, errFake) {
		t.Error(o)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.EndSession(9) }() // ended by the entry's outcome
	e := b.entry()
	if c := e.commands[0]; c.Op != command.EndSession || c.Session != 9 {
		t.Errorf("%+v", c)
	}
	b.apply(e)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := newBench(t).WaitReady(over(t)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func over(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// raft does not answer what is still in its queue when it is shut down: nothing may be.
func TestCloseWaitsForEntriesAndGivesNoMore(t *testing.T) {
	t.Parallel()
	b := leading(t)
	wait := b.Leader.Submit([]byte("batch"), nil)
	e := b.entry()
	closed := make(chan struct{})
	b.stopped.Do(func() { // in place of the cleanup
		go func() { // ended by the outcome
			b.Close()
			close(closed)
		}()
	})
	for shut := false; !shut; runtime.Gosched() {
		b.mu.Lock()
		shut = b.closed
		b.mu.Unlock()
	}
	if _, err := b.Leader.Submit([]byte("late"), nil)(); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	select {
	case <-closed:
		t.Error("it did not wait")
	default:
	}
	e.resolve(&raftfsm.Outcome{Index: 1}, nil)
	if _, err := wait(); err != nil {
		t.Error(err)
	}
	<-closed
}

func TestNoRoomForPushes(t *testing.T) {
	t.Parallel()
	b := leading(t)
	full := errors.New("3 MiB")
	b.cfg.Room = func() error { return full } // before anything is submitted
	if _, err := b.Submit([]byte("batch"), pushes("q", 0))(); !errors.Is(err, raftfsm.ErrNoRoom) || !errors.Is(err, full) || errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	b.Submit([]byte("settles"), nil)
	if e := b.entry(); e.batch != "settles" {
		t.Errorf("%+v", e)
	}
}
