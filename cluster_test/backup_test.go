package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/link"
)

// saved is what pogod backup --json and restore --json say.
type saved struct {
	Index   uint64
	Cluster string
	Node    string
	Format  int
	Size    int64
}

// backup saves a node to a file.
func (n *node) backup(file string) (doc saved) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.run("backup", file, "--json")), &doc); err != nil {
		n.t.Fatal(err)
	}
	return doc
}

// TestBackupAndRestore saves a follower under load, and begins a new cluster of three with
// that: jobs of every state are there, on all nodes, and go on. POGOD_BACKUP_JOBS says how
// many there are, 2,000 without.
func TestBackupAndRestore(t *testing.T) {
	notTwice(t)
	t.Parallel()
	file := filepath.Join(t.TempDir(), "b")
	jobs := envInt(t, "POGOD_BACKUP_JOBS", 2000)
	old := newCluster(t, build(t, ""), nil)
	leads := old.leader()
	lead, follower := old.nodes[leads], old.nodes[(leads+1)%3]
	worker := lead.caller(link.RoleWorker, workerExt)
	lead.done("push", queueLater, "to fail")
	worker.failNext("to fail", "it broke")
	lead.done("push", queueLater, "delayed", "--delay", "1h")
	old.push(jobs)
	lead.done("pause", queueNow)
	lead.done("push", queueLater, "runs") // its time is limited
	running := worker.next()
	before := follower.figures(queueLater)
	if before.Reserved != 1 || before.Delayed != 1 || before.Failed != 1 {
		t.Fatalf("%+v", before)
	}
	first := old.pushesFor(leads, time.Second)
	ctx, stop := context.WithCancel(t.Context())
	var during []time.Duration
	var pushing sync.WaitGroup
	pushing.Go(func() { during = old.pushesUntil(ctx, leads) }) // ended by stop
	began := time.Now()
	doc := follower.backup(file)
	took := time.Since(began)
	stop()
	pushing.Wait()
	t.Logf("jobs=%d backup-bytes=%d backup-ms=%d pushes-before=%d p50-before-us=%d p99-before-us=%d pushes-during=%d p50-during-us=%d p99-during-us=%d max-during-us=%d",
		jobs, doc.Size, took.Milliseconds(), len(first), quantile(first, .5), quantile(first, .99),
		len(during), quantile(during, .5), quantile(during, .99), quantile(during, 1))
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 || doc.Index == 0 || doc.Cluster == "" || doc.Format != 1 {
		t.Fatalf("%+v %v", doc, err)
	}
	for _, n := range old.nodes {
		n.kill()
	}

	began = time.Now()
	c := newCluster(t, build(t, ""), func(n *node) {
		if n.addr != old.nodes[0].addr {
			return
		}
		if err := n.configure(); err != nil {
			t.Fatal(err)
		}
		var again saved
		if err := json.Unmarshal([]byte(n.run("restore", file, "--json")), &again); err != nil || again != doc {
			t.Errorf("%+v, and it was saved as %+v: %v", again, doc, err)
		}
		t.Logf("jobs=%d restore-ms=%d", jobs, time.Since(began).Milliseconds())
	})
	for i, n := range c.nodes {
		now, later := n.figures(queueNow), n.figures(queueLater)
		if now.Pending < jobs+len(first) || now.Pending > jobs+len(first)+len(during) || later.Pending != 1 || later.Delayed != 1 || later.Failed != 1 || later.Reserved != 0 {
			t.Errorf("node %d: %+v %+v", i, now, later)
		}
		if st, err := n.document(t.Context(), ""); err != nil || i > 0 && st.Storage.Received == 0 {
			t.Errorf("node %d joined without a stream: %+v %v", i, st, err)
		}
	}
	n := c.nodes[1]
	if out := n.done("peek", queueLater, "--state", "delayed"); !regexp.MustCompile(`in 5\dm`).MatchString(out) {
		t.Errorf("the delayed job: %s", out)
	}
	k := n.caller(link.RoleWorker, workerExt)
	if code, _ := k.call(link.Request(nil, link.Ack).String(queueLater).String(running.ID)); code != 5 {
		t.Errorf("a lease of before the backup was answered %d", code)
	}
	had := n.figures(queueNow).Pending
	for i := range 100 { // none of them may be skipped as one that the file has
		k.mustPush(queueNow, fmt.Sprint("after ", i))
	}
	for i, n := range c.nodes {
		if now := n.figures(queueNow); now.Pending != had+100 {
			t.Errorf("node %d has %d jobs of %d", i, now.Pending, had+100)
		}
	}
	c.same()
	n.stop()
	n.start()
	c.whole()
	c.same()
}

// push pushes jobs on all nodes at once.
func (c *cluster) push(jobs int) {
	c.t.Helper()
	const callers = 60
	done := make(chan bool, callers)
	for i := range callers {
		k := c.nodes[i%len(c.nodes)].caller(link.RoleTool, "test")
		go func() { // ended by the answers
			ok := true
			for j := i; j < jobs; j += callers {
				ok = ok && k.push(queueNow, strings.Repeat(fmt.Sprint(j%10), 300)).code == 1
			}
			done <- ok
		}()
	}
	for range callers {
		if !<-done {
			c.t.Error("a push failed")
		}
	}
}

// refusedCommand runs a command of pogod that must fail with this in its one line, and
// nothing on standard output.
func (n *node) refusedCommand(want string, args ...string) {
	n.t.Helper()
	errs := turnedAway(n.t, n.command(args...))
	if !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
		n.t.Errorf("pogod %q says %q, without %q", args, errs, want)
	}
}

// TestRestoreRefusals restores what cannot be, and where it cannot be: nothing is changed.
func TestRestoreRefusals(t *testing.T) {
	t.Parallel()
	notTwice(t)
	n := newNode(t, build(t, ""), "")
	n.up()
	n.done("push", queueNow, "kept")
	file := filepath.Join(t.TempDir(), "b")
	n.backup(file)
	n.refusedCommand("there is a node's data already", "restore", file)
	n.stop()
	before := contents(t, n.dir)
	n.refusedCommand("restored into an empty data directory: name another one with --data", "restore", file)
	unchanged(t, before, contents(t, n.dir))

	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fresh := newNode(t, build(t, ""), "")
	if err := fresh.configure(); err != nil {
		t.Fatal(err)
	}
	spoilt := filepath.Join(t.TempDir(), "spoilt")
	for name, c := range map[string]struct {
		spoil func(b []byte) []byte
		want  string
	}{
		"flipped": {func(b []byte) []byte { b[len(b)/2] ^= 8; return b }, "the backup is damaged or not whole"},
		"cut off": {func(b []byte) []byte { return b[:len(b)-4096] }, "the backup is damaged or not whole"},
		"newer":   {func(b []byte) []byte { b[len("pogod backup")] = 9; return b }, "a newer pogod made the backup"},
		"another": {func([]byte) []byte { return []byte("#!/bin/sh\nexit 0 # and so on\n") }, "this is not a backup"},
	} {
		if err := os.WriteFile(spoilt, c.spoil(append([]byte{}, b...)), 0o600); err != nil {
			t.Fatal(err)
		}
		fresh.refusedCommand(c.want, "restore", spoilt)
		if _, err := os.Lstat(fresh.dir); err == nil {
			t.Errorf("%s: the data directory was made", name)
		}
	}
	if out := fresh.run("restore", file, "--dry-run"); !strings.Contains(out, "it can be restored there") {
		t.Error(out)
	}
	if _, err := os.Lstat(fresh.dir); err == nil {
		t.Error("a dry run made the data directory")
	}
	fresh.run("restore", file)
	fresh.up()
	if q := fresh.figures(queueNow); q.Pending != 1 {
		t.Errorf("%+v", q)
	}
	fresh.stop()
}

// TestClusterRecover loses two of three nodes for good. The third one goes on alone, with all
// that it has, and the others come back as new nodes. Started on their old data they do it no
// harm.
func TestClusterRecover(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	c.push(300)
	n, back, ghost := c.nodes[2], c.nodes[0], c.nodes[1]
	n.done("push", queueLater, "delayed", "--delay", "1h")
	before := n.figures(queueNow) // and so the node has applied it all
	n.refusedCommand("belongs to the running pogod", "cluster", "recover", "--yes")
	for _, n := range c.nodes {
		n.kill()
	}
	was := contents(t, n.dir, "/lock")
	if out := n.run("cluster", "recover", "--dry-run"); !strings.Contains(out, "would recover node") || !strings.Contains(out, "left behind: ") {
		t.Error(out)
	}
	if out, err := n.command("cluster", "recover").CombinedOutput(); err == nil || !strings.Contains(string(out), "nothing was changed: recover it with --yes") {
		t.Errorf("%v %s", err, out)
	}
	unchanged(t, was, contents(t, n.dir, "/lock"))
	if out := n.run("cluster", "recover", "--yes"); !strings.Contains(out, "never start them again on their data") {
		t.Error(out)
	}
	n.up()
	if q := n.figures(queueNow); q.Pending != before.Pending || n.figures(queueLater).Delayed != 1 {
		t.Errorf("%+v, and before %+v", q, before)
	}
	n.caller(link.RoleTool, "test").mustPush(queueNow, "after")
	// What must not be done: both others on their old data. They go on as the cluster that
	// was, and cannot reach this one.
	for _, old := range []*node{back, ghost} {
		old.start()
	}
	for _, old := range []*node{back, ghost} {
		old.serving()
	}
	for range 20 {
		back.caller(link.RoleTool, "test").mustPush(queueNow, "elsewhere")
	}
	if doc, err := n.document(t.Context(), "?consistent=1"); err != nil || doc.Raft.State != "Leader" || doc.queue(queueNow).Pending != before.Pending+1 {
		t.Errorf("%+v %v", doc, err)
	}
	for _, old := range []*node{back, ghost} {
		old.kill()
		if err := os.RemoveAll(old.dir); err != nil {
			t.Fatal(err)
		}
	}
	back.snapshot = 0
	rejoin(t, back, n)
	back.up()
	ghost.snapshot = 0
	rejoin(t, ghost, n)
	ghost.start()
	c.whole()
	for i, m := range c.nodes {
		if q := m.figures(queueNow); q.Pending != before.Pending+1 {
			t.Errorf("node %d: %+v", i, q)
		}
	}
	c.same()
}

// rejoin brings a node in anew.
func rejoin(t *testing.T, n, at *node) {
	t.Helper()
	n.run("cluster", "join", at.addr, tokenOf(at))
}

// tokenOf asks a node for a token.
func tokenOf(n *node) string {
	n.t.Helper()
	return regexp.MustCompile(`pogod1_\S+`).FindString(n.run("cluster", "token"))
}

// TestCompact makes the data file of a node small again from which most jobs are gone.
func TestCompact(t *testing.T) {
	t.Parallel()
	notTwice(t)
	n := newNode(t, build(t, ""), "")
	n.up()
	k := n.caller(link.RoleTool, "test")
	for range 40 {
		k.mustPush(queuePHP, strings.Repeat("x", 500_000))
	}
	n.done("clear", queuePHP, "--yes")
	k.mustPush(queueNow, "stays")
	n.refusedCommand("belongs to the running pogod", "compact")
	n.stop()
	var doc struct {
		Before int64 `json:"before_bytes"`
		After  int64 `json:"after_bytes"`
	}
	out := n.run("compact", "--json")
	st, err := os.Stat(filepath.Join(n.dir, "state.db"))
	if err := errors.Join(err, json.Unmarshal([]byte(out), &doc)); err != nil || doc.Before < 20_000_000 || doc.After != st.Size() || doc.After > 1_000_000 {
		t.Errorf("%s, and the file has %d bytes: %v", out, st.Size(), err)
	}
	n.up()
	if q := n.figures(queueNow); q.Pending != 1 {
		t.Errorf("%+v", q)
	}
	n.stop()
	before := contents(t, n.dir)
	n.refusedCommand("there is nothing to compact", "compact", "--data", filepath.Join(n.home, "elsewhere"))
	unchanged(t, before, contents(t, n.dir))
}
