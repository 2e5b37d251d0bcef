package raftfsm_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/internal/datadir"
	"pogod/queue"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
	"pogod/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a real node without its upper rooms: real raft, real log, real file.
type node struct {
	dir      *datadir.Dir
	group    *raftfsm.Group
	leader   *leader.Leader
	proposer *raftfsm.Proposer
	queue    *queue.Client
}

var definitions = queue.Definitions{
	Default: queue.Definition{MaxPayloadBytes: command.MaxPayload, VisibilityTimeout: time.Minute, MaxAttempts: 3},
	Queues: map[string]queue.Definition{
		"q": {MaxPayloadBytes: command.MaxPayload, VisibilityTimeout: time.Minute, MaxAttempts: 3},
	},
}

func start(t testing.TB, path string) *node {
	t.Helper()
	n, err := tryStart(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryStart(t testing.TB, path string) (*node, error) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	n := &node{}
	var err error
	if n.dir, err = datadir.Open(path); err != nil {
		return nil, err
	}
	if n.group, err = raftfsm.Open(t.Context(), raftfsm.Config{Dir: n.dir, Clock: clock.System(), Log: log}); err != nil {
		return nil, errors.Join(err, n.dir.Close())
	}
	encoded, hash := definitions.Encode()
	n.leader = leader.New(leader.Config{Raft: n.group.Raft, State: n.group.FSM, Clock: clock.System(), Definitions: encoded, Hash: hash, Log: log})
	if err := n.leader.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.proposer = raftfsm.NewProposer(raftfsm.ProposerConfig{
		Node: n.dir.NodeID(), NextOpening: n.dir.NextOpening, Submitter: n.leader, Clock: clock.System(), Gather: time.Millisecond, Timeout: 10 * time.Second, Log: log,
	})
	n.queue = queue.NewClient(n.proposer, n.group.FSM)
	<-n.proposer.Confirmed()
	return n, nil
}

func (n *node) stop(t testing.TB) {
	t.Helper()
	if err := n.proposer.Close(context.Background()); err != nil {
		t.Error(err)
	}
	n.leader.Close()
	if err := errors.Join(n.group.Close(), n.dir.Close()); err != nil {
		t.Error(err)
	}
}

func (n *node) push(t *testing.T, payload string) command.JobID {
	t.Helper()
	id, err := n.queue.Push(t.Context(), "q", []byte(payload), 0)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// reserve hands the session up to free jobs and returns them.
func (n *node) reserve(t *testing.T, free int) []queue.Delivery {
	t.Helper()
	_, applied := n.group.FSM.Reserved(nil, 0)
	changed := n.group.FSM.Watch()
	n.leader.Offer(leader.Credits{Session: n.proposer.Session(), Applied: applied, Pools: []leader.Pool{{Name: "p", Queues: []string{"q"}, Free: free}}})
	for {
		if d, _ := n.group.FSM.Reserved(nil, n.proposer.Session()); len(d) >= free {
			return d
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("no reservation came")
		}
	}
}

func (n *node) stats(t *testing.T) queue.Stats {
	t.Helper()
	all, err := n.queue.Stats(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestJobsSurviveRestart(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	n := start(t, path)
	first := n.push(t, "one")
	n.push(t, "two")
	if _, err := n.queue.Push(t.Context(), "q", []byte("later"), time.Hour); err != nil {
		t.Fatal(err)
	}
	d := n.reserve(t, 1)
	if d[0].Job != first || string(d[0].Payload) != "one" || d[0].Attempts != 1 {
		t.Fatal(d[0])
	}
	if err := n.queue.Fail(t.Context(), "q", d[0].ID(), "because"); err != nil {
		t.Fatal(err)
	}
	// Own writes are seen at once, through the file.
	if jobs, err := n.queue.Failed(t.Context(), "q", 10); err != nil || len(jobs) != 1 || jobs[0].Reason != "because" || jobs[0].ID != first {
		t.Fatal(jobs, err)
	}
	before := n.stats(t)
	n.stop(t)

	n = start(t, path)
	defer n.stop(t)
	if after := n.stats(t); after != before {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if d := n.reserve(t, 1); string(d[0].Payload) != "two" || d[0].Job.Seq <= first.Seq {
		t.Error(d)
	}
	if _, err := n.queue.RetryFailed(t.Context(), "q", first.String()); err != nil {
		t.Error(err)
	}
}

// A node that comes back has a new session: what the old one held is free at once, and
// its leases settle nothing.
func TestNewSessionFreesOldReservations(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	n := start(t, path)
	n.push(t, "one")
	old := n.reserve(t, 1)[0]
	// A crash: raft and the files go, nothing is said goodbye to.
	if err := n.group.Close(); err != nil {
		t.Fatal(err)
	}
	n.leader.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = n.proposer.Close(ctx)
	_ = n.dir.Close()

	n = start(t, path)
	defer n.stop(t)
	d := n.reserve(t, 1)[0]
	if d.Job != old.Job || d.Lease == old.Lease || d.Attempts != 2 {
		t.Errorf("old %+v, new %+v", old, d)
	}
	if err := n.queue.Ack(t.Context(), "q", old.ID()); !errors.Is(err, queue.ErrNotHeld) {
		t.Error("the old lease settled:", err)
	}
	if err := n.queue.Ack(t.Context(), "q", d.ID()); err != nil {
		t.Error(err)
	}
}

// A batch is applied once, in order, however often and in whatever order it is sent;
// across a restart too.
func TestBatchesAreAppliedOnceAndInOrder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	a := newApplier(t, path)
	encoded, hash := definitions.Encode()
	a.leader(command.Command{Op: command.Define, Definitions: encoded, Hash: hash})
	s := a.leader(command.Command{Op: command.OpenSession, Node: "n", Number: 3}).Session

	if o := a.batch(s, 2, 0, "late"); o.Status != raftfsm.Gap || o.Last != 0 || a.pending() != 0 {
		t.Fatalf("a gap: %+v", o)
	}
	first := a.batch(s, 1, 0, "a", "b")
	if first.Status != raftfsm.Applied || len(first.Results) != 2 || a.pending() != 2 {
		t.Fatalf("%+v", first)
	}
	again := a.batch(s, 1, 0, "a", "b")
	if again.Status != raftfsm.Applied || again.Results[1] != first.Results[1] || a.pending() != 2 {
		t.Fatalf("sent again: %+v", again)
	}
	if err := a.fsm.Close(); err != nil {
		t.Fatal(err)
	}
	a = newApplier(t, path)
	if again := a.batch(s, 1, 0, "a", "b"); again.Results[0] != first.Results[0] || a.pending() != 2 {
		t.Fatalf("after a restart: %+v", again)
	}
	a.batch(s, 2, 1, "c")
	if o := a.batch(s, 1, 1, "a", "b"); o.Status != raftfsm.Passed || a.pending() != 3 {
		t.Errorf("below the watermark: %+v", o)
	}
	// A late opening of an earlier life changes nothing; the same one answers the same.
	if r := a.leader(command.Command{Op: command.OpenSession, Node: "n", Number: 2}); r.Code != command.Failure {
		t.Errorf("a late opening: %+v", r)
	}
	if r := a.leader(command.Command{Op: command.OpenSession, Node: "n", Number: 3}); r.Session != s {
		t.Errorf("the same opening: %+v", r)
	}
	if r := a.leader(command.Command{Op: command.OpenSession, Node: "n", Number: 4}); r.Session <= s {
		t.Errorf("a new opening: %+v", r)
	}
	if o := a.batch(s, 3, 2, "d"); o.Status != raftfsm.Ended || a.pending() != 3 {
		t.Errorf("a batch of an ended session: %+v", o)
	}
	if err := a.fsm.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSessionsAreListedWhileTheyLive(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "f"))
	defer func() { _ = a.fsm.Close() }()
	one := a.leader(command.Command{Op: command.OpenSession, Node: "one", Number: 1}).Session
	two := a.leader(command.Command{Op: command.OpenSession, Node: "two", Number: 1}).Session
	a.leader(command.Command{Op: command.EndSession, Session: one})
	if got := a.fsm.Sessions(); len(got) != 1 || got[two] != "two" {
		t.Error(got)
	}
}

func TestWaitApplied(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "f"))
	defer func() { _ = a.fsm.Close() }()
	a.apply(command.Entry{Time: 1})
	now := a.fsm.Applied()
	if err := a.fsm.WaitApplied(t.Context(), now); err != nil {
		t.Error(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- a.fsm.WaitApplied(t.Context(), now+2) }() // ended by the second apply
	a.apply(command.Entry{Time: 2})
	select {
	case err := <-waited:
		t.Fatal("an entry too early:", err)
	default:
	}
	a.apply(command.Entry{Time: 3})
	if err := <-waited; err != nil {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.fsm.WaitApplied(over, now+3); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The hash is of the replicated state: not of the file, whose epoch and commits are its own.
func TestHashIsThatOfTheReplicatedState(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "a"))
	b := newApplier(t, filepath.Join(t.TempDir(), "b"))
	defer func() { _, _ = a.fsm.Close(), b.fsm.Close() }()
	encoded, hash := definitions.Encode()
	for i, x := range []*applier{a, b} {
		x.leader(command.Command{Op: command.Define, Definitions: encoded, Hash: hash})
		s := x.leader(command.Command{Op: command.OpenSession, Node: "n", Number: 3}).Session
		if i == 1 {
			if _, _, err := x.fsm.Hash(); err != nil { // commits
				t.Fatal(err)
			}
		}
		x.batch(s, 1, 0, "payload")
	}
	one, at, err := a.fsm.Hash()
	if err != nil || at != a.fsm.Applied() {
		t.Fatal(at, err)
	}
	if two, _, err := b.fsm.Hash(); err != nil || one != two {
		t.Error("equal states, other hashes", err)
	}
	b.apply(command.Entry{Time: 90_000})
	a.apply(command.Entry{Time: 90_001})
	one, _, _ = a.fsm.Hash()
	if two, _, err := b.fsm.Hash(); err != nil || one == two {
		t.Error("another cluster time, the same hash", err)
	}
}

func TestClusterTimeNeverGoesBack(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "f"))
	defer func() { _ = a.fsm.Close() }()
	a.apply(command.Entry{Time: 9000})
	a.apply(command.Entry{Time: 4000})
	if _, now := a.fsm.NextTick(); now != 9000 {
		t.Error(now)
	}
}

// What the state machine cannot understand stops it: it must not guess, and nothing
// after it is applied.
func TestUnknownCommandStopsTheNode(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"command": command.AppendEntry(nil, command.Entry{Commands: []byte{250, 0}}),
		"version": {9, 0, 0, 0, 0},
		"damaged": append(command.AppendEntry(nil, command.Entry{Time: 1}), 1),
	} {
		a := newApplier(t, filepath.Join(t.TempDir(), "f"))
		a.index++
		o := a.fsm.ApplyBatch([]*raft.Log{{Index: a.index, Term: 1, Type: raft.LogCommand, Data: data}})[0].(*raftfsm.Outcome)
		if !errors.Is(o.Err, raftfsm.ErrStopped) {
			t.Errorf("%s: %v", name, o.Err)
		}
		select {
		case <-a.fsm.Failed():
		default:
			t.Errorf("%s: the node was not told", name)
		}
		if o := a.apply(command.Entry{Time: 2}); o.Err == nil {
			t.Errorf("%s: it went on", name)
		}
		if applied, _ := a.fsm.Indexes(); applied != 0 {
			t.Errorf("%s: applied %d", name, applied)
		}
		_ = a.fsm.Close()
	}
}

func TestReplayedEntryOfAnotherHistoryStopsTheNode(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "f"))
	defer func() { _ = a.fsm.Close() }()
	a.apply(command.Entry{Time: 1})
	o := a.fsm.ApplyBatch([]*raft.Log{{Index: 1, Term: 2, Type: raft.LogCommand, Data: command.AppendEntry(nil, command.Entry{Time: 1})}})[0].(*raftfsm.Outcome)
	if o.Err == nil || !strings.Contains(o.Err.Error(), "do not belong together") {
		t.Error(o.Err)
	}
}

// A command over the limit is refused before it is proposed, an entry over it before it
// is written; the log stays readable.
func TestOversizedIsRefusedAndTheLogStaysReadable(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	n := start(t, path)
	n.push(t, "before")
	_, err := n.proposer.Propose(t.Context(), &command.Command{Op: command.Push, Queue: "q", Payload: make([]byte, command.MaxCommand+1)})
	if !errors.Is(err, command.ErrTooLarge) {
		t.Error("a command:", err)
	}
	if _, err := n.queue.Push(t.Context(), "q", []byte(strings.Repeat("x", command.MaxPayload+1)), 0); !errors.Is(err, queue.ErrPayloadTooLarge) {
		t.Error("a payload:", err)
	}
	n.push(t, strings.Repeat("x", command.MaxPayload))
	n.stop(t)
	n = start(t, path)
	if n.stats(t).Gauges.Ready != 2 {
		t.Errorf("%+v", n.stats(t))
	}
	// Past the proposer's check: the log itself refuses, and raft steps down.
	if err := n.group.Raft.Apply(make([]byte, raftfsm.MaxEntry+1), 0).Error(); err == nil {
		t.Error("an entry over the limit was written")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = n.proposer.Close(ctx)
	n.leader.Close()
	if err := errors.Join(n.group.Close(), n.dir.Close()); err != nil {
		t.Error(err)
	}
	n = start(t, path)
	defer n.stop(t)
	if n.stats(t).Gauges.Ready != 2 {
		t.Errorf("after the refusal %+v", n.stats(t))
	}
}

// Snapshots are references: they cost a commit, the log behind them goes, and a restart
// goes on from there.
func TestSnapshotByReference(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	n := start(t, path)
	for range 400 {
		n.push(t, "x")
	}
	if err := n.group.Snapshot(); err != nil {
		t.Fatal(err)
	}
	st, err := n.group.LogStats()
	if err != nil || st.SnapshotIndex == 0 {
		t.Fatal(st, err)
	}
	n.push(t, "after")
	n.stop(t)
	n = start(t, path)
	defer n.stop(t)
	if g := n.stats(t).Gauges; g.Ready != 401 {
		t.Errorf("%+v", g)
	}
	if err := n.group.FSM.Inspect(func(s *queue.State, tx *storage.Tx) error { return s.Check(tx) }); err != nil {
		t.Error(err)
	}
}

// Many callers at once: every answer is a job of its own, and all are there.
func TestConcurrentPushesAreCoalesced(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	defer n.stop(t)
	before, _ := n.group.FSM.Indexes()
	const callers, each = 32, 50
	ids := make(chan command.JobID, callers*each)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				id, err := n.queue.Push(t.Context(), "q", []byte("x"), 0)
				if err != nil {
					t.Error(err)
					return
				}
				ids <- id
			}
		})
	}
	wg.Wait()
	close(ids)
	seen := map[command.JobID]bool{}
	for id := range ids {
		if seen[id] {
			t.Error("an id came twice:", id)
		}
		seen[id] = true
	}
	after, _ := n.group.FSM.Indexes()
	if g := n.stats(t).Gauges.Ready; g != callers*each || len(seen) != callers*each {
		t.Error(g, len(seen))
	}
	if entries := after - before; entries > callers*each/4 {
		t.Errorf("%d pushes took %d log entries: they were not coalesced", callers*each, entries)
	}
}
