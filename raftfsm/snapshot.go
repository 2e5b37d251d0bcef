package raftfsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/hashicorp/raft"

	"pogod/internal/datadir"
)

// ErrNoStream is returned when a snapshot would have to be sent or received as a stream:
// a member was away for longer than the log that is kept. It is not built yet.
var ErrNoStream = errors.New("raftfsm: a member lags behind the log that is kept, and this version cannot send it the data file; remove its data directory and let it join as a new node")

// marker is the whole snapshot on disk: the name of what the data file held durably
// when it was written. It is replaced atomically.
type marker struct {
	Meta     raft.SnapshotMeta `json:"meta"`
	FSMIndex uint64            `json:"fsm_index"` // what the state machine saw last: no-ops and barriers never reach it, so it may be below Meta.Index
	Epoch    []byte            `json:"epoch"`
}

// snapshotStore implements raft.SnapshotStore with one marker.
type snapshotStore struct {
	path string

	mu  sync.Mutex // guards cur; held across the marker's fsync, by raft's snapshot goroutine alone
	cur *marker
}

func openSnapshotStore(path string) (*snapshotStore, error) {
	s := &snapshotStore{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.cur = &marker{}
	if err := json.Unmarshal(b, s.cur); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return s, nil
}

func (s *snapshotStore) marker() *marker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur
}

// Create begins a snapshot. It becomes the snapshot when its sink is closed.
func (s *snapshotStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if m := s.marker(); m != nil && index < m.Meta.Index {
		return nil, fmt.Errorf("raftfsm: a snapshot at %d is older than the one at %d", index, m.Meta.Index)
	}
	return &sink{store: s, m: marker{Meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: ci,
	}}}, nil
}

// List returns the snapshot, if there is one.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	m := s.marker()
	if m == nil {
		return nil, nil
	}
	meta := m.Meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open fails with ErrNoStream.
func (s *snapshotStore) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return nil, nil, ErrNoStream
}

func (s *snapshotStore) publish(m *marker) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != nil && m.Meta.Index < s.cur.Meta.Index {
		return fmt.Errorf("raftfsm: a snapshot at %d is older than the one at %d", m.Meta.Index, s.cur.Meta.Index)
	}
	if err := datadir.WriteFile(s.path, append(b, '\n')); err != nil {
		return fmt.Errorf("write the snapshot's marker: %w", err)
	}
	s.cur = m
	return nil
}

// sink takes a reference; see reference.Persist.
type sink struct {
	store *snapshotStore
	m     marker
	ref   *reference
	done  bool
}

func (k *sink) ID() string                { return k.m.Meta.ID }
func (k *sink) Write([]byte) (int, error) { return 0, ErrNoStream }
func (k *sink) Cancel() error             { k.done = true; return nil }

// Close writes the marker.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	if k.ref == nil {
		return ErrNoStream
	}
	k.m.FSMIndex, k.m.Epoch = k.ref.index, k.ref.epoch
	return k.store.publish(&k.m)
}

// fits checks, before raft starts, that data file, marker and log belong together.
// first and last are the log's indexes, 0 for an empty log. It answers cut when the
// log ends before the marker and must be emptied.
func fits(m *marker, file position, epoch []byte, fileIsNew bool, first, last uint64) (cut bool, err error) {
	switch {
	case m == nil && fileIsNew && last == 0:
		return false, nil // a fresh node
	case m == nil && fileIsNew && first == 1:
		return false, nil // stopped before its first commit: the log has it all
	case m != nil && fileIsNew:
		return false, fmt.Errorf("there is a snapshot marker at entry %d but no data file: restore the data file, or the whole directory, from a copy", m.Meta.Index)
	case m == nil && first > 1:
		return false, fmt.Errorf("the log begins at entry %d but there is no snapshot marker: restore the whole directory from a copy", first)
	case m == nil && last < file.index:
		return false, fmt.Errorf("the data file is at entry %d but the log ends at %d: the log is lost or older than the file; restore the whole directory from a copy", file.index, last)
	case m == nil:
		return false, nil
	case !bytes.Equal(m.Epoch, epoch):
		return false, errors.New("the data file is not the one that the snapshot marker names: restore the whole directory from one copy")
	case file.index < m.FSMIndex:
		return false, fmt.Errorf("the data file is at entry %d, older than the snapshot marker, which needs %d: restore the whole directory from one copy", file.index, m.FSMIndex)
	case last == 0 && file.index > m.FSMIndex:
		return false, fmt.Errorf("the data file is at entry %d, the snapshot marker at %d and the log is empty: the log is lost; restore the whole directory from a copy", file.index, m.FSMIndex)
	case last > 0 && first > m.Meta.Index+1:
		return false, fmt.Errorf("the log begins at entry %d but the snapshot ends at %d: entries between are lost; restore the whole directory from a copy", first, m.Meta.Index)
	case last > 0 && last < file.index && last >= m.Meta.Index:
		return false, fmt.Errorf("the data file is at entry %d but the log ends at %d: the end of the log is lost; restore the whole directory from a copy", file.index, last)
	case last > 0 && last < m.Meta.Index:
		if file.index > m.FSMIndex {
			return false, fmt.Errorf("the data file is at entry %d, the snapshot marker at %d and the log ends at %d: the end of the log is lost; restore the whole directory from a copy", file.index, m.FSMIndex, last)
		}
		return true, nil
	}
	return false, nil
}
