//go:build seeded

package clock

import (
	"os"
	"strings"
	"time"
)

// skewFile is the variable that names a file with a duration, by whole seconds: how far
// the wall clock is off. A build with the tag "seeded" reads it now and again, so that a
// test of real processes can set the clock of one.
const skewFile = "POGOD_SEEDED_CLOCK"

// System returns the machine's clock, off by what the file of POGOD_SEEDED_CLOCK says.
func System() Clock { return skewed }

var skewed = func() *Skewed {
	c := &Skewed{}
	path := os.Getenv(skewFile)
	if path == "" {
		return c
	}
	read := func() {
		if b, err := os.ReadFile(path); err == nil {
			if d, err := time.ParseDuration(strings.TrimSpace(string(b))); err == nil {
				c.Set(d)
			}
		}
	}
	read()
	go func() { // ended with the process
		for {
			time.Sleep(20 * time.Millisecond)
			read()
		}
	}()
	return c
}()
