package raftfsm_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"pogod/internal/command"
)

// A level that this version does not know stops the node in the entry that raises it, before
// the first command that it would not know.
func TestANewerLevelStopsTheNode(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	n.push(t, "x")
	if err := errors.Join(n.leader.Raise(1), n.leader.Raise(0)); err != nil || n.group.FSM.Level() != 1 {
		t.Errorf("%d %v", n.group.FSM.Level(), err)
	}
	const newer = "the cluster has feature level 9, and this version knows up to 1; start the newer one again"
	if err := n.leader.Raise(9); err == nil {
		t.Error("it was raised to 9")
	}
	<-n.group.Failed()
	if err := n.group.Err(); !errors.Is(err, command.ErrNewerLevel) || !strings.Contains(err.Error(), newer) {
		t.Error(err)
	}
	n.leader.Close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_ = n.proposer.Close(over) // nobody applies its last batch
	_ = n.group.Close()
	if err := n.dir.Close(); err != nil {
		t.Fatal(err)
	}
}
