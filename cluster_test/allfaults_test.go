package cluster_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// allStrikeKinds are those of strikeKinds, and what happens to disks, data and clocks.
var allStrikeKinds = append(slices.Clone(strikeKinds),
	strikeKind{faultWipe, 2, 0, 3 * time.Second},
	strikeKind{faultFlip, 2, 0, 3 * time.Second},
	strikeKind{faultDisk, 3, time.Second, 8 * time.Second},
	strikeKind{faultFull, 2, time.Second, 8 * time.Second},
	strikeKind{faultClock, 3, 2 * time.Second, 12 * time.Second},
)

// lonely reports whether nothing else may be wrong beside a fault: what a node has lost it
// must get from the two others.
func lonely(kind string) bool { return kind == faultWipe || kind == faultFlip }

// newFrail makes a cluster that can be struck by all kinds of faults: each node is on a disk
// that can fail, has a clock that can be set, and a log that is short.
func newFrail(t *testing.T) (c *cluster, disks []*faultyDisk) {
	t.Helper()
	c = newCluster(t, build(t, "seeded"), func(n *node) {
		disks = append(disks, n.onFaultyDisk())
		n.env = []string{skewEnv + "=" + n.skewFile(), "POGOD_SEEDED_LOG_BYTES=4194304"}
	})
	return c, disks
}

// strikeMore begins a fault of the kinds that strikeKinds has not.
func (s *siege) strikeMore(ctx context.Context, o *ongoing) error {
	n := s.c.nodes[o.node]
	switch o.kind {
	case faultWipe, faultFlip:
		return s.c.killed(s.l, o.node, o.number)
	case faultClock:
		n.skew([]time.Duration{10 * time.Minute, -10 * time.Minute, 365 * 24 * time.Hour, -365 * 24 * time.Hour}[o.pick%4])
		return nil
	}
	f := diskFaults[o.pick%3].diskFault
	if o.kind == faultFull {
		f = diskFault{files: "data/log/", write: syscall.ENOSPC}
	}
	if doc, err := n.document(ctx, ""); err == nil { // else it starts just now
		o.since = doc.Node.StartedAt
	}
	s.disks[o.node].strike(f)
	return nil
}

// overMore ends such a fault, in steps, and says whether all is as before.
func (s *siege) overMore(ctx context.Context, o *ongoing) bool {
	n := s.c.nodes[o.node]
	switch {
	case o.kind == faultClock && o.starting:
		return len(s.ongoing) == 1 && s.c.right(ctx) // all nodes answer then
	case !o.starting:
		switch {
		case o.kind == faultClock:
			n.skew(0)
		case o.kind == faultWipe && s.c.leads() < 0:
			return false // who would take it in?
		case o.kind == faultWipe:
			s.c.wipe(o.node)
			n.start()
		case o.kind == faultFlip:
			if st, err := os.Stat(filepath.Join(n.dir, "state.db")); err == nil && st.Size() <= verifiedAtStart {
				s.c.t.Logf("fault %d: %s", o.number, n.flip(rand.New(rand.NewPCG(uint64(o.pick), 0)), "state.db"))
			}
			n.start()
		default:
			s.disks[o.node].heal()
		}
		o.starting = true
		return false
	}
	ask, cancel := context.WithTimeout(ctx, healedFor)
	defer cancel()
	doc, err := n.document(ask, "")
	if err != nil || doc.Storage.Failure != "" {
		return false
	}
	if _, err := n.get(ask, "/readyz"); err != nil {
		return false
	}
	switch o.kind {
	case faultWipe:
		return len(doc.Raft.Members) == len(s.c.nodes) && !slices.ContainsFunc(doc.Raft.Members, func(m member) bool { return !m.Voter })
	case faultDisk, faultFull: // it executes itself anew when it was refused something
		return s.disks[o.node].struck.Load() == 0 || !doc.Node.StartedAt.Equal(o.since)
	}
	return true
}

// verifiedAtStart is how large a data file is read whole at each start.
const verifiedAtStart = 64 << 20

// TestAllStrikes shows that all kinds come.
func TestAllStrikes(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	for _, s := range newStrikes(rand.New(rand.NewPCG(1, 1)), 30*time.Minute, allStrikeKinds) {
		count[s.kind]++
	}
	if len(count) != len(allStrikeKinds) {
		t.Error(count)
	}
}
