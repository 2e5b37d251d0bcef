package queue_test

import (
	"context"
	"errors"
	"testing"

	"pogod/internal/command"
	"pogod/queue"
	"pogod/storage"
)

// fakeNode is a Proposer and a Reader over one machine: what raftfsm is, without a
// log. It is not safe for concurrent use.
type fakeNode struct {
	*machine
	proposed []command.Command // in order, refused ones too
	err      error             // what Propose answers, nothing applied
	unknown  bool              // apply, then answer that the outcome is unknown
	during   func()            // called while Propose waits
	waited   uint64            // what WaitApplied was asked for last
	lags     error             // what it answers
}

// LastIndex is the number of proposals.
func (n *fakeNode) LastIndex() uint64 { return uint64(len(n.proposed)) }

func (n *fakeNode) WaitApplied(_ context.Context, index uint64) error {
	n.waited = index
	return n.lags
}

func (n *fakeNode) Propose(_ context.Context, c *command.Command) (command.Result, error) {
	n.proposed = append(n.proposed, *c)
	if n.during != nil {
		n.during()
	}
	if n.err != nil {
		return command.Result{}, n.err
	}
	r := n.apply(c)
	if n.unknown {
		return command.Result{}, command.ErrOutcomeUnknown
	}
	return r, nil
}

func (n *fakeNode) Queues() *queue.Table { return n.state.Table() }

func (n *fakeNode) Inspect(f func(s *queue.State, tx *storage.Tx) error) error {
	return f(n.state, n.tx())
}

func (n *fakeNode) View(f func(tx *storage.Tx) error) error {
	n.commit()
	return n.store.View(f)
}

// fakeClient returns a client over a node with the queue "q" as defined, and a live
// session.
func fakeClient(t *testing.T, def queue.Definition) (c *queue.Client, n *fakeNode, session uint64) {
	t.Helper()
	n = &fakeNode{machine: machineOf(t, def)}
	return queue.NewClient(n, n), n, n.openSession()
}

// deliver pushes a job and reserves it.
func (n *fakeNode) deliver(session uint64) *queue.Delivery {
	n.t.Helper()
	n.push("q", "payload")
	got := n.machine.reserve("q", session, 1)
	if len(got) != 1 {
		n.t.Fatalf("%d deliveries", len(got))
	}
	return &got[0]
}

// want fails the test when err is not want.
func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}
