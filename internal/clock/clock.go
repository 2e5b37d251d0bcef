// Package clock is the only source of time for the packages that must be testable
// to the millisecond: whoever needs the time is given a Clock. The state machines
// are not: they learn it from the log.
package clock

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells the time and wakes its callers.
type Clock interface {
	// Now returns the time, wall clock and monotonic reading.
	Now() time.Time
	// Boot returns the time since the machine was booted (CLOCK_BOOTTIME): it is never
	// set, and goes on while the machine is suspended, which Now's monotonic reading
	// does not.
	Boot() time.Duration
	// Mono returns the time since some moment of this process: Now's monotonic reading
	// alone. It is never set, and stands still while the machine is suspended.
	Mono() time.Duration
	// AfterFunc calls f in its own goroutine after d.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a pending AfterFunc.
type Timer interface {
	// Stop prevents the call; false when it came too late for that.
	Stop() bool
	// Reset sets the call to d from now, pending or not.
	Reset(d time.Duration) bool
}

type system struct{}

func (system) Now() time.Time                            { return time.Now() }
func (system) Boot() time.Duration                       { return boot() }
func (system) Mono() time.Duration                       { return time.Since(born) }
func (system) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// born is where Mono counts from.
var born = time.Now()

func boot() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // fails for an unknown clock alone
	return time.Duration(ts.Nano())
}

// Fake is a Clock for tests that moves only when told. Its calls are made by
// Advance, one after the other, in the order of their times.
type Fake struct {
	mu     sync.Mutex // guards the rest
	now    time.Time
	booted time.Time // moves with now when that is set back
	timers []*fakeTimer
}

// NewFake returns a Fake that stands at t.
func NewFake(t time.Time) *Fake { return &Fake{now: t, booted: t} }

type fakeTimer struct {
	c       *Fake
	at      time.Time
	f       func()
	pending bool
}

// Now returns where the clock stands.
func (c *Fake) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Boot returns how far the clock was moved forward in all.
func (c *Fake) Boot() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.Sub(c.booted)
}

// Mono is Boot: this machine is never suspended.
func (c *Fake) Mono() time.Duration { return c.Boot() }

// AfterFunc registers f to be called by Advance.
func (c *Fake) AfterFunc(d time.Duration, f func()) Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{c: c, at: c.now.Add(d), f: f, pending: true}
	c.timers = append(c.timers, t)
	return t
}

func (t *fakeTimer) Stop() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	was := t.pending
	t.pending = false
	return was
}

func (t *fakeTimer) Reset(d time.Duration) bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	was := t.pending
	t.at, t.pending = t.c.now.Add(d), true
	for _, x := range t.c.timers {
		if x == t {
			return was
		}
	}
	t.c.timers = append(t.c.timers, t)
	return was
}

// Step sets the wall clock by d, ahead or back, and nothing else: no time passes.
func (c *Fake) Step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.booted = c.now.Add(d), c.booted.Add(d)
	for _, t := range c.timers {
		t.at = t.at.Add(d)
	}
}

// Advance moves the clock by d (a negative d sets it back) and makes the calls
// that came due.
func (c *Fake) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	if d < 0 {
		c.booted = c.booted.Add(d)
	}
	for {
		var next *fakeTimer
		live := c.timers[:0]
		for _, t := range c.timers {
			if !t.pending {
				continue
			}
			live = append(live, t)
			if !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		c.timers = live
		if next == nil {
			break
		}
		next.pending = false
		if next.at.After(c.now) {
			c.now = next.at
		}
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}
