package queue_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"
)

// bounded demands that what was proposed since from is commands of one kind, n of them.
func (n *fakeNode) bounded(from int, op command.Op, want int) {
	n.t.Helper()
	got := n.proposed[from:]
	for _, c := range got {
		if c.Op != op {
			n.t.Fatalf("%+v was proposed", c)
		}
	}
	if len(got) != want {
		n.t.Fatalf("%d commands, not %d", len(got), want)
	}
}

// What waits is deleted in commands of 1,000 jobs or some MiB of payload; what is pushed
// meanwhile, reserved or failed stays.
func TestClear(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	n.deliver(session)
	failing(t, c, n, session, 0, 1)
	for range 1500 {
		n.apply(&command.Command{Op: command.Push, Queue: "q", Delay: 50})
		n.push("q", "ready")
	}
	suspects := n.machine.reserve("q", session, 300)
	for i := range suspects {
		crash := settle(command.Release, &suspects[i])
		crash.Cause = command.Crashed
		n.apply(crash)
	}
	before := len(n.proposed)
	n.during = func() { // another node's
		if len(n.proposed) > before+1 {
			n.push("q", "meanwhile")
		}
		if len(n.proposed) == before+2 { // the last of the delayed goes, and some come due
			n.tick(n.now + 50)
		}
	}
	got, err := c.Clear(t.Context(), "q")
	n.during = nil
	if got != 3001 || err != nil { // one of meanwhile came before the delayed ones were gone
		t.Errorf("%d were deleted: %v", got, err)
	}
	n.bounded(before, command.Clear, 4)
	n.check()
	st := n.stats("q")
	if g := st.Gauges; g.Ready != 2 || g.Delayed != 0 || g.Suspects != 0 || g.Reserved != 1 || g.Failed != 1 || st.Counters.Deleted != 3001 {
		t.Errorf("%+v", st)
	}

	for range 5 {
		n.push("q", strings.Repeat("x", 5<<20))
	}
	before = len(n.proposed)
	if got, err := c.Clear(t.Context(), "q"); got != 7 || err != nil {
		t.Errorf("%d were deleted: %v", got, err)
	}
	n.bounded(before, command.Clear, 3)

	_, err = c.Clear(t.Context(), "nowhere")
	want(t, "clear of an unknown queue", err, queue.ErrUnknownQueue)
	for range 1001 {
		n.push("q", "ready")
	}
	n.during = func() {
		if len(n.proposed)-before > 6 {
			n.err = command.ErrNotAccepted
		}
	}
	before = len(n.proposed) - 5
	if got, err := c.Clear(t.Context(), "q"); got != 1000 || !errors.Is(err, command.ErrNotAccepted) {
		t.Errorf("%d were deleted: %v", got, err)
	}
}

func TestRetryAll(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	failing(t, c, n, session, 0, 2100)
	n.now += 60_000
	failing(t, c, n, session, 2100, 2101)
	before := len(n.proposed)
	if got, err := c.RetryAll(t.Context(), "q", queue.Filter{Reason: "no", Age: time.Minute}); got != 0 || err != nil {
		t.Errorf("%d were retried: %v", got, err)
	}
	n.bounded(before, command.RetryAll, 3)
	before = len(n.proposed)
	n.during = func() { // the first ones fail again at once
		for _, d := range n.machine.reserve("q", session, 10) {
			n.apply(&command.Command{Op: command.Fail, Queue: "q", Job: d.Job, Lease: d.Lease})
		}
	}
	got, err := c.RetryAll(t.Context(), "q", queue.Filter{})
	n.during = nil
	if got != 2101 || err != nil {
		t.Errorf("%d were retried: %v", got, err)
	}
	n.bounded(before, command.RetryAll, 3)
	if st := n.stats("q"); st.Gauges.Failed != 20 || st.Counters.Retried != 2101 {
		t.Errorf("%+v", st)
	}
	n.check()
	if d := n.machine.reserve("q", session, 1)[0]; string(d.Payload) != "20" { // the oldest first
		t.Errorf("the next is %s", d.Payload)
	}

	n.define(&queue.Definitions{Queues: map[string]queue.Definition{"q": {MaxMessages: n.stats("q").Gauges.Ready + 3}}})
	got, err = c.RetryAll(t.Context(), "q", queue.Filter{})
	if got != 2 || !errors.Is(err, queue.ErrFull) {
		t.Errorf("%d were retried: %v", got, err)
	}
	_, err = c.RetryAll(t.Context(), "nowhere", queue.Filter{})
	want(t, "retry in an unknown queue", err, queue.ErrUnknownQueue)
}

// A RetryAll copies payloads, so it is bounded by them too.
func TestRetryAllOfLargeJobs(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	for range 5 {
		n.push("q", strings.Repeat("x", 5<<20))
		d := n.machine.reserve("q", session, 1)[0]
		want(t, "fail", c.Fail(t.Context(), "q", d.ID(), ""), nil)
	}
	before := len(n.proposed)
	if got, err := c.RetryAll(t.Context(), "q", queue.Filter{}); got != 5 || err != nil {
		t.Errorf("%d were retried: %v", got, err)
	}
	n.bounded(before, command.RetryAll, 3)
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	n.push("q", "a")
	want(t, "pause", c.Pause(t.Context(), "q"), nil)
	if n.state.Table().Ready("q") != 0 || !n.state.Table().Paused("q") || len(n.machine.reserve("q", session, 1)) != 0 {
		t.Error("a paused queue hands out a job")
	}
	if all, err := c.Stats(t.Context(), "q"); err != nil || !all[0].Status(true).Paused || !all[0].Status(true).Ready {
		t.Errorf("%+v %v", all, err)
	}
	want(t, "resume", c.Resume(t.Context(), "q"), nil)
	if n.state.Table().Ready("q") != 1 || n.state.Table().Paused("q") || len(n.machine.reserve("q", session, 1)) != 1 {
		t.Error("a resumed queue hands out no job")
	}
	want(t, "pause of an unknown queue", c.Pause(t.Context(), "nowhere"), queue.ErrUnknownQueue)
	n.err = command.ErrNotAccepted
	want(t, "without a leader", c.Resume(t.Context(), "q"), command.ErrNotAccepted)
}

// A job is deleted wherever it waits, also when it moves between the look and the command.
func TestDelete(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	del := func(id command.JobID) error { return c.Delete(t.Context(), "q", id.String()) }
	a, b := n.push("q", "a"), n.push("q", "b")
	late := n.apply(&command.Command{Op: command.Push, Queue: "q", Delay: 50}).Job
	want(t, "delete", del(a), nil)
	want(t, "delete again", del(a), queue.ErrNoJob)
	n.during = func() {
		n.during = nil
		n.tick(n.now + 50)
	}
	want(t, "delete of one that comes due", del(late), nil)
	d := n.machine.reserve("q", session, 1)[0]
	want(t, "delete of a reserved one", del(b), queue.ErrReserved)
	n.during = func() { // it is put back, behind the step where it stood
		n.during = nil
		n.apply(settle(command.Release, &d))
	}
	want(t, "delete of one that comes back", del(b), nil)
	failing(t, c, n, session, 0, 1)
	_, jobs, _ := page(t, c, 0, 1)
	want(t, "delete of a failed one", del(jobs[0].ID), nil)
	want(t, "delete of nonsense", c.Delete(t.Context(), "q", "nonsense"), queue.ErrNoJob)
	want(t, "delete of nonsense nowhere", c.Delete(t.Context(), "nowhere", "nonsense"), queue.ErrUnknownQueue)
	want(t, "delete in an unknown queue", c.Delete(t.Context(), "nowhere", a.String()), queue.ErrUnknownQueue)
	if st := n.stats("q"); st.Gauges != (queue.Gauges{}) || st.Counters.Deleted != 3 || st.Counters.Purged != 1 {
		t.Errorf("%+v", st)
	}
	n.check()
}
