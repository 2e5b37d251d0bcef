package node

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/admin"
	"pogod/internal/command"
	"pogod/internal/config"
	"pogod/raftfsm/leader"
)

// farAhead is from where cluster time that is ahead of the clocks is worth a word: a clock
// was wrong when it was set, and that many hours would pass at half speed.
const farAhead = time.Hour

// voters are the ids of the members that vote.
func (n *node) voters() []string {
	f := n.group.Raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var ids []string
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// clock is how cluster time and the clocks stand, as this node knows it.
func (n *node) clock() admin.Clock {
	_, last := n.group.FSM.NextTick()
	r := n.clocks.Report()
	var doc admin.Clock
	at := time.UnixMilli(last).UTC()
	if r.Known {
		median := r.Median.UTC()
		doc.Median = &median
		if ahead := at.Sub(median); ahead > 0 {
			doc.AheadMS = ahead.Milliseconds()
		} else {
			at = median // the stamp of an entry of now
		}
	}
	if last > 0 || r.Known {
		doc.Time = &at
	}
	for _, k := range r.Nodes {
		c := admin.NodeClock{Node: k.ID, Self: k.Self, Voter: k.Voter}
		if k.Known {
			age := k.Age.Milliseconds()
			c.AgeMS = &age
			if r.Known {
				offset := float64(k.Offset.Microseconds()) / 1000
				c.OffsetMS, c.ErrorMS = &offset, float64(k.Error.Microseconds())/1000
			}
		}
		doc.Nodes = append(doc.Nodes, c)
	}
	return doc
}

// definitionsDoc says whose definitions of the queues are in force.
func (n *node) definitionsDoc() admin.Definitions {
	own := definitions(n.now.Load())
	_, hash := own.Encode()
	return admin.Definitions{Hash: n.group.FSM.DefinitionsHash(), Own: hash, Differ: n.leader.Differs()}
}

const (
	noteDiffers = "the queues are not defined as this node's configuration says: another node's was put in force. " +
		"Give all nodes the same configuration, and have this node read its own again if that is the right one"
	noteAhead       = `cluster time is %s ahead of the clocks and goes on at half speed until they have caught up; "pogod cluster clock --reset" sets it back`
	noteCertificate = "the certificate of this node, which ends at %s, cannot be taken from its files or renewed: %v"
	noteLevel       = "this node's pogod knows feature level %d, and the cluster has %d until all members are up and know it: what is newer is held back"
	noteClock       = "the clock of %s is %s the median of the voters' clocks: set it, and keep it right with NTP"
)

// notes are what is wrong with a node that serves all the same.
func (n *node) notes() []string {
	all := n.diskNotes()
	if n.leader.Differs() {
		all = append(all, noteDiffers)
	}
	if n.cluster != nil {
		if expires, err := n.cluster.Certificate(); err != nil {
			all = append(all, fmt.Sprintf(noteCertificate, expires.UTC().Format(time.RFC3339), err))
		}
	}
	if level := n.group.FSM.Level(); level < command.MaxLevel() {
		all = append(all, fmt.Sprintf(noteLevel, command.MaxLevel(), level))
	}
	c := n.clock()
	if ahead := time.Duration(c.AheadMS) * time.Millisecond; ahead > farAhead {
		all = append(all, fmt.Sprintf(noteAhead, ahead.Round(time.Second)))
	}
	for _, k := range c.Nodes {
		if k.OffsetMS == nil {
			continue
		}
		off, which, way := time.Duration(*k.OffsetMS*float64(time.Millisecond)), "node "+k.Node, "ahead of"
		if off.Abs()-time.Duration(k.ErrorMS*float64(time.Millisecond)) <= admin.ClockOff {
			continue
		}
		if k.Self {
			which = "this node"
		}
		if off < 0 {
			way = "behind"
		}
		all = append(all, fmt.Sprintf(noteClock, which, off.Abs().Round(100*time.Millisecond).String()+" "+way))
	}
	return all
}

// told is what the log says of the node, so that each change is said once.
type told struct{ differs, ahead, low, slow bool }

// tellTime says in the log what has changed. It is called by one goroutine.
func (n *node) tellTime(t *told) {
	switch differs := n.leader.Differs(); {
	case differs && !t.differs:
		n.log.Warn(noteDiffers, "in force", n.group.FSM.DefinitionsHash())
	case !differs && t.differs:
		n.log.Info("the queues are defined as this node's configuration says again")
	}
	t.differs = n.leader.Differs()
	ahead := time.Duration(n.clock().AheadMS) * time.Millisecond
	switch {
	case ahead > farAhead && !t.ahead:
		n.log.Warn(fmt.Sprintf(noteAhead, ahead.Round(time.Second)))
	case ahead <= farAhead && t.ahead:
		n.log.Info("cluster time is no longer ahead of the clocks by more than an hour")
	}
	t.ahead = ahead > farAhead
}

// redefine puts the queues in force as cfg defines them, for somebody who had this node
// read it: they are this node's own from now on, and proposed though they were superseded.
// A node that does not lead takes them to the one that does.
func (n *node) redefine(ctx context.Context, cfg *config.Config) error {
	d := definitions(cfg)
	encoded, hash := d.Encode()
	if leads, err := n.leader.Define(encoded, hash); leads {
		return err
	}
	return n.way.Redefine(ctx, encoded, hash)
}

// Clock implements admin.Clocks.
func (s source) Clock() admin.Clock { return s.n.clock() }

// ResetClock implements admin.Clocks.
func (s source) ResetClock(ctx context.Context) (leader.Reset, error) { return s.n.way.ResetTime(ctx) }

// Notes implements admin.Noter.
func (s source) Notes() []string { return s.n.notes() }
