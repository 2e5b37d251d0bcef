package queue_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pogod/internal/command"
	"pogod/queue"
)

// Each call has all faults from a line on: the one that is checked first decides.
func TestPushOrderOfChecks(t *testing.T) {
	t.Parallel()
	c, n, _ := fakeClient(t, queue.Definition{MaxPayloadBytes: 4, MaxMessages: 1})
	ctx := t.Context()
	push := func(name, payload string) error {
		_, err := c.Push(ctx, name, []byte(payload), 0)
		return err
	}
	want(t, "good", push("q", "1234"), nil)
	want(t, "full", push("q", "1234"), queue.ErrFull)
	want(t, "unknown", push("nowhere", "1234"), queue.ErrUnknownQueue)
	before := len(n.proposed)
	want(t, "no name", push("", "1234"), queue.ErrUnknownQueue)
	want(t, "not UTF-8", push("nowhere", "\xff"), queue.ErrPayloadNotUTF8)
	want(t, "not UTF-8", push("q", "a\xff"), queue.ErrPayloadNotUTF8)
	want(t, "too large", push("q", "\xff1234"), queue.ErrPayloadTooLarge)
	want(t, "too large for any", push("nowhere", strings.Repeat("\xff", command.MaxPayload+1)), queue.ErrPayloadTooLarge)
	c.Drain()
	want(t, "draining", push("nowhere", strings.Repeat("\xff", command.MaxPayload+1)), queue.ErrShuttingDown)
	want(t, "draining", push("q", ""), queue.ErrShuttingDown)
	if len(n.proposed) != before {
		t.Errorf("%d refused pushes reached the log", len(n.proposed)-before)
	}
}

func TestPushTakesDelayAndAnswersErrors(t *testing.T) {
	t.Parallel()
	c, n, _ := fakeClient(t, queue.Definition{})
	id, err := c.Push(t.Context(), "q", []byte("a\x00b"), 1500*time.Millisecond)
	if err != nil || id.Millis != n.now {
		t.Fatal(id, err)
	}
	if got := n.proposed[0]; got.Delay != 1500 || string(got.Payload) != "a\x00b" {
		t.Errorf("proposed %+v", got)
	}
	for _, n.err = range []error{command.ErrNotAccepted, command.ErrOutcomeUnknown, command.ErrClosed} {
		_, err := c.Push(t.Context(), "q", nil, 0)
		want(t, "push", err, n.err)
	}
	n.err = nil
	// The table was old: the state machine has the last word.
	table := &staleNode{n, n.Queues()}
	n.define(&queue.Definitions{})
	_, err = queue.NewClient(table, table).Push(t.Context(), "q", nil, 0)
	want(t, "a queue dropped meanwhile", err, queue.ErrUnknownQueue)
	n.define(&queue.Definitions{Queues: map[string]queue.Definition{"q": {MaxPayloadBytes: 4, MaxMessages: 1}}})
	_, err = queue.NewClient(table, table).Push(t.Context(), "q", []byte("12345"), 0)
	want(t, "a limit that is lower now", err, queue.ErrPayloadTooLarge)
	table.table = n.Queues()
	n.define(&queue.Definitions{Queues: map[string]queue.Definition{"q": {}}})
	_, err = queue.NewClient(table, table).Push(t.Context(), "q", nil, 0)
	want(t, "a queue that this node does not know yet", err, nil)
}

// staleNode shows an old table.
type staleNode struct {
	*fakeNode
	table *queue.Table
}

func (n *staleNode) Queues() *queue.Table { return n.table }

// On a follower the answer to a push may come before the push is applied there.
func TestReadsWaitForTheNodesOwnWrites(t *testing.T) {
	t.Parallel()
	c, n, _ := fakeClient(t, queue.Definition{})
	for name, read := range map[string]func() error{
		"stats":  func() error { _, err := c.Stats(t.Context(), "q"); return err },
		"failed": func() error { _, err := c.Failed(t.Context(), "q", 1); return err },
	} {
		n.lags = nil
		if _, err := c.Push(t.Context(), "q", nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := read(); err != nil || n.waited != n.LastIndex() {
			t.Errorf("%s: waited for %d of %d: %v", name, n.waited, n.LastIndex(), err)
		}
		n.lags = context.DeadlineExceeded
		want(t, name, read(), context.DeadlineExceeded)
	}
}

// settleVerbs are the three calls that settle.
func settleVerbs(t *testing.T, c *queue.Client) map[string]func(name, id string) error {
	return map[string]func(name, id string) error{
		"ack":     func(name, id string) error { return c.Ack(t.Context(), name, id) },
		"release": func(name, id string) error { return c.Release(t.Context(), name, id, 0) },
		"fail":    func(name, id string) error { return c.Fail(t.Context(), name, id, "reason") },
	}
}

// The same call again in the same attempt is accepted and does nothing; another verb,
// another queue and another job are not.
func TestSettleAgain(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"ack", "release", "fail"} {
		c, n, session := fakeClient(t, queue.Definition{})
		n.define(&queue.Definitions{Queues: map[string]queue.Definition{"q": {}, "other": {}}})
		d := n.deliver(session)
		c.Begin(d, nil)
		settle := settleVerbs(t, c)
		want(t, verb, settle[verb]("q", d.ID()), nil)
		proposed, stats := len(n.proposed), n.stats("q")
		want(t, verb+" again", settle[verb]("q", d.ID()), nil)
		if len(n.proposed) != proposed {
			t.Errorf("%s was proposed twice", verb)
		}
		for other := range settle {
			if other != verb {
				want(t, other+" after "+verb, settle[other]("q", d.ID()), queue.ErrNotHeld)
			}
		}
		want(t, "in another queue", settle[verb]("other", d.ID()), queue.ErrNotHeld)
		want(t, "in a queue unknown", settle[verb]("nowhere", d.ID()), queue.ErrUnknownQueue)
		wrong := *d
		wrong.Job.Seq++
		want(t, "of another job", settle[verb]("q", wrong.ID()), queue.ErrNotHeld)
		if released, err := c.End(t.Context(), d, command.Unsettled, "not settled"); released || err != nil {
			t.Error("the end of a settled attempt:", released, err)
		}
		if got := n.stats("q"); got != stats {
			t.Errorf("%s: %+v became %+v", verb, stats, got)
		}
		want(t, verb+" after the attempt", settle[verb]("q", d.ID()), queue.ErrNotHeld)
	}
}

// Without Begin there is no attempt on this node, and nothing to remember.
func TestSettleElsewhere(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	d := n.deliver(session)
	want(t, "ack", c.Ack(t.Context(), "q", d.ID()), nil)
	want(t, "ack again", c.Ack(t.Context(), "q", d.ID()), queue.ErrNotHeld)
}

func TestSettleRefuses(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	d := n.deliver(session)
	c.Begin(d, nil)
	for name, settle := range settleVerbs(t, c) {
		want(t, name+" of an unknown queue", settle("nowhere", d.ID()), queue.ErrUnknownQueue)
		want(t, name+" of an unknown queue and id", settle("nowhere", ""), queue.ErrUnknownQueue)
		for _, id := range append(badDeliveryIDs, d.Job.String(), d.Job.String()+":0", d.Job.String()+":999", "0-0:0") {
			want(t, name+" of "+id, settle("q", id), queue.ErrNotHeld)
		}
		for _, n.err = range []error{command.ErrNotAccepted, command.ErrOutcomeUnknown} {
			want(t, name, settle("q", d.ID()), n.err)
		}
		n.err = nil
	}
	if got := n.stats("q"); got.Gauges.Reserved != 1 || got.Counters.Released+got.Counters.Acked+got.Counters.FailedTotal != 0 {
		t.Errorf("a refused call changed something: %+v", got)
	}
	want(t, "ack after all", c.Ack(t.Context(), "q", d.ID()), nil)
}

// A lease that was lost does not settle the next attempt.
func TestStaleDelivery(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{VisibilityTimeout: time.Second})
	d := n.deliver(session)
	c.Begin(d, nil)
	n.tick(n.now + 6000)
	next := n.machine.reserve("q", session, 1)
	if len(next) != 1 || next[0].Attempts != 2 || next[0].Job != d.Job {
		t.Fatalf("%+v", next)
	}
	for name, settle := range settleVerbs(t, c) {
		want(t, "stale "+name, settle("q", d.ID()), queue.ErrNotHeld)
	}
	if released, err := c.End(t.Context(), d, command.Unsettled, ""); released || err != nil {
		t.Error("the end of a lost attempt:", released, err)
	}
	want(t, "the next attempt's ack", c.Ack(t.Context(), "q", next[0].ID()), nil)
}

func TestEndReleases(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{Backoff: []time.Duration{time.Minute}})
	d := n.deliver(session)
	c.Begin(d, nil)
	n.err = command.ErrNotAccepted
	if released, err := c.End(t.Context(), d, command.Broke, "it threw"); released || err == nil {
		t.Error("no leader:", released, err)
	}
	n.err = nil
	if released, err := c.End(t.Context(), d, command.Broke, "it threw"); !released || err != nil {
		t.Error(released, err)
	}
	if got := n.stats("q"); got.Gauges.Delayed != 1 {
		t.Errorf("no back-off: %+v", got)
	}
	n.tick(n.now + 60_000)
	again := n.machine.reserve("q", session, 1)[0]
	want(t, "give back", c.GiveBack(t.Context(), &again), nil)
	want(t, "give back again", c.GiveBack(t.Context(), &again), nil)
	if third := n.machine.reserve("q", session, 1)[0]; third.Attempts != 2 {
		t.Errorf("an attempt that did not start was counted: %d", third.Attempts)
	}
}

// The answer was lost, the ack was not: End finds nothing left to release.
func TestEndAfterUnknownOutcome(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	d := n.deliver(session)
	c.Begin(d, nil)
	n.unknown = true
	want(t, "ack", c.Ack(t.Context(), "q", d.ID()), command.ErrOutcomeUnknown)
	n.unknown = false
	if released, err := c.End(t.Context(), d, command.Unsettled, "not settled"); released || err != nil {
		t.Error(released, err)
	}
	if got := n.stats("q"); got.Counters.Acked != 1 || got.Counters.Released != 0 {
		t.Errorf("%+v", got)
	}
}

func TestFailedJobs(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{MaxMessages: 1})
	ctx := t.Context()
	d := n.deliver(session)
	want(t, "fail", c.Fail(ctx, "q", d.ID(), "boom"), nil)
	jobs, err := c.Failed(t.Context(), "q", 10) // its own write, at once
	if err != nil || len(jobs) != 1 || jobs[0].Reason != "boom" || jobs[0].ID != d.Job || string(jobs[0].Payload) != "payload" {
		t.Fatal(jobs, err)
	}
	_, err = c.Failed(t.Context(), "nowhere", 10)
	want(t, "a list of an unknown queue", err, queue.ErrUnknownQueue)
	for _, id := range []string{"", "1-1", d.ID(), "0" + d.Job.String(), "+" + d.Job.String(), d.Job.String() + " "} {
		_, err = c.RetryFailed(ctx, "q", id)
		want(t, "retry "+id, err, queue.ErrUnknownJob)
		count, err := c.ForgetFailed(ctx, "q", id)
		if want(t, "forget "+id, err, nil); count != 0 {
			t.Errorf("%q was forgotten", id)
		}
	}
	_, err = c.RetryFailed(ctx, "nowhere", d.Job.String())
	want(t, "retry in an unknown queue", err, queue.ErrUnknownQueue)
	_, err = c.ForgetFailed(ctx, "nowhere", d.Job.String())
	want(t, "forget in an unknown queue", err, queue.ErrUnknownQueue)
	_, err = c.PurgeFailed(ctx, "nowhere")
	want(t, "purge an unknown queue", err, queue.ErrUnknownQueue)
	n.push("q", "in the way")
	_, err = c.RetryFailed(ctx, "q", d.Job.String())
	want(t, "retry into a full queue", err, queue.ErrFull)
	if count, err := c.ForgetFailed(ctx, "q", d.Job.String()); count != 1 || err != nil {
		t.Error(count, err)
	}
}

// Purge goes on until nothing is left.
func TestPurgeTakesAll(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	const jobs = 2*command.MaxRecords + 1
	for range jobs {
		want(t, "fail", c.Fail(t.Context(), "q", n.deliver(session).ID(), ""), nil)
	}
	n.proposed = nil
	if count, err := c.PurgeFailed(t.Context(), "q"); count != jobs || err != nil || len(n.proposed) != 3 {
		t.Error(count, err, len(n.proposed))
	}
	if left, err := c.Failed(t.Context(), "q", 1); len(left) > 0 || err != nil {
		t.Error(left, err)
	}
}

// A listing ends when its payloads pass 8 MiB, but always has one job.
func TestFailedIsBounded(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	for range 5 {
		n.push("q", strings.Repeat("p", 3<<20))
		d := n.machine.reserve("q", session, 1)[0]
		n.apply(settle(command.Fail, &d))
	}
	jobs, err := c.Failed(t.Context(), "q", 100)
	if err != nil || len(jobs) != 3 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
}

var badDeliveryIDs = []string{
	"", ":", "1-2", "1-2:", ":3", "1:2", "1-2:3:4", " 1-2:3", "1-2:3 ", "1-2 :3", "1-2: 3", "+1-2:3", "1-+2:3", "1-2:+3",
	"01-2:3", "1-02:3", "1-2:03", "-1-2:3", "1--2:3", "1-2:-3", "1-2:3\n", "1-2:0x3", "1-2:3_0", "a-b:c",
	"9223372036854775808-2:3", "1-18446744073709551616:3", "1-2:18446744073709551616",
}

func TestParseDeliveryID(t *testing.T) {
	t.Parallel()
	for _, d := range []queue.Delivery{
		{},
		{Job: command.JobID{Millis: 1763849472123, Seq: 57}, Lease: 58},
		{Job: command.JobID{Millis: math.MaxInt64, Seq: math.MaxUint64}, Lease: math.MaxUint64},
	} {
		if id, lease, ok := queue.ParseDeliveryID(d.ID()); !ok || id != d.Job || lease != d.Lease {
			t.Errorf("%q is %v, %d, %v", d.ID(), id, lease, ok)
		}
	}
	for _, text := range badDeliveryIDs {
		if id, lease, ok := queue.ParseDeliveryID(text); ok {
			t.Errorf("%q is %v, %d", text, id, lease)
		}
	}
}

func TestReasonIsCut(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("x", queue.MaxReason)
	for name, c := range map[string]struct{ reason, want string }{
		"short":              {"boom", "boom"},
		"exact":              {full, full},
		"one over":           {full + "y", full},
		"far over":           {strings.Repeat(full, 100), full},
		"a rune on the edge": {full[1:] + "é!", full[1:]},
		"the last rune fits": {full[2:] + "é!", full[2:] + "é"},
		"a wide rune":        {full[3:] + "😀!", full[3:]},
		"not UTF-8":          {"a\xffb", "a\uFFFDb"},
	} {
		if got := queue.CutReason(c.reason); got != c.want {
			t.Errorf("%s: %d bytes ending in %q", name, len(got), got[max(0, len(got)-8):])
		}
	}
	for _, reason := range []string{strings.Repeat("\xffa", queue.MaxReason), strings.Repeat("\x80", 2*queue.MaxReason)} {
		if got := queue.CutReason(reason); len(got) > queue.MaxReason || !utf8.ValidString(got) {
			t.Errorf("%.4q... became %d bytes, valid: %v", reason, len(got), utf8.ValidString(got))
		}
	}
	c, n, session := fakeClient(t, queue.Definition{})
	want(t, "fail", c.Fail(t.Context(), "q", n.deliver(session).ID(), full+"y"), nil)
	if jobs, err := c.Failed(t.Context(), "q", 1); err != nil || jobs[0].Reason != full {
		t.Error("a long reason was not kept to its bound", err)
	}
}

// Settling says whether a call of the attempt's handler is under way or through.
func TestSettling(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	d := n.deliver(session)
	is := func(want bool, when string) {
		t.Helper()
		if got := c.Settling(d.Lease); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	is(false, "before")
	c.Begin(d, nil)
	is(false, "begun")
	n.err, n.during = command.ErrNotAccepted, func() { is(true, "under way") }
	want(t, "ack", c.Ack(t.Context(), "q", d.ID()), n.err)
	is(false, "not accepted")
	n.err = nil
	want(t, "ack", c.Ack(t.Context(), "q", d.ID()), nil)
	is(true, "settled")
	_, err := c.End(t.Context(), d, command.Unsettled, "")
	want(t, "end", err, nil)
	is(false, "ended")
}
