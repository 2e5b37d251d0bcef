//go:build seeded

package queue

import "os"

// fenced reports whether a lease is asked for; the bug "no-fencing" forgets to, see
// raftfsm/seeded.go.
func fenced() bool { return os.Getenv("POGOD_SEEDED_BUG") != "no-fencing" }
