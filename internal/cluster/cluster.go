package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
	"pogod/internal/command"
	"pogod/internal/datadir"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

// Leader is *leader.Leader: what the node does when it leads. It answers errors by itself
// when it does not.
type Leader interface {
	raftfsm.Submitter
	// Offer takes a node's credits.
	Offer(c leader.Credits)
	// ReadIndex returns an entry that holds all that was answered before the call.
	ReadIndex(ctx context.Context) (uint64, error)
	// ResetTime sets cluster time back to the median of the voters' clocks.
	ResetTime(ctx context.Context) (leader.Reset, error)
	// Redefine puts definitions of the queues in force.
	Redefine(ctx context.Context, definitions []byte, hash string) error
}

// Raft is the part of *raft.Raft that a Cluster needs.
type Raft interface {
	LeaderWithID() (raft.ServerAddress, raft.ServerID)
	RegisterObserver(o *raft.Observer)
	DeregisterObserver(o *raft.Observer)
	GetConfiguration() raft.ConfigurationFuture
	AddNonvoter(id raft.ServerID, address raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	AddVoter(id raft.ServerID, address raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	DemoteVoter(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	RemoveServer(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	LeadershipTransferToServer(id raft.ServerID, address raft.ServerAddress) raft.Future
}

// Config of a Cluster.
type Config struct {
	Identity  *identity.Identity
	Tokens    *identity.Tokens // with which nodes may join here
	Listener  net.Listener     // plain TCP; the Cluster puts TLS over it and closes it
	Advertise string           // host:port at which the members reach this node
	Start     uint64           // of the node, greater with each: the version of Advertise
	Seeds     []string         // more addresses to look for members at
	Dir       *datadir.Dir     // keeps where the members are
	Clock     clock.Clock
	Log       *slog.Logger
}

// Services are what the cluster's messages are for.
type Services struct {
	Raft    Raft
	Leader  Leader
	Applied func() uint64 // the entry that this node applied last
	// LeaderChanged is called, from one goroutine, when another node leads or none, and
	// when the link to the one that leads is up again: what was on its way is to be sent
	// again, credits are to be offered anew. It must return soon. nil: nobody wants to
	// know.
	LeaderChanged func()
	// Reaches reports whether a node that has applied so far gets the rest from this one's
	// log. Another one is sent the data file first. nil: every one does.
	Reaches func(applied uint64) bool
	// SendState writes this node's data file for the node with that id. nil: there is none.
	SendState func(node string, w io.Writer) error
	// Level is the cluster's feature level, and Raise raises it, when this node leads. nil:
	// it stays what it is.
	Level func() uint64
	Raise func(level uint64) error
	// Measured is called with what another node's wall clock said, at some moment between
	// two of this node's Mono. nil: nobody wants to know.
	Measured func(node string, wall time.Time, sent, received time.Duration)
	// Tight reports whether this node's disk has little room, so that another one had better
	// lead. nil: it never has.
	Tight func() bool
}

// Cluster is this node's port to the others. It implements raftfsm.Submitter.
type Cluster struct {
	cfg       Config
	book      *book
	stream    *stream
	transport transport

	ctx      context.Context // ended by Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	closing  sync.Once
	serving  chan struct{} // closed by Serve
	services Services      // set before that
	observed chan raft.Observation
	linked   chan struct{} // holds one signal: the link to the leader is up
	joining  chan struct{} // the nodes that are joining
	sending  chan struct{} // the data files that are being sent

	mu          sync.Mutex // guards the rest
	closed      bool
	conns       map[net.Conn]struct{}
	links       map[*link]struct{} // all that are up, either way
	peers       map[string]*peer   // the other nodes, by id
	leader      string             // who leads, by the last word of raft; "": nobody
	credits     *leader.Credits    // wait for the next batch
	lastRefused time.Time          // when a line told of a refused connection
	yieldAt     time.Duration      // by Mono; before it this node does not hand over for want of room again
	unrenewed   error              // why the node's certificate could not be taken from its files or renewed
}

// observations bounds the changes of the leader that wait; when more come at once, the
// last is asked for.
const observations = 64

// Open accepts connections. Links and forwarding begin with Serve, raft may begin at once.
func Open(cfg Config) (*Cluster, error) {
	own := identity.Peer{ID: cfg.Identity.Node, Address: cfg.Advertise, Version: cfg.Start}
	if err := checkPeer(own); err != nil {
		return nil, fmt.Errorf("[cluster] advertise: %w", err)
	}
	c := &Cluster{
		cfg: cfg, book: newBook(own), serving: make(chan struct{}),
		observed: make(chan raft.Observation, observations), linked: make(chan struct{}, 1), joining: make(chan struct{}, joins), sending: make(chan struct{}, sends),
		conns: map[net.Conn]struct{}{}, links: map[*link]struct{}{}, peers: map[string]*peer{},
	}
	known, err := readPeers(cfg.Dir)
	if err != nil {
		cfg.Log.Warn("where the members are is to be learned anew: from those that reach this node, and from [cluster] join", "error", err)
	}
	c.book.learn(known...)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.stream = newStream(c)
	c.transport = newTransport(c.stream, cfg.Log)
	c.spawn(c.accept)  // ended by Close, which closes the listener
	c.spawn(c.refresh) // as well
	return c, nil
}

// Transport is raft's way to the other members. Its addresses are node ids, a worker's behind workerPrefix.
func (c *Cluster) Transport() raft.Transport { return c.transport }

// Serve begins links and forwarding. It is to be called once.
func (c *Cluster) Serve(s Services) {
	c.services = s
	o := raft.NewObserver(c.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	s.Raft.RegisterObserver(o)
	close(c.serving)
	// All are ended by Close.
	c.spawn(func() {
		c.follow()
		s.Raft.DeregisterObserver(o)
	})
	c.spawn(c.tend)
	c.spawn(c.promote)
	for _, address := range c.cfg.Seeds {
		c.spawn(func() { c.seek(address) })
	}
}

// Close ends everything. It waits for entries that other nodes asked for, which end when
// they are applied or raft is shut down.
func (c *Cluster) Close() error {
	var err error
	c.closing.Do(func() {
		c.cancel()
		err = errors.Join(c.cfg.Listener.Close(), c.transport.Close())
		c.transport.CloseStreams()
		c.mu.Lock()
		c.closed = true
		for nc := range c.conns {
			_ = nc.Close()
		}
		c.mu.Unlock()
	})
	c.wg.Wait()
	return err
}

// spawn starts a goroutine that Close ends and waits for; false when that has begun.
func (c *Cluster) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	go func() { // ended by what f says
		defer c.wg.Done()
		f()
	}()
	return true
}

// pause waits for d, a signal on wake, or Close.
func (c *Cluster) pause(d time.Duration, wake <-chan struct{}) (woken bool) {
	over := make(chan struct{})
	defer c.cfg.Clock.AfterFunc(d, func() { close(over) }).Stop()
	select {
	case <-over:
	case <-wake:
		return true
	case <-c.ctx.Done():
	}
	return false
}

// run keeps a link until it ends, and says why it did. up reports whether the node at the
// other end was linked by it.
func (c *Cluster) run(k *conn, dialed bool) (up bool, err error) {
	defer func() { _ = k.Close() }()
	if k.node == c.cfg.Identity.Node {
		return false, errSelf
	}
	if !c.pause(silence, c.serving) {
		return false, errors.New("this node does not serve yet")
	}
	r := bufio.NewReaderSize(paced{k}, 64<<10)
	h, err := greet(k, r, hello{c.services.Applied(), command.MaxLevel(), c.book.all()}, dialed)
	if err != nil {
		return false, c.tell(k, err)
	}
	if err := c.knowsEnough(h.level); err != nil {
		return false, fmt.Errorf("node %s is refused: %w", k.node, err)
	}
	c.book.learn(h.book...)
	if c.book.isRemoved(k.node) || c.book.isRemoved(c.cfg.Identity.Node) {
		return false, errRemoved // it has been told, by this side's hello
	}
	l := newLink(k)
	l.level = h.level
	l.dialed = dialed
	if !c.attach(l, dialed) {
		return false, errSecond
	}
	c.heard(l.node, h.applied)
	c.spawn(l.write)                                             // ended by the end of the link
	c.spawn(func() { c.pings(l) })                               // as well
	l.post(appendPeers(newFrame(opBook, 1024), c.book.all()), 0) // it may have changed since the hello
	err = c.tell(k, l.read(r, c.handle))
	l.end()
	c.detach(l, dialed, err)
	c.withdraw(l)
	return true, err
}

// withdraw takes back what the other side offered over a link that has ended, unless it
// has another: a node that died gets no more jobs, while its session lives on.
func (c *Cluster) withdraw(l *link) {
	c.mu.Lock()
	linked := false
	for o := range c.links {
		linked = linked || o.node == l.node && !o.dialed
	}
	c.mu.Unlock()
	if o := l.offered; o.Session != 0 && !linked {
		o.Pools = nil
		c.services.Leader.Offer(o)
	}
}

var (
	errRemoved = errors.New("the node was removed from the cluster")
	errSelf    = errors.New("this node itself answers at that address")
	errSecond  = errors.New("there is a link to that node already")
)

// tell says in the log what another node did wrong, and returns it.
func (c *Cluster) tell(k *conn, err error) error {
	if errors.Is(err, errMalformed) {
		c.cfg.Log.Warn("a link was closed", "node", k.node, "from", k.RemoteAddr(), "error", err)
	}
	return err
}

// tend keeps the book in the data directory, and tells the others, whenever it changes.
func (c *Cluster) tend() {
	for {
		peers := c.book.all()
		if err := WritePeers(c.cfg.Dir, peers); err != nil {
			c.cfg.Log.Warn("after a restart this node may not find the others", "error", err)
		}
		c.meet(peers)
		select {
		case <-c.book.changed:
		case <-c.ctx.Done():
			return
		}
	}
}

// meet sees that each node in the book is dialed, at once where that waits, and sends the
// book over all links.
func (c *Cluster) meet(peers []identity.Peer) {
	for _, p := range peers {
		if p.ID != c.cfg.Identity.Node && p.Version != removed {
			c.peer(p.ID).signal()
		}
	}
	c.mu.Lock()
	links := slices.Collect(maps.Keys(c.links))
	c.mu.Unlock()
	for _, l := range links {
		l.post(appendPeers(newFrame(opBook, 1024), peers), 0)
	}
	c.cutOff()
}
