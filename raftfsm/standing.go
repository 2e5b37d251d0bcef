package raftfsm

import (
	"sync"
	"time"

	"pogod/internal/clock"
)

// Standing says what a node may do with what its state machine shows of its session.
type Standing uint8

// The standings.
const (
	Fresh   Standing = iota // confirmed within half of its time to live, and what is seen is no older: jobs may start
	Stale                   // not so: nothing starts
	Overdue                 // not confirmed for its whole time to live, or ended: what runs is interrupted
)

// standing is what a node knows of its session: when it was confirmed last.
//
// A batch that was applied confirms the session, from the moment that it was sent: the
// leader counts from later. Times are of the clock that goes on while the machine is
// suspended.
type standing struct {
	clock clock.Clock
	ttl   time.Duration // 0: nobody ends the session

	mu       sync.Mutex // guards the rest
	live     bool
	confirms []confirmation // oldest first, spaced, none older than ttl but the last
	looked   time.Duration  // when time was looked at last
	grace    time.Duration  // not overdue before: after a stall the session is to be confirmed once more
}

// confirmation of the session by an entry of the log.
type confirmation struct {
	sent  time.Duration
	index uint64
}

// spacing of confirmations that are kept: of a hundred in that time one is enough, and a
// node that applies slowly finds one that it has reached.
const spacing = 20 * time.Millisecond

// stalled is the part of the time to live that, unseen by this process, counts as a
// stall: nothing that it did not hear then was not said.
const stalled = 4

// opened notes a new session; 0: it has ended.
func (s *standing) opened(session uint64, sent time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live, s.confirms = session != 0, nil
	if s.live {
		// Nothing was reserved for it before its opening, so what is seen is never too old.
		s.confirms = append(s.confirms, confirmation{sent, 0})
	}
}

// confirmed notes that a batch sent at that time was applied as that entry. It reports
// whether that changes more than a little.
func (s *standing) confirmed(sent time.Duration, index uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.confirms); !s.live || n > 0 && sent-s.confirms[n-1].sent < spacing {
		return false
	}
	for len(s.confirms) > 1 && sent-s.confirms[0].sent > s.ttl {
		s.confirms = s.confirms[1:]
	}
	s.confirms = append(s.confirms, confirmation{sent, index})
	return true
}

// last returns when the session was confirmed last.
func (s *standing) last() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.confirms) == 0 {
		return 0
	}
	return s.confirms[len(s.confirms)-1].sent
}

// of the state as it was after the entry applied.
func (s *standing) of(applied uint64) Standing {
	now := s.clock.Boot()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		return Overdue
	}
	if s.ttl == 0 {
		return Fresh
	}
	if now-s.looked > s.ttl/stalled {
		s.grace = now + s.ttl/2
	}
	s.looked = now
	for i := len(s.confirms) - 1; i >= 0; i-- {
		c := s.confirms[i]
		if now-c.sent >= s.ttl/2 {
			break
		}
		if c.index <= applied {
			return Fresh
		}
	}
	if n := len(s.confirms); now-s.confirms[n-1].sent >= s.ttl && now >= s.grace {
		return Overdue
	}
	return Stale
}

// age returns how old the state after the entry applied may be; ok is false when that is
// not known.
func (s *standing) age(applied uint64) (age time.Duration, ok bool) {
	now := s.clock.Boot()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.confirms) - 1; i >= 0; i-- {
		if c := s.confirms[i]; c.index != 0 && c.index <= applied {
			return now - c.sent, true
		}
	}
	return 0, false
}
