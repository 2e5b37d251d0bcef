package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestClusterReplacingANode brings a fourth voter in and lets the first node, which leads,
// leave, under load on the first three: nothing that was accepted is lost, no push fails but
// one that comes to the node that leaves, and no job is delivered again for it. The node
// that has left does not start again, and comes back as a new one.
func TestClusterReplacingANode(t *testing.T) {
	notTwice(t)
	t.Parallel()
	bin := build(t, "")
	c := &cluster{t: t, lan: newLAN(t, 4)}
	for i := range 3 {
		c.add(bin, i, nil)
	}
	c.whole()
	first, second := c.nodes[0], c.nodes[1]
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	c.add(bin, 3, nil)
	c.whole()
	former := first.id()
	for _, to := range []string{second.id(), former} {
		if got := second.run("cluster", "transfer", to); strings.TrimSpace(got) != to {
			t.Errorf("%q leads, not the node that was named, %s", got, to)
		}
	}
	for _, refused := range []struct{ args, want string }{
		{"leave --yes " + former, "leads: run `pogod cluster leave` on it"},
		{"leave --yes " + c.nodes[3].id(), "is up: run `pogod cluster leave` on it"},
		{"leave --yes 0123456789abcdef", "is no member"},
		{"transfer 0123456789abcdef", "is no member"},
	} {
		if got := second.refused(append([]string{"cluster"}, strings.Fields(refused.args)...)...); !strings.Contains(got, refused.want) {
			t.Errorf("%s: %q", refused.args, got)
		}
	}
	if err := l.tell(fmt.Sprint("fault 1 ", faultLeave, " 0")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got := first.run("cluster", "leave", "--yes"); got != "this node has left the cluster\n" {
		t.Error(got)
	}
	t.Logf("the leader left within %s", time.Since(began).Round(time.Millisecond))
	if err := first.ended(); err != nil {
		t.Error(err)
	}
	if line, err := l.ask("killed 0 1", nil); err != nil || !strings.HasPrefix(line, "cut ") {
		t.Fatal(line, err)
	}
	c.nodes = c.nodes[1:]
	c.whole()
	if got := first.refused("serve"); !strings.Contains(got, "has left its cluster") {
		t.Error(got)
	}
	second.lets(first)
	first.start()
	c.nodes = append([]*node{first}, c.nodes...)
	c.whole()
	if now := first.id(); now == former {
		t.Error("it came back as the node that has left")
	}
	if err := l.tell("heal 1"); err != nil {
		t.Fatal(err)
	}
	r, err := c.judge(l, nil)
	r.consistent(t, err)
	r.unhurt(t)
}

// TestClusterRemovingADeadNode removes a node that was killed, by its id. When it is started
// again the others tell it, and it ends.
func TestClusterRemovingADeadNode(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	dead := c.nodes[2]
	id := dead.id()
	dead.kill()
	c.nodes = c.nodes[:2]
	eventually(t, "it is seen to be down", func() bool {
		doc, err := c.nodes[0].document(t.Context(), "")
		return err == nil && slices.ContainsFunc(doc.Raft.Members, func(m member) bool { return m.ID == id && !m.Up })
	})
	if got := c.nodes[0].run("cluster", "leave", "--yes", id); got != "node "+id+" was removed from the cluster\n" {
		t.Error(got)
	}
	c.whole()
	dead.start()
	dead.refuses("this node has left its cluster: it was removed by another one")
	if got := dead.refused("serve"); !strings.Contains(got, "has left its cluster") {
		t.Error(got)
	}
	c.nodes[1].run("cluster", "leave", "--yes", id) // twice is once
}
