package raftfsm

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"pogod/internal/command"
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
	meta *metadb.BoltMetaDB // ours to close: WAL.Close leaves it locked

	bytes   atomic.Int64 // appended since the last snapshot
	entries atomic.Int64
	full    chan struct{} // holds a signal when snapshotBytes were appended

	mu     sync.Mutex // guards err
	err    error
	failed chan struct{} // closed with err set
}

// snapshotBytes of log since the last snapshot ask for the next one.
const snapshotBytes = 64 << 20

// These bytes of log are kept behind a snapshot: a member that was away is sent what it
// lacks from there, as long as that is not more.
const (
	trailingAlone   = 16 << 20
	trailingMembers = 64 << 20
)

func openLog(dir string, logger hclog.Logger) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log's directory: %w", err)
	}
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithLogger(logger), wal.WithSegmentFiler(segmentFiler(dir)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", dir, err), meta.Close())
	}
	return &logStore{WAL: w, meta: meta, full: make(chan struct{}, 1), failed: make(chan struct{})}, nil
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
	if err := s.WAL.StoreLogs(logs); err != nil {
		err = fmt.Errorf("append to the log: %w", err)
		s.fail(err)
		return err
	}
	s.entries.Add(int64(len(logs)))
	if s.bytes.Add(int64(size)) > snapshotBytes {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
	return nil
}

// IsMonotonic tells raft that the log has no holes, as WAL does.
func (s *logStore) IsMonotonic() bool { return s.WAL.IsMonotonic() }

// Set and SetUint64 keep term and vote. raft panics when that fails; here the failure
// is told, the node ends for it, and raft waits for that.

// Set implements raft.StableStore.
func (s *logStore) Set(key, value []byte) error { return s.keep(s.WAL.Set(key, value)) }

// SetUint64 implements raft.StableStore.
func (s *logStore) SetUint64(key []byte, value uint64) error {
	return s.keep(s.WAL.SetUint64(key, value))
}

func (s *logStore) keep(err error) error {
	if err != nil {
		s.fail(fmt.Errorf("write term or vote: %w", err))
		select {} // the process ends
	}
	return nil
}

// count adds up what the log holds behind a snapshot, so that a node that restarts often
// takes snapshots too.
func (s *logStore) count(after, last uint64) error {
	var l raft.Log
	for i := after + 1; i <= last; i++ {
		if err := s.GetLog(i, &l); err != nil {
			return fmt.Errorf("read entry %d of the log: %w", i, err)
		}
		s.entries.Add(1)
		s.bytes.Add(int64(len(l.Data)))
	}
	if s.bytes.Load() > snapshotBytes {
		s.full <- struct{}{} // has room: nobody else knows the log yet
	}
	return nil
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

func (s *logStore) close() error { return errors.Join(s.Close(), s.meta.Close()) }
