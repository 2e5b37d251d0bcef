package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// cluster is nodes, three as a rule, each in a network namespace of its own.
type cluster struct {
	t     *testing.T
	lan   *lan
	nodes []*node
}

// newCluster makes a cluster of three voters that are ready. prepare is called before a
// node's first start; nil: nothing.
func newCluster(t *testing.T, bin string, prepare func(n *node)) *cluster {
	t.Helper()
	c := &cluster{t: t, lan: newLAN(t, 3)}
	for i := range c.lan.hosts {
		c.add(bin, i, prepare)
	}
	c.whole()
	return c
}

// add starts one more node, on a host of the LAN: the first one begins the cluster, the
// others join with a token that is made with these options.
func (c *cluster) add(bin string, host int, prepare func(n *node), token ...string) *node {
	t := c.t
	t.Helper()
	n := newNode(t, bin, "")
	n.enter(c.lan, host)
	if prepare != nil {
		prepare(n)
	}
	if err := n.configure(); err != nil {
		t.Fatal(err)
	}
	if len(c.nodes) == 0 {
		n.run("cluster", "init")
	} else {
		c.nodes[0].lets(n, token...)
	}
	n.start()
	if err := n.ready(); err != nil {
		t.Fatalf("node %d: %v", host, err)
	}
	c.nodes = append(c.nodes, n)
	return n
}

// lets has a node join at this one, with a token that is made with these options.
func (n *node) lets(o *node, token ...string) {
	n.t.Helper()
	made := n.run(append([]string{"cluster", "token"}, token...)...)
	o.run("cluster", "join", n.addr, regexp.MustCompile(`pogod1_\S+`).FindString(made))
}

// run runs a command of pogod to its end and returns what it says.
func (n *node) run(args ...string) string {
	n.t.Helper()
	cmd := n.command(args...)
	var out []byte
	err := n.within(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		n.t.Fatalf("pogod %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// refused runs a command of pogod that must fail and returns what it says.
func (n *node) refused(args ...string) (said string) {
	n.t.Helper()
	err := n.within(func() error {
		said = turnedAway(n.t, n.command(args...))
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return said
}

// ended waits until the process has ended by itself, and returns its error.
func (n *node) ended() error {
	n.t.Helper()
	select {
	case <-n.exited:
		n.cmd = nil
		return n.err
	case <-time.After(endWithin):
		n.t.Fatalf("the node did not end within %s", endWithin)
		return nil
	}
}

// id is that of the node, which runs.
func (n *node) id() string {
	n.t.Helper()
	doc, err := n.document(n.t.Context(), "")
	if err != nil {
		n.t.Fatal(err)
	}
	return doc.Node.ID
}

// whole waits until all nodes are ready, and see as many members whose links are up, and
// which vote but for the workers.
func (c *cluster) whole() {
	c.t.Helper()
	for i, n := range c.nodes {
		if err := n.ready(); err != nil {
			c.t.Fatalf("node %d: %v", i, err)
		}
		var last string
		until(c.t, func() bool {
			doc, err := n.document(c.t.Context(), "")
			last = fmt.Sprint(doc, err)
			return err == nil && len(doc.Raft.Members) == len(c.nodes) && !slices.ContainsFunc(doc.Raft.Members, func(m member) bool { return m.Voter == m.Worker || !m.Up })
		}, func() string {
			return fmt.Sprintf("node %d does not see %d members and their votes: %s", i, len(c.nodes), last)
		})
	}
}

// until asks again and again until f is true, and fails the test when that takes too long.
func until(t *testing.T, f func() bool, failure func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	for !f() {
		if !pause(ctx, 4*pollPause) {
			t.Fatalf("after %s: %s", readyWithin, failure())
		}
	}
}

// askedFor bounds a question to a node that may be paused; healedFor one to a node that was
// struck and may lag: its status first waits a second for the node's own writes.
const (
	askedFor  = 300 * time.Millisecond
	healedFor = 2 * time.Second
)

// leads returns the number of the node that leads, of those that answer; -1 when there is
// none.
func (c *cluster) leads() int {
	leader, term := -1, uint64(0)
	for i, n := range c.nodes {
		if n.cmd == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), askedFor)
		doc, err := n.document(ctx, "")
		cancel()
		if err == nil && doc.Raft.State == "Leader" && doc.Raft.Term > term {
			leader, term = i, doc.Raft.Term
		}
	}
	return leader
}

// leader waits for one.
func (c *cluster) leader() int {
	c.t.Helper()
	i := -1
	until(c.t, func() bool { i = c.leads(); return i >= 0 }, func() string { return "no node leads" })
	return i
}

// term is that of the group.
func (c *cluster) term() uint64 {
	c.t.Helper()
	doc, err := c.nodes[c.leader()].document(c.t.Context(), "")
	if err != nil {
		c.t.Fatal(err)
	}
	return doc.Raft.Term
}

// sameState asks all nodes for the hash of their states until they have said it for the
// same entry. It returns the hash, or a violation: two nodes differ.
func (c *cluster) sameState() (string, []violation) {
	c.t.Helper()
	said := map[uint64]map[int]string{} // by entry and node
	var agreed string
	var differ []violation
	until(c.t, func() bool {
		docs := make([]*statusDoc, len(c.nodes))
		var all sync.WaitGroup
		for i, n := range c.nodes { // at once: a large state takes longer than there is between two entries
			all.Go(func() { docs[i], _ = n.document(c.t.Context(), "?hash=1") }) // ended by the answer
		}
		all.Wait()
		for i, doc := range docs {
			if doc == nil || doc.Storage.Hash == "" {
				continue
			}
			at := doc.Storage.HashIndex
			if said[at] == nil {
				said[at] = map[int]string{}
			}
			for k, hash := range said[at] {
				if hash != doc.Storage.Hash {
					differ = append(differ, violation{hashKind, fmt.Sprintf("at entry %d node %d has %s and node %d has %s", at, k, hash, i, doc.Storage.Hash)})
					return true
				}
			}
			said[at][i] = doc.Storage.Hash
			if len(said[at]) == len(c.nodes) {
				agreed = fmt.Sprintf("%.16s at entry %d", doc.Storage.Hash, at)
				return true
			}
		}
		return false
	}, func() string { return fmt.Sprintf("the nodes have not shown their states at the same entry: %v", said) })
	return agreed, differ
}

// exited returns an error when a node has ended by itself.
func (c *cluster) exited() error {
	for i, n := range c.nodes {
		if n.cmd == nil {
			continue
		}
		select {
		case <-n.exited:
			return fmt.Errorf("%w: node %d: %w: %s", errExited, i, n.err, n.lastLine())
		default:
		}
	}
	return nil
}

// startLoad starts the load on all nodes.
func (c *cluster) startLoad(spec loadSpec) *loader {
	c.t.Helper()
	for _, n := range c.nodes {
		spec.Sockets = append(spec.Sockets, n.socket())
	}
	l := startLoad(c.t, spec)
	if line, err := l.ask("loaded", nil); err != nil || line != "loaded" {
		c.t.Fatal(line, err)
	}
	return l
}

// tell gives the load a command whose answer is its first word.
func (l *loader) tell(command string) error {
	word, _, _ := strings.Cut(command, " ")
	if line, err := l.ask(command, nil); err != nil || line != word {
		return errors.Join(err, fmt.Errorf("the load answered %q to %q", line, command))
	}
	return nil
}

// killed kills a node; the load sees the end of all that was outstanding there.
func (c *cluster) killed(l *loader, i, round int) error {
	c.nodes[i].kill()
	line, err := l.ask(fmt.Sprint("killed ", i, round), nil)
	if err != nil || !strings.HasPrefix(line, "cut ") {
		return errors.Join(err, errors.New(line))
	}
	return nil
}

// judge lets all be worked off once the faults are over, and judges. The error is that of
// what was not worked off.
func (c *cluster) judge(l *loader, extra func(*history) error) (*report, error) {
	c.t.Helper()
	c.whole()
	if line, err := l.ask("stop", nil); err != nil || line != "stopped" {
		c.t.Fatal(line, err)
	}
	n := c.nodes[c.leader()]
	queues, drainErr := n.drained()
	hash, differ := c.sameState()
	failed, err := n.takeFailed()
	if err != nil {
		c.t.Fatal(err)
	}
	h := newHistory(queueRules)
	h.nodes, h.pushTimeout = len(c.nodes), pushTimeout
	r := l.judge(h, extra, failed)
	r.hash = hash
	r.violations = append(r.violations, differ...)
	for _, n := range c.nodes {
		r.disagree(n)
	}
	if queues != nil {
		r.compare(queues)
	}
	return r, drainErr
}

// pushTimeout is the default of [node] push_timeout.
const pushTimeout = 10 * time.Second

// consistent checks what must be at the end of every run with faults. err is that of
// cluster.judge.
func (r *report) consistent(t *testing.T, err error) {
	t.Helper()
	t.Logf("\n%s", r)
	if err != nil {
		t.Error(err)
	}
	if n := len(r.violations); n > 0 {
		t.Errorf("%d violations, see the table", n)
	}
	if r.accepted == 0 || r.failed == 0 || r.justified() == 0 {
		t.Error("the load was too thin: some of its kinds of job never came")
	}
}

// lookPause is how long eventually waits before it looks again.
const lookPause = 20 * time.Millisecond

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	for !cond() {
		if !pause(ctx, lookPause) {
			t.Fatalf("not within %s: %s", readyWithin, what)
		}
	}
}
