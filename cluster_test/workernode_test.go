package cluster_test

import (
	"strings"
	"testing"
	"time"

	"pogod/internal/link"
)

// TestClusterWorkerNode has a worker node beside three voters: it pushes, takes jobs and acks
// by way of the leader, and when it is killed its jobs go to the others. It counts in no
// majority: with it and a voter dead the other two go on, and with two voters dead it helps
// nobody. It cannot lead, and leaves as any node does.
func TestClusterWorkerNode(t *testing.T) {
	notTwice(t)
	t.Parallel()
	bin := build(t, "")
	c := &cluster{t: t, lan: newLAN(t, 4)}
	prepare := func(n *node) { n.settings = "push_timeout = \"3s\"\n" } // over some elections
	c.add(bin, 0, prepare)
	w := c.add(bin, 1, prepare, "--worker") // before those that get a vote meanwhile
	c.add(bin, 2, prepare)
	c.add(bin, 3, prepare)
	voters := []*node{c.nodes[0], c.nodes[2], c.nodes[3]}
	c.whole()
	if out := w.run("cluster", "members"); strings.Count(out, "  worker  ") != 1 || strings.Contains(out, "non-voter") {
		t.Errorf("its members:\n%s", out)
	}
	if got := voters[1].refused("cluster", "transfer", w.id()); !strings.Contains(got, "has no vote, so it cannot lead") {
		t.Error(got)
	}

	thread, d := w.holds("first")
	if code := thread.ack(d); code != 1 {
		t.Fatalf("its ack was answered %d", code)
	}
	w.holds("held")
	down, up := voters[0], voters[1]
	down.kill()
	other := up.caller(link.RoleWorker, workerExt)
	got := make(chan *delivery, 2)
	go func() { // ended by two deliveries, or with the connection
		for range cap(got) {
			d := other.next()
			if code := other.ack(d); code != 1 {
				t.Errorf("the ack of %q was answered %d", d.Payload, code)
			}
			got <- d
		}
	}()
	w.kill()
	up.caller(link.RoleTool, "test").mustPush(queueLater, "by two of three voters")
	seen := map[string]bool{}
	for range cap(got) {
		select {
		case d := <-got:
			seen[d.Payload] = true
		case <-time.After(readyWithin):
			t.Fatalf("only %v came to another node", seen)
		}
	}
	if !seen["held"] {
		t.Errorf("the job of the dead worker did not come: %v", seen)
	}

	down.start()
	w.start()
	c.whole()
	for _, n := range voters[:2] {
		n.kill()
	}
	if a := w.caller(link.RoleTool, "test").push(queueNow, "nobody leads"); a.code != 5 {
		t.Errorf("with two of three voters dead a push on the worker was answered %+v", a)
	}
	if i := c.leads(); i >= 0 {
		t.Errorf("node %d leads", i)
	}
	for _, n := range voters[:2] {
		n.start()
	}
	c.whole()

	if got := w.run("cluster", "leave", "--yes"); got != "this node has left the cluster\n" {
		t.Error(got)
	}
	if err := w.ended(); err != nil {
		t.Error(err)
	}
	c.nodes = voters
	c.whole()
}
