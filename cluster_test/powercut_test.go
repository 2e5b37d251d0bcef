package cluster_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPowerCut cuts the power of the node's disk under load: a file system in a loop
// image is shut down without flushing its journal, so that what was not synced is gone,
// and is mounted again. POGOD_POWERCUT_ROUNDS and POGOD_SEED set the rounds and the seed.
func TestPowerCut(t *testing.T) {
	notTwice(t)
	d := newDisk(t)
	n := newNode(t, build(t, ""), d.data())
	tr := trial{rounds: envInt(t, "POGOD_POWERCUT_ROUNDS", 5), seed: newSeed(t), cut: d.cutUnder, restore: d.restore}
	d.users = n.kill
	r, err := tr.run(t, n)
	if err != nil {
		t.Error(err)
	}
	r.require(t)
}

// disk is an ext4 file system in an image of its own, mounted through a loop device.
type disk struct {
	t       *testing.T
	image   string
	mount   string
	mounted bool
	users   func() // ends who uses it
}

// diskSize is that of the image, which is sparse: room for some segments of the log and
// the data file.
const diskSize = 2 << 30

// newDisk makes a disk and mounts it. The test is skipped when that needs more rights,
// tools or devices than there are.
func newDisk(t *testing.T) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a loop image and to cut its power")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (Debian: e2fsprogs, mount): %v", tool, err)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	dir, err := os.MkdirTemp("", "pogod-disk")
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{t: t, image: filepath.Join(dir, "image"), mount: filepath.Join(dir, "mount"), users: func() {}}
	t.Cleanup(func() {
		d.users()
		d.unmount()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	f, err := os.Create(d.image)
	if err == nil {
		err = errors.Join(f.Truncate(diskSize), f.Close(), os.Mkdir(d.mount, 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", "-F", d.image)
	d.restore()
	return d
}

// data is a directory on the disk.
func (d *disk) data() string { return filepath.Join(d.mount, "data") }

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// Shutting ext4 down: from now on nothing reaches the disk, and every write and fsync
// fails.
const (
	ext4IocShutdown     = 0x8004587d // _IOR('X', 125, __u32)
	ext4ShutdownNoFlush = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: the journal in memory is lost too
)

// cut cuts the power.
func (d *disk) cut() {
	d.t.Helper()
	f, err := os.Open(d.mount)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4IocShutdown, ext4ShutdownNoFlush); err != nil {
		d.t.Fatalf("shut down %s: %v", d.mount, err)
	}
}

// cutUnder cuts the power under a node, in one of two ways. Linux lets an fsync that is
// under way while ext4 shuts down succeed, although nothing of it is on the disk; a disk
// without power answers nobody. So either the node is stopped first, between system
// calls, and goes on without a disk: what it answers then must be true. Or the power
// goes while it writes, and what it answers from then on has not come out of it.
func (d *disk) cutUnder(n *node, l *loader, r *rand.Rand) error {
	if r.IntN(2) == 0 {
		if line, err := l.ask("dark", nil); err != nil || line != "dark" {
			return errors.Join(err, errors.New(line))
		}
		d.cut()
		return nil
	}
	if err := n.freeze(); err != nil {
		return err
	}
	d.cut()
	if err := n.cmd.Process.Signal(unix.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	pause(context.Background(), time.Duration(r.IntN(100))*time.Millisecond)
	return nil
}

// restore mounts the disk as it is after the power came back; nobody uses it.
func (d *disk) restore() {
	d.t.Helper()
	d.unmount()
	d.run("mount", "-o", "loop", d.image, d.mount)
	d.mounted = true
}

// unmount takes the file system and its loop device away. What the page cache holds of
// a cut one is gone with it.
func (d *disk) unmount() {
	d.t.Helper()
	if !d.mounted {
		return
	}
	if out, err := exec.Command("umount", d.mount).CombinedOutput(); err != nil {
		d.t.Errorf("umount %s: %v\n%s", d.mount, err, out)
		d.run("umount", "-l", d.mount)
	}
	d.mounted = false
}
