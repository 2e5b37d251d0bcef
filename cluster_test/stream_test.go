package cluster_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pogod/internal/link"
)

// TestControlSnapshotRace takes nodes that name a stream by their last snapshot and not by
// what it holds: no member gets in by it.
func TestControlSnapshotRace(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newShortLog(t, bugEnv+"="+bugSnapshotRace)
	n, pause := c.lagging()
	c.nodes[c.leader()].caller(link.RoleTool, "test").mustPush(queueNow, "after the snapshot")
	pause()
	until(t, func() bool {
		b, err := os.ReadFile(n.logPath())
		return err == nil && bytes.Contains(b, []byte("the received data file is not what its sender says"))
	}, func() string { return "the bug is not found" })
}

// TestControlRestoreSkipped takes nodes that do not use the data file that they received:
// their states differ from then on.
func TestControlRestoreSkipped(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newShortLog(t, bugEnv+"="+bugRestoreSkipped)
	n, pause := c.lagging()
	pause()
	until(t, func() bool {
		doc, err := n.document(t.Context(), "")
		return err == nil && doc.Storage.Received > 0 && doc.Raft.Applied > doc.Storage.Snapshot || c.exited() != nil
	}, func() string { return "it does not go on" })
	if c.exited() != nil {
		return // it found out itself
	}
	if hash, differ := c.sameState(); len(differ) == 0 {
		t.Errorf("the bug is not found: all have %s", hash)
	}
}

// TestANodeThatJoinsHasNoVoteBeforeItsData has a follower lose its data and join again: until
// it has been started it cannot have a vote.
func TestANodeThatJoinsHasNoVoteBeforeItsData(t *testing.T) {
	t.Parallel()
	notTwice(t)
	c := newCluster(t, build(t, ""), nil)
	if voter := c.emptyVoter(); voter != "" {
		t.Errorf("node %s has a vote, and no data", voter)
	}
	for _, n := range c.nodes {
		if n.cmd == nil {
			n.start()
		}
	}
	c.whole()
}

// TestControlEarlyPromotion takes nodes that give a member its vote before it has the data.
func TestControlEarlyPromotion(t *testing.T) {
	t.Parallel()
	notTwice(t)
	bin := build(t, "seeded")
	for range controlRounds {
		c := newCluster(t, bin, func(n *node) { n.env = []string{bugEnv + "=" + bugEarlyPromotion} })
		if c.emptyVoter() != "" {
			return
		}
		for _, n := range c.nodes {
			n.kill()
		}
	}
	t.Errorf("the bug was not found in %d runs: nothing votes that has no data", controlRounds)
}

// looksFor is how long a leader is given to promote: some of its looks, twice a second.
const looksFor = 3 * time.Second

// emptyVoter lets a follower join again without its data, does not start it, and returns the
// id of a node that has got a vote so; "" when none has.
func (c *cluster) emptyVoter() string {
	c.t.Helper()
	leader := c.leader()
	i := (leader + 1) % 3
	c.nodes[i].kill()
	c.wipe(i)
	for begin := time.Now(); time.Since(begin) < looksFor; pause(c.t.Context(), lookPause) {
		doc, err := c.nodes[leader].document(c.t.Context(), "")
		if err != nil {
			continue
		}
		if at := slices.IndexFunc(doc.Raft.Members, func(m member) bool { return m.Voter && m.Address == c.nodes[i].addr }); at >= 0 {
			return doc.Raft.Members[at].ID
		}
	}
	return ""
}

// lagging pauses a follower until it lags behind the log, and returns how it goes on.
func (c *cluster) lagging() (n *node, goOn func()) {
	c.t.Helper()
	n = c.nodes[(c.leader()+1)%3]
	at := n.applied()
	if err := n.freeze(); err != nil {
		c.t.Fatal(err)
	}
	c.outgrow(at)
	return n, n.goOn
}

// TestStreamsThatAreCutOff has a follower that was away sent the data file. In the middle of
// it the receiver is killed, the sender is, or the sender is paused until another node
// leads. What was accepted is there in the end, on all.
func TestStreamsThatAreCutOff(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newShortLog(t)
	s := &cutOff{c: c}
	k := c.nodes[c.leader()].caller(link.RoleTool, "test")
	for range envInt(t, "POGOD_STREAM_MB", 60) {
		k.mustPush(queuePHP, strings.Repeat("x", 1<<20))
		s.accepted++
	}
	s.run("the receiver is killed", func(_, receiver *node) {
		receiver.kill()
		receiver.start()
	})
	s.run("the sender is killed", func(sender, _ *node) {
		sender.kill()
		c.leader()
		sender.start()
	})
	s.run("the leader changes", func(sender, _ *node) {
		if err := sender.freeze(); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { i := c.leads(); return i >= 0 && c.nodes[i] != sender }, func() string { return "nobody else leads" })
		sender.goOn()
	})
	c.same()
}

// cutOff is a cluster whose streams are cut off.
type cutOff struct {
	c        *cluster
	accepted int
}

// run strikes in the middle of a stream. One that is over before it is seen is tried again.
func (s *cutOff) run(name string, strike func(sender, receiver *node)) {
	t, c := s.c.t, s.c
	t.Helper()
	for range 20 {
		leader := c.leader()
		sender, receiver := c.nodes[leader], c.nodes[(leader+1)%3]
		s.outgrow(sender) // the log is not kept any more for who was sent a file before
		receiver.kill()
		s.outgrow(sender)
		receiver.start()
		middle := false
		until(t, func() bool {
			if doc, err := sender.document(t.Context(), ""); err == nil && len(doc.Storage.Streams) > 0 {
				d := doc.Storage.Streams[0]
				t.Logf("%s: %d of %d bytes to %s", name, d.Bytes, d.Total, d.Node)
				middle = d.Sending && d.Bytes < d.Total
				return true
			}
			doc, err := receiver.document(t.Context(), "") // entries may have waited for it that the log does not have any more
			return err == nil && (doc.Storage.Received > 0 || doc.Raft.Applied >= sender.lastEntry())
		}, func() string { return name + ": no stream begins" })
		if middle {
			strike(sender, receiver)
		}
		c.whole()
		for i, n := range c.nodes {
			doc, err := n.document(t.Context(), "?consistent=1")
			if err != nil || doc.queue(queuePHP).Pending != s.accepted {
				t.Errorf("%s: node %d has %+v, and %d were accepted: %v", name, i, doc.queue(queuePHP), s.accepted, err)
			}
		}
		if middle {
			return
		}
	}
	t.Errorf("%s: no stream was seen in its middle: this has shown nothing", name)
}

// outgrow pushes until the log of a node that leads begins behind what it held.
func (s *cutOff) outgrow(n *node) {
	s.c.t.Helper()
	at := n.lastEntry()
	k, payload := n.caller(link.RoleTool, "test"), strings.Repeat("x", 16<<10)
	for i := 0; ; i++ {
		doc, err := n.document(s.c.t.Context(), "")
		if err != nil {
			s.c.t.Fatal(err)
		}
		if doc.Storage.LogFirst > at {
			return
		}
		if i > 100 { // a snapshot that was refused is tried again within a second
			time.Sleep(100 * time.Millisecond)
		}
		k.mustPush(queuePHP, payload)
		s.accepted++
	}
}

// goOn ends what freeze began.
func (n *node) goOn() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(unix.SIGCONT); err != nil {
		n.t.Fatal(err)
	}
}
