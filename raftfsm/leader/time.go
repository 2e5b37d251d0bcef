package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pogod/internal/command"
	"pogod/raftfsm"
)

// Clocks is *clocks.Clocks: what is known of the voters' clocks.
type Clocks interface {
	// Median returns the median of the voters' clocks in unix milliseconds, of two the
	// earlier; known is false while the clocks of a majority are not. now and mono are this
	// node's, read together. It is called for each entry, and takes no lock.
	Median(now time.Time, mono time.Duration) (millis int64, known bool)
}

// stamps is cluster time as this leader goes on with it; the zero value begins where the
// state is.
type stamps struct {
	begun bool
	first bool          // nothing was stamped since: what passed in an election is no leap
	last  int64         // unix milliseconds
	at    time.Duration // Mono, when time was last
	leap  int64         // of last, milliseconds that no time has passed for and no entry tells of yet

	waits bool          // for the clocks of a majority, before it begins
	since time.Duration // Mono
}

// A new leader that does not know the clocks of a majority yet takes nothing for
// clocksWithin, and looks again each clocksPause: time would stand where its predecessor
// left it, perhaps a night ago, and leap when the clocks are known.
const (
	clocksWithin = 2 * time.Second
	clocksPause  = 20 * time.Millisecond
)

var errNoClocks = fmt.Errorf("%w: the clocks of a majority of the voters are not known yet", raftfsm.ErrNotSent)

// begin has time begin where the state is, once the clocks are known or were waited for; it
// fails with errNoClocks before. mu is held.
func (l *Leader) begin() error {
	s := &l.stamps
	if s.begun {
		return nil
	}
	_, known, mono := l.median()
	if !known {
		if !s.waits {
			s.waits, s.since = true, mono
		}
		if mono-s.since < clocksWithin {
			return errNoClocks
		}
	}
	_, s.last = l.cfg.State.NextTick()
	s.begun, s.first, s.at, s.leap = true, true, mono, 0
	return nil
}

// leapFrom is from where a median that is ahead of what has passed is a clock that was
// set: time leaps, and leases are moved along.
const leapFrom = time.Second

// median of the voters' clocks, now.
func (l *Leader) median() (millis int64, known bool, mono time.Duration) {
	now, mono := l.cfg.Clock.Now(), l.cfg.Clock.Mono()
	if l.cfg.Clocks == nil {
		return now.UnixMilli(), true, mono
	}
	millis, known = l.cfg.Clocks.Median(now, mono)
	return millis, known, mono
}

// time is cluster time: the median of the voters' clocks, which never goes back here. While
// the median is behind the last stamp, or not known, time goes on at half speed until the
// clocks have caught up. It has begun. mu is held.
func (l *Leader) time() int64 {
	median, known, mono := l.median()
	s := &l.stamps
	if passed := mono - s.at; known && median >= s.last {
		if leap := median - s.last - passed.Milliseconds(); !s.first && leap > leapFrom.Milliseconds() {
			s.leap += leap
		}
		s.last, s.at = median, mono
	} else {
		step := (passed / 2).Truncate(time.Millisecond)
		s.last += step.Milliseconds()
		s.at += 2 * step
	}
	s.first = false
	return s.last
}

// stamp returns the time of an entry and its commands. When time has leaped, the entry is
// the last one of before, and ends with the command that sets the time, so that leases,
// those of the entry too, are moved along. mu is held.
func (l *Leader) stamp(commands []byte) (millis int64, all []byte) {
	millis = l.time()
	leap := l.stamps.leap
	if leap == 0 {
		return millis, commands
	}
	l.stamps.leap = 0
	enc, err := (&command.Command{Op: command.SetTime, Time: millis}).Append(commands)
	if err != nil {
		return millis, commands // it is small, so never
	}
	return millis - leap, enc
}

// resetFrom is how far ahead of the clocks time must be to be set back: less is caught up
// with in seconds.
const resetFrom = time.Second

// ErrNotReset is wrapped by the errors with which ResetTime refuses.
var ErrNotReset = errors.New("cluster time was not set back")

// Reset is what ResetTime has done.
type Reset struct {
	Back time.Duration // by so much time was set back
	To   time.Time     // and is that now
}

// ResetTime sets cluster time back to the median of the voters' clocks, when it is ahead of
// that, and returns by how much. Leases are moved along. What is due at a time stays due
// then. An error that wraps raftfsm.ErrNotSent says that another leader is to be asked.
func (l *Leader) ResetTime(context.Context) (Reset, error) {
	l.mu.Lock()
	if !l.unbroken() {
		l.mu.Unlock()
		return Reset{}, fmt.Errorf("%w: node %s, which was asked, does not lead", raftfsm.ErrNotSent, l.cfg.Node)
	}
	if err := l.begin(); err != nil {
		l.mu.Unlock()
		return Reset{}, err
	}
	from := l.time()
	to, known, mono := l.median()
	back := time.Duration(from-to) * time.Millisecond
	var err error
	switch {
	case !known:
		err = fmt.Errorf("%w: the clocks of a majority of the voters are not known; see that the members are up and ask again", ErrNotReset)
	case back < resetFrom:
		err = fmt.Errorf("%w: it is not ahead of the clocks", ErrNotReset)
	}
	var enc []byte
	if err == nil {
		enc, err = (&command.Command{Op: command.SetTime, Time: to}).Append(nil)
	}
	if err != nil {
		l.mu.Unlock()
		return Reset{}, err
	}
	wait := l.apply(nil, extra{commands: enc})
	// Entries behind it in the log are stamped from there, or they would set it ahead again.
	l.stamps = stamps{begun: true, last: to, at: mono}
	l.mu.Unlock()
	if _, err := wait(); err != nil {
		l.mu.Lock()
		l.stamps = stamps{} // the state knows
		l.mu.Unlock()
		return Reset{}, err
	}
	l.signal() // what is due later now
	l.cfg.Log.Warn("cluster time was set back to the median of the voters' clocks", "by", back)
	return Reset{back, time.UnixMilli(to)}, nil
}
