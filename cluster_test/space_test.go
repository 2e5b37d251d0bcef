package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pogod/internal/link"
)

// smallDisk is a file system in memory, whose room a test takes and gives back.
type smallDisk struct {
	t    *testing.T
	path string
}

// Sizes of a small disk, for nodes with a short log.
const (
	smallDiskBytes = 96 << 20
	smallFloor     = 32 << 20
)

// newSmallDisk mounts one. The test is skipped when that needs more rights than there are.
func newSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	d := &smallDisk{t, t.TempDir()}
	if err := unix.Mount("tmpfs", d.path, "tmpfs", 0, fmt.Sprint("size=", smallDiskBytes)); err != nil {
		t.Skip("needs the right to mount a tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

// data is a directory on the disk.
func (d *smallDisk) data() string { return filepath.Join(d.path, "data") }

// fill leaves so much room.
func (d *smallDisk) fill(leave int64) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.path, "filler"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	until(d.t, func() bool {
		var st unix.Statfs_t
		if err = unix.Statfs(d.path, &st); err == nil {
			err = unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-leave)
		}
		return !errors.Is(err, unix.ENOSPC) // the node took some of it meanwhile
	}, func() string { return err.Error() })
	if err != nil {
		d.t.Fatal(err)
	}
}

// empty gives back what fill took.
func (d *smallDisk) empty() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.path, "filler")); err != nil {
		d.t.Fatal(err)
	}
}

// onSmallDisks makes three nodes with a short log, each on a small disk, with this floor
// of free space in bytes.
func onSmallDisks(t *testing.T, floor int) (c *cluster, disks []*smallDisk) {
	t.Helper()
	c = newCluster(t, build(t, "seeded"), func(n *node) {
		d := newSmallDisk(t)
		disks = append(disks, d)
		n.dir, n.env, n.settings = d.data(), []string{shortLog}, fmt.Sprint("min_free_bytes = ", floor)
		t.Cleanup(n.kill) // before the disk goes
	})
	return c, disks
}

// low reports whether a node says that its disk is below the floor, and how.
func (n *node) low() (low bool, note string) {
	n.t.Helper()
	doc, err := n.document(n.t.Context(), "")
	if err != nil {
		n.t.Fatal(err)
	}
	if i := slices.IndexFunc(doc.Notes, func(s string) bool { return strings.Contains(s, "min_free_bytes") }); i >= 0 {
		note = doc.Notes[i]
	}
	return doc.Storage.Low, note
}

// TestPushesAreRefusedBelowTheFloorOfFreeSpace fills disks up to their floor under load, that
// of the leader and of whoever may be elected: pushes are refused on every node, what is there
// is worked off, and pushes come back with the room. Then it fills a follower's, which says
// so, and nothing else changes.
func TestPushesAreRefusedBelowTheFloorOfFreeSpace(t *testing.T) {
	t.Parallel()
	notTwice(t)
	c, disks := onSmallDisks(t, smallFloor)
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	leader := c.leader()
	other := (leader + 1) % 3
	until(t, func() bool { return c.nodes[leader].enqueued() > 2*pushRate }, func() string { return "the load does not run" })
	for i, d := range disks {
		d.fill(smallFloor - 1<<20)
		until(t, func() bool { low, _ := c.nodes[i].low(); return low }, func() string { return fmt.Sprintf("node %d does not see it", i) })
	}
	for _, i := range []int{leader, other} {
		a := c.nodes[i].caller(link.RoleTool, "test").push(queueNow, "too much")
		for _, want := range []string{"not accepted", "/data has ", "MiB free", "min_free_bytes is 32.0 MiB"} {
			if a.code != 5 || !strings.Contains(a.message, want) {
				t.Errorf("node %d: a push was answered %+v, without %q", i, a, want)
			}
		}
	}
	until(t, func() bool { _, note := c.nodes[c.leader()].low(); return strings.HasSuffix(note, noteRefuses) }, func() string { return "the leader does not say that it refuses" })
	until(t, func() bool {
		ready, err := c.nodes[c.leader()].get(t.Context(), "/readyz")
		return err == nil && strings.Contains(string(ready), noteRefuses)
	}, func() string { return "nor does its readyz" })
	if _, err := c.nodes[leader].drained(); err != nil { // which takes acks, releases, fails and ticks
		t.Error(err)
	}
	before := c.nodes[leader].enqueued()
	for _, d := range disks {
		d.empty()
	}
	until(t, func() bool { return c.nodes[leader].enqueued() > before }, func() string { return "no push is accepted though there is room" })

	leader = c.leader()
	other = (leader + 1) % 3
	disks[other].fill(smallFloor - 1<<20)
	until(t, func() bool { low, _ := c.nodes[other].low(); return low }, func() string { return "the follower does not see it" })
	before = c.nodes[leader].enqueued()
	until(t, func() bool {
		_, note := c.nodes[other].low()
		return c.leader() == other || strings.HasSuffix(note, noteLow) && c.nodes[leader].enqueued() > before+pushRate/10
	}, func() string { return "the follower does not say so, or pushes stop for its disk" })
	disks[other].empty()
	r, err := c.judge(l, nil)
	r.consistent(t, err)
}

// TestALeaderWithLittleRoomHandsOver fills the leader's disk nearly down to its floor under
// load: another node leads before a push is refused.
func TestALeaderWithLittleRoomHandsOver(t *testing.T) {
	t.Parallel()
	notTwice(t)
	c, disks := onSmallDisks(t, smallFloor)
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	former := c.leader()
	until(t, func() bool { return c.nodes[former].enqueued() > pushRate }, func() string { return "the load does not run" })
	disks[former].fill(smallFloor + smallFloor/8)
	until(t, func() bool { now := c.leads(); return now >= 0 && now != former }, func() string { return "the leader does not hand over" })
	before := c.nodes[former].enqueued()
	until(t, func() bool { return c.nodes[former].enqueued() > before+pushRate }, func() string { return "pushes stop" })
	if now := c.leader(); now == former {
		t.Error("the node with little room leads again")
	}
	disks[former].empty()
	r, err := c.judge(l, nil)
	r.consistent(t, err)
	if r.withdrawn+r.answered5 > 0 {
		t.Errorf("%d pushes were refused, and %d of unknown outcome", r.withdrawn, r.answered5)
	}
}

// What notes say of a disk with little room.
const (
	noteRefuses = "pushes are refused, with 5, until there is more"
	noteLow     = "if this node led, pushes would be refused"
)

// enqueued is how many pushes were ever accepted.
func (n *node) enqueued() (all int) {
	n.t.Helper()
	doc, err := n.document(n.t.Context(), "")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, q := range doc.Queues {
		all += q.Enqueued
	}
	return all
}
