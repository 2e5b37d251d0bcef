package disk

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Space is the free space of a file system, and whether it is above its floor. It falls
// below at once, and is above again with a quarter of the floor more, so that pushes do
// not come and go with each segment of the log.
type Space struct {
	dir string

	mu    sync.Mutex // guards the rest
	floor int64
	free  int64
	low   bool
	err   error // of the last look
}

// NewSpace looks at the file system of dir for the first time. floor is in bytes, 0 for
// none.
func NewSpace(dir string, floor int64) *Space {
	s := &Space{dir: dir, floor: floor}
	s.Look()
	return s
}

// Look asks the file system. Call it a few times a second; it may hang with the disk.
func (s *Space) Look() {
	var st unix.Statfs_t
	err := unix.Statfs(s.dir, &st)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		s.free = int64(st.Bavail) * st.Bsize
	}
	s.judge()
}

// SetFloor replaces the floor, in bytes.
func (s *Space) SetFloor(floor int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floor, s.low = floor, false
	s.judge()
}

// judge decides whether there is too little. What cannot be asked stays as it was. mu is
// held.
func (s *Space) judge() {
	switch {
	case s.err != nil:
	case s.low:
		s.low = s.free < s.floor+s.floor/4
	default:
		s.low = s.free < s.floor
	}
}

// Standing is the space as of the last Look.
type Standing struct {
	Free, Floor int64 // bytes
	Low         bool  // it is below the floor, or was and is not yet well above it
}

// Standing of now.
func (s *Space) Standing() Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Standing{s.free, s.floor, s.low}
}

// Tight reports whether there is less than a quarter above the floor: who leads had better
// be another node.
func (s *Space) Tight() bool {
	t := s.Standing()
	return t.Low || t.Free < t.Floor+t.Floor/4
}

// ErrLow is returned when there is less free space than the floor.
var ErrLow = errors.New("too little free space")

// Room returns nil while there is room for pushes, else ErrLow with how much there is, how
// much is needed, and where.
func (s *Space) Room() error {
	t := s.Standing()
	if !t.Low {
		return nil
	}
	again := ""
	if t.Free >= t.Floor {
		again = ", and a quarter more once there was less"
	}
	return fmt.Errorf("%w: %s has %s free, and [node] min_free_bytes is %s%s; make room there", ErrLow, s.dir, Size(t.Free), Size(t.Floor), again)
}

// Size writes bytes for people, in units of 1024.
func Size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1023.5 && unit < 4 {
		f, unit = f/1024, unit+1
	}
	digits := 1
	if f >= 99.95 {
		digits = 0
	}
	return fmt.Sprintf("%.*f %ciB", digits, f, "KMGTP"[unit])
}
