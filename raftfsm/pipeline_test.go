package raftfsm

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
)

// fakeTransport has one pipeline, which shows what is sent.
type fakeTransport struct {
	memberTransport
	sent chan raft.AppendEntriesRequest
}

func (f *fakeTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return &fakePipeline{sent: f.sent}, nil
}

type fakePipeline struct {
	raft.AppendPipeline
	sent chan raft.AppendEntriesRequest
}

func (p *fakePipeline) AppendEntries(args *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.sent <- *args
	return nil, nil //nolint:nilnil // nobody looks
}

func (p *fakePipeline) Close() error { return nil }

// pipelineBench is a pipeline, raft's side of it in the test's hands.
type pipelineBench struct {
	raft.AppendPipeline
	t     *testing.T
	a     *announcer
	clock *clock.Fake
	sent  chan raft.AppendEntriesRequest
}

func newPipelineBench(t *testing.T) *pipelineBench {
	t.Helper()
	b := &pipelineBench{t: t, clock: clock.NewFake(time.UnixMilli(1)), sent: make(chan raft.AppendEntriesRequest, 10)}
	b.a = newAnnouncer(&fakeTransport{sent: b.sent}, b.clock)
	var err error
	if b.AppendPipeline, err = b.a.AppendEntriesPipeline("n", "n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// send is raft's append of n entries after prev.
func (b *pipelineBench) send(prev, commit uint64, n int) (sent bool) {
	b.t.Helper()
	args := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: prev, PrevLogTerm: 3, LeaderCommitIndex: commit}
	for i := range n {
		args.Entries = append(args.Entries, &raft.Log{Index: prev + uint64(i) + 1, Term: 3})
	}
	if _, err := b.AppendEntries(args, nil); err != nil {
		b.t.Fatal(err)
	}
	select {
	case <-b.sent:
		return true
	default:
		return false
	}
}

// quiet fails when anything is sent; what could have sent it has run.
func (b *pipelineBench) quiet(why string) {
	b.t.Helper()
	p := b.AppendPipeline.(*pipeline)
	p.announce()
	select {
	case x := <-b.sent:
		b.t.Errorf("%s: %+v was sent", why, x)
	default:
	}
}

func (b *pipelineBench) announced() raft.AppendEntriesRequest {
	b.t.Helper()
	select {
	case x := <-b.sent:
		return x
	case <-time.After(20 * time.Second):
		b.t.Fatal("nothing was announced")
		return raft.AppendEntriesRequest{}
	}
}

func TestAPipelineLeavesOutWhatSaysNothingNew(t *testing.T) {
	t.Parallel()
	b := newPipelineBench(t)
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
		{prev: 8, commit: 6},
		{prev: 8, commit: 6, entries: 1, want: true},
		{prev: 9, commit: 8, want: true},
		{prev: 9, commit: 8, after: quietAtMost - time.Millisecond},
		{prev: 9, commit: 8, after: time.Millisecond, want: true}, // now and then
		{prev: 9, commit: 8},
		{prev: 6, commit: 8, want: true}, // raft goes back
	} {
		b.clock.Advance(x.after)
		if sent := b.send(x.prev, x.commit, x.entries); sent != x.want {
			t.Errorf("append %d: sent %t", i, sent)
		}
	}
}

func TestACommitThatSomebodyWaitsForIsAnnouncedAtOnce(t *testing.T) {
	t.Parallel()
	b := newPipelineBench(t)
	b.a.applied(4, true)
	b.quiet("raft has sent nothing yet, so there is nothing to come after")
	b.send(7, 6, 2) // 8 and 9
	b.a.applied(8, true)
	b.quiet("9 is on its way and will be applied, too")
	b.a.applied(9, true)
	x := b.announced()
	if x.PrevLogEntry != 9 || x.PrevLogTerm != 3 || x.LeaderCommitIndex != 9 || x.Term != 3 || len(x.Entries) != 0 {
		t.Errorf("%+v", x)
	}
	b.a.applied(9, true)
	b.quiet("it was told")
	if b.send(9, 9, 0) {
		t.Error("raft says it again")
	}
}

func TestAnotherCommitIsAnnouncedALittleLater(t *testing.T) {
	t.Parallel()
	b := newPipelineBench(t)
	b.send(7, 7, 1)
	b.a.applied(8, false)
	select {
	case x := <-b.sent:
		t.Errorf("%+v at once", x)
	default:
	}
	b.clock.Advance(announceAfter)
	if x := b.announced(); x.LeaderCommitIndex != 8 {
		t.Errorf("%+v", x)
	}
	b.send(8, 8, 1)
	b.a.applied(9, false)
	b.send(9, 9, 1) // tells of 9
	b.clock.Advance(announceAfter)
	b.quiet("the next append told it")
}
