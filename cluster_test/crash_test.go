package cluster_test

import "testing"

// TestCrash kills the node at random moments under load, and requires that no job is
// lost, none invented, none repeated without a reason. POGOD_CRASH_ROUNDS and
// POGOD_SEED set the rounds and the seed.
func TestCrash(t *testing.T) {
	notTwice(t)
	t.Parallel()
	tr := trial{rounds: envInt(t, "POGOD_CRASH_ROUNDS", 5), seed: newSeed(t)}
	n := newNode(t, build(t, ""), "")
	r, err := tr.run(t, n)
	if err != nil {
		t.Error(err)
	}
	r.require(t)
}
