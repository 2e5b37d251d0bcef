package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
	"pogod/internal/command"
	"pogod/internal/datadir"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// journal is a log whose lines can be waited for.
type journal struct {
	mu    sync.Mutex
	cond  *sync.Cond
	lines []string
}

func newJournal() *journal {
	j := &journal{}
	j.cond = sync.NewCond(&j.mu)
	return j
}

func (j *journal) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	j.lines = append(j.lines, string(p))
	j.mu.Unlock()
	j.cond.Broadcast()
	return len(p), nil
}

func has(line string, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
}

// await waits for n lines with all the words.
func (j *journal) await(t testing.TB, n int, words ...string) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		j.mu.Lock()
		late = true
		j.mu.Unlock()
		j.cond.Broadcast()
	})
	defer timer.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.count(words) < n {
		if late {
			t.Fatalf("no %d lines with %q in:\n%s", n, words, strings.Join(j.lines, ""))
		}
		j.cond.Wait()
	}
}

func (j *journal) count(words []string) (n int) {
	for _, l := range j.lines {
		if has(l, words) {
			n++
		}
	}
	return n
}

// said returns how many lines with all the words there are.
func (j *journal) said(words ...string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count(words)
}

// get waits for something on a channel.
func get[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("waited in vain for", what)
	}
	return v
}

// eventually asks again and again: for what nobody signals.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("waited in vain until", what)
		}
	}
}

// fakeRaft is a Raft that is told who leads.
type fakeRaft struct {
	mu        sync.Mutex
	leader    string
	servers   []raft.Server
	index     uint64
	observers int
	addErr    error
	added     chan string // "nonvoter <id>", "voter <id>", "demoted <id>", "removed <id>" or "leader <id>"
}

type fakeFuture struct {
	raft.IndexFuture
	err   error
	index uint64
	conf  raft.Configuration
}

func (f *fakeFuture) Error() error                      { return f.err }
func (f *fakeFuture) Index() uint64                     { return f.index }
func (f *fakeFuture) Configuration() raft.Configuration { return f.conf }

func (r *fakeRaft) LeaderWithID() (raft.ServerAddress, raft.ServerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return raft.ServerAddress(r.leader), raft.ServerID(r.leader)
}

func (r *fakeRaft) RegisterObserver(*raft.Observer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observers++
}

func (r *fakeRaft) DeregisterObserver(*raft.Observer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observers--
}

func (r *fakeRaft) GetConfiguration() raft.ConfigurationFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &fakeFuture{index: r.index, conf: raft.Configuration{Servers: slices.Clone(r.servers)}}
}

func (r *fakeRaft) AddNonvoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.add(raft.Server{Suffrage: raft.Nonvoter, ID: id, Address: a}, "nonvoter ", prev)
}

func (r *fakeRaft) AddVoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.add(raft.Server{Suffrage: raft.Voter, ID: id, Address: a}, "voter ", prev)
}

func (r *fakeRaft) DemoteVoter(id raft.ServerID, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.add(raft.Server{Suffrage: raft.Nonvoter, ID: id, Address: raft.ServerAddress(id)}, "demoted ", prev)
}

func (r *fakeRaft) RemoveServer(id raft.ServerID, prev uint64, _ time.Duration) raft.IndexFuture {
	f := r.add(raft.Server{ID: id}, "removed ", prev)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers = slices.DeleteFunc(r.servers, func(o raft.Server) bool { return o.ID == id })
	return f
}

func (r *fakeRaft) LeadershipTransferToServer(id raft.ServerID, _ raft.ServerAddress) raft.Future {
	r.added <- "leader " + string(id)
	return &fakeFuture{}
}

func (r *fakeRaft) add(s raft.Server, as string, prev uint64) raft.IndexFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addErr != nil {
		return &fakeFuture{err: r.addErr}
	}
	if prev != 0 && prev != r.index { // 0: whatever it is
		return &fakeFuture{err: fmt.Errorf("the configuration is %d, not %d", r.index, prev)}
	}
	r.index++
	r.servers = slices.DeleteFunc(r.servers, func(o raft.Server) bool { return o.ID == s.ID })
	r.servers = append(r.servers, s)
	r.added <- as + string(s.ID)
	return &fakeFuture{index: r.index}
}

// fakeLeader is a Leader that notes what it is given.
type fakeLeader struct {
	mu     sync.Mutex
	err    error         // answers everything
	hold   chan struct{} // no batch is answered before it is closed; nil: at once
	index  uint64
	waits  atomic.Int64 // for batches
	called chan string  // gets each call, in the order of the calls; nil: nothing is noted
}

func newFakeLeader() *fakeLeader { return &fakeLeader{called: make(chan string, 10_000)} }

// quiet notes nothing from now on.
func (l *fakeLeader) quiet() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.called = nil
}

func (l *fakeLeader) note(format string, args ...any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.called == nil {
		return l.err
	}
	l.called <- fmt.Sprintf(format, args...)
	return l.err
}

// fail answers everything with that error from now on.
func (l *fakeLeader) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// keep answers no batch that comes from now on before release, or the end of the test.
func (l *fakeLeader) keep(t testing.TB) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hold := make(chan struct{})
	l.hold = hold
	release = sync.OnceFunc(func() {
		l.mu.Lock()
		l.hold = nil
		l.mu.Unlock()
		close(hold)
	})
	t.Cleanup(release)
	return release
}

func (l *fakeLeader) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	text := string(batch)
	if len(text) > 64 {
		text = fmt.Sprintf("%d bytes", len(text))
	}
	err := l.note("submit %s %v", text, pushes)
	l.mu.Lock()
	hold := l.hold
	l.index++
	o := &raftfsm.Outcome{
		Index: l.index, Status: raftfsm.Gap, Last: uint64(len(batch)),
		Results: []command.Result{{Code: command.Accepted, Job: command.JobID{Millis: 5, Seq: l.index}}, {Code: command.Failure}},
		Leader:  []command.Result{{Count: 3}},
	}
	l.mu.Unlock()
	return func() (*raftfsm.Outcome, error) {
		l.waits.Add(1)
		if hold != nil {
			<-hold
		}
		if err != nil {
			return nil, err
		}
		return o, nil
	}
}

func (l *fakeLeader) OpenSession(node string, number uint64) (uint64, error) {
	return 7, l.note("open %s %d", node, number)
}

func (l *fakeLeader) EndSession(session uint64) error { return l.note("end %d", session) }

func (l *fakeLeader) Offer(c leader.Credits) { _ = l.note("offer %+v", c) }

func (l *fakeLeader) ReadIndex(ctx context.Context) (uint64, error) {
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	err := l.note("read")
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	return 42, err
}

func (l *fakeLeader) ResetTime(context.Context) (leader.Reset, error) {
	return leader.Reset{Back: 90 * time.Second, To: time.UnixMilli(1_763_849_472_000)}, l.note("reset")
}

func (l *fakeLeader) Redefine(_ context.Context, definitions []byte, hash string) error {
	return l.note("define %s %s", definitions, hash)
}

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
