package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pogod/raftfsm/disk"
)

// Bounds of what is well.
const (
	littleSpace = 1 << 30 // bytes
	slowSync    = 20 * time.Millisecond
	syncs       = 15 // that are measured
)

func (p *patient) dataDirectory() {
	const check = "data directory"
	dir := p.cfg.Node.DataDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.ok(check, "%s is not there yet: the first start makes it", dir)
	case err != nil || !info.IsDir():
		return // the configuration's check has said so
	case info.Mode().Perm()&0o077 != 0:
		p.warn(check, "chmod 700 "+dir, "%s can be entered by other users of this machine (mode %04o): jobs are in it", dir, info.Mode().Perm())
	case p.node != 0:
		p.ok(check, "%s belongs to the node that runs as process %d", dir, p.node)
	default:
		p.ok(check, "%s is there, and no node runs on it", dir)
	}
}

// exists returns the nearest directory that is there.
func exists(dir string) string {
	for dir != filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// Of statfs(2).
var fileSystems = map[int64]struct {
	name, why string
}{
	0x6969:     {"NFS", "a lock or a sync may not hold there"},
	0xff534d42: {"SMB", "a lock or a sync may not hold there"},
	0xfe534d42: {"SMB", "a lock or a sync may not hold there"},
	0x01021997: {"9P", "a lock or a sync may not hold there"},
	0x01021994: {"tmpfs", "it is memory, and gone with the machine"},
	0x858458f6: {"ramfs", "it is memory, and gone with the machine"},
}

func (p *patient) disk() {
	const check = "disk"
	dir := exists(p.cfg.Node.DataDir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		p.warn(check, "look at the directory's rights", "the file system of %s does not tell its size: %v", dir, err)
		return
	}
	if kind, ok := fileSystems[int64(st.Type)&0xffffffff]; ok {
		p.warn(check, "put [node] data_dir on a disk of this machine", "%s is on %s: %s", dir, kind.name, kind.why)
	}
	free := int64(st.Bavail) * st.Bsize
	switch {
	case free < p.cfg.Node.MinFreeBytes:
		p.problem(check, "make room, or put [node] data_dir elsewhere: while this node leads no pushes are taken", "%s has %s free, and [node] min_free_bytes is %s", dir, disk.Size(free), disk.Size(p.cfg.Node.MinFreeBytes))
	case free < littleSpace:
		p.warn(check, "make room, or put [node] data_dir elsewhere", "%s has %s free", dir, disk.Size(free))
	default:
		p.ok(check, "%s has %s free", dir, disk.Size(free))
	}
	took, err := syncTime(dir)
	switch {
	case err != nil:
		if unix.Access(dir, unix.W_OK) == nil { // else the configuration's check has said so
			p.problem(check, "look at the kernel's log: the disk may be failing", "a sync in %s failed: %v", dir, err)
		}
	case took > slowSync:
		p.warn(check, "a disk of its own, or a faster one: each push waits for a sync, though pushes at the same time share one", "a sync in %s takes %s (median of %d)", dir, took.Round(100*time.Microsecond), syncs)
	default:
		p.ok(check, "a sync takes %s (median of %d)", took.Round(10*time.Microsecond), syncs)
	}
}

// syncTime measures what the log does: a page at the end of a file, and a sync. The file
// has no name.
func syncTime(dir string) (time.Duration, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) { // not on this file system
		var f *os.File
		if f, err = os.CreateTemp(dir, ".pogod-doctor-*"); err == nil {
			fd, err = unix.Dup(int(f.Fd()))
			err = errors.Join(err, os.Remove(f.Name()), f.Close())
		}
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing in it is wanted
	page := make([]byte, 4096)
	took := make([]time.Duration, 0, syncs)
	for range syncs {
		begin := time.Now()
		if _, err := unix.Write(fd, page); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(fd); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// holder returns the process that holds the lock of a data directory, 0 when none does. The
// kernel's list is read: to try the lock might turn a node away that starts just now.
func holder(dir string) int {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(dir, "lock"), &st) != nil {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	end := fmt.Sprintf(":%d", st.Ino)
	for line := range strings.Lines(string(locks)) { // 1: FLOCK  ADVISORY  WRITE 4242 08:01:1234 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" || !strings.HasSuffix(f[5], end) {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
