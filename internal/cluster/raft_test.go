package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
	"pogod/internal/datadir"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

// state is a state machine that keeps what it is given.
type state struct {
	mu      sync.Mutex
	entries []string
	applied atomic.Uint64
}

func (s *state) Apply(l *raft.Log) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, string(l.Data))
	s.applied.Store(l.Index)
	return l.Index
}

func (s *state) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }
func (s *state) Restore(r io.ReadCloser) error       { return r.Close() }

func (s *state) has(entries ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(entries, func(e string) bool { return !slices.Contains(s.entries, e) })
}

// applier is the Leader of a node with a real raft.
type applier struct{ r *raft.Raft }

func (applier) ResetTime(context.Context) (leader.Reset, error) { return leader.Reset{}, nil }
func (applier) Redefine(context.Context, []byte, string) error  { return nil }
func (a applier) Submit(batch []byte, _ []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	f := a.r.Apply(batch, time.Second)
	return func() (*raftfsm.Outcome, error) {
		if err := f.Error(); err != nil {
			return nil, err
		}
		return &raftfsm.Outcome{Index: f.Index()}, nil
	}
}

func (a applier) OpenSession(string, uint64) (uint64, error)    { return 1, nil }
func (a applier) EndSession(uint64) error                       { return nil }
func (a applier) Offer(leader.Credits)                          {}
func (a applier) ReadIndex(ctx context.Context) (uint64, error) { return 0, ctx.Err() }

// member of a real group.
type memberNode struct {
	*Cluster
	r       *raft.Raft
	s       *state
	listens string
	journal *journal
	stop    func()
}

// run opens a member on its directory; first begins the group.
func run(t *testing.T, dir *datadir.Dir, ln net.Listener, first bool) *memberNode {
	t.Helper()
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &memberNode{s: &state{}, listens: ln.Addr().String(), journal: newJournal()}
	if m.Cluster, err = Open(Config{
		Identity: id, Tokens: identity.NewTokens(id, time.Now), Listener: ln, Advertise: m.listens, Start: 1,
		Dir: dir, Clock: clock.System(), Log: m.journal.log(),
	}); err != nil {
		t.Fatal(err)
	}
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id.Node)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond, 2*time.Millisecond
	c.Logger = hclog.NewNullLogger()
	store, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	if first {
		if err := raft.BootstrapCluster(c, store, store, snaps, m.Transport(), raft.Configuration{
			Servers: []raft.Server{{ID: c.LocalID, Address: raft.ServerAddress(c.LocalID)}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if m.r, err = raft.NewRaft(c, m.s, store, store, snaps, m.Transport()); err != nil {
		t.Fatal(err)
	}
	m.stop = sync.OnceFunc(func() {
		if err := m.r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(m.stop)
	m.Serve(Services{Raft: m.r, Leader: applier{m.r}, Applied: m.s.applied.Load})
	return m
}

// From one node to three by tokens, over real raft; then the one that leads goes, and the
// others go on.
func TestThreeNodesOverRaft(t *testing.T) {
	t.Parallel()
	place := func() (*datadir.Dir, net.Listener) {
		dir, err := datadir.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return dir, ln
	}
	dir, ln := place()
	if _, err := identity.Init(dir); err != nil {
		t.Fatal(err)
	}
	all := []*memberNode{run(t, dir, ln, true)}
	all[0].journal.await(t, 1, "this node leads")
	for i := range 2 {
		// The third joins at the second, which does not lead.
		at := all[i]
		dir, ln := place()
		token, _ := at.cfg.Tokens.Issue()
		id, peers, err := identity.Join(t.Context(), dir, at.listens, token, ln.Addr().String())
		if err == nil {
			err = WritePeers(dir, peers)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := run(t, dir, ln, false)
		all = append(all, m)
		all[0].journal.await(t, 1, "node promoted", id.Node)
		m.journal.await(t, 1, "node leads", all[0].cfg.Identity.Node)
		m.journal.await(t, 1, "link up", all[0].cfg.Identity.Node)
	}
	var entries []string
	submit := func(m *memberNode, entry string) {
		t.Helper()
		eventually(t, entry+" is applied", func() bool {
			_, err := m.Submit([]byte(entry), nil)()
			return err == nil
		})
		entries = append(entries, entry)
	}
	for i, m := range all {
		submit(m, fmt.Sprint("by node ", i))
	}
	for i, m := range all {
		eventually(t, fmt.Sprint("node ", i, " has all"), func() bool { return m.s.has(entries...) })
	}
	eventually(t, "all have a vote", func() bool {
		members := all[2].Members()
		return len(members) == 3 && !slices.ContainsFunc(members, func(m Member) bool { return !m.Voter || !m.Up })
	})
	all[0].stop()
	for i, m := range all[1:] {
		submit(m, fmt.Sprint("without the first, by node ", i+1))
	}
	for i, m := range all[1:] {
		eventually(t, fmt.Sprint("node ", i+1, " has all"), func() bool { return m.s.has(entries...) })
		if m.journal.said("node leads") < 1 && m.journal.said("this node leads") < 1 {
			t.Error("nobody said who leads")
		}
	}
	if all[1].leads() == all[2].leads() {
		t.Error("not one of the two leads")
	}
}
