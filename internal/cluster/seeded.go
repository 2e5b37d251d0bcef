//go:build seeded

package cluster

import "os"

// promotesEarly is a seeded bug, see raftfsm/seeded.go: a member is given its vote before it
// has the data.
var promotesEarly = os.Getenv("POGOD_SEEDED_BUG") == "early-promotion"
