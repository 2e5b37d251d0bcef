package cluster_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pogod/internal/link"
)

// onFaultyDisks makes three nodes, each on a disk that can have faults.
func onFaultyDisks(t *testing.T) (c *cluster, disks []*faultyDisk) {
	t.Helper()
	c = newCluster(t, build(t, ""), func(n *node) { disks = append(disks, n.onFaultyDisk()) })
	return c, disks
}

// onFaultyDisk gives a node that was not started yet such a disk.
func (n *node) onFaultyDisk() *faultyDisk {
	n.t.Helper()
	d := newFaultyDisk(n.t)
	n.dir = d.data()
	n.t.Cleanup(n.kill) // before the disk goes
	return d
}

// failed waits until a node says that its disk failed, and returns what it says.
func (n *node) failed() string {
	n.t.Helper()
	text := ""
	until(n.t, func() bool {
		doc, err := n.document(n.t.Context(), "")
		if err == nil {
			text = doc.Storage.Failure
		}
		return text != ""
	}, func() string { return "the node does not say that its disk failed" })
	return text
}

// TestADiskThatFailsStopsTheNodeUntilItCanBeWritten has writes and syncs of the log and of
// the data file fail, on a node alone, and on the leader and on a follower of three under
// load. The node refuses with a reason and shows what it has; when the disk works again it is
// back by itself, as the same process, and nothing that was accepted is lost.
func TestADiskThatFailsStopsTheNodeUntilItCanBeWritten(t *testing.T) {
	t.Parallel()
	notTwice(t)
	t.Run("three nodes", func(t *testing.T) {
		t.Parallel()
		c, disks := onFaultyDisks(t)
		l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
		number := 0
		for nth, f := range diskFaults {
			for _, who := range []string{"leader", "follower"} {
				i := c.leader()
				if who == "follower" {
					i = (i + 1) % 3
					if nth%2 == 1 {
						continue // much the same as the one before
					}
				}
				number++
				t.Logf("%s of the %s, node %d", f.name, who, i)
				before := c.nodes[i].enqueued()
				if err := l.tell(fmt.Sprint("fault ", number, " ", faultDisk, " ", i)); err != nil {
					t.Fatal(err)
				}
				c.nodes[i].outlives(disks[i], f.diskFault, nil, func() {
					until(t, func() bool { now := c.leads(); return now >= 0 && now != i }, func() string { return "no other node leads" })
					other := c.nodes[(i+1)%3]
					until(t, func() bool { return other.enqueued() > before }, func() string { return "the others accept nothing" })
				})
				if err := l.tell(fmt.Sprint("heal ", number)); err != nil {
					t.Fatal(err)
				}
				c.whole()
			}
		}
		r, err := c.judge(l, nil)
		r.consistent(t, err)
	})
	t.Run("a node alone", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, build(t, ""), "")
		d := n.onFaultyDisk()
		m := newManager(t, n)
		n.start()
		m.await("READY=1", "STATUS=serving")
		accepted := 0
		for _, f := range diskFaults {
			k := n.caller(link.RoleTool, "test")
			k.mustPush(queuePHP, "before")
			accepted++
			n.outlives(d, f.diskFault, k, func() {
				doc, err := n.document(t.Context(), "")
				if err != nil || doc.queue(queuePHP).Enqueued < accepted {
					t.Errorf("%s: it shows %+v %v", f.name, doc.queue(queuePHP), err)
				}
				if out, err := n.get(t.Context(), "/api/v1/queues/"+queuePHP+"/jobs"); err != nil || !strings.Contains(string(out), "before") {
					t.Errorf("%s: its jobs are %s %v", f.name, out, err)
				}
			})
			m.await("STATUS=not ready: .*the disk failed.*")
			m.await("READY=1", "STATUS=serving")
			doc, err := n.document(t.Context(), "")
			if got := doc.queue(queuePHP).Enqueued; err != nil || got < accepted || got > accepted+1 {
				t.Errorf("%s: %d pushes are there, and %d were accepted: %v", f.name, got, accepted, err)
			}
			accepted = doc.queue(queuePHP).Enqueued // that of unknown outcome may be there
		}
		n.stop()
	})
}

// diskFaults are what a disk may refuse.
var diskFaults = []struct {
	name string
	diskFault
}{
	{"EIO on fsync of the log", diskFault{files: "data/log/", sync: syscall.EIO}},
	{"EIO on write of the log", diskFault{files: "data/log/", write: syscall.EIO}},
	{"EIO on fsync of the data file", diskFault{files: "data/state.db", sync: syscall.EIO}},
	{"ENOSPC of all", diskFault{write: syscall.ENOSPC}},
}

// outlives has a node's disk fail until it has noticed, and waits until it is back. k pushes
// into the fault, where no load does. meanwhile is called before the disk works again.
func (n *node) outlives(d *faultyDisk, f diskFault, k *caller, meanwhile func()) {
	n.t.Helper()
	pid := n.cmd.Process.Pid
	d.strike(f)
	if k != nil {
		k.push(queuePHP, "into the fault") // of unknown outcome, or accepted
	}
	text := n.failed()
	for _, want := range []string{"the disk failed", "starts anew by itself"} {
		if !strings.Contains(text, want) {
			n.t.Errorf("its status says %q, without %q", text, want)
		}
	}
	if _, err := n.get(n.t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "the disk failed") {
		n.t.Errorf("readyz says %v", err)
	}
	if a := n.caller(link.RoleTool, "test").push(queuePHP, "refused"); a.code != 5 || !strings.HasPrefix(a.message, "not accepted: the disk failed") {
		n.t.Errorf("a push was answered %+v", a)
	}
	meanwhile()
	d.heal()
	n.serving()
	doc, err := n.document(n.t.Context(), "")
	if err != nil || doc.Node.PID != pid || doc.Storage.Failure != "" {
		n.t.Errorf("it came back as %+v %v, and was process %d", doc, err, pid)
	}
}

// TestAStartThatTheDiskRefusesIsTriedAgain has the disk fail again when the process that took
// the place of another one starts: no supervisor knows of it. It tells why it waits, and is back
// by itself. The first start of all ends with the reason instead.
func TestAStartThatTheDiskRefusesIsTriedAgain(t *testing.T) {
	t.Parallel()
	notTwice(t)
	for _, f := range diskFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, build(t, ""), "")
			d := n.onFaultyDisk()
			n.up()
			n.caller(link.RoleTool, "test").mustPush(queuePHP, "before")
			n.stop()

			d.strike(f.diskFault)
			if f.files != "data/state.db" { // which is synced when the node serves already
				n.start()
				if <-n.exited; n.err == nil || !n.logs(f.says()) {
					t.Errorf("a first start ended with %v, and without the reason", n.err)
				}
			}
			n.env = []string{"POGOD_OUTLASTED=1"}
			n.start()
			pid := n.cmd.Process.Pid
			text := n.failed()
			for _, want := range []string{"the disk failed", f.says(), "starts anew by itself"} {
				if !strings.Contains(text, want) {
					t.Errorf("its status says %q, without %q", text, want)
				}
			}
			if _, err := n.get(t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "the disk failed") {
				t.Errorf("readyz says %v", err)
			}
			d.heal()
			n.serving()
			doc, err := n.document(t.Context(), "")
			if err != nil || doc.Node.PID != pid || doc.Storage.Failure != "" || doc.queue(queuePHP).Pending != 1 {
				t.Errorf("it came back as %+v %v, and was process %d", doc, err, pid)
			}
			n.stop()
		})
	}
}

// says is the kernel's text for it.
func (f diskFault) says() string { return cmp.Or(f.sync, f.write).Error() }

// TestTheEndOfTheLogIsRewrittenAfterASyncThatFailed loses what the page cache shows: the sync
// of an entry failed, and it never reached the disk. The node goes on from what it reads, by
// itself or after it was killed, and accepts more. Then the page cache is gone.
func TestTheEndOfTheLogIsRewrittenAfterASyncThatFailed(t *testing.T) {
	t.Parallel()
	notTwice(t)
	lost := diskFault{files: "data/log/", sync: syscall.EIO, lose: true}
	for name, survive := range map[string]func(n *node, d *faultyDisk){
		"by itself": func(n *node, d *faultyDisk) { n.outlives(d, lost, n.caller(link.RoleTool, "test"), func() {}) },
		"killed": func(n *node, d *faultyDisk) {
			d.strike(lost)
			n.caller(link.RoleTool, "test").push(queuePHP, "into the fault")
			n.failed()
			n.kill()
			d.heal()
			n.up()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, build(t, "seeded"), "")
			n.env = []string{shortLog}
			d := n.onFaultyDisk()
			n.up()
			n.caller(link.RoleTool, "test").mustPush(queuePHP, "first")
			segments, err := filepath.Glob(filepath.Join(n.dir, "log", "*.wal"))
			if err != nil || len(segments) != 1 {
				t.Fatal(segments, err)
			}
			if _, err := os.ReadFile(segments[0]); err != nil { // its pages are in the cache
				t.Fatal(err)
			}
			survive(n, d)
			n.caller(link.RoleTool, "test").mustPush(queuePHP, "second")
			doc, err := n.document(t.Context(), "")
			if err != nil || doc.queue(queuePHP).Pending != 3 { // the second one's outcome was unknown
				t.Errorf("%+v %v: what was to be lost was not in the page cache, so this shows nothing", doc.queue(queuePHP), err)
			}
			n.kill()
			d.unmount()
			d.mount()
			n.up()
			if again, err := n.document(t.Context(), ""); err != nil || again.queue(queuePHP).Pending != 3 {
				t.Errorf("%+v %v", again.queue(queuePHP), err)
			}
			n.stop()
		})
	}
}

// TestAFullDiskStopsTheNodeUntilThereIsRoom fills the disk of the leader, and of a follower, to
// the last byte, without a floor that would have kept pushes away. It is back by itself when
// there is room for the log, and not before.
func TestAFullDiskStopsTheNodeUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	notTwice(t)
	c, disks := onSmallDisks(t, 0)
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	for number := range 2 {
		i := (c.leader() + number) % 3
		n := c.nodes[i]
		pid := n.cmd.Process.Pid
		if err := l.tell(fmt.Sprint("fault ", number, " ", faultDisk, " ", i)); err != nil {
			t.Fatal(err)
		}
		disks[i].fill(0)
		if text := n.failed(); !strings.Contains(text, "no space left on device") {
			t.Errorf("it says %q", text)
		}
		until(t, func() bool { // it has tried
			doc, err := n.document(t.Context(), "")
			return err == nil && strings.Contains(doc.Storage.Failure, "the last attempt to write to it")
		}, func() string { return "it does not try to write" })
		disks[i].empty()
		n.serving()
		if doc, err := n.document(t.Context(), ""); err != nil || doc.Node.PID != pid {
			t.Errorf("it came back as %+v %v, and was process %d", doc.Node, err, pid)
		}
		if err := l.tell(fmt.Sprint("heal ", number)); err != nil {
			t.Fatal(err)
		}
		c.whole()
	}
	r, err := c.judge(l, nil)
	r.consistent(t, err)
}
