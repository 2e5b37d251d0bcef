package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// pushRate is how many pushes a second the load of a cluster makes.
const pushRate = 300

// TestClusterFaults puts three nodes under load and brings kills, pauses and partitions
// over them, as each seed has them. Whatever happened, no job may be lost, none invented
// or pushed twice, none repeated without a fault that justifies it, and in the end all
// nodes have the same state. With POGOD_FAULTS=all, and in the second run, disks fail and are
// full, data is wiped and flipped, and clocks are set, too. POGOD_CLUSTER_SECONDS says how long each run takes, and
// POGOD_SEED asks for one run with that seed.
func TestClusterFaults(t *testing.T) {
	notTwice(t)
	t.Parallel()
	seconds := envInt(t, "POGOD_CLUSTER_SECONDS", 35)
	seeds := []uint64{1, 2}
	if os.Getenv("POGOD_SEED") != "" {
		seeds = []uint64{newSeed(t)}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			total := time.Duration(seconds) * time.Second
			draw := rand.New(rand.NewPCG(seed, 1))
			var r *report
			var err error
			if os.Getenv("POGOD_FAULTS") == "all" || len(seeds) > 1 && seed == seeds[1] {
				c, disks := newFrail(t)
				r, err = c.besiege(seed, newStrikes(draw, total, allStrikeKinds), pushRate, disks...)
			} else {
				r, err = newCluster(t, build(t, ""), nil).besiege(seed, newStrikes(draw, total, strikeKinds), pushRate)
			}
			r.consistent(t, err)
			if len(seeds) == 1 {
				t.Logf("seed %d, %s of faults, %d pushes/s\n\n%s", seed, total, pushRate, r.markdown())
			}
		})
	}
}

// besiege brings faults over a cluster under load, lets all be worked off, and judges. disks
// are those of the nodes, for faults of disks.
func (c *cluster) besiege(seed uint64, plan []strike, rate int, disks ...*faultyDisk) (*report, error) {
	c.t.Helper()
	l := c.startLoad(loadSpec{Seed: seed, Producers: producers, Consumers: consumers, Late: lates, Long: 3, Outstanding: outstanding, Rate: rate})
	term := c.term()
	s := &siege{c: c, l: l, disks: disks}
	if err := s.run(c.t.Context(), plan); err != nil {
		c.t.Fatal(err)
	}
	r, err := c.judge(l, nil)
	r.elections = c.term() - term
	return r, err
}

// TestControlDroppedDedupe takes nodes whose sessions apply a batch as often as it comes:
// what is sent again when the leader dies must show as pushed twice.
func TestControlDroppedDedupe(t *testing.T) {
	var plan []strike
	for i := range 3 {
		plan = append(plan, strike{at: time.Duration(1+3*i) * time.Second, lasts: 500 * time.Millisecond, kind: faultKill, leader: true})
	}
	control(t, bugDroppedDedupe, plan, pushedTwice)
}

// TestControlLeaseCheck takes nodes that settle a job with whatever lease comes.
func TestControlLeaseCheck(t *testing.T) {
	control(t, bugNoFencing, []strike{{at: time.Second, lasts: 8 * time.Second, kind: faultPause}}, stale)
}

// control requires that a bug is found within some runs.
func control(t *testing.T, bug string, plan []strike, want kind) {
	t.Helper()
	notTwice(t)
	bin := build(t, "seeded")
	for run := range controlRounds {
		c := newCluster(t, bin, func(n *node) { n.env = []string{bugEnv + "=" + bug} })
		r, err := c.besiege(uint64(run+1), plan, 0)
		t.Logf("run %d\n%s", run, r)
		if err != nil {
			t.Logf("and as may be: %v", err)
		}
		if r.count(want) > 0 {
			return
		}
		for _, n := range c.nodes {
			n.kill()
		}
	}
	t.Errorf("the bug was not found in %d runs: nothing is %q", controlRounds, want)
}
