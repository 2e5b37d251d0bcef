package raftfsm_test

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/raftfsm"
	"pogod/storage"
)

// applier applies entries directly, as raft would.
type applier struct {
	t     *testing.T
	fsm   *raftfsm.FSM
	index uint64
}

func newApplier(t *testing.T, path string) *applier {
	t.Helper()
	store, err := storage.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := raftfsm.OpenFSM(store, clock.NewFake(time.UnixMilli(1000)))
	if err != nil {
		t.Fatal(err)
	}
	applied, _ := f.Indexes()
	return &applier{t, f, applied}
}

func (a *applier) apply(e command.Entry) *raftfsm.Outcome {
	a.index++
	l := &raft.Log{Index: a.index, Term: 1, Type: raft.LogCommand, Data: command.AppendEntry(nil, e)}
	return a.fsm.ApplyBatch([]*raft.Log{l})[0].(*raftfsm.Outcome)
}

func (a *applier) leader(c command.Command) command.Result {
	a.t.Helper()
	b, err := c.Append(nil)
	if err != nil {
		a.t.Fatal(err)
	}
	o := a.apply(command.Entry{Time: 5000, Commands: b})
	if o.Err != nil {
		a.t.Fatal(o.Err)
	}
	return o.Leader[0]
}

func (a *applier) batch(session, number, watermark uint64, payloads ...string) *raftfsm.Outcome {
	a.t.Helper()
	var b []byte
	for _, p := range payloads {
		c := command.Command{Op: command.Push, Queue: "q", Payload: []byte(p)}
		var err error
		if b, err = c.Append(b); err != nil {
			a.t.Fatal(err)
		}
	}
	return a.apply(command.Entry{Time: 5000, Batch: command.AppendBatch(nil, command.Batch{Session: session, Number: number, Watermark: watermark, Commands: b})})
}

func (a *applier) pending() uint64 { return a.fsm.Ready("q") }
