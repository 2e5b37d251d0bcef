package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/cluster/identity"
	"pogod/raftfsm"
)

const (
	leastPause = 100 * time.Millisecond // before a node is dialed again; doubled each time
	mostPause  = time.Second

	lookEvery   = 500 * time.Millisecond // at the nodes that may become voters
	heardWithin = time.Second            // by a node that becomes one
	lagWithin   = 1000                   // entries, behind this node

	admitAgain  = 100 * time.Millisecond
	raftEnqueue = 5 * time.Second // how long raft may be too busy to take a change of the members
)

// errBarred is the class of the errors with which the leader refuses a node.
var errBarred = errors.New("this node cannot join")

// workerPrefix begins the address of a worker in raft's configuration, before its id: a
// member that never has a vote. What all replicate, and keep for ever, needs no other place.
const workerPrefix = "worker:"

// raftAddress is where raft finds a node.
func raftAddress(id string, worker bool) raft.ServerAddress {
	if worker {
		id = workerPrefix + id
	}
	return raft.ServerAddress(id)
}

// nodeAt is the node at an address of raft's.
func nodeAt(a raft.ServerAddress) string { return strings.TrimPrefix(string(a), workerPrefix) }

func isWorker(s raft.Server) bool { return strings.HasPrefix(string(s.Address), workerPrefix) }

// peer is another node. All but id and wake is guarded by Cluster.mu.
type peer struct {
	id   string
	wake chan struct{} // holds one signal: it may be somewhere else

	link    *link         // the one dialed, nil while it is down
	up      chan struct{} // closed while it is up
	told    bool          // the log says that it is down
	heard   time.Time
	applied uint64
	trip    time.Duration // there and back
	tight   bool          // its disk has little room
	near    bool          // at the last look it was up and had applied nearly all
}

func (p *peer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// peer returns another node, which is dialed from now on.
func (c *Cluster) peer(id string) *peer {
	c.mu.Lock()
	p := c.peers[id]
	met := p == nil
	if met {
		p = &peer{id: id, wake: make(chan struct{}, 1), up: make(chan struct{})}
		c.peers[id] = p
	}
	c.mu.Unlock()
	if met {
		c.spawn(func() { c.reach(p) }) // ended by Close
	}
	return p
}

// reach keeps a link to a node until Close, or until it is removed.
func (c *Cluster) reach(p *peer) {
	pause := leastPause
	for c.ctx.Err() == nil && !c.book.isRemoved(p.id) {
		if c.linkTo(p.id) == nil && !c.replaced(p.id) {
			k, err := c.dial(c.book.address(p.id), p.id, identity.ProtoLink, dialFor)
			up := false
			if err == nil {
				up, err = c.run(k, true)
			}
			if up {
				pause = leastPause
			} else if !errors.Is(err, errSecond) {
				c.tellDown(p, err)
			}
		}
		if woken := c.pause(pause, p.wake); woken {
			pause = leastPause
		} else {
			pause = min(2*pause, mostPause)
		}
	}
}

// seek looks for a member at an address until Close: which node answers there is not
// known before, and may change.
func (c *Cluster) seek(address string) {
	node, told := "", false
	for pause := leastPause; c.ctx.Err() == nil; pause = min(2*pause, mostPause) {
		if node == "" || c.linkTo(node) == nil {
			k, err := c.dial(address, "", identity.ProtoLink, dialFor)
			up := false
			if err == nil {
				node = k.node
				up, err = c.run(k, true)
			}
			switch {
			case errors.Is(err, errSelf):
				return // the address stays this node's own
			case up:
				pause, told = leastPause, false
			case !told && !errors.Is(err, errSecond) && c.ctx.Err() == nil:
				told = true
				c.cfg.Log.Info("no member can be linked at an address of [cluster] join", "address", address, "reason", err)
			}
		}
		c.pause(pause, nil)
	}
}

// linkTo returns the link to a node that this one has dialed, nil while it is down.
func (c *Cluster) linkTo(node string) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[node]; p != nil {
		return p.link
	}
	return nil
}

// attach takes a link in; false when it was dialed and there is one to that node.
func (c *Cluster) attach(l *link, dialed bool) bool {
	p := c.peer(l.node)
	c.mu.Lock()
	if dialed && p.link != nil {
		c.mu.Unlock()
		return false
	}
	c.links[l] = struct{}{}
	if dialed {
		p.link, p.told = l, false
		close(p.up)
		if c.leader == p.id {
			select {
			case c.linked <- struct{}{}:
			default:
			}
		}
	}
	c.mu.Unlock()
	if dialed {
		c.cfg.Log.Info("link up", "node", p.id, "address", l.k.RemoteAddr())
	}
	return true
}

// detach takes out a link that has ended.
func (c *Cluster) detach(l *link, dialed bool, err error) {
	c.mu.Lock()
	delete(c.links, l)
	p := c.peers[l.node]
	if dialed {
		p.link, p.up = nil, make(chan struct{})
	}
	c.mu.Unlock()
	if dialed {
		c.tellDown(p, err)
	}
}

// tellDown says that a node cannot be reached, once.
func (c *Cluster) tellDown(p *peer, err error) {
	if c.ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	told := p.told
	p.told = true
	c.mu.Unlock()
	if told {
		c.cfg.Log.Debug("still no link", "node", p.id, "address", c.book.address(p.id), "reason", err)
		return
	}
	c.cfg.Log.Info("link down", "node", p.id, "address", c.book.address(p.id), "reason", err)
}

// awaitLink waits until there is a link to a node, for d at most.
func (c *Cluster) awaitLink(node string, d time.Duration) bool {
	c.mu.Lock()
	p := c.peers[node]
	var up chan struct{}
	if p != nil {
		up = p.up
	}
	c.mu.Unlock()
	return c.pause(d, up)
}

// heard notes a sign of life.
func (c *Cluster) heard(node string, applied uint64) {
	now := c.cfg.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[node]; p != nil {
		p.heard, p.applied = now, applied
	}
}

// pings says something on a link now and then, until it ends, and at once: the other
// side's clock is to be known before anything is stamped with it.
func (c *Cluster) pings(l *link) {
	for {
		l.post(appendPing(newFrame(opPing, 24), ping{c.services.Applied(), uint64(c.cfg.Clock.Mono())}), 0)
		if c.pause(pingEvery, l.quit) || c.ctx.Err() != nil {
			return
		}
	}
}

// pong takes the answer to a ping.
func (c *Cluster) pong(l *link, said pong) {
	sent, received := time.Duration(said.sent), c.cfg.Clock.Mono()
	if c.services.Measured != nil {
		c.services.Measured(l.node, said.wall, sent, received)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[l.node]; p != nil && p.link == l {
		p.trip, p.tight = received-sent, said.tight
	}
}

// admit makes a node that has shown a token a member, through whichever node leads, and
// returns it and all members of before: one whose place it takes is among them.
func (c *Cluster) admit(ctx context.Context, p identity.Peer) ([]identity.Peer, error) {
	if err := c.knowsEnough(max(p.Level, 1)); err != nil {
		return nil, fmt.Errorf("%w: %w", errBarred, err)
	}
	p.Level = 0
	before := slices.DeleteFunc(c.book.present(), func(o identity.Peer) bool { return o.ID == p.ID })
	for {
		err := c.admitOnce(ctx, p)
		if err == nil {
			break
		}
		if errors.Is(err, errBarred) {
			return nil, err
		}
		// Whatever else it was: to admit a node twice is to admit it.
		c.pause(admitAgain, ctx.Done())
		if ctx.Err() != nil || c.ctx.Err() != nil {
			return nil, fmt.Errorf("no leader has taken it in time: are a majority of the members up? The last attempt: %w", err)
		}
	}
	c.book.learn(p)
	c.cfg.Log.Info("node joined", "node", p.ID, "address", p.Address, "worker", p.Worker)
	return append(before, p), nil
}

func (c *Cluster) admitOnce(ctx context.Context, p identity.Peer) error {
	local, l, err := c.route()
	switch {
	case err != nil:
		return err
	case local:
		return c.admitHere(p)
	}
	o := opAdmit
	if p.Worker {
		o = opAdmitWorker
	}
	_, err = c.ask(l, appendPeer(newFrame(o, 64), p)).wait(ctx)
	return err
}

// admitHere adds a node to the group that this one leads, as a member without a vote.
func (c *Cluster) admitHere(p identity.Peer) error {
	if !c.leads() {
		return fmt.Errorf("%w: this node does not lead", raftfsm.ErrNotSent)
	}
	f := c.services.Raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	id, address := raft.ServerID(p.ID), raftAddress(p.ID, p.Worker)
	if c.book.isRemoved(p.ID) {
		return fmt.Errorf("%w: node %s was removed, and comes back as a new one only: join with an empty data directory", errBarred, p.ID)
	}
	old, err := c.inPlaceOf(p, f.Configuration().Servers)
	if err != nil {
		return err
	}
	// One that got no answer may have another token now.
	known := func(s raft.Server) bool { return s.ID == id && (s.Address == address || s.Suffrage == raft.Voter) }
	if !slices.ContainsFunc(f.Configuration().Servers, known) {
		if err := c.services.Raft.AddNonvoter(id, address, f.Index(), raftEnqueue).Error(); err != nil {
			return err
		}
	}
	for _, o := range old {
		// Before the new one has a vote: of four voters, one of which is gone, none could
		// be missed.
		if err := c.services.Raft.RemoveServer(raft.ServerID(o), 0, raftEnqueue).Error(); err != nil {
			return err
		}
		c.book.remove(o)
		c.cfg.Log.Info("node removed: another one joined in its place", "node", o, "address", p.Address, "by", p.ID)
	}
	c.book.learn(p)
	return nil
}

// inPlaceOf returns the members whose place a node takes that joins: those with its
// address. Their data was lost or could not be used, so that they cannot come back. One
// that is up is there, and no other can be.
func (c *Cluster) inPlaceOf(p identity.Peer, servers []raft.Server) (old []string, err error) {
	for _, s := range servers {
		o := string(s.ID)
		if o == p.ID || c.book.address(o) != p.Address {
			continue
		}
		if o == c.cfg.Identity.Node || c.linkTo(o) != nil {
			return nil, fmt.Errorf("%w: node %s is up at %s; end it, or give this one another [cluster] advertise", errBarred, o, p.Address)
		}
		old = append(old, o)
	}
	return old, nil
}

// replaced reports whether another node has the address at which that one was: dialing it
// there would only make both complain.
func (c *Cluster) replaced(node string) bool {
	address := c.book.address(node)
	for _, p := range c.book.all() {
		if p.ID != node && p.Version != removed && p.Address == address && (p.ID == c.cfg.Identity.Node || c.linkTo(p.ID) != nil) {
			return true
		}
	}
	return false
}

// promote makes voters, while this node leads, of members that are up and have caught up.
func (c *Cluster) promote() {
	for c.ctx.Err() == nil {
		c.look()
		c.pause(lookEvery, nil)
	}
}

// upToDate reports whether the node is up and has applied nearly as much as this one.
// Cluster.mu is held.
func (p *peer) upToDate(applied uint64, now time.Time) bool {
	return promotesEarly || p.link != nil && now.Sub(p.heard) <= heardWithin && p.applied+lagWithin >= applied
}

func (c *Cluster) reaches(applied uint64) bool {
	return promotesEarly || c.services.Reaches == nil || c.services.Reaches(applied)
}

// look gives a vote to one member, no worker, that was close at the last look and still
// is: to one, for each changes who the majority is.
func (c *Cluster) look() {
	leads := c.leads()
	f := c.services.Raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	if leads {
		c.raise(f.Configuration().Servers)
		c.yield(f.Configuration().Servers)
	}
	var ready []string
	own, now := c.services.Applied(), c.cfg.Clock.Now()
	c.mu.Lock()
	for _, s := range f.Configuration().Servers {
		if p := c.peers[string(s.ID)]; p != nil {
			before := p.near
			p.near = leads && s.Suffrage != raft.Voter && !isWorker(s) && p.upToDate(own, now) && c.reaches(p.applied)
			if before && p.near {
				ready = append(ready, p.id)
			}
		}
	}
	c.mu.Unlock()
	if len(ready) == 0 {
		return
	}
	id := raft.ServerID(ready[0])
	if err := c.services.Raft.AddVoter(id, raft.ServerAddress(id), f.Index(), raftEnqueue).Error(); err != nil {
		c.cfg.Log.Debug("a member was not promoted", "node", id, "error", err)
		return
	}
	c.cfg.Log.Info("node promoted: it has a vote now", "node", id)
}

// Member is a node of the cluster.
type Member struct {
	ID        string
	Address   string // host:port of its cluster port; "" when it is not known
	Voter     bool
	Worker    bool // it never votes
	Leader    bool
	Self      bool
	Up        bool          // the link to it is up, or it is this node
	LastHeard time.Time     // zero: never, or it is this node
	Applied   uint64        // by its own last word
	RoundTrip time.Duration // of the link; 0: not measured
}

// Members returns the members, sorted by id: those of raft's configuration, or of the
// book while this node has not been told that.
func (c *Cluster) Members() []Member {
	select {
	case <-c.serving:
	default:
		return nil
	}
	var servers []raft.Server
	if f := c.services.Raft.GetConfiguration(); f.Error() == nil {
		servers = f.Configuration().Servers
	}
	if len(servers) == 0 {
		for _, p := range c.book.present() {
			servers = append(servers, raft.Server{ID: raft.ServerID(p.ID), Suffrage: raft.Nonvoter})
		}
	}
	var all []Member
	c.mu.Lock()
	for _, s := range servers {
		m := Member{ID: string(s.ID), Address: c.book.address(string(s.ID)), Voter: s.Suffrage == raft.Voter, Worker: isWorker(s), Leader: string(s.ID) == c.leader}
		if m.ID == c.cfg.Identity.Node {
			m.Self, m.Up, m.Applied = true, true, c.services.Applied()
		} else if p := c.peers[m.ID]; p != nil {
			m.Up, m.LastHeard, m.Applied, m.RoundTrip = p.link != nil, p.heard, p.applied, p.trip
		}
		all = append(all, m)
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return all
}
