package leader

import (
	"time"

	"pogod/internal/command"
)

// Parts of a session's time to live: how often the leader looks for those that are silent,
// and the gap between two looks from which the leader itself may have been deaf.
const (
	lookEvery = 12
	stallFrom = 4
)

// hear notes that a batch has come, which the next entry carries. mu is held.
func (l *Leader) hear(batch []byte) {
	if l.cfg.SessionTTL == 0 {
		return
	}
	d, err := command.DecodeBatch(batch)
	if err != nil {
		return // every node stops for it
	}
	if i, ok := l.book.find(d.Session); ok {
		s := l.book.sessions[i]
		s.hear(l.cfg.Clock.Mono())
		s.batch = l.given + 1
	}
}

// look ends the sessions of other nodes that were silent for their time to live, and
// returns when to look again. All of it passed in this node's own leadership, on its
// monotonic clock. A batch that comes now is before or behind the end in the log, and the
// state machine decides by that.
func (l *Leader) look() time.Duration {
	ttl := l.cfg.SessionTTL
	if ttl == 0 || !l.Leading() {
		return time.Hour // to come to lead is a signal
	}
	every := ttl / lookEvery
	if left := every - (l.cfg.Clock.Mono() - l.looked); left > 0 {
		return left
	}
	live := l.cfg.State.Sessions()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.unbroken() {
		return every
	}
	now := l.cfg.Clock.Mono()
	stalled := now-l.looked > ttl/stallFrom
	l.looked = now
	var commands []byte
	var silent []*session
	for id, node := range l.retain(live) {
		s := l.book.live(id, node == l.cfg.Node)
		if stalled || !s.counts || s.batch > l.told {
			s.hear(now) // or the log is slow, not the node, which waits for its batch
		}
		if s.own || s.ending || now-s.heard < ttl {
			continue
		}
		enc, err := (&command.Command{Op: command.EndSession, Session: id}).Append(commands)
		if err != nil {
			continue // it is small, so never
		}
		commands, s.ending = enc, true
		silent = append(silent, s)
		l.cfg.Log.Warn("a node was silent for the time to live of its session, which is ended: its jobs are free", "node", node, "session", id)
	}
	if len(silent) > 0 {
		l.propose(extra{commands: commands}, func() {
			for _, s := range silent {
				s.ending = false
			}
			l.retain(l.cfg.State.Sessions())
		})
	}
	return every
}
