package cluster_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pogod/internal/command"
	"pogod/internal/link"
)

// Each promise about three nodes that is not a matter of chance has a test that bears its
// name. Each starts a cluster.

// caller is a connection of a test's own.
type caller struct {
	t *testing.T
	c *link.Client
}

// caller connects to the node.
func (n *node) caller(role link.Role, name string) *caller {
	n.t.Helper()
	c, err := link.Dial(n.t.Context(), n.socket(), role, name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.Close)
	return &caller{n.t, c}
}

// call makes a call, which may take long but not for ever.
func (k *caller) call(f link.Builder) (code int, body []byte) {
	stop := time.AfterFunc(drainWithin, k.c.Close)
	defer stop.Stop()
	answer, body, err := k.c.Call(f)
	if err != nil {
		k.t.Error(err)
		return codeLost, nil
	}
	return int(answer), body
}

// pushAnswer is that to a push.
type pushAnswer struct {
	code        int
	id, message string
	took        time.Duration
}

func (k *caller) push(queue, payload string) (a pushAnswer) {
	begin := time.Now()
	code, body := k.call(link.Request(nil, link.Push).String(queue).String(payload).Int(0))
	var doc struct{ ID, Message string }
	if err := json.Unmarshal(body, &doc); err != nil && body != nil {
		k.t.Errorf("%v: %q", err, body)
	}
	return pushAnswer{code, doc.ID, doc.Message, time.Since(begin)}
}

// mustPush pushes, which must be accepted.
func (k *caller) mustPush(queue, payload string) pushAnswer {
	k.t.Helper()
	a := k.push(queue, payload)
	if a.code != 1 {
		k.t.Fatalf("a push was answered %+v", a)
	}
	return a
}

// next takes a delivery of the worker ext.
func (k *caller) next() *delivery {
	code, body := k.call(link.Request(nil, link.Next).String(workerExt).Int(0))
	d := &delivery{}
	_, msg, err := link.ParseDelivery(body)
	if err == nil {
		err = json.Unmarshal(msg, d)
	}
	if code != 1 || err != nil {
		k.t.Errorf("next was answered %d: %v", code, err)
	}
	return d
}

func (k *caller) ack(d *delivery) int {
	code, _ := k.call(link.Request(nil, link.Ack).String(d.Queue).String(d.ID))
	return code
}

// holds pushes a job, which the node must then run on a thread of its own.
func (n *node) holds(payload string) (*caller, *delivery) {
	n.t.Helper()
	w := n.caller(link.RoleWorker, workerExt)
	n.caller(link.RoleTool, "test").mustPush(queueNow, payload)
	d := w.next()
	if d.Payload != payload {
		n.t.Fatalf("got %+v, want %q", d, payload)
	}
	return w, d
}

// ttl is how long a session lives when nothing is heard of its node; a node that lives
// says something every second.
const (
	ttl       = 6 * time.Second
	keepAlive = time.Second
)

// freed kills a node that runs a job, lets f happen, and returns when another node got the
// job.
func freed(t *testing.T, f func(n *node)) time.Duration {
	t.Helper()
	c := newCluster(t, build(t, ""), nil)
	leader := c.leader()
	n, other := c.nodes[(leader+1)%3], c.nodes[(leader+2)%3]
	_, first := n.holds("held")
	got := make(chan *delivery, 1) // the one
	w := other.caller(link.RoleWorker, workerExt)
	go func() { got <- w.next() }() // ended by the delivery, or with the connection
	n.kill()
	begin := time.Now()
	f(n)
	d := <-got
	took := time.Since(begin)
	if d.Job != first.Job || d.Attempts != 2 || d.ID == first.ID {
		t.Errorf("got %+v, after %+v", d, first)
	}
	if code := w.ack(d); code != 1 {
		t.Errorf("its ack answered %d", code)
	}
	return took
}

// TestRestartedNodesJobsAreFreeAtOnce restarts a node long before its session would end.
func TestRestartedNodesJobsAreFreeAtOnce(t *testing.T) {
	notTwice(t)
	t.Parallel()
	took := freed(t, (*node).start)
	t.Logf("free %s after the kill", took.Round(time.Millisecond))
	if took >= ttl-keepAlive {
		t.Error("that is no sooner than with the end of the dead node's session")
	}
}

// TestDeadNodesJobsAreFreeWhenItsSessionEnds leaves a node dead.
func TestDeadNodesJobsAreFreeWhenItsSessionEnds(t *testing.T) {
	notTwice(t)
	t.Parallel()
	took := freed(t, func(*node) {})
	t.Logf("free %s after the kill", took.Round(time.Millisecond))
	if took < ttl-keepAlive-grain {
		t.Error("that is before its session ends: a node that lives could lose its jobs, too")
	}
}

// TestAllThreePausedForAMinute stops all nodes at the same time. Nobody is to blame then:
// no session ends, what runs goes on. POGOD_PAUSE is how long, 15s without.
func TestAllThreePausedForAMinute(t *testing.T) {
	notTwice(t)
	long, err := time.ParseDuration(cmp.Or(os.Getenv("POGOD_PAUSE"), "15s"))
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, build(t, ""), nil)
	workers, deliveries := make([]*caller, 3), make([]*delivery, 3)
	for i, n := range c.nodes {
		workers[i], deliveries[i] = n.holds(fmt.Sprint("held by ", i))
	}
	for _, n := range c.nodes {
		if err := n.freeze(); err != nil {
			t.Fatal(err)
		}
	}
	pause(t.Context(), long)
	for _, n := range c.nodes {
		if err := n.cmd.Process.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range c.nodes {
		n.caller(link.RoleTool, "test").mustPush(queueLater, "after")
		pause(t.Context(), time.Second) // by then a session that was lost would be seen to be
		if code := workers[i].ack(deliveries[i]); code != 1 {
			t.Errorf("node %d: the ack of what ran all the time answered %d", i, code)
		}
	}
	doc, err := c.nodes[0].document(t.Context(), "?consistent=1")
	if err != nil {
		t.Fatal(err)
	}
	if q := doc.queue(queueNow); q.Acked != 3 || q.ReservedTotal != 3 || q.waiting() != 0 {
		t.Errorf("there were repeats: %+v", q)
	}
}

// TestReadsOfOnesOwnWritesOnAFollower asks for status right after each push, on the same
// connection.
func TestReadsOfOnesOwnWritesOnAFollower(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	k := c.nodes[(c.leader()+1)%3].caller(link.RoleTool, "test")
	for i := range 1000 {
		k.mustPush(queueNow, "mine")
		code, body := k.call(link.Request(nil, link.Status).String(queueNow))
		var doc statusDoc
		if err := json.Unmarshal(body, &doc); err != nil || code != 1 {
			t.Fatalf("status answered %d: %v", code, err)
		}
		if q := doc.queue(queueNow); q.Enqueued != i+1 || q.Pending != i+1 {
			t.Fatalf("after push %d status says %+v", i+1, q)
		}
	}
}

// pushAll has each of these nodes take pushes from some connections at a time, one after
// the other on each, and returns the answers by payload.
func pushAll(nodes []*node, conns, each int) map[string]pushAnswer {
	type pushed struct {
		payload string
		pushAnswer
	}
	all := make(chan pushed, len(nodes)*conns*each) // all of them
	for i, n := range nodes {
		for j := range conns {
			k := n.caller(link.RoleTool, "test")
			go func() { // ended by its last push
				for p := range each {
					payload := fmt.Sprintf("%d-%d-%d", i, j, p)
					all <- pushed{payload, k.push(queueNow, payload)}
				}
			}()
		}
	}
	answers := map[string]pushAnswer{}
	for range cap(all) {
		p := <-all
		answers[p.payload] = p.pushAnswer
	}
	return answers
}

// takeAll takes and acks what is there, and returns how often each payload came.
func (c *cluster) takeAll() map[string]int {
	c.t.Helper()
	n := c.nodes[c.leader()]
	w := n.caller(link.RoleWorker, workerExt)
	got := map[string]int{}
	for {
		doc, err := n.document(c.t.Context(), "?consistent=1")
		if err != nil {
			c.t.Fatal(err)
		}
		if q := doc.queue(queueNow); q.waiting() == 0 {
			return got
		}
		d := w.next()
		got[d.Payload]++
		if code := w.ack(d); code != 1 {
			c.t.Fatalf("an ack answered %d", code)
		}
	}
}

// TestPushesDuringAnElectionWaitAndSucceed kills the leader and pushes on the others.
func TestPushesDuringAnElectionWaitAndSucceed(t *testing.T) {
	notTwice(t)
	c := newCluster(t, build(t, ""), nil)
	leader := c.leader()
	c.nodes[leader].kill()
	answers := pushAll([]*node{c.nodes[(leader+1)%3], c.nodes[(leader+2)%3]}, 8, 10)
	var longest time.Duration
	for payload, a := range answers {
		longest = max(longest, a.took)
		if a.code != 1 {
			t.Errorf("push %s was answered %+v", payload, a)
		}
	}
	t.Logf("the longest took %s", longest.Round(time.Millisecond))
	c.nodes[leader].start()
	c.whole()
	got := c.takeAll()
	for payload, times := range got {
		if times != 1 {
			t.Errorf("push %s is %d jobs", payload, times)
		}
	}
	if len(got) != len(answers) {
		t.Errorf("%d pushes are %d jobs", len(answers), len(got))
	}
}

// TestPushesWithoutAQuorumAreUnknownOrRefusedAfterPushTimeout leaves one node alone: the
// leader, and then another one. What it says of a push must be true.
func TestPushesWithoutAQuorumAreUnknownOrRefusedAfterPushTimeout(t *testing.T) {
	notTwice(t)
	t.Parallel()
	const timeout = 2 * time.Second
	c := newCluster(t, build(t, ""), func(n *node) { n.settings = fmt.Sprintf("push_timeout = %q\n", timeout) })
	for step := range 2 {
		alone := (c.leader() + step) % 3
		others := []int{(alone + 1) % 3, (alone + 2) % 3}
		for _, i := range others {
			c.nodes[i].kill()
		}
		answers := pushAll([]*node{c.nodes[alone]}, 8, 2)
		for _, i := range others {
			c.nodes[i].start()
		}
		c.whole()
		again := c.nodes[alone].caller(link.RoleTool, "test").mustPush(queueNow, "again") // behind all that its node still sends
		count := map[string]int{}
		got := c.takeAll()
		if got["again"] != 1 {
			t.Errorf("a push after that, answered %+v, is %d jobs", again, got["again"])
		}
		for payload, a := range answers {
			var most int // jobs that the answer allows
			switch {
			case a.code == 5 && strings.Contains(a.message, command.ErrNotAccepted.Error()):
				count["not accepted"]++
			case a.code == 5 && strings.Contains(a.message, command.ErrOutcomeUnknown.Error()):
				count["unknown"]++
				most = 1
			default:
				t.Errorf("push %s was answered %+v", payload, a)
			}
			if a.took < timeout {
				t.Errorf("push %s was answered after %s: %+v", payload, a.took, a)
			}
			if got[payload] > most {
				t.Errorf("push %s is %d jobs, and was answered %+v", payload, got[payload], a)
			}
		}
		t.Logf("answers of node %d: %v, %d jobs", alone, count, len(got)-1)
	}
}

// TestChangedAddressesSurvive gives one node after the other a new address, and starts
// them all again.
func TestChangedAddressesSurvive(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	for i, n := range c.nodes {
		n.kill()
		c.lan.move(i, fmt.Sprintf("10.83.0.%d", 10+i))
		n.enter(c.lan, i)
		n.start()
		c.whole()
	}
	check := func() {
		t.Helper()
		for i, n := range c.nodes {
			until(t, func() bool {
				doc, err := n.document(t.Context(), "")
				return err == nil && !slices.ContainsFunc(c.nodes, func(o *node) bool {
					return !slices.ContainsFunc(doc.Raft.Members, func(m member) bool { return m.Address == o.addr })
				})
			}, func() string { return fmt.Sprintf("node %d does not know all new addresses", i) })
			n.caller(link.RoleTool, "test").mustPush(queueNow, "at a new address")
		}
	}
	check()
	for _, n := range c.nodes {
		n.kill()
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.whole()
	check()
}

// TestConsistentStatus asks a node for what another one was just answered, and one that
// is alone: it must not answer, while plain status says how old it is.
func TestConsistentStatus(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	callers := make([]*caller, 3)
	for i, n := range c.nodes {
		callers[i] = n.caller(link.RoleTool, "test")
	}
	for i := range 300 {
		callers[i%3].mustPush(queueNow, "seen by all")
		doc, err := c.nodes[(i/3)%3].document(t.Context(), "?consistent=1")
		if err != nil {
			t.Fatal(err)
		}
		if q := doc.queue(queueNow); q.Enqueued != i+1 || !doc.Read.Consistent {
			t.Fatalf("after push %d on node %d, node %d says %+v %+v", i+1, i%3, (i/3)%3, q, doc.Read)
		}
	}
	for step := range 2 { // the leader, and a follower
		alone := (c.leader() + step) % 3
		n, others := c.nodes[alone], []int{(alone + 1) % 3, (alone + 2) % 3}
		for _, i := range others {
			c.lan.cut(way{alone, i})
			c.lan.cut(way{i, alone})
		}
		until(t, func() bool { i := c.leads(); return i >= 0 && i != alone }, func() string { return "the others elect no leader" })
		callers[others[0]].mustPush(queueNow, "not seen by the one alone")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if doc, err := n.document(ctx, "?consistent=1"); err == nil {
			t.Errorf("node %d, alone, answers %+v", alone, doc.Read)
		}
		cancel()
		until(t, func() bool {
			doc, err := n.document(t.Context(), "")
			return err == nil && !doc.Read.Consistent && (doc.Read.AgeMS == nil || *doc.Read.AgeMS > 2000)
		}, func() string { return "plain status of the node that is alone does not grow old" })
		for _, i := range others {
			c.lan.heal(way{alone, i})
			c.lan.heal(way{i, alone})
		}
		c.whole()
	}
}
