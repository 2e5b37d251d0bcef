package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pogod/internal/link"
)

// skewEnv names the file that says how wrong the clock of a node is that was built with the
// tag seeded; see internal/clock.
const skewEnv = "POGOD_SEEDED_CLOCK"

func (n *node) skewFile() string { return filepath.Join(n.home, "skew") }

// skew sets the node's clock to be wrong by d.
func (n *node) skew(d time.Duration) {
	n.t.Helper()
	if err := os.WriteFile(n.skewFile()+".new", []byte(d.String()), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(n.skewFile()+".new", n.skewFile()); err != nil {
		n.t.Fatal(err)
	}
}

// clockDoc is what these tests read of cluster time.
type clockDoc struct {
	Time    time.Time
	AheadMS int64 `json:"ahead_ms"`
	Nodes   []struct {
		Node     string
		Self     bool
		OffsetMS *float64 `json:"offset_ms"`
	}
}

// clock asks the node.
func (n *node) clock(ctx context.Context) (doc clockDoc, err error) {
	body, err := n.get(ctx, "/api/v1/cluster/clock")
	if err == nil {
		err = json.Unmarshal(body, &doc)
	}
	return doc, err
}

// right reports whether no node takes a clock for wrong. One that it has not measured lately
// counts for nothing.
func (c *cluster) right(ctx context.Context) bool {
	for _, n := range c.nodes {
		ask, cancel := context.WithTimeout(ctx, healedFor)
		doc, err := n.clock(ask)
		cancel()
		for _, o := range doc.Nodes {
			if o.OffsetMS != nil && math.Abs(*o.OffsetMS) >= 1000 {
				return false
			}
		}
		if err != nil {
			return false
		}
	}
	return true
}

// sees waits until each node sees that the clock of one is wrong by d, and no other is, and
// that cluster time is right.
func (c *cluster) sees(what string, wrong int, d time.Duration) {
	c.t.Helper()
	doc, err := c.nodes[wrong].document(c.t.Context(), "")
	if err != nil {
		c.t.Fatal(err)
	}
	for i, n := range c.nodes {
		var last string
		until(c.t, func() bool {
			begin := time.Now()
			k, err := n.clock(c.t.Context())
			last = fmt.Sprintf("%+v %v", k, err)
			ok := err == nil && len(k.Nodes) == len(c.nodes) && k.AheadMS < 1000 && k.Time.After(begin.Add(-time.Second)) && k.Time.Before(time.Now().Add(time.Second))
			for _, o := range k.Nodes {
				want := time.Duration(0)
				if o.Node == doc.Node.ID {
					want = d
				}
				ok = ok && o.OffsetMS != nil && (time.Duration(*o.OffsetMS*1e6)-want).Abs() < time.Second
			}
			return ok
		}, func() string { return fmt.Sprintf("%s: node %d does not see that: %s", what, i, last) })
	}
}

// pushLater pushes a job with a delay, in seconds.
func (k *caller) pushLater(payload string, delay int64) {
	k.t.Helper()
	if code, body := k.call(link.Request(nil, link.Push).String(queueLater).String(payload).Int(delay)); code != 1 {
		k.t.Fatalf("a push was answered %d %s", code, body)
	}
}

// works has a job run through what happens, which must not lose its lease, and one that is
// pushed before it and one after it be due after their delay, by the true clock, and once.
func (c *cluster) works(what string, at *node, happens func()) {
	c.t.Helper()
	runner, running := at.holds("runs: " + what)
	tool := at.caller(link.RoleTool, "test")
	begun := []time.Time{time.Now()}
	tool.pushLater("before: "+what, 1)
	happens()
	begun = append(begun, time.Now())
	tool.pushLater("after: "+what, 1)
	worker := at.caller(link.RoleWorker, workerExt)
	for _, payload := range []string{"before: " + what, "after: " + what} {
		d := worker.next()
		if d.Payload != payload || d.Attempts != 1 {
			c.t.Errorf("%s: got %+v, want %q", what, d, payload)
		}
		i := 0
		if strings.HasPrefix(d.Payload, "after") {
			i = 1
		}
		if passed := time.Since(begun[i]); passed < time.Second-grain {
			c.t.Errorf("%s: %q came %s after its push", what, d.Payload, passed)
		}
		if code := worker.ack(d); code != 1 {
			c.t.Errorf("%s: the ack of %q answered %d", what, d.Payload, code)
		}
	}
	if code := runner.ack(running); code != 1 {
		c.t.Errorf("%s: the ack of what ran all the while answered %d", what, code)
	}
}

// TestClocksOfNodesThatAreWrong sets the clock of a node while it runs, and starts one with a
// clock that is wrong, which leads or does not: half of all cases, and with POGOD_CLOCKS=all
// all.
func TestClocksOfNodesThatAreWrong(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, "seeded"), func(n *node) { n.env = []string{skewEnv + "=" + n.skewFile()} })
	jobs := 0
	for i, skew := range []time.Duration{10 * time.Minute, -365 * 24 * time.Hour, -10 * time.Minute, 365 * 24 * time.Hour} {
		for _, leads := range []bool{true, false} {
			if leads != (i%2 == 0) && os.Getenv("POGOD_CLOCKS") != "all" {
				continue
			}
			wrong := c.leader()
			if !leads {
				wrong = (wrong + 1) % 3
			}
			what := fmt.Sprintf("by %s, leads: %v", skew, leads)
			n, other := c.nodes[wrong], c.nodes[(wrong+1)%3]
			c.works("set "+what, other, func() { n.skew(skew) })
			c.sees("set "+what, wrong, skew)
			c.works("started wrong "+what, other, func() {
				n.kill()
				n.start()
				c.whole()
			})
			c.sees("started wrong "+what, wrong, skew)
			if !strings.Contains(n.note(), "this node is "+skew.Abs().String()) {
				t.Errorf("%s: readyz does not say so: %s", what, n.note())
			}
			c.works("set right, it was wrong "+what, n, func() { n.skew(0) })
			c.sees("set right, it was wrong "+what, wrong, 0)
			jobs += 9
		}
	}
	doc, err := c.nodes[0].document(t.Context(), "?consistent=1")
	if err != nil {
		t.Fatal(err)
	}
	now, later := doc.queue(queueNow), doc.queue(queueLater)
	if acked := now.Acked + later.Acked; acked != jobs || now.waiting()+later.waiting() != 0 {
		t.Errorf("%d jobs were acked, of %d: %+v %+v", acked, jobs, now, later)
	}
	if hash, differ := c.sameState(); len(differ) > 0 {
		t.Error(hash, differ)
	}
}

// note is what readyz says of a node that is ready.
func (n *node) note() string {
	body, err := n.get(n.t.Context(), "/readyz")
	if err != nil {
		n.t.Error(err)
	}
	return string(body)
}

// TestControlWallClock takes nodes whose state machines take the time from their own clocks,
// one of which is wrong: their states must be found to differ.
func TestControlWallClock(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, "seeded"), func(n *node) {
		n.env = []string{skewEnv + "=" + n.skewFile(), bugEnv + "=" + bugWallClock}
	})
	c.nodes[(c.leader()+1)%3].skew(10 * time.Minute)
	for i := range 20 {
		c.nodes[0].caller(link.RoleTool, "test").mustPush(queueNow, fmt.Sprint("job ", i))
	}
	_, differ := c.sameState()
	t.Log(differ)
	if len(differ) == 0 {
		t.Error("the bug was not found: the states are the same")
	}
}
