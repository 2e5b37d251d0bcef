//go:build seeded

package command

import "os"

// Probe is a command of level 2, for tests of versions side by side: it does nothing. A
// build with the tag "seeded" knows it when POGOD_SEEDED_LEVEL is 2, and is older otherwise.
const Probe Op = 255

func init() {
	if os.Getenv("POGOD_SEEDED_LEVEL") == "2" {
		levels[Probe] = 2
		known[Probe].ok = true
	}
}
