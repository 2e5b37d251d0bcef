package raftfsm

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/internal/datadir"
	"pogod/raftfsm/disk"
	"pogod/storage"
)

// MaxEntry is the largest log entry, in bytes: a command of command.MaxCommand and
// what stands around it. raft-wal would write a larger one and not read it back.
const MaxEntry = command.MaxCommand + 1<<20

// ErrEntryTooLarge is returned for an entry over MaxEntry. Nothing was written.
var ErrEntryTooLarge = errors.New("raftfsm: log entry too large")

// logStore is raft's log and its stable store (term and vote), on raft-wal: one fsync
// a commit. After a failed append raft-wal cannot go on, so the first failure is final
// for the process.
type logStore struct {
	*wal.WAL
	meta  *metadb.BoltMetaDB // ours to close: WAL.Close leaves it locked
	syncs *disk.Syncs

	checked bool         // check found nothing wrong, and the log is open
	closed  bool         // check found that the last process had closed it
	limit   int64        // bytes since the last snapshot that ask for the next one
	bytes   atomic.Int64 // appended since the last snapshot
	entries atomic.Int64
	full    chan struct{} // holds a signal when limit was reached

	mu     sync.Mutex // guards err
	err    error
	failed chan struct{} // closed with err set
}

// defaultLogBytes of log since the last snapshot ask for the next one. As much is kept
// behind a snapshot: a member that was away is sent what it lacks from there, as long as
// that is not more. A node alone keeps a quarter of it.
const defaultLogBytes = 64 << 20

// endKey is the stable store's key of the log's last index when it was closed, 0 while it
// is open: raft-wal takes a damaged end for a write that was cut off, and forgets it.
var endKey = []byte("pogod-log-end")

func openLog(dir string, limit int64, logger hclog.Logger) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log's directory: %w", err)
	}
	if err := storage.VerifyPages(filepath.Join(dir, metadb.FileName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: term, vote and segments: %w", ErrLogDamaged, err)
	}
	if err := os.Remove(filepath.Join(dir, rewritten)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	s := &logStore{meta: &metadb.BoltMetaDB{}, syncs: disk.NewSyncs(clock.System()), limit: limit, full: make(chan struct{}, 1), failed: make(chan struct{})}
	files := logFiles{walFiles(), func(err error) { s.fail(diskFailed(fmt.Errorf("write the log: %w", err))) }, s.syncs}
	var err error
	s.WAL, err = openWAL(func() (*wal.WAL, error) {
		return wal.Open(dir, wal.WithMetaStore(s.meta), wal.WithLogger(logger), wal.WithSegmentFiler(segment.NewFiler(dir, files)),
			wal.WithSegmentSize(int(limit))) // an entry that was cut off is gone with its segment, not before
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", dir, err), s.meta.Close())
	}
	return s, nil
}

// openWAL opens raft-wal, which panics on some things that cannot be.
func openWAL(open func() (*wal.WAL, error)) (w *wal.WAL, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrLogDamaged, p)
		}
	}()
	w, err = open()
	if _, refused := errors.AsType[syscall.Errno](err); err != nil && (!refused || errors.Is(err, os.ErrNotExist)) {
		return nil, fmt.Errorf("%w: %w", ErrLogDamaged, err)
	}
	return w, err
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries and waits for fsync. An entry over MaxEntry is refused
// with all of them unwritten.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	size := 0
	for _, l := range logs {
		if len(l.Data) > MaxEntry {
			return fmt.Errorf("%w: %d bytes, at most %d", ErrEntryTooLarge, len(l.Data), MaxEntry)
		}
		size += len(l.Data)
	}
	if err := s.WAL.StoreLogs(sealed(logs)); err != nil {
		s.fail(diskFailed(fmt.Errorf("append to the log: %w", err)))
		return s.firstErr()
	}
	s.entries.Add(int64(len(logs)))
	if s.bytes.Add(int64(size)) > s.limit {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
	return nil
}

// DeleteRange implements raft.LogStore. After a failure raft-wal does not know what it has.
func (s *logStore) DeleteRange(first, last uint64) error {
	if err := s.WAL.DeleteRange(first, last); err != nil {
		s.fail(diskFailed(fmt.Errorf("cut the log: %w", err)))
		return s.firstErr()
	}
	return nil
}

// IsMonotonic tells raft that the log has no holes, as WAL does.
func (s *logStore) IsMonotonic() bool { return s.WAL.IsMonotonic() }

// idKey is the stable store's key of the log's id.
var idKey = []byte("pogod-log-id")

// belongs sees that the log is the one that the node has had before, by an id that it
// shares with node.json. Term and vote are in it: with an empty one in its place the node
// would have forgotten whom it voted for, and what it told others that it had.
func (s *logStore) belongs(dir *datadir.Dir) error {
	id, err := s.Get(idKey)
	if err != nil {
		return err
	}
	known := dir.LogID()
	switch {
	case known != "" && string(id) != known:
		return fmt.Errorf("%w: it is not the one that node %s has had before: it was removed, or put in place of another", ErrLogDamaged, dir.NodeID())
	case known != "":
		return nil
	case len(id) == 0:
		raw := make([]byte, 8)
		_, _ = rand.Read(raw) // never fails
		id = []byte(hex.EncodeToString(raw))
		if err := s.put(idKey, id); err != nil {
			return err
		}
	}
	return dir.SetLogID(string(id))
}

// promises are raft's keys of what must not be forgotten.
var promises = [][]byte{currentTerm, []byte("LastVoteTerm"), []byte("LastVoteCand")}

// check reads the whole log, term and vote, and that it ends where it was closed. It adds up what it
// holds behind a snapshot at after, so that a node that restarts often takes snapshots too.
func (s *logStore) check(after uint64) error {
	first, last, err := s.indexes()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	for _, key := range promises {
		if _, err := s.Get(key); err != nil {
			return err
		}
	}
	end, err := s.GetUint64(endKey)
	if err != nil {
		return err
	}
	s.closed = end > 0
	if last < end {
		return fmt.Errorf("%w: it ends at entry %d, and was closed at %d", ErrLogDamaged, last, end)
	}
	var l raft.Log
	for i := first; i <= last && last > 0; i++ {
		err := s.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) { // and wal-meta.db says that it is there
			err = fmt.Errorf("%w: entry %d of %d to %d is missing", ErrLogDamaged, i, first, last)
		}
		if err != nil {
			return err
		}
		if i > after {
			s.entries.Add(1)
			s.bytes.Add(int64(len(l.Data)))
		}
	}
	if s.bytes.Load() > s.limit {
		s.full <- struct{}{} // has room: nobody else knows the log yet
	}
	return nil
}

// opened notes that the log, which check has read, may grow from now on. A start that is
// refused before changes nothing.
func (s *logStore) opened() error {
	s.checked = true
	return s.put(endKey, number(0))
}

func (s *logStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.failed)
	}
}

func (s *logStore) firstErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// trailing returns how many entries make up that many bytes, by the mean size of those
// since the last snapshot.
func (s *logStore) trailing(bytes int64) uint64 {
	n := s.entries.Load()
	if n == 0 {
		return 128
	}
	mean := max(s.bytes.Load()/n, 1)
	return uint64(min(max(bytes/mean, 16), bytes/256))
}

func (s *logStore) snapshotTaken() {
	s.bytes.Store(0)
	s.entries.Store(0)
}

func (s *logStore) indexes() (first, last uint64, err error) {
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	return first, last, errors.Join(err1, err2)
}

// close notes where the log ends, unless that is not known to be right, and closes it.
func (s *logStore) close() error {
	var err error
	if _, last, bad := s.indexes(); s.checked && s.firstErr() == nil && bad == nil {
		err = s.put(endKey, number(last))
	}
	return errors.Join(err, s.Close(), s.meta.Close())
}
