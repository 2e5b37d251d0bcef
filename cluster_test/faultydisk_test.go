package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// faultyDisk is a file system that passes everything on to a directory, but for the faults
// that a test gives it. It is served by the test's own process.
type faultyDisk struct {
	t      *testing.T
	behind string // the directory
	path   string // where it is mounted
	server *fuse.Server
	fault  atomic.Pointer[diskFault]
	struck atomic.Int64 // calls that had the fault
}

// diskFault is what is wrong with a disk. Its zero value is nothing.
type diskFault struct {
	files string        // those whose path has this; "" is all
	sync  syscall.Errno // of fsync
	write syscall.Errno // of write, of room in advance, and of files that are made
	lose  bool          // writes succeed, and are in the page cache alone
	delay time.Duration // of fsync
}

// newFaultyDisk mounts one without a fault. The test is skipped when that needs more rights
// or devices than there are.
func newFaultyDisk(t *testing.T) *faultyDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a FUSE file system")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("needs FUSE: %v", err)
	}
	d := &faultyDisk{t: t, behind: t.TempDir(), path: t.TempDir()}
	d.fault.Store(&diskFault{})
	d.mount()
	t.Cleanup(d.unmount)
	return d
}

func (d *faultyDisk) mount() {
	d.t.Helper()
	root, err := fs.NewLoopbackRoot(d.behind)
	if err != nil {
		d.t.Fatal(err)
	}
	d.server, err = fs.Mount(d.path, &faultyNode{root.(*fs.LoopbackNode), d}, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: true, FsName: "pogod-test", Name: "pogod-test"},
	})
	if err != nil {
		d.t.Skipf("needs the right to mount FUSE: %v", err)
	}
}

// unmount takes the file system away, and what the page cache has of it. Nobody uses it.
func (d *faultyDisk) unmount() {
	d.t.Helper()
	d.heal()
	if err := d.server.Unmount(); err != nil {
		d.t.Errorf("unmount: %v", err)
		_ = syscall.Unmount(d.path, syscall.MNT_DETACH) // the rest of the run is to have a chance
	}
}

// data is a directory on the disk.
func (d *faultyDisk) data() string { return filepath.Join(d.path, "data") }

// strike begins a fault, and heal ends it.
func (d *faultyDisk) strike(f diskFault) {
	d.struck.Store(0)
	d.fault.Store(&f)
}
func (d *faultyDisk) heal() { d.fault.Store(&diskFault{}) }

// of returns the fault of a file, a zero one if it has none.
func (d *faultyDisk) of(path string) diskFault {
	f := d.fault.Load()
	if *f == (diskFault{}) || !strings.Contains(path, f.files) {
		return diskFault{}
	}
	return *f
}

// faultyNode is a file or directory.
type faultyNode struct {
	*fs.LoopbackNode
	disk *faultyDisk
}

// WrapChild implements fs.NodeWrapChilder.
func (n *faultyNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &faultyNode{ops.(*fs.LoopbackNode), n.disk}
}

// Open implements fs.NodeOpener. The page cache is kept, as that of a disk is.
func (n *faultyNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &faultyFile{f.(*fs.LoopbackFile), n.disk, n.Path(nil)}, fuseFlags | fuse.FOPEN_KEEP_CACHE, 0
}

// Create implements fs.NodeCreater.
func (n *faultyNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	path := filepath.Join(n.Path(nil), name)
	if errno := n.disk.of(path).write; errno != 0 {
		n.disk.struck.Add(1)
		return nil, nil, 0, errno
	}
	inode, f, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, &faultyFile{f.(*fs.LoopbackFile), n.disk, path}, fuseFlags, 0
}

// faultyFile is an open file.
type faultyFile struct {
	*fs.LoopbackFile
	disk *faultyDisk
	path string
}

// PassthroughFd implements fs.FilePassthroughFder: the kernel is to ask here.
func (f *faultyFile) PassthroughFd() (int, bool) { return 0, false }

// Write implements fs.FileWriter.
func (f *faultyFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	switch fault := f.disk.of(f.path); {
	case fault.write != 0:
		f.disk.struck.Add(1)
		return 0, fault.write
	case fault.lose:
		return uint32(len(data)), 0
	}
	return f.LoopbackFile.Write(ctx, data, off)
}

// Allocate implements fs.FileAllocater.
func (f *faultyFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if errno := f.disk.of(f.path).write; errno != 0 {
		f.disk.struck.Add(1)
		return errno
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}

// Fsync implements fs.FileFsyncer.
func (f *faultyFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	fault := f.disk.of(f.path)
	time.Sleep(fault.delay)
	if fault.sync != 0 {
		f.disk.struck.Add(1)
		return fault.sync
	}
	return f.LoopbackFile.Fsync(ctx, flags)
}
