package leader

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pogod/internal/command"
)

func wantShare(t *testing.T, e *entry, share map[uint64]int) {
	t.Helper()
	if got := e.share(); !maps.Equal(got, share) {
		t.Errorf("jobs by session %v, want %v", got, share)
	}
}

func TestJobsGoToTheNodeWithTheMostFreeThreads(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		jobs  int
		share map[uint64]int
	}{
		"none":                {0, map[uint64]int{}},
		"one":                 {1, map[uint64]int{8: 1}},
		"the excess":          {2, map[uint64]int{8: 2}},
		"a tie":               {3, map[uint64]int{8: 2, 9: 1}},
		"a tie with this one": {5, map[uint64]int{7: 1, 8: 3, 9: 1}},
		"one each":            {7, map[uint64]int{7: 1, 8: 4, 9: 2}},
		"all but one":         {9, map[uint64]int{7: 2, 8: 4, 9: 3}},
		"all":                 {10, map[uint64]int{7: 2, 8: 5, 9: 3}},
		"more than threads":   {50, map[uint64]int{7: 2, 8: 5, 9: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := leading(t)
			b.offer(7, 2, "q")
			b.offer(8, 5, "q")
			b.offer(9, 3, "q")
			b.book.last = 8 // of 8 and 9 it is 9's turn
			wantShare(t, b.push("q", c.jobs), c.share)
		})
	}
}

func TestEqualNodesTakeTurns(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() { b.state.sessions[10] = "c" })
	got := map[uint64]int{}
	var order []uint64
	for range 30 { // each job is done before the next comes
		for _, s := range []uint64{8, 9, 10} {
			b.offer(s, 4, "q")
		}
		e := b.push("q", 1)
		for s, n := range e.share() {
			got[s] += n
			order = append(order, s)
		}
		b.undo(e)
	}
	if !maps.Equal(got, map[uint64]int{8: 10, 9: 10, 10: 10}) || !slices.Equal(order[:4], []uint64{8, 9, 10, 8}) {
		t.Error(got, order)
	}
	// Of several jobs nobody gets a second one before all have one; the odd ones go round.
	for _, want := range []map[uint64]int{{8: 2, 9: 2, 10: 1}, {8: 2, 9: 1, 10: 2}, {8: 1, 9: 2, 10: 2}} {
		e := b.push("q", 5)
		wantShare(t, e, want)
		b.undo(e)
	}
}

func TestATieGoesToTheLeadersOwnNode(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(8, 2, "q")
	b.offer(7, 2, "q")
	b.offer(9, 2, "q")
	wantShare(t, b.push("q", 1), map[uint64]int{7: 1}) // 1 2 2
	wantShare(t, b.push("q", 2), map[uint64]int{8: 1, 9: 1})
	wantShare(t, b.push("q", 2), map[uint64]int{7: 1, 8: 1})
	wantShare(t, b.push("q", 2), map[uint64]int{9: 1})
}

// The own node is told by its session, whichever way the leader learns of that.
func TestTheOwnNodeIsKnownHoweverItsSessionIsLearned(t *testing.T) {
	t.Parallel()
	b := leading(t)
	opened := make(chan uint64, 1)
	go func() { // ended by the entry's outcome
		id, _ := b.OpenSession("own", 2)
		opened <- id
	}()
	e := b.entry()
	b.state.set(func() { b.state.sessions = map[uint64]string{8: "a", 30: "own"} })
	b.answers(e, command.Result{Code: command.Accepted, Session: 30})
	if id := <-opened; id != 30 {
		t.Fatal(id)
	}
	b.offer(8, 1, "q")
	b.offer(30, 1, "q")
	wantShare(t, b.push("q", 1), map[uint64]int{30: 1})
}

// What is pushed to a paused queue is offered to nobody: it would not be reserved.
func TestAPausedQueueIsNotOffered(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(7, 2, "q")
	b.state.set(func() { b.state.paused = "q" })
	wantShare(t, b.push("q", 1), map[uint64]int{})
	b.state.set(func() { b.state.paused = "" })
	wantShare(t, b.push("q", 1), map[uint64]int{7: 1})
}

func TestNodesAreNotGivenMoreThanThereIs(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() { b.state.ready["q"] = 7 })
	for _, s := range []uint64{7, 8, 9} {
		b.offer(s, 20, "q")
	}
	first := b.push("q", 2)
	wantShare(t, first, map[uint64]int{7: 3, 8: 3, 9: 3})
	wantShare(t, b.push("q", 0), map[uint64]int{})
	wantShare(t, b.push("other", 9), map[uint64]int{})
	wantShare(t, b.push("q", 4), map[uint64]int{7: 2, 8: 1, 9: 1})
}

func TestPoolsOfOneNameMayServeOtherQueues(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(7, 3, "a", "b")
	b.offer(8, 9, "b", "c")
	b.offer(9, 2, "c")
	b.state.set(func() { b.state.ready["a"], b.state.ready["c"] = 5, 1 })
	e := b.push("b", 4)
	want(t, e, map[string]uint64{"p/a": 3, "p/b": 4, "p/c": 1})
	wantShare(t, e, map[uint64]int{7: 3, 8: 5})
}

// A thread that would take a job of an earlier queue first is free for this one when the
// earlier is empty: then it counts like any other.
func TestAllWhoComeToAQueueShareIt(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(7, 1, "low")
	b.offer(8, 9, "high", "low")
	b.state.set(func() { b.state.ready["high"] = 2 })
	e := b.push("low", 2)
	wantShare(t, e, map[uint64]int{8: 4})
	want(t, e, map[string]uint64{"p/high": 2, "p/low": 2})
}

func TestPoolsMayServeQueuesInOppositeOrders(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(7, 4, "a", "b")
	b.offer(8, 4, "b", "a")
	b.state.set(func() { b.state.ready["a"], b.state.ready["b"] = 5, 2 })
	e := b.push("x", 0)
	want(t, e, map[string]uint64{"p/a": 5, "p/b": 2})
	for _, c := range e.commands {
		if c.Session == 7 && c.Queue != "a" {
			t.Errorf("session 7 has %d of %s while %s has jobs", c.Count, c.Queue, "a")
		}
	}
}

func TestPoolsOfOneNodeCountTogether(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.Offer(Credits{Session: 8, Follows: true, Applied: b.index, Pools: []Pool{{"one", []string{"q"}, 2}, {"two", []string{"q", "r"}, 2}}})
	b.offer(9, 3, "q")
	wantShare(t, b.push("q", 1), map[uint64]int{8: 1})
	e := b.push("q", 6)
	wantShare(t, e, map[uint64]int{8: 3, 9: 3})
	want(t, e, map[string]uint64{"one/q": 1, "two/q": 2, "p/q": 3})
}

// A later queue's share does not depend on which node serves it, and is one job of one
// Reserve.
func TestLaterShareOverNodes(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() {
		b.state.ready["high"], b.state.ready["low"], b.state.ready["c"], b.state.ready["d"] = 1000, 1000, 1000, 1000
	})
	low, d := 0, 0
	for range 10 * laterShare {
		b.offer(7, 1, "high", "low")
		b.offer(8, 2, "high", "low")
		b.offer(9, 3, "c", "d") // the same name, with queues of its own
		e := b.push("x", 0)
		seen := map[string]bool{}
		for _, c := range e.commands {
			if k := fmt.Sprint(c.Session, c.Pool, c.Queue); seen[k] {
				t.Errorf("two Reserves for %s", k)
			} else {
				seen[k] = true
			}
			switch c.Queue {
			case "low":
				low += int(c.Count)
			case "d":
				d += int(c.Count)
			}
		}
		if got := e.share(); !maps.Equal(got, map[uint64]int{7: 1, 8: 2, 9: 3}) {
			t.Fatal(got)
		}
		b.undo(e)
	}
	if low != 20 || d != 10 {
		t.Error(low, d)
	}
	// The one job of a later queue goes to the freest of those whose turn it is.
	b.state.set(func() { b.state.ready = map[string]uint64{"high": 1000, "low": 1} })
	for range laterShare {
		e := b.push("x", 0)
		for _, c := range e.commands {
			if c.Queue == "low" && c.Session != 8 {
				t.Error(c)
			}
		}
		b.undo(e)
	}
}

func TestALaterQueuesShareIsInTheSameReserve(t *testing.T) {
	t.Parallel()
	b := leading(t)
	for range laterShare {
		b.offer(8, 9, "high", "low")
		b.state.set(func() { b.state.ready["high"], b.state.ready["low"] = 3, 3 })
		e := b.push("x", 0)
		want(t, e, map[string]uint64{"p/high": 3, "p/low": 3})
		if len(e.commands) != 2 {
			t.Error(e.commands)
		}
		b.undo(e)
	}
}

// share is job by job: to the one with the most free threads, of equals to the first.
func TestShareIsJobByJob(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		free := rapid.SliceOfN(rapid.IntRange(1, 12), 1, 6).Draw(t, "free")
		b := newBook()
		all := 0
		for i, n := range free {
			b.table.wanted = append(b.table.wanted, &session{id: uint64(i + 1), own: i == 0, free: n})
			all += n
		}
		n := rapid.IntRange(0, all).Draw(t, "jobs")
		b.share(n)
		left, take := slices.Clone(free), make([]int, len(free))
		for range n {
			i := slices.Index(left, slices.Max(left))
			left[i]--
			take[i]++
		}
		for i, s := range b.table.wanted {
			if s.take != take[i] || s.free != left[i] {
				t.Fatalf("%d of %v: session %d took %d, want %d", n, free, s.id, s.take, take[i])
			}
		}
	})
}
