package raftfsm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/internal/datadir"
	"pogod/queue"
	"pogod/raftfsm"
	"pogod/raftfsm/clocks"
	"pogod/raftfsm/leader"
)

// trio is three members of a group in one process: real raft, logs and files, over
// transports that can be cut.
type trio struct {
	t        *testing.T
	members  []*member
	logBytes int64

	mu  sync.Mutex // guards cut
	cut map[*member]bool
}

type member struct {
	trio      *trio
	dir       *datadir.Dir
	transport *raft.InmemTransport
	clock     clock.Clock
	clocks    *clocks.Clocks // nil: its own clock is all
	group     *raftfsm.Group
	leader    *leader.Leader
	proposer  *raftfsm.Proposer
	queue     *queue.Client
	sent      atomic.Uint64 // batches
	asked     int           // by Fetch
}

func newTrio(t *testing.T) *trio { t.Helper(); return newTrioWith(t, 0, nil) }

// newTrioOf is newTrio with other bounds of the log; 0: those of always.
func newTrioOf(t *testing.T, logBytes int64) *trio { t.Helper(); return newTrioWith(t, logBytes, nil) }

// newTrioWith makes one whose members are prepared before they start; nil: by nothing.
func newTrioWith(t *testing.T, logBytes int64, prepare func(i int, m *member)) *trio {
	t.Helper()
	c := &trio{t: t, cut: map[*member]bool{}, logBytes: logBytes}
	path := t.TempDir()
	for i := range 3 {
		m := &member{trio: c, clock: clock.System()}
		if prepare != nil {
			prepare(i, m)
		}
		var err error
		if m.dir, err = datadir.Open(filepath.Join(path, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		_, m.transport = raft.NewInmemTransport(raft.ServerAddress(m.dir.NodeID()))
		c.members = append(c.members, m)
	}
	for i, m := range c.members {
		c.connect(m)
		m.open(i > 0)
	}
	c.measureOnce()
	first := c.members[0]
	if err := first.leader.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members[1:] {
		id := raft.ServerID(m.dir.NodeID())
		if err := first.group.Raft.AddVoter(id, raft.ServerAddress(id), 0, 0).Error(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(c.close)
	for _, m := range c.members {
		for m.proposer.Session() == 0 {
			<-m.proposer.Confirmed()
		}
	}
	return c
}

func (m *member) open(joins bool) {
	t, log := m.trio.t, slog.New(slog.DiscardHandler)
	t.Helper()
	var err error
	m.group, err = raftfsm.Open(t.Context(), raftfsm.Config{Dir: m.dir, Clock: m.clock, Log: log, Transport: m.transport, Joins: joins, LogBytes: m.trio.logBytes, Peers: m})
	if err != nil {
		t.Fatal(err)
	}
	var all leader.Clocks
	if _, ok := m.clock.(*clock.Skewed); ok {
		m.clocks = m.newClocks(log)
		all = m.clocks
	}
	encoded, hash := definitions.Encode()
	m.leader = leader.New(leader.Config{
		Raft: m.group.Raft, State: m.group.FSM, Clock: m.clock, Clocks: all, Definitions: encoded, Hash: hash, Log: log,
		Node: m.dir.NodeID(), SessionTTL: ttl,
	})
	m.proposer = raftfsm.NewProposer(raftfsm.ProposerConfig{
		Node: m.dir.NodeID(), NextOpening: m.dir.NextOpening, Submitter: m, Clock: m.clock, Gather: time.Millisecond,
		SessionTTL: ttl, Timeout: 20 * time.Second, Log: log,
	})
	m.queue = queue.NewClient(m.proposer, m.group.FSM)
}

// shut ends a member and leaves its files.
func (m *member) shut() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.proposer.Close(over) // what is under way is of no interest
	_ = m.group.Raft.Shutdown().Error()
	m.leader.Close()
	if err := m.group.Close(); err != nil {
		m.trio.t.Log(err) // it may have failed
	}
}

// back opens a member that was shut, on the same transport.
func (m *member) back() {
	m.trio.separate(m)
	_, m.transport = raft.NewInmemTransport(raft.ServerAddress(m.dir.NodeID()))
	m.trio.connect(m)
	m.open(true)
}

// Fetch implements raftfsm.Peers: it asks the others in turn.
func (m *member) Fetch(_ context.Context, take func(node string, r io.Reader) error) error {
	m.asked++
	o := m.trio.members[m.asked%3]
	if o == m {
		return errors.New("it is the node itself")
	}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(o.group.SendState(m.dir.NodeID(), w)) }() // ended by the end of either
	return errors.Join(take(o.dir.NodeID(), r), r.Close())
}

func (c *trio) close() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for _, m := range c.members {
		_ = m.proposer.Close(over) // what is under way is of no interest
	}
	for _, m := range c.members {
		m.leader.Close()
		if err := errors.Join(m.group.Close(), m.dir.Close()); err != nil {
			c.t.Error(err)
		}
	}
}

// connect lets a member talk to those that are not cut.
func (c *trio) connect(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cut, m)
	for _, o := range c.members {
		if o != m && !c.cut[o] {
			m.transport.Connect(o.transport.LocalAddr(), o.transport)
			o.transport.Connect(m.transport.LocalAddr(), m.transport)
		}
	}
}

// separate cuts a member from the others, both ways.
func (c *trio) separate(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[m] = true
	for _, o := range c.members {
		if o != m {
			m.transport.Disconnect(o.transport.LocalAddr())
			o.transport.Disconnect(m.transport.LocalAddr())
		}
	}
}

// leading waits until a member that is not cut leads and all that are not know it.
func (c *trio) leading() *member {
	c.t.Helper()
	for {
		votes := map[*member]int{}
		want := 0
		c.mu.Lock()
		for _, m := range c.members {
			if !c.cut[m] {
				want++
				votes[m.knows()]++
			}
		}
		cut := c.cut
		for m, n := range votes {
			if m != nil && n == want && !cut[m] && m.leader.Leading() {
				c.mu.Unlock()
				return m
			}
		}
		c.mu.Unlock()
		select {
		case <-time.After(5 * time.Millisecond):
		case <-c.t.Context().Done():
			c.t.Fatal("nobody leads")
		}
	}
}

// knows returns the member that this one believes to lead, nil for none.
func (m *member) knows() *member {
	_, id := m.group.Raft.LeaderWithID()
	for _, o := range m.trio.members {
		if o.dir.NodeID() == string(id) {
			return o
		}
	}
	return nil
}

// reach returns the leader, if there is a way to it.
func (m *member) reach() *leader.Leader {
	l := m.knows()
	m.trio.mu.Lock()
	defer m.trio.mu.Unlock()
	if l == nil || l != m && (m.trio.cut[m] || m.trio.cut[l]) {
		return nil
	}
	return l.leader
}

// Submit, OpenSession and EndSession are a link to whoever leads.

func (m *member) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	l := m.reach()
	if l == nil {
		return func() (*raftfsm.Outcome, error) { return nil, raftfsm.ErrNotSent }
	}
	wait := l.Submit(batch, pushes)
	if m.sent.Add(1)%10 != 0 {
		return wait
	}
	return func() (*raftfsm.Outcome, error) { // one answer in ten is lost
		_, _ = wait()
		return nil, errLost
	}
}

func (m *member) OpenSession(node string, number uint64) (uint64, error) {
	if l := m.reach(); l != nil {
		return l.OpenSession(node, number)
	}
	return 0, raftfsm.ErrNotSent
}

func (m *member) EndSession(session uint64) error {
	if l := m.reach(); l != nil {
		return l.EndSession(session)
	}
	return raftfsm.ErrNotSent
}

// follower returns a member other than those.
func (c *trio) follower(not ...*member) *member {
	for _, m := range c.members {
		ok := true
		for _, n := range not {
			ok = ok && m != n
		}
		if ok {
			return m
		}
	}
	return nil
}

// equal waits until all have applied the same and compares their states.
func (c *trio) equal() {
	c.t.Helper()
	l := c.leading()
	if err := l.group.Raft.Barrier(0).Error(); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.members {
		_ = m.proposer.Close(c.t.Context()) // keep-alives would go on changing the state
	}
	if err := l.group.Raft.Barrier(0).Error(); err != nil {
		c.t.Fatal(err)
	}
	var first [32]byte
	for i, m := range c.members {
		if err := m.group.FSM.WaitApplied(c.t.Context(), l.group.FSM.Applied()); err != nil {
			c.t.Fatal(err)
		}
		sum, at, err := m.group.FSM.Hash()
		if err != nil {
			c.t.Fatal(err)
		}
		if i == 0 {
			first = sum
		} else if sum != first {
			c.t.Errorf("member %d has another state at entry %d", i, at)
		}
	}
}

// load pushes from a member until it is told to stop. What was answered must be there
// once; all that it returns has an answer.
type load struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex // guards the rest
	accepted map[command.JobID]bool
	failed   []error
	twice    int
	moved    chan struct{} // gets a signal at each answer
}

func (m *member) load(callers int) *load {
	l := &load{stop: make(chan struct{}), accepted: map[command.JobID]bool{}, moved: make(chan struct{}, 1)}
	for i := range callers {
		l.wg.Go(func() { // ended by stop
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				id, err := m.queue.Push(context.Background(), "q", fmt.Appendf(nil, "%d/%d", i, n), 0)
				l.mu.Lock()
				switch {
				case err != nil:
					l.failed = append(l.failed, err)
				case l.accepted[id]:
					l.twice++
				default:
					l.accepted[id] = true
				}
				l.mu.Unlock()
				select {
				case l.moved <- struct{}{}:
				default:
				}
			}
		})
	}
	return l
}

// more waits for n more answers.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.accepted) + len(l.failed)
	}
	for end := count() + n; count() < end; {
		select {
		case <-l.moved:
		case <-time.After(patience):
			t.Fatal("pushes are not answered any more")
		}
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}
