package cluster_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// newerEnv makes of a node that was built with the tag seeded one of a later version: it
// knows one more command, and asks for it each second. Without it the same is the older one.
const newerEnv = "POGOD_SEEDED_LEVEL=2"

// level returns the feature level of the cluster, as a node sees it.
func (n *node) level() int {
	n.t.Helper()
	doc, err := n.document(n.t.Context(), "")
	if err != nil {
		n.t.Fatal(err)
	}
	return doc.Raft.Level
}

// logs reports whether the node's log has a line with these texts.
func (n *node) logs(texts ...string) bool {
	n.t.Helper()
	b, err := os.ReadFile(n.logPath())
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		found := true
		for _, text := range texts {
			found = found && bytes.Contains(line, []byte(text))
		}
		if found {
			return true
		}
	}
	return false
}

// TestVersionsSideBySide replaces three nodes by a newer version, one after the other, the
// last one under load, or, with POGOD_ROLLS set, all of them. Its command is held back until
// the last one knows it, and used then. Nothing is lost, and there is no way back: an older
// version starts no more, and cannot join.
func TestVersionsSideBySide(t *testing.T) {
	notTwice(t)
	t.Parallel()
	bin := build(t, "seeded")
	c := newCluster(t, bin, nil)
	var l *loader
	const probed = "probed with a command of a newer level"
	for i, n := range c.nodes {
		newer := func() {
			n.env = append(n.env, newerEnv)
			n.start()
		}
		if l == nil && (i == 2 || os.Getenv("POGOD_ROLLS") != "") {
			l = c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
		}
		if l != nil {
			c.restarted(l, i, i+1, newer)
		} else {
			n.stop()
			newer()
			c.whole()
		}
		eventually(t, "the newer one has asked", func() bool { return n.logs(probed) })
		if i < 2 && !strings.Contains(string(must(n.get(t.Context(), "/readyz"))), "knows feature level 2, and the cluster has 1 until all members") {
			t.Errorf("node %d does not say that something is held back", i)
		}
		if i < 2 && (n.level() != 1 || n.logs(probed, "done=true") || !n.logs(probed, "not all nodes of the cluster know this yet")) {
			t.Fatalf("with %d newer nodes of three the level is %d, or the newer command was not held back", i+1, n.level())
		}
	}
	for i, n := range c.nodes {
		eventually(t, "the newer command is used", func() bool { return n.level() == 2 && n.logs(probed, "done=true") })
		if !strings.Contains(string(must(n.get(t.Context(), "/status"))), `"known_level":2`) {
			t.Errorf("node %d does not tell what it knows", i)
		}
	}
	c.unharmed(l)

	// Back to the older one.
	n := c.nodes[1]
	n.stop()
	n.env = nil
	n.start()
	n.refuses("a newer pogod was here: the cluster has feature level 2, and this version knows up to 1; start the newer one again")
	n.env = []string{newerEnv}
	n.start()
	c.whole()
	c.same()
	file := t.TempDir() + "/b"
	n.backup(file)
	n.env = nil
	n.refusedCommand("a newer pogod was here", "restore", file, "--data", t.TempDir())

	// An older one that would join.
	n.kill()
	if err := os.RemoveAll(n.dir); err != nil {
		t.Fatal(err)
	}
	token := tokenOf(c.nodes[0])
	n.env = nil
	var out []byte
	err := n.within(func() (err error) {
		out, err = n.command("cluster", "join", c.nodes[0].addr, token).CombinedOutput()
		return err
	})
	if err == nil || !strings.Contains(string(out), "its pogod knows feature level 1 and the cluster has level 2: run the newer pogod there") {
		t.Errorf("%v: %s", err, out)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		return []byte(err.Error())
	}
	return b
}
