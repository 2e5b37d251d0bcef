package cluster

import (
	"fmt"

	"github.com/hashicorp/raft"

	"pogod/internal/command"
)

// knowsEnough says why a node with a pogod of that feature level cannot be a member: it
// would stop at the first command that it does not know.
func (c *Cluster) knowsEnough(level uint64) error {
	if c.services.Level == nil || level >= c.services.Level() {
		return nil
	}
	return fmt.Errorf("its pogod knows feature level %d and the cluster has level %d: run the newer pogod there, as on the other nodes", level, c.services.Level())
}

// raise raises the cluster's feature level to what all members know, voters or not, while
// this node leads. Of one that is not linked it is not known.
func (c *Cluster) raise(servers []raft.Server) {
	if c.services.Level == nil {
		return
	}
	all := command.MaxLevel()
	c.mu.Lock()
	for _, s := range servers {
		if id := string(s.ID); id != c.cfg.Identity.Node {
			p := c.peers[id]
			if p == nil || p.link == nil {
				all = 0
				break
			}
			all = min(all, p.link.level)
		}
	}
	c.mu.Unlock()
	if all <= c.services.Level() {
		return
	}
	if err := c.services.Raise(all); err != nil {
		c.cfg.Log.Debug("the feature level was not raised", "to", all, "error", err)
		return
	}
	c.cfg.Log.Info("feature level raised: all members know it", "level", all)
}
