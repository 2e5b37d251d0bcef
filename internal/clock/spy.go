package clock

import "time"

// Spy is a Fake that tells of every timer that is set, for tests that advance it only
// when somebody waits.
type Spy struct {
	*Fake
	set chan time.Duration
}

// spied bounds how many timers may be set and not yet awaited; past it AfterFunc waits.
const spied = 10_000

// NewSpy returns a Spy that stands at t.
func NewSpy(t time.Time) *Spy { return &Spy{NewFake(t), make(chan time.Duration, spied)} }

// Set gets the duration of every timer that is set or reset.
func (c *Spy) Set() <-chan time.Duration { return c.set }

// AfterFunc registers f to be called by Advance, and tells of it.
func (c *Spy) AfterFunc(d time.Duration, f func()) Timer {
	t := c.Fake.AfterFunc(d, f)
	c.set <- d
	return spyTimer{t, c}
}

type spyTimer struct {
	Timer
	c *Spy
}

func (t spyTimer) Reset(d time.Duration) bool {
	was := t.Timer.Reset(d)
	t.c.set <- d
	return was
}

// Await waits until a timer of d was set, or reset to d, and forgets those before it;
// false when patience, of the machine's clock, ends first.
func (c *Spy) Await(d, patience time.Duration) bool {
	late := time.After(patience)
	for {
		select {
		case got := <-c.set:
			if got == d {
				return true
			}
		case <-late:
			return false
		}
	}
}
