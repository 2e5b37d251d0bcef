package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// ErrDeclined is the class of the errors with which the leader declines a change of the
// members or of who leads. Nothing was changed.
var ErrDeclined = errors.New("declined")

func declined(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDeclined}, args...)...)
}

// Transfer has a member lead: the one with that id, or the best follower if it is "". It
// returns who leads then. It fails with ErrDeclined when that node cannot lead.
func (c *Cluster) Transfer(ctx context.Context, node string) (leads string, err error) {
	former := c.leaderNow()
	local, l, err := c.route()
	switch {
	case err != nil:
		return "", err
	case local:
		err = c.transferHere(node)
	default:
		_, err = c.ask(l, appendBytes(newFrame(opTransfer, 32), node)).wait(ctx)
	}
	if errors.Is(err, ErrDeclined) {
		return "", err
	}
	// An error may be the change itself, which sweeps the link to the one that led. Who leads
	// is what counts.
	for {
		if now := c.leaderNow(); now != "" && (now == node || node == "" && now != former) {
			return now, nil
		}
		if ctx.Err() != nil || c.ctx.Err() != nil {
			return "", fmt.Errorf("leadership was not handed over in time: %w", errors.Join(err, ctx.Err()))
		}
		c.pause(admitAgain, ctx.Done())
	}
}

// leaderNow is who leads, by the last word of raft; "" for nobody.
func (c *Cluster) leaderNow() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader
}

// transferHere hands over the leadership of this node.
func (c *Cluster) transferHere(node string) error {
	f := c.services.Raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	if node == c.cfg.Identity.Node {
		if c.leads() {
			return nil // as it is
		}
		return errors.New("this node does not lead")
	}
	to, err := c.heir(node, f.Configuration().Servers)
	if err != nil {
		return err
	}
	return c.handTo(to)
}

func (c *Cluster) handTo(to string) error {
	if err := c.services.Raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to)).Error(); err != nil {
		return fmt.Errorf("leadership did not go to node %s: %w", to, err)
	}
	return nil
}

// tight reports whether this node's disk has little room.
func (c *Cluster) tight() bool { return c.services.Tight != nil && c.services.Tight() }

// yieldPause is how long after a try to hand over for want of room the next one comes.
const yieldPause = 10 * time.Second

// yield has a node with room on its disk lead, before this one, which has little, must refuse
// pushes. Where all have little it leads on.
func (c *Cluster) yield(servers []raft.Server) {
	if !c.tight() {
		return
	}
	to, err := c.heir("", servers)
	now := c.cfg.Clock.Mono()
	c.mu.Lock()
	useless := err != nil || c.peers[to].tight || now < c.yieldAt
	if !useless {
		c.yieldAt = now + yieldPause
	}
	c.mu.Unlock()
	if useless {
		return
	}
	c.cfg.Log.Warn("this node has little room on its disk: another one is to lead", "node", to)
	if err := c.handTo(to); err != nil {
		c.cfg.Log.Warn("leadership was not handed over", "error", err)
	}
}

// heir returns who shall lead: the node with that id if it can, or, if it is "", the voter
// that is up and has applied most, of those with room on their disks if there are any.
func (c *Cluster) heir(node string, servers []raft.Server) (string, error) {
	own, now := c.services.Applied(), c.cfg.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	best, known, votes := "", false, false
	for _, s := range servers {
		id := string(s.ID)
		if node == id {
			known, votes = true, s.Suffrage == raft.Voter
		}
		p := c.peers[id]
		if p == nil || s.Suffrage != raft.Voter || node != "" && node != id || !p.upToDate(own, now) {
			continue
		}
		if b := c.peers[best]; best == "" || b.tight && !p.tight || b.tight == p.tight && p.applied > b.applied {
			best = id
		}
	}
	switch {
	case best != "":
		return best, nil
	case node == "":
		return "", declined("no other voter is up and near the end of the log: `pogod cluster members` shows them")
	case !known:
		return "", declined("node %s is no member: `pogod cluster members` lists their ids", node)
	case !votes:
		return "", declined("node %s has no vote, so it cannot lead", node)
	}
	return "", declined("node %s is down or lags behind the log, so it cannot lead now", node)
}
