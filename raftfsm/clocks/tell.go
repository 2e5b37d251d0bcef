package clocks

import "time"

const (
	// off is how far from the median a clock is a fault, and how far what was told must
	// have changed to be told again; well is where it is none any more.
	off  = time.Second
	well = off / 2

	// settle is how long after its first measurement a node says nothing: with two of three
	// clocks known, either may be the one that is off.
	settle = 3 * time.Second
)

// tell says in the log which clocks are off, once for each change, and forgets nodes that
// are gone. The median is known. mu is held.
func (c *Clocks) tell(b *bounds, now time.Time, mono time.Duration) {
	r := c.report(b, now, mono)
	listed := make(map[string]bool, len(r.Nodes))
	for _, n := range r.Nodes {
		listed[n.ID] = true
		if known := c.nodes[n.ID]; known != nil && n.Known {
			c.tellOf(known, n)
		}
	}
	for id := range c.nodes {
		if !listed[id] {
			delete(c.nodes, id)
		}
	}
}

func (c *Clocks) tellOf(known *node, n Node) {
	d := n.Offset
	was := known.told
	switch {
	case d.Abs()-n.Error > off && (was == 0 || (d-was).Abs()-n.Error > off):
		known.told = d
		which, round := "another node's clock", d.Round(100*time.Millisecond)
		if n.Self {
			which = "this node's clock"
		}
		if d > 0 {
			c.cfg.Log.Warn(which+" is ahead of the median of the voters' clocks: set it, and keep it right with NTP", "node", n.ID, "ahead", round)
		} else {
			c.cfg.Log.Warn(which+" is behind the median of the voters' clocks: set it, and keep it right with NTP", "node", n.ID, "behind", -round)
		}
	case was != 0 && d.Abs()+n.Error < well:
		known.told = 0
		c.cfg.Log.Info("a node's clock is right again", "node", n.ID)
	}
}
