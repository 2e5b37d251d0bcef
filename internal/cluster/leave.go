package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/hashicorp/raft"

	"pogod/internal/cluster/identity"
)

// removed is the version of a peer that was removed: greater than that of any start, so
// that no word of an earlier time undoes it.
const removed = math.MaxUint64

// Removal says what is to be removed, and how.
type Removal struct {
	Node  string // the id; "": this node
	Check bool   // only find out whether it would be declined
	Force bool   // though it is up and has not asked for it, or no other node may fail afterwards
}

// Remove takes a node out of the group: it is demoted and then removed from raft's
// configuration, and from then on no member talks to it. To remove a node twice is to remove
// it. It fails with ErrDeclined when the rest could not go on; it tries until ctx ends.
func (c *Cluster) Remove(ctx context.Context, r Removal) error {
	own := r.Node == "" || r.Node == c.cfg.Identity.Node
	if own {
		r.Node = c.cfg.Identity.Node
	}
	for {
		err := c.removeOnce(ctx, r, own)
		if err == nil || errors.Is(err, ErrDeclined) {
			return err
		}
		if own && !r.Check && c.book.isRemoved(r.Node) {
			return nil // the answer was lost with the link, which is closed to a removed node
		}
		c.pause(admitAgain, ctx.Done())
		if ctx.Err() != nil || c.ctx.Err() != nil {
			return fmt.Errorf("node %s was not removed in time: are a majority of the members up? The last attempt: %w", r.Node, err)
		}
	}
}

func (c *Cluster) removeOnce(ctx context.Context, r Removal, own bool) error {
	local, l, err := c.route()
	switch {
	case err != nil:
		return err
	case local && own && !r.Check:
		// Who leads would have to count its own end as done: another one does it.
		if err := c.transferHere(""); err != nil {
			return err
		}
		return errors.New("another node is to lead first")
	case local:
		return c.removeHere(r, own)
	}
	_, err = c.ask(l, appendRemoval(newFrame(opRemove, 32), r)).wait(ctx)
	return err
}

func appendRemoval(b []byte, r Removal) []byte {
	b = appendBytes(b, r.Node)
	for _, f := range []bool{r.Check, r.Force} {
		v := uint64(0)
		if f {
			v = 1
		}
		b = appendUint(b, v)
	}
	return b
}

func (f *fields) removal() Removal {
	return Removal{Node: string(f.bytes()), Check: f.uint(1) == 1, Force: f.uint(1) == 1}
}

// removeHere removes a node from the group that this one leads. own: it asks for itself.
func (c *Cluster) removeHere(r Removal, own bool) error {
	if !c.leads() {
		return errors.New("this node does not lead")
	}
	f := c.services.Raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	servers := f.Configuration().Servers
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == r.Node })
	if i < 0 && c.book.isRemoved(r.Node) {
		return nil
	}
	if err := c.removable(r, own, servers); err != nil || r.Check {
		return err
	}
	s, prev := servers[i], f.Index()
	if s.Suffrage == raft.Voter {
		// So that it knows, before nobody tells it any more, that it has no vote to ask for.
		d := c.services.Raft.DemoteVoter(s.ID, prev, raftEnqueue)
		if err := d.Error(); err != nil {
			return err
		}
		prev = d.Index()
	}
	if err := c.services.Raft.RemoveServer(s.ID, prev, raftEnqueue).Error(); err != nil {
		return err
	}
	c.cfg.Log.Info("node removed", "node", r.Node, "address", c.book.address(r.Node))
	c.book.remove(r.Node)
	return nil
}

// removable says why a node cannot be removed, nil when it can: a majority of the voters
// that are left must be up.
func (c *Cluster) removable(r Removal, own bool, servers []raft.Server) error {
	now := c.cfg.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	known, voter, voters, up := false, false, 0, 0
	for _, s := range servers {
		id := string(s.ID)
		if id == r.Node {
			known, voter = true, s.Suffrage == raft.Voter
			continue
		}
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if p := c.peers[id]; id == c.cfg.Identity.Node || p != nil && p.link != nil && now.Sub(p.heard) <= silence {
			up++
		}
	}
	p := c.peers[r.Node]
	switch {
	case !known:
		return declined("node %s is no member: `pogod cluster members` lists their ids", r.Node)
	case voters == 0:
		return declined("it is the last node with a vote: end it, and remove its data directory, to end the cluster")
	case voter && up <= voters/2:
		return declined("of the %d voters that would be left %d would be up, and the cluster would stop: bring the others up first, or remove those that are dead", voters, up)
	case !own && !r.Force && r.Node == c.cfg.Identity.Node:
		return declined("node %s leads: run `pogod cluster leave` on it", r.Node)
	case !own && !r.Force && p != nil && p.link != nil:
		return declined("node %s is up: run `pogod cluster leave` on it, so that its jobs end well; --force cuts it off", r.Node)
	case own && voter && !r.Force && up < voters && up-1 <= voters/2:
		return declined("of the %d voters that would be left only %d would be up, and when one more dies the cluster stops: remove those that are dead first, or take the risk with --force", voters, up)
	}
	return nil
}

// remove notes that a node was removed, for good.
func (b *book) remove(id string) {
	b.learn(identity.Peer{ID: id, Address: b.address(id), Version: removed})
}

// isRemoved reports whether a node was removed.
func (b *book) isRemoved(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[id].Version == removed
}

// Removed returns a channel that is closed when this node learns that it was removed from
// the cluster.
func (c *Cluster) Removed() <-chan struct{} { return c.book.gone }

// cutOff ends the links of nodes that were removed.
func (c *Cluster) cutOff() {
	c.mu.Lock()
	var ended []*link
	for l := range c.links {
		if c.book.isRemoved(l.node) {
			ended = append(ended, l)
		}
	}
	c.mu.Unlock()
	for _, l := range ended {
		l.end()
	}
}
