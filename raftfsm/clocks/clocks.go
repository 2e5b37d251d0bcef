// Package clocks knows the median of the voters' clocks, as well as this node can measure
// them, and says when one is off.
//
// A measurement is a question to another node, with what its wall clock said in the
// answer: that was between the question and the answer, both on this node's monotonic
// clock. So it bounds how far that wall clock is ahead of this node's *monotonic* clock,
// for sure, and a step of this node's own wall clock changes nothing of it.
//
// The median is then two bounds, which are published and read without a lock: with the
// other voters' clocks sorted, this node's own is the median if it is between the two in
// the middle, and otherwise the nearer of them is. As the bounds are the outer ends of what
// was measured, clocks that agree within the precision of the measurements count as equal,
// and the median is this node's own clock, smooth, and not moved by a slow network.
package clocks

import (
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pogod/internal/clock"
)

const (
	// fresh is how long a clock counts after it was measured last, less and less precisely.
	// It is measured twice a second while the link is up; a node that was cut off for a
	// while, and leads when it is back, still knows the clocks.
	fresh = time.Minute

	// samples of each clock are kept: the most precise of them counts.
	samples = 8

	// drift is how many parts of a time two clocks may run apart in it.
	drift = 5000
)

// Config of Clocks.
type Config struct {
	Clock  clock.Clock
	Node   string          // this node's id
	Voters func() []string // ids of the voters of now; called from many goroutines, must not block
	Log    *slog.Logger
}

// Clocks knows how the clocks stand. It is safe for concurrent use.
type Clocks struct {
	cfg    Config
	bounds atomic.Pointer[bounds]

	mu    sync.Mutex // guards the rest
	nodes map[string]*node
	tells time.Duration // Mono, from when the log is told of clocks that are off; 0: none was measured yet
}

// bounds of the median: microseconds of unix time at Mono 0.
type bounds struct {
	low, high int64
	known     bool          // a majority's clocks are fresh
	until     time.Duration // Mono: to be made anew then
}

// node is what is known of a node's clock.
type node struct {
	samples []sample      // of other nodes, oldest first
	told    time.Duration // what the log says that it is off; 0: it is not
}

// sample is one measurement.
type sample struct {
	offset int64         // unix time less this node's Mono, microseconds
	err    int64         // that much more or less, microseconds
	at     time.Duration // Mono
}

const (
	never  = time.Duration(math.MaxInt64)
	beyond = math.MaxInt64 / 4 // microseconds: further than any clock
)

// New makes the clocks of a node that has measured none yet.
func New(cfg Config) *Clocks {
	c := &Clocks{cfg: cfg, nodes: map[string]*node{cfg.Node: {}}}
	c.bounds.Store(&bounds{until: math.MinInt64})
	return c
}

// Median returns the median of the voters' clocks in unix milliseconds; of two it is the
// earlier. known is false while the clocks of a majority, this one included, were not
// measured lately. now and mono are this node's, read together. It takes no lock, but for
// when measurements have grown old.
func (c *Clocks) Median(now time.Time, mono time.Duration) (millis int64, known bool) {
	b := c.bounds.Load()
	if mono >= b.until {
		c.mu.Lock()
		b = c.renew(mono)
		c.mu.Unlock()
	}
	return b.median(now, mono) / 1000, b.known
}

// median in microseconds.
func (b *bounds) median(now time.Time, mono time.Duration) int64 {
	at := mono.Microseconds()
	return min(max(now.UnixMicro(), b.low+at), b.high+at)
}

// Measured takes a measurement: node's wall clock said that at some moment between sent and
// received, which are of this node's Mono.
func (c *Clocks) Measured(id string, wall time.Time, sent, received time.Duration) {
	if received < sent || id == c.cfg.Node {
		return // of nothing
	}
	half := (received - sent) / 2
	s := sample{offset: wall.UnixMicro() - (sent + half).Microseconds(), err: half.Microseconds() + 1, at: received}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[id]
	if n == nil {
		n = &node{}
		c.nodes[id] = n
	}
	n.add(s)
	b := c.renew(received)
	if c.tells == 0 {
		c.tells = received + settle
	}
	if b.known && received >= c.tells {
		c.tell(b, c.cfg.Clock.Now(), received)
	}
}

// add keeps a sample. Earlier ones that it contradicts are from before a step of that
// clock.
func (n *node) add(s sample) {
	n.samples = slices.DeleteFunc(n.samples, func(o sample) bool {
		o = o.grown(s.at)
		return s.offset-o.offset > s.err+o.err || o.offset-s.offset > s.err+o.err
	})
	if len(n.samples) == samples {
		n.samples = slices.Delete(n.samples, 0, 1)
	}
	n.samples = append(n.samples, s)
}

// grown is a sample as precise as it is by then.
func (s sample) grown(mono time.Duration) sample {
	s.err += (mono - s.at).Microseconds() / drift
	return s
}

// best returns the most precise sample; ok is false when none is fresh.
func (n *node) best(mono time.Duration) (best sample, ok bool) {
	if n == nil {
		return best, false
	}
	for _, s := range n.samples {
		if mono-s.at >= fresh {
			continue
		}
		if s = s.grown(mono); !ok || s.err <= best.err {
			best, ok = s, true
		}
	}
	return best, ok
}

// renew makes the bounds of now and publishes them. mu is held.
func (c *Clocks) renew(mono time.Duration) *bounds {
	voters := c.cfg.Voters()
	b := &bounds{low: -beyond, high: beyond, until: never}
	var low, high []int64
	own := 0
	for _, id := range voters {
		if id == c.cfg.Node {
			own = 1
			continue
		}
		n := c.nodes[id]
		s, ok := n.best(mono)
		if !ok {
			b.until = min(b.until, mono+time.Second) // the voters may change with nobody to measure
			continue
		}
		low, high = append(low, s.offset-s.err), append(high, s.offset+s.err)
		for _, s := range n.samples {
			if mono-s.at < fresh {
				b.until = min(b.until, s.at+fresh) // or it would count for longer
			}
		}
	}
	slices.Sort(low)
	slices.Sort(high)
	all := len(low) + own
	b.known = all > len(voters)/2
	if k := (all - 1) / 2; all > 0 {
		// The k-th of all is the nearest to this node's own between the k-1-th and the k-th of the others.
		if i := k - own; i >= 0 {
			b.low = low[i]
		}
		if k < len(high) {
			b.high = high[k]
		}
	}
	c.bounds.Store(b)
	return b
}

// Node is how a node's clock stands.
type Node struct {
	ID     string
	Self   bool
	Voter  bool
	Known  bool          // it was measured lately, or is this node's
	Offset time.Duration // to the median: above 0 it is ahead
	Error  time.Duration // of Offset, either way
	Age    time.Duration // since it was measured, 0 of this node
}

// Report is how the clocks stand.
type Report struct {
	Known  bool      // the clocks of a majority are
	Median time.Time // of the voters; only if known
	Nodes  []Node    // sorted by id: the voters, and others that were measured lately
}

// Report returns how the clocks stand now.
func (c *Clocks) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, mono := c.cfg.Clock.Now(), c.cfg.Clock.Mono()
	b := c.renew(mono)
	return c.report(b, now, mono)
}

// report lists the clocks by those bounds. mu is held.
func (c *Clocks) report(b *bounds, now time.Time, mono time.Duration) Report {
	median := b.median(now, mono)
	r := Report{Known: b.known}
	if b.known {
		r.Median = time.UnixMicro(median)
	}
	voters := c.cfg.Voters()
	ids := slices.Clone(voters)
	for id := range c.nodes {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, strings.Compare)
	for _, id := range slices.Compact(ids) {
		n := Node{ID: id, Self: id == c.cfg.Node, Voter: slices.Contains(voters, id)}
		if n.Self {
			n.Known, n.Offset = true, time.Duration(now.UnixMicro()-median)*time.Microsecond
		} else if s, ok := c.nodes[id].best(mono); ok {
			n.Known = true
			n.Offset = time.Duration(s.offset+mono.Microseconds()-median) * time.Microsecond
			n.Error = time.Duration(s.err) * time.Microsecond
			all := c.nodes[id].samples
			n.Age = mono - all[len(all)-1].at
		}
		if !b.known {
			n.Offset = 0 // to nothing
		}
		if n.Known || n.Voter {
			r.Nodes = append(r.Nodes, n)
		}
	}
	return r
}
