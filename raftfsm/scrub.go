package raftfsm

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pogod/storage"
)

// The scrubber reads everything that the node has on its disk, once a day and slowly: a
// flipped bit in what nobody reads would else be found when it is needed. While it reads
// the data file, pages of it are not reused.
const (
	scrubFirst = time.Minute // after the start
	scrubEvery = 24 * time.Hour
	scrubRate  = 64 << 20 // bytes a second, at most
	scrubStep  = 1 << 20  // bytes between two pauses
)

// errClosing ends a scrub when the node does.
var errClosing = errors.New("the node is shutting down")

// ScrubStats say what the scrubber has done since the start.
type ScrubStats struct {
	Runs    uint64    // that came to their end
	Bytes   uint64    // read in all
	Running bool      //
	LastEnd time.Time // of a run that came to its end; zero: none has
}

type scrub struct {
	mu    sync.Mutex // guards stats
	stats ScrubStats
}

// ScrubStats of now.
func (g *Group) ScrubStats() ScrubStats {
	g.scrub.mu.Lock()
	defer g.scrub.mu.Unlock()
	return g.scrub.stats
}

func (g *Group) scrubLoop() {
	for wait := scrubFirst; ; wait = scrubEvery {
		due := make(chan struct{})
		t := g.cfg.Clock.AfterFunc(wait, func() { close(due) })
		select {
		case <-due:
		case <-g.quit:
			t.Stop()
			return
		}
		if err := g.Scrub(scrubRate); err != nil && !errors.Is(err, errClosing) {
			g.cfg.Log.Error("what is on this node's disk is damaged", "error", err)
		}
	}
}

// Scrub reads data file and log whole, at so many bytes a second, and checks them; 0: as
// fast as it can. What it finds ends the node: Failed is closed, and Err says why. It fails
// with storage.ErrCorrupt or ErrLogDamaged.
func (g *Group) Scrub(rate int) error {
	s := &g.scrub
	s.mu.Lock()
	s.stats.Running = true
	s.mu.Unlock()
	step := 0
	read := func(n int) error {
		s.mu.Lock()
		s.stats.Bytes += uint64(n)
		s.mu.Unlock()
		if step += n; step < scrubStep || rate == 0 {
			return nil
		}
		over := make(chan struct{})
		t := g.cfg.Clock.AfterFunc(time.Duration(step)*time.Second/time.Duration(rate), func() { close(over) })
		defer t.Stop()
		step = 0
		select {
		case <-over:
			return nil
		case <-g.quit:
			return errClosing
		}
	}
	err := g.FSM.Verify(read)
	if err == nil {
		err = g.scrubLog(read)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Running = false
	if err == nil {
		s.stats.Runs++
		s.stats.LastEnd = g.cfg.Clock.Now()
	}
	return err
}

func (g *Group) scrubLog(read storage.Progress) error {
	first, last, err := g.log.indexes()
	var l raft.Log
	for i := first; err == nil && i <= last && last > 0; i++ {
		if err = g.log.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			err = nil // cut off meanwhile
		}
		if err == nil {
			err = read(len(l.Data))
		}
	}
	return err
}

// Verify checks all of the data file, as it was committed last; see storage.Store.Verify.
func (f *FSM) Verify(p storage.Progress) error {
	for {
		f.mu.Lock()
		store, err := f.store, f.err
		f.mu.Unlock()
		if err != nil {
			return err
		}
		err = store.Verify(p)
		if errors.Is(err, storage.ErrClosed) {
			continue // Restore came between: there is another file
		}
		f.report(store, err)
		return err
	}
}
