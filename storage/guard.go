package storage

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Guard calls f, and turns a panic of bbolt, or a page of the map that is not there, into
// ErrCorrupt: that is how bbolt tells that its pages are damaged. The Store must not be
// used afterwards, not even closed, for bbolt may hold its locks. Other panics go on.
func Guard(f func() error) (err error) {
	before := debug.SetPanicOnFault(true) // of this goroutine
	defer debug.SetPanicOnFault(before)
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); !fault && !inBolt() {
				panic(p)
			}
			err = fmt.Errorf("%w: a page of the data file: %v", ErrCorrupt, p)
		}
	}()
	return f()
}

// inBolt reports whether the panic that is being recovered began in bbolt.
func inBolt() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	panicking := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic" || f.Function == "runtime.sigpanic":
			panicking = true
		case panicking && !strings.HasPrefix(f.Function, "runtime."):
			return strings.HasPrefix(f.Function, "go.etcd.io/bbolt")
		}
		if !more {
			return false
		}
	}
}
