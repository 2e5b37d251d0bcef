package clock

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Skewed is the machine's clock, for tests, with a wall clock that is off by what Set
// says. As with a machine's clock that is set, the monotonic reading of Now, Boot, Mono
// and timers do not change with it.
type Skewed struct {
	system
	seconds atomic.Int64
}

// Set has the wall clock be off by d, of which whole seconds count.
func (c *Skewed) Set(d time.Duration) { c.seconds.Store(int64(d / time.Second)) }

// Now returns the time, wall clock and monotonic reading.
func (c *Skewed) Now() time.Time {
	t := time.Now()
	// Package time has no way to change the one without the other: Add moves both. With a
	// monotonic reading the first word holds the wall clock's seconds, above 30 bits of
	// nanoseconds. TestSkewedSetsTheWallClockAlone would see another layout.
	*(*uint64)(unsafe.Pointer(&t)) += uint64(c.seconds.Load()) << 30
	return t
}
