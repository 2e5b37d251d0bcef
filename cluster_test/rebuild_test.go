package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pogod/internal/link"
)

// shortLog makes the log of nodes that were built with the tag seeded short, so that a
// member soon lags behind it.
const shortLog = "POGOD_SEEDED_LOG_BYTES=262144"

// newShortLog is newCluster of nodes with a short log, and perhaps a bug.
func newShortLog(t *testing.T, env ...string) *cluster {
	t.Helper()
	return newCluster(t, build(t, "seeded"), func(n *node) { n.env = append(env, shortLog) })
}

// outgrow pushes until the log of the node that leads begins behind the entry.
func (c *cluster) outgrow(entry uint64) {
	c.t.Helper()
	n := c.nodes[c.leader()]
	k := n.caller(link.RoleTool, "test")
	for i := range 100_000 {
		k.mustPush(queuePHP, strings.Repeat(fmt.Sprint(i%10), 8000))
		if i%20 != 0 {
			continue
		}
		if doc, err := n.document(c.t.Context(), ""); err == nil && doc.Storage.LogFirst > entry+1 {
			return
		}
	}
	c.t.Fatal("the log does not lose its beginning")
}

// applied returns how far a node is.
func (n *node) applied() uint64 {
	n.t.Helper()
	doc, err := n.document(n.t.Context(), "")
	if err != nil {
		n.t.Fatal(err)
	}
	return doc.Raft.Applied
}

// lastEntry returns the index of the last entry of a node's log.
func (n *node) lastEntry() uint64 {
	n.t.Helper()
	doc, err := n.document(n.t.Context(), "")
	if err != nil {
		n.t.Fatal(err)
	}
	return doc.Storage.LogLast
}

// wipe removes the data directory of a node that is down and lets it join again, in its
// own place.
func (c *cluster) wipe(i int) {
	c.t.Helper()
	n := c.nodes[i]
	if err := os.RemoveAll(n.dir); err != nil {
		c.t.Fatal(err)
	}
	n.snapshot = 0
	at := c.nodes[(i+1)%3]
	var token string
	until(c.t, func() bool {
		token = regexp.MustCompile(`pogod1_\S+`).FindString(at.run("cluster", "token"))
		return token != ""
	}, func() string { return "no token" })
	if out := n.run("cluster", "join", at.addr, token); !strings.Contains(out, "it takes the place of node ") {
		c.t.Errorf("pogod cluster join says %q", out)
	}
}

// same fails the test unless all nodes have the same state.
func (c *cluster) same() {
	c.t.Helper()
	if _, differ := c.sameState(); len(differ) > 0 {
		c.t.Errorf("%v", differ)
	}
}

// TestFollowerWipedUnderLoad takes a follower's data away while jobs are pushed and worked
// off. It comes back as a new node, from a stream.
func TestFollowerWipedUnderLoad(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newShortLog(t)
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	for round := 1; round <= envInt(t, "POGOD_WIPE_ROUNDS", 2); round++ {
		i := (c.leader() + round) % 3
		if i == c.leader() {
			i = (i + 1) % 3
		}
		if err := l.tell(fmt.Sprint("fault ", round, " ", faultWipe, " ", i)); err != nil {
			t.Fatal(err)
		}
		if err := c.killed(l, i, round); err != nil {
			t.Fatal(err)
		}
		c.wipe(i)
		for _, other := range []int{(i + 1) % 3, (i + 2) % 3} {
			until(t, func() bool {
				doc, err := c.nodes[other].document(t.Context(), "")
				return err == nil && doc.Storage.LogFirst > 1
			}, func() string { return "the log has its beginning" })
		}
		c.nodes[i].start()
		c.whole()
		if doc, err := c.nodes[i].document(t.Context(), ""); err != nil || doc.Storage.Received == 0 {
			t.Errorf("it came back without a stream: %+v %v", doc, err)
		}
		if err := l.tell(fmt.Sprint("heal ", round)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := c.judge(l, nil)
	r.consistent(t, err)
}

// TestFollowerPausedPastTheLog pauses a follower while more is written than the log keeps.
func TestFollowerPausedPastTheLog(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newShortLog(t)
	i := (c.leader() + 1) % 3
	n := c.nodes[i]
	at := n.applied()
	if err := n.freeze(); err != nil {
		t.Fatal(err)
	}
	c.outgrow(at)
	n.goOn()
	until(t, func() bool {
		doc, err := n.document(t.Context(), "")
		return err == nil && doc.Storage.Received > 0
	}, func() string { return "it is not sent the data file" })
	c.whole()
	n.caller(link.RoleTool, "test").mustPush(queueNow, "from there")
	c.same()
}

// TestAWipedNodeDoesNotHelpElectALeaderWithoutAnAcceptedEntry: one of the two that have an
// entry is gone, the other one was wiped and kept its id. Together with the third it could
// elect a leader that has never seen the entry.
func TestAWipedNodeDoesNotHelpElectALeaderWithoutAnAcceptedEntry(t *testing.T) {
	notTwice(t)
	for name, spoil := range map[string][]string{
		"all but its id": {"log", "state.db", "snapshot.json"},
		"the log":        {"log"},
		"the data file":  {"state.db"}, // and this one comes back, with the entry
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, build(t, ""), nil)
			a := c.leader()
			b, wiped := (a+1)%3, (a+2)%3
			for _, w := range []way{{a, b}, {b, a}, {b, wiped}, {wiped, b}} {
				c.lan.cut(w)
			}
			k := c.nodes[a].caller(link.RoleTool, "test")
			k.mustPush(queueNow, "accepted")
			c.nodes[a].kill()
			c.nodes[wiped].stop()
			for _, file := range spoil {
				if err := os.RemoveAll(filepath.Join(c.nodes[wiped].dir, file)); err != nil {
					t.Fatal(err)
				}
			}
			for _, w := range []way{{a, b}, {b, a}, {b, wiped}, {wiped, b}} {
				c.lan.heal(w)
			}
			c.nodes[wiped].start()
			if name == "the data file" {
				c.nodes[wiped].serving()
				doc, err := c.nodes[wiped].document(t.Context(), "?consistent=1")
				if err != nil || doc.queue(queueNow).Enqueued != 1 {
					t.Errorf("without the third: %+v %v", doc, err)
				}
			} else {
				c.nodes[wiped].refuses("pogod cluster join")
				if c.leads() >= 0 {
					t.Error("there is a leader")
				}
			}
			c.nodes[a].start()
			if c.nodes[wiped].cmd == nil {
				for _, i := range []int{a, b} {
					c.nodes[i].serving()
				}
				c.wipe(wiped)
				c.nodes[wiped].start()
			}
			c.whole()
			for i, n := range c.nodes {
				doc, err := n.document(t.Context(), "?consistent=1")
				if err != nil || doc.queue(queueNow).Enqueued != 1 || doc.queue(queueNow).Pending != 1 {
					t.Errorf("node %d: %+v %v", i, doc.queue(queueNow), err)
				}
			}
			c.same()
		})
	}
}

// refuses waits until a node that was started has ended, with one line that says this.
func (n *node) refuses(text string) {
	n.t.Helper()
	select {
	case <-n.exited:
	case <-time.After(endWithin):
		n.t.Fatal("the node runs")
	}
	n.cmd = nil
	if line := n.lastLine(); n.err == nil || !strings.Contains(line, text) {
		n.t.Errorf("it ended with %v and says %q", n.err, line)
	}
}

// TestFlippedBits flips bits at places of a node's data file, and of its log, one after the
// other: the node finds it and is made good again, or nothing is lost by it. POGOD_FLIPS
// says at how many places each, 6 without.
func TestFlippedBits(t *testing.T) {
	notTwice(t)
	t.Parallel()
	places := envInt(t, "POGOD_FLIPS", 6)
	r := rand.New(rand.NewPCG(newSeed(t), 0))
	c := newShortLog(t)
	c.outgrow(1)
	for _, k := range []struct {
		what, files string
	}{{"data file", "state.db"}, {"log", "log/*"}} {
		found, harmless := 0, 0
		for range places {
			i := (c.leader() + 1 + r.IntN(2)) % 3
			n := c.nodes[i]
			for range 5 { // what is there to be found
				n.caller(link.RoleTool, "test").mustPush(queueNow, strings.Repeat("x", 3000))
			}
			n.stop()
			where := n.flip(r, k.files)
			n.start()
			err := n.ready()
			switch {
			case errors.Is(err, errExited):
				found++
				if line := n.lastLine(); !strings.Contains(line, "pogod cluster join") {
					t.Errorf("%s: it ends with %q", where, line)
				}
				n.cmd = nil
				c.wipe(i)
				n.start()
			case err != nil:
				t.Fatalf("%s: %v", where, err)
			default:
				doc, err := n.document(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				if doc.Storage.Received > 0 {
					found++
				} else {
					harmless++
				}
			}
			c.whole()
			if _, differ := c.sameState(); len(differ) > 0 {
				t.Fatalf("%s: %v", where, differ)
			}
		}
		t.Logf("%s: %d flips found, %d harmless", k.what, found, harmless)
		if found == 0 && places > 4 {
			t.Errorf("%s: no flip was found", k.what)
		}
	}
}

// flip changes a bit of something that was written into one of these files, and says where.
func (n *node) flip(r *rand.Rand, pattern string) string {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, pattern))
	if err != nil || len(files) == 0 {
		n.t.Fatal(pattern, err)
	}
	path := files[r.IntN(len(files))]
	b, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	end := len(bytes.TrimRight(b, "\x00"))
	for {
		at := r.IntN(end)
		if b[at] == 0 {
			continue // nothing, as a rule
		}
		bit := byte(1) << r.IntN(8)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			n.t.Fatal(err)
		}
		_, err = f.WriteAt([]byte{b[at] ^ bit}, int64(at))
		if err = errors.Join(err, f.Close()); err != nil {
			n.t.Fatal(err)
		}
		return fmt.Sprintf("byte %d of %s, bit %d", at, filepath.Base(path), bit)
	}
}
