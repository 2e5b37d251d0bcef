package disk

import (
	"slices"
	"sync"
	"time"

	"pogod/internal/clock"
)

// A disk is slow when the median of its last syncs is SlowSync, and is quick again below
// half of that, or when there were none for recently.
const (
	SlowSync = 100 * time.Millisecond
	recently = 30 * time.Second
	kept     = 16 // of the last syncs
	judged   = 5  // at least, to be called slow
)

// Bounds of the histogram's buckets.
var Bounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
}

// Syncs is how long the syncs of a file take: pushes wait for those of the log.
type Syncs struct {
	clock clock.Clock

	mu      sync.Mutex // guards the rest; not held across a sync
	buckets [len(Bounds)]uint64
	count   uint64
	sum     time.Duration
	last    []timed // at most kept, the oldest first
	slow    bool
}

// timed is one sync.
type timed struct{ end, took time.Duration }

// NewSyncs returns the figures of no syncs.
func NewSyncs(c clock.Clock) *Syncs { return &Syncs{clock: c} }

// Time calls a sync, and counts it if it succeeds.
func (s *Syncs) Time(sync func() error) error {
	begin := s.clock.Mono()
	if err := sync(); err != nil {
		return err
	}
	end := s.clock.Mono()
	took := end - begin
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	s.sum += took
	for i, b := range Bounds {
		if took <= b {
			s.buckets[i]++
		}
	}
	if len(s.last) == kept {
		s.last = slices.Delete(s.last, 0, 1)
	}
	s.last = append(s.last, timed{end, took})
	return nil
}

// SyncStanding is how syncs are.
type SyncStanding struct {
	Count   uint64              // since the start of the process
	Sum     time.Duration       // that they took
	Buckets [len(Bounds)]uint64 // how many took at most so long, by Bounds
	Recent  int                 // of the last 16, those of the last 30 s
	Median  time.Duration       // of these; 0: there were none
	Longest time.Duration       // of these
	Slow    bool                // the median is, or was and is not yet well below, SlowSync
}

// Standing of now.
func (s *Syncs) Standing() SyncStanding {
	now := s.clock.Mono()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := SyncStanding{Count: s.count, Sum: s.sum, Buckets: s.buckets}
	var took []time.Duration
	for _, x := range s.last {
		if now-x.end <= recently {
			took = append(took, x.took)
		}
	}
	slices.Sort(took)
	if t.Recent = len(took); t.Recent > 0 {
		t.Median, t.Longest = took[t.Recent/2], took[t.Recent-1]
	}
	limit := SlowSync
	if s.slow {
		limit /= 2
	}
	s.slow = t.Median >= limit && (s.slow || t.Recent >= judged)
	t.Slow = s.slow
	return t
}
