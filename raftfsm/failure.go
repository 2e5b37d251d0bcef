package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"golang.org/x/sys/unix"

	"pogod/internal/datadir"
	"pogod/storage"
)

// ErrDisk is what stopped the node when the disk refused a write or a sync of the log or of
// the data file. raft-wal cannot go on after that, nor be opened again, and what the page
// cache shows may not be on the disk. Nothing that was accepted is lost by it: a new process
// goes on, once Repair has succeeded.
var ErrDisk = errors.New("the disk failed")

// handOverWithin bounds how long a leader whose log is whole tries to have another one lead.
const handOverWithin = time.Second

// Halt ends this node's part in raft after a failure, and waits for little: raft may wait for
// ever for a disk. Another node is elected, and the state machine shows what it has.
func (g *Group) Halt() {
	g.FSM.halt()
	if g.log.firstErr() == nil && g.cfg.Transport != nil && g.Raft.State() == raft.Leader {
		over := make(chan struct{})
		go func() { // ended by raft, or with the process
			_ = g.Raft.LeadershipTransfer().Error() // else the others find out
			close(over)
		}()
		late := make(chan struct{})
		t := g.cfg.Clock.AfterFunc(handOverWithin, func() { close(late) })
		defer t.Stop()
		select {
		case <-over:
		case <-late:
		}
	}
	g.Raft.Shutdown() // its future may never come
}

// Repair finds out whether the disk can be written again, and writes anew what may be in the
// page cache alone: after a sync that failed the kernel takes pages for clean that never
// reached the disk. It is for a halted group whose process is replaced next. It fails as long
// as the disk does.
func (g *Group) Repair() error {
	return repair(g.cfg.Dir.Path, g.Err(), g.log.limit, g.log.firstErr() != nil)
}

// Repair does for the data directory at path what that of a Group does, where the disk
// refused a start: why is the start's error, for which Refused is true.
func Repair(path string, why error) error { return repair(path, why, defaultLogBytes, true) }

func repair(path string, why error, segment int64, tail bool) error {
	dir := filepath.Join(path, logDir)
	room := int64(probed)
	if says(why, unix.ENOSPC, unix.EDQUOT) {
		room += segment // which could not be begun, say
	}
	for _, d := range []string{path, dir} {
		if err := probe(d, room); err != nil {
			return err
		}
	}
	if tail {
		if err := rewriteTail(dir); err != nil {
			return fmt.Errorf("rewrite the end of the log: %w", err)
		}
	}
	return errors.Join(storage.Resync(filepath.Join(dir, metadb.FileName)), storage.Resync(filepath.Join(path, stateFile)))
}

// Refused reports whether an error of a start is that the disk refused something: ErrDisk,
// or what the kernel says.
func Refused(err error) bool {
	return err != nil && (errors.Is(err, ErrDisk) || says(err, unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS))
}

// says reports whether an error is one of the kernel's, of which bbolt makes text.
func says(err error, all ...unix.Errno) bool {
	return slices.ContainsFunc(all, func(e unix.Errno) bool { return strings.Contains(err.Error(), e.Error()) })
}

// probed is how much probe writes: room for what the next start writes itself.
const probed = 1 << 20

// probe writes and syncs a file, and its directory, and sees that there is so much room.
func probe(dir string, room int64) (err error) {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if err = unix.Fallocate(int(f.Fd()), 0, 0, room); errors.Is(err, unix.EOPNOTSUPP) {
		err = nil // not on this file system
	}
	if err == nil {
		_, err = f.Write(make([]byte, probed))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return datadir.SyncDir(dir)
}

// rewritten is the name under which the end of the log is written anew.
const rewritten = "tail.rewritten"

// tailOf returns the path of the newest segment of the log in dir; "" when there is none.
func tailOf(dir string) (string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	tail, newest := "", ""
	for _, path := range all { // "<first index>-<segment's id>.wal", of fixed widths
		if _, id, _ := strings.Cut(filepath.Base(path), "-"); id > newest {
			tail, newest = path, id
		}
	}
	return tail, err
}

// rewriteTail puts a synced copy in place of the newest segment of the log: the others were
// synced whole before it was begun.
func rewriteTail(dir string) error {
	tail, err := tailOf(dir)
	if tail == "" || err != nil {
		return err
	}
	from, err := os.Open(tail)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	to, err := os.OpenFile(filepath.Join(dir, rewritten), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return errors.Join(err, os.Remove(to.Name()))
	}
	return replace(to.Name(), tail)
}

// resync makes durable what the last process may have left in the page cache alone, when it
// was killed between a sync that failed and the end of Repair. After a clean end there is
// nothing to do.
func (g *Group) resync() error {
	if g.log.closed {
		return nil
	}
	tail, err := tailOf(g.cfg.Dir.File(logDir))
	if tail != "" && err == nil {
		err = resyncFile(tail)
	}
	if err != nil {
		return fmt.Errorf("write the end of the log anew: %w", err)
	}
	return storage.Resync(g.cfg.Dir.File(stateFile))
}

// resyncFile writes what a file holds over itself, and syncs it; zeros are what nobody has
// written yet.
func resyncFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	chunk, empty := make([]byte, 1<<16), make([]byte, 1<<16)
	for at := int64(0); ; at += int64(len(chunk)) {
		n, err := f.ReadAt(chunk, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !bytes.Equal(chunk[:n], empty[:n]) {
			if _, err := f.WriteAt(chunk[:n], at); err != nil {
				return err
			}
		}
		if err != nil {
			return f.Sync()
		}
	}
}

// diskFailed says that an error is the disk's, unless it is that something is damaged.
func diskFailed(err error) error {
	if err == nil || errors.Is(err, storage.ErrCorrupt) || errors.Is(err, ErrLogDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDisk, err)
}
