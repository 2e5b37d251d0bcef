package queue_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pogod/internal/command"
	"pogod/queue"
)

// What never reached the log is counted at once on this node, and for all after
// Report, once.
func TestReport(t *testing.T) {
	t.Parallel()
	c, n, _ := fakeClient(t, queue.Definition{MaxPayloadBytes: 1})
	push := func(payload string) {
		if _, err := c.Push(t.Context(), "q", []byte(payload), 0); err == nil {
			t.Error("accepted")
		}
	}
	counts := func() string {
		t.Helper()
		all, err := c.Stats(t.Context(), "q")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		k := all[0].Counters
		return fmt.Sprint(k.DroppedPayloadTooLarge, k.DroppedShutdown, k.BackendErrors)
	}
	push("22")
	push("333")
	n.err = command.ErrNotAccepted
	push("1")
	c.Drain()
	push("1")
	if got := counts(); got != "2 1 1" {
		t.Errorf("before Report: %s", got)
	}
	// No leader: nothing is lost.
	want(t, "report", c.Report(t.Context()), command.ErrNotAccepted)
	if got := counts(); got != "2 1 1" {
		t.Errorf("after a Report that was not accepted: %s", got)
	}
	n.err = nil
	want(t, "report", c.Report(t.Context()), nil)
	if got := counts(); got != "2 1 1" {
		t.Errorf("after Report: %s", got)
	}
	n.proposed = nil
	if want(t, "report", c.Report(t.Context()), nil); len(n.proposed) > 0 {
		t.Error("there was nothing to tell")
	}
	n.restart()
	if got := counts(); got != "2 1 1" {
		t.Errorf("after a restart: %s", got)
	}
	// The outcome is unknown: it is not told twice.
	push("1")
	n.unknown = true
	want(t, "report", c.Report(t.Context()), command.ErrOutcomeUnknown)
	n.unknown = false
	want(t, "report", c.Report(t.Context()), nil)
	if got := counts(); got != "2 2 1" {
		t.Errorf("after an unknown outcome: %s", got)
	}
}

// A Report that fails at one queue keeps what it has not yet told of the others.
func TestReportKeepsTheRest(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c"}
	for _, failure := range []error{command.ErrNotAccepted, command.ErrClosed} {
		c, n, _ := fakeClient(t, queue.Definition{})
		d := &queue.Definitions{Queues: map[string]queue.Definition{}}
		for _, name := range names {
			d.Queues[name] = queue.Definition{MaxPayloadBytes: 1}
		}
		n.define(d)
		for _, name := range names {
			_, err := c.Push(t.Context(), name, []byte("22"), 0)
			want(t, "push", err, queue.ErrPayloadTooLarge)
		}
		n.err = failure
		want(t, "report", c.Report(t.Context()), failure)
		n.err = nil
		want(t, "report", c.Report(t.Context()), nil)
		for _, name := range names {
			if k := n.stats(name).Counters; k.DroppedPayloadTooLarge != 1 {
				t.Errorf("after %v: queue %s counts %d", failure, name, k.DroppedPayloadTooLarge)
			}
		}
	}
}

// Names that no queue can have, and too many of them, are not kept.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	c, n, _ := fakeClient(t, queue.Definition{})
	c.Drain()
	for i := range 10_050 {
		_, err := c.Push(t.Context(), fmt.Sprint("queue-", i), nil, 0)
		want(t, "push", err, queue.ErrShuttingDown)
	}
	for _, name := range []string{"", "a b", "a/b", strings.Repeat("x", queue.MaxQueueName+1)} {
		_, err := c.Push(t.Context(), name, nil, 0)
		want(t, "push", err, queue.ErrShuttingDown)
	}
	want(t, "report", c.Report(t.Context()), nil)
	if len(n.proposed) != 10_000 {
		t.Errorf("%d queues were told of", len(n.proposed))
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	n.define(&queue.Definitions{Queues: map[string]queue.Definition{"q": {MaxPayloadBytes: 9}, "a": {}, "z": {}}})
	n.deliver(session)
	n.now += 1000
	n.push("q", "next one")
	one, err := c.Stats(t.Context(), "q")
	if err != nil || len(one) != 1 || !one[0].Declared || one[0].MaxPayloadBytes != 9 || one[0].OldestPending.UnixMilli() != n.now {
		t.Errorf("%+v %v", one, err)
	}
	none, err := c.Stats(t.Context(), "nowhere")
	if err != nil || !slices.Equal(none, []queue.Stats{{Name: "nowhere"}}) {
		t.Errorf("a queue that is not known: %+v %v", none, err)
	}
	names := func() (s string) {
		all, err := c.Stats(t.Context(), "")
		if err != nil {
			t.Error(err)
		}
		for _, st := range all {
			s += st.Name
		}
		return s
	}
	if got := names(); got != "aqz" {
		t.Errorf("all queues: %s", got)
	}
	n.define(&queue.Definitions{Queues: map[string]queue.Definition{"a": {}}})
	if got := names(); got != "aq" {
		t.Errorf("without those that are neither declared nor hold a job: %s", got)
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "mail", "Größe", "a.b-c_d:e", strings.Repeat("x", queue.MaxQueueName)} {
		if !queue.ValidName(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{"", " ", "a b", "a/b", "a\tb", "a\x00", "a\u00a0b", "a\xff", strings.Repeat("x", queue.MaxQueueName+1)} {
		if queue.ValidName(name) {
			t.Errorf("%q is allowed", name)
		}
	}
}
