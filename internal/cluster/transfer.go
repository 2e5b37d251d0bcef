package cluster

import (
	"context"
	"errors"
	"fmt"

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
	if err := c.services.Raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to)).Error(); err != nil {
		return fmt.Errorf("leadership did not go to node %s: %w", to, err)
	}
	return nil
}

// heir returns who shall lead: the node with that id if it can, or the voter that is up and
// has applied most if it is "".
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
		if best == "" || p.applied > c.peers[best].applied {
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
