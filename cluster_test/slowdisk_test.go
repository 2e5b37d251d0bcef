package cluster_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pogod/internal/link"
)

// TestASlowDiskIsToldAndStartsNoElection has the syncs of the leader's disk, and then of a
// follower's, take 200 ms, and with POGOD_SLOW_DISKS=all 1 s. Nobody else is elected, no push
// waits for as long as push_timeout, jobs are worked off, and the node says that its disk is
// slow, with figures.
func TestASlowDiskIsToldAndStartsNoElection(t *testing.T) {
	t.Parallel()
	notTwice(t)
	c, disks := onFaultyDisks(t)
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	term := c.term()
	delays := []time.Duration{200 * time.Millisecond}
	if os.Getenv("POGOD_SLOW_DISKS") == "all" {
		delays = append(delays, time.Second)
	}
	for _, delay := range delays {
		for _, who := range []string{"leader", "follower"} {
			i := c.leader()
			k := c.nodes[i].caller(link.RoleTool, "test")
			if who == "follower" {
				i = (i + 1) % 3
			}
			disks[i].strike(diskFault{delay: delay})
			note := ""
			until(t, func() bool {
				doc, err := c.nodes[i].document(t.Context(), "")
				if at := slices.IndexFunc(doc.notes(), func(s string) bool { return strings.HasPrefix(s, "the disk is slow: ") }); err == nil && at >= 0 {
					note = doc.Notes[at]
				}
				return note != ""
			}, func() string { return fmt.Sprintf("%s of the %s: it is not told", delay, who) })
			var took []time.Duration
			for range 5 {
				a := k.push(noQueue, "x") // refused by the state machine, once it is committed
				if a.code != 6 {
					t.Errorf("a push was answered %+v", a)
				}
				took = append(took, a.took)
			}
			slices.Sort(took)
			t.Logf("syncs of the %s take %s: pushes %v; %s", who, delay, took, note)
			disks[i].heal()
		}
	}
	if now := c.term(); now != term {
		t.Errorf("term %d, and %d before", now, term)
	}
	r, err := c.judge(l, nil)
	r.consistent(t, err)
}

// notes of a document that may not be there.
func (d *statusDoc) notes() []string {
	if d == nil {
		return nil
	}
	return d.Notes
}
