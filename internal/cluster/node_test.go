package cluster

import (
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
	"pogod/internal/datadir"
)

// node is a Cluster with what it needs.
type node struct {
	*Cluster
	t       testing.TB
	dir     *datadir.Dir
	id      string
	listens string
	way     *proxy // to it, for the others
	start   uint64
	seeds   []string
	raft    *fakeRaft
	leader  *fakeLeader
	applied *uint64 // guarded by raft.mu
	changed chan struct{}
	clock   clock.Clock
	journal *journal
	first   atomic.Uint64 // entry of its log
	send    func(node string, w io.Writer) error
	clocks  chan measured
	little  atomic.Bool // room on its disk
}

// measured is what Services.Measured was called with.
type measured struct {
	node           string
	wall           time.Time
	sent, received time.Duration
}

func newNode(t testing.TB) *node {
	t.Helper()
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	n := &node{
		t: t, dir: dir, id: dir.NodeID(), way: newProxy(t), applied: new(uint64), changed: make(chan struct{}, 1000), journal: newJournal(),
		raft: &fakeRaft{added: make(chan string, 100)}, leader: newFakeLeader(), clock: clock.System(), clocks: make(chan measured, 1),
	}
	return n
}

// open opens and serves it, at a new port.
func (n *node) open() *node {
	n.t.Helper()
	id, err := identity.Load(n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.listens = ln.Addr().String()
	n.way.lead(n.listens)
	n.start++
	if n.Cluster, err = Open(Config{
		Identity: id, Tokens: identity.NewTokens(id, time.Now), Listener: ln, Advertise: n.way.address(), Start: n.start,
		Seeds: n.seeds, Dir: n.dir, Clock: n.clock, Log: n.journal.log(),
	}); err != nil {
		n.t.Fatal(err)
	}
	c := n.Cluster
	n.t.Cleanup(func() { c.Close() })
	n.Serve(Services{
		Raft: n.raft, Leader: n.leader,
		Applied: func() uint64 {
			n.raft.mu.Lock()
			defer n.raft.mu.Unlock()
			return *n.applied
		},
		LeaderChanged: func() { n.changed <- struct{}{} },
		SendState:     n.send,
		Measured: func(node string, wall time.Time, sent, received time.Duration) {
			select {
			case n.clocks <- measured{node, wall, sent, received}:
			default: // nobody wants to know now
			}
		},
		Reaches: func(applied uint64) bool { return applied+1 >= n.first.Load() },
		Tight:   n.little.Load,
	})
	return n
}

// applies sets how far it has applied, and waits until all of them know.
func (n *node) applies(index uint64, all ...*node) {
	n.t.Helper()
	n.raft.mu.Lock()
	*n.applied = index
	n.raft.mu.Unlock()
	for _, o := range all {
		eventually(n.t, "it is known how far it is", func() bool {
			return slices.ContainsFunc(o.Members(), func(m Member) bool { return m.ID == n.id && m.Applied == index })
		})
	}
}

// lead tells raft, and it the cluster, who leads.
func (n *node) lead(id string) {
	n.raft.mu.Lock()
	n.raft.leader = id
	n.raft.mu.Unlock()
	n.observed <- raft.Observation{Data: raft.LeaderObservation{LeaderID: raft.ServerID(id)}}
}

// found makes a cluster of one node, which leads.
func found(t testing.TB) *node {
	t.Helper()
	return newNode(t).found()
}

func (n *node) found() *node {
	t := n.t
	t.Helper()
	if _, err := identity.Init(n.dir); err != nil {
		t.Fatal(err)
	}
	n.raft.leader = n.id
	n.raft.servers = []raft.Server{{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.id)}}
	n.open()
	get(t, n.changed, "who leads")
	return n
}

// join brings a node in at another, and opens it.
func (n *node) join(at *node) *node {
	n.t.Helper()
	token, _ := at.cfg.Tokens.Issue()
	_, peers, err := identity.Join(n.t.Context(), n.dir, at.listens, token, n.way.address())
	if err == nil {
		err = WritePeers(n.dir, peers)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return n.open()
}

// three makes a cluster of three that are linked; the first leads.
func three(t testing.TB) (a, b, c *node) {
	t.Helper()
	a = found(t)
	b = newNode(t).join(a)
	c = newNode(t).join(a)
	linked(t, a, b, c)
	for _, n := range []*node{b, c} {
		n.lead(a.id)
		get(t, n.changed, "who leads")
	}
	return a, b, c
}

// linked waits until each has a link to each.
func linked(t testing.TB, all ...*node) {
	t.Helper()
	for _, n := range all {
		for _, o := range all {
			if n != o {
				eventually(t, n.id+" is linked with "+o.id, func() bool { return n.linkTo(o.id) != nil })
			}
		}
	}
}

// calls waits until its leader was called that way.
func (n *node) wants(call string) {
	n.t.Helper()
	if got := get(n.t, n.leader.called, call); got != call {
		n.t.Fatalf("the leader was called %q, not %q", got, call)
	}
}

// proxy leads TCP connections to an address, and can stop them.
type proxy struct {
	ln net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	open    *sync.Cond // stalled or closed changed
	to      string     // "": connections are refused
	stalled bool
	closed  bool
	conns   []net.Conn
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln}
	p.open = sync.NewCond(&p.mu)
	p.wg.Go(p.accept) // ended by the clean-up
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.open.Broadcast()
		ln.Close()
		p.cut("")
		p.wg.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.ln.Addr().String() }

func (p *proxy) lead(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

// cut ends what is open, and leads to that address from now on.
func (p *proxy) cut(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// stall stops all bytes, or lets them go on.
func (p *proxy) stall(on bool) {
	p.mu.Lock()
	p.stalled = on
	p.mu.Unlock()
	p.open.Broadcast()
}

func (p *proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		out, err := net.Dial("tcp", p.to)
		if err != nil || p.closed {
			in.Close()
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(in, out) }) // ended by either end
		p.wg.Go(func() { p.copy(out, in) })
	}
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(gate{p, to}, from)
}

type gate struct {
	p *proxy
	w io.Writer
}

func (g gate) Write(b []byte) (int, error) {
	g.p.mu.Lock()
	for g.p.stalled && !g.p.closed {
		g.p.open.Wait()
	}
	g.p.mu.Unlock()
	return g.w.Write(b)
}
