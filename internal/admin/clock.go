package admin

import (
	"context"
	"errors"
	"time"

	"github.com/valyala/fasthttp"

	"pogod/raftfsm/leader"
)

// Clocks is what the endpoint needs of cluster time. A Source that has one is one.
type Clocks interface {
	// Clock returns how cluster time and the clocks stand.
	Clock() Clock
	// ResetClock sets cluster time back to the clocks. It fails with leader.ErrNotReset
	// when that is not to be done.
	ResetClock(ctx context.Context) (leader.Reset, error)
}

// Noter is a Source that has something to say while it is ready.
type Noter interface {
	// Notes are sentences about what is wrong all the same.
	Notes() []string
}

// The paths of cluster time; a node that is part of no cluster has one, too.
const (
	ClockPath      = "/api/v1/cluster/clock"       // GET
	ClockResetPath = "/api/v1/cluster/clock/reset" // POST
)

// ClockOff is from where a clock's distance from the median is a fault.
const ClockOff = time.Second

// Clock is cluster time, which stamps what is done, and the clocks that it comes from, as
// the node that answers knows and measures them.
type Clock struct {
	Time    *time.Time  `json:"time"`     // cluster time; null: there is none yet
	Median  *time.Time  `json:"median"`   // of the voters' clocks; null: those of a majority were not measured lately
	AheadMS int64       `json:"ahead_ms"` // by so much time is ahead of the median; above 0 it goes on at half speed until they meet
	Nodes   []NodeClock `json:"nodes"`    // sorted by id
}

// NodeClock is the clock of one node.
type NodeClock struct {
	Node     string   `json:"node"`
	Self     bool     `json:"self"`      // it is the node that answers
	Voter    bool     `json:"voter"`     // the clocks of the others do not count
	OffsetMS *float64 `json:"offset_ms"` // from the median, above 0: ahead; null: not known
	ErrorMS  float64  `json:"error_ms"`  // of offset_ms, at most, either way
	AgeMS    *int64   `json:"age_ms"`    // since it was measured; null: not lately
}

// ClockReset is the answer of ClockResetPath.
type ClockReset struct {
	BackMS int64     `json:"back_ms"` // by so much time was set back
	Time   time.Time `json:"time"`    // what it is now
}

// Definitions are whose queues are in force: a configuration's, by its hash.
type Definitions struct {
	Hash   string `json:"hash"`   // in force in the cluster; "" before any are
	Own    string `json:"own"`    // of this node's configuration
	Differ bool   `json:"differ"` // the two are different
}

func (s *Server) clock(ctx *fasthttp.RequestCtx) {
	c := s.clocks.Clock()
	c.Nodes = list(c.Nodes)
	write(ctx, c)
}

func (s *Server) resetClock(ctx *fasthttp.RequestCtx) {
	if !permitted(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	r, err := s.clocks.ResetClock(bounded)
	switch {
	case errors.Is(err, leader.ErrNotReset):
		problem(ctx, fasthttp.StatusConflict, err.Error(), nil)
	case err != nil:
		problem(ctx, fasthttp.StatusServiceUnavailable, "cluster time was perhaps not set back: "+err.Error(), nil)
	default:
		s.log.Info("cluster time was set back, as the admin endpoint was asked", "by", r.Back)
		write(ctx, ClockReset{r.Back.Milliseconds(), r.To.UTC()})
	}
}

// notes are what the Source has to say.
func (s *Server) notes() []string {
	if n, ok := s.src.(Noter); ok {
		return n.Notes()
	}
	return nil
}
