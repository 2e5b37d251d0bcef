package raftfsm

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
)

// countingPipeline counts what is sent.
type countingPipeline struct {
	raft.AppendPipeline
	sent int
}

func (p *countingPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.sent++
	return nil, nil //nolint:nilnil // nobody looks
}

func TestAPipelineLeavesOutWhatSaysNothingNew(t *testing.T) {
	t.Parallel()
	c, clk := &countingPipeline{}, clock.NewFake(time.UnixMilli(1))
	p := &quietPipeline{AppendPipeline: c, clock: clk}
	for i, x := range []struct {
		prev, commit uint64
		entries      int
		after        time.Duration
		want         bool
	}{
		{prev: 7, commit: 5, want: true}, // the first
		{prev: 7, commit: 5},
		{prev: 7, commit: 6, want: true}, // the commit index has moved
		{prev: 7, commit: 6, entries: 1, want: true},
		{prev: 8, commit: 6, want: true}, // after entries, once
		{prev: 8, commit: 6},
		{prev: 8, commit: 6, entries: 1, want: true},
		{prev: 9, commit: 8, want: true},
		{prev: 9, commit: 8, after: quietAtMost - time.Millisecond},
		{prev: 9, commit: 8, after: time.Millisecond, want: true}, // now and then
		{prev: 9, commit: 8},
	} {
		clk.Advance(x.after)
		before := c.sent
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{PrevLogEntry: x.prev, LeaderCommitIndex: x.commit, Entries: make([]*raft.Log, x.entries)}, nil); err != nil {
			t.Fatal(err)
		}
		if sent := c.sent > before; sent != x.want {
			t.Errorf("append %d: sent %t", i, sent)
		}
	}
}
