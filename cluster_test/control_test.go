package cluster_test

import "testing"

// bugEnv names the bug of a node that was built with the tag seeded; see
// raftfsm/seeded.go.
const (
	bugEnv                = "POGOD_SEEDED_BUG"
	bugAnswerBeforeCommit = "answer-before-commit"
	bugNoLogFsync         = "no-log-fsync"
	bugDroppedDedupe      = "dropped-dedupe"
	bugNoFencing          = "no-fencing"
	bugSnapshotRace       = "snapshot-race"
	bugRestoreSkipped     = "restore-skipped"
	bugWallClock          = "wall-clock"
	bugEarlyPromotion     = "early-promotion"
)

// controlRounds is how many rounds a bug may take to be seen.
const controlRounds = 3

// TestControlAnswerBeforeCommit takes a node that answers a push before it has submitted
// it: TestCrash's trial must find lost jobs.
func TestControlAnswerBeforeCommit(t *testing.T) {
	notTwice(t)
	t.Parallel()
	// It accepts even what the state machine refuses then: these are not the jobs that
	// are looked for.
	tr := trial{rounds: controlRounds, seed: newSeed(t), plain: true}
	n := newNode(t, build(t, "seeded"), "")
	n.env = []string{bugEnv + "=" + bugAnswerBeforeCommit}
	r, err := tr.run(t, n)
	r.requireLoss(t, err)
}

// TestControlNoLogFsync takes a node that does not sync its log. A kill loses nothing,
// for the page cache outlives the process; TestPowerCut's trial must find lost jobs.
func TestControlNoLogFsync(t *testing.T) {
	notTwice(t)
	bin, bug := build(t, "seeded"), []string{bugEnv + "=" + bugNoLogFsync}
	t.Run("kill", func(t *testing.T) {
		tr := trial{rounds: 1, seed: newSeed(t), plain: true}
		n := newNode(t, bin, "")
		n.env = bug
		r, err := tr.run(t, n)
		if err != nil {
			t.Error(err)
		}
		r.require(t)
	})
	t.Run("power cut", func(t *testing.T) {
		d := newDisk(t)
		n := newNode(t, bin, d.data())
		n.env = bug
		d.users = n.kill
		tr := trial{rounds: controlRounds, seed: newSeed(t), plain: true, broken: true, cut: d.cutUnder, restore: d.restore}
		r, err := tr.run(t, n)
		r.requireLoss(t, err)
	})
}

// requireLoss fails the test unless jobs were lost. err is that of trial.run.
func (r *report) requireLoss(t *testing.T, err error) {
	t.Helper()
	t.Logf("\n%s", r)
	if err != nil {
		t.Logf("and as is to be expected: %v", err)
	}
	if r.count(lostJob) == 0 {
		t.Error("the bug was not found: no job is lost")
	}
}
