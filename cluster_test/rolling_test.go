package cluster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestClusterRollingRestart ends the nodes by SIGTERM and starts them again, one after the
// other, under load. No push may fail but one that comes to a node that leaves, and that is
// told so; no call's outcome may be unknown; no attempt may be spent, and no job delivered
// again for the node's sake. How long the queue stood still is told. POGOD_ROLLS says how
// often each node is restarted.
func TestClusterRollingRestart(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	term := c.term()
	var took []time.Duration
	round, leaders := 0, 0
	for range envInt(t, "POGOD_ROLLS", 1) {
		for i, n := range c.nodes {
			if c.leader() == i {
				leaders++
			}
			round++
			took = append(took, c.restarted(l, i, round, n.start))
		}
	}
	elections := c.term() - term
	r := c.unharmed(l)
	r.elections = elections
	t.Logf("%d nodes left, %d of them leading, within %v; %d elections", round, leaders, took, elections)
	if leaders == 0 {
		t.Error("no leader left: this shows nothing of a hand-over")
	}
}

// restarted ends a node by SIGTERM under load, has it started, waits until all is whole
// again, and returns how long the node took to end.
func (c *cluster) restarted(l *loader, i, round int, start func()) (took time.Duration) {
	t := c.t
	t.Helper()
	if line, err := l.ask("loaded", nil); err != nil || line != "loaded" {
		t.Fatal(line, err)
	}
	pause(t.Context(), time.Second) // of load between two
	if err := l.tell("burst"); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), burstFor/2)
	if err := l.tell(fmt.Sprint("fault ", round, " ", faultLeave, " ", i)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.nodes[i].stop()
	took = time.Since(began).Round(time.Millisecond)
	line, err := l.ask(fmt.Sprint("killed ", i, " ", round), nil) // all that was outstanding there has ended
	if err != nil || !strings.HasPrefix(line, "cut ") {
		t.Fatal(line, err)
	}
	start()
	c.whole()
	if err := l.tell(fmt.Sprint("heal ", round)); err != nil {
		t.Fatal(err)
	}
	return took
}

// unharmed judges a load under which nodes left well: no outcome is unknown, and no job came
// again for a node's sake.
func (c *cluster) unharmed(l *loader) *report {
	t := c.t
	t.Helper()
	r, err := c.judge(l, nil)
	r.consistent(t, err)
	r.unhurt(t)
	return r
}

// unhurt checks that no call and no job has noticed that nodes left.
func (r *report) unhurt(t *testing.T) {
	t.Helper()
	for what, n := range map[string]int{
		"pushes of unknown outcome": r.unknown, "pushes withdrawn": r.withdrawn, "acks of unknown outcome": r.ackedMaybe,
		"repeats after a lost connection": r.repeats["node killed"], "repeats after a lost session": r.repeats["session ended"],
		"repeats after an unknown outcome": r.repeats["unknown outcome"],
	} {
		if n > 0 {
			t.Errorf("%d %s", n, what)
		}
	}
}
