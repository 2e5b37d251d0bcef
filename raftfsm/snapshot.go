package raftfsm

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"pogod/internal/datadir"
	"pogod/storage"
)

// ErrStaleSnapshot is returned for a snapshot below the one that there is: it would move
// the node back.
var ErrStaleSnapshot = errors.New("raftfsm: a snapshot is older than the one that there is")

// ErrForeignStream is returned when a received data file is not what its sender says.
var ErrForeignStream = errors.New("raftfsm: the received data file is not what its sender says")

// marker is the whole snapshot on disk: the name of what the data file held durably
// when it was written. It is replaced atomically.
type marker struct {
	Meta     raft.SnapshotMeta `json:"meta"`
	FSMIndex uint64            `json:"fsm_index"`          // what the state machine saw last: no-ops and barriers never reach it, so it may be below Meta.Index
	Epoch    []byte            `json:"epoch"`              //
	Received string            `json:"received,omitempty"` // the file that came from another node; until it is swapped in it is there under that name
}

// snapshotStore implements raft.SnapshotStore with one marker, and the data file behind it.
type snapshotStore struct {
	dir     string
	fsm     *FSM // set before raft runs
	streams *streams

	mu  sync.Mutex // guards cur; held across the marker's fsync, by raft's snapshot and main goroutines alone
	cur *marker
}

func openSnapshotStore(dir string, s *streams) (*snapshotStore, error) {
	store := &snapshotStore{dir: dir, streams: s}
	b, err := os.ReadFile(store.path(snapshotFile))
	if errors.Is(err, os.ErrNotExist) {
		return store, nil
	}
	if err != nil {
		return nil, err
	}
	m := &marker{}
	if err := json.Unmarshal(b, m); err != nil {
		return store, fmt.Errorf("%w: %s is damaged: %w", ErrFileDamaged, store.path(snapshotFile), err)
	}
	store.cur = m
	return store, nil
}

func (s *snapshotStore) path(name string) string { return filepath.Join(s.dir, name) }

func (s *snapshotStore) marker() *marker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur
}

// received returns the path of a received file that is not swapped in yet, "" for none.
func (s *snapshotStore) received() string {
	m := s.marker()
	if m == nil || m.Received == "" {
		return ""
	}
	path := s.path(m.Received)
	if _, err := os.Lstat(path); err != nil {
		return ""
	}
	return path
}

// swap gives a received file the data file's name, when a crash came before Restore did,
// and removes what was received in part.
func (s *snapshotStore) swap() error {
	if path := s.received(); path != "" {
		if err := replace(path, s.path(stateFile)); err != nil {
			return fmt.Errorf("swap in the received data file: %w", err)
		}
	}
	stray, err := filepath.Glob(s.path(receivedFiles))
	for _, path := range stray {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// replace renames a file, durably.
func replace(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return datadir.SyncDir(filepath.Dir(to))
}

// Create begins a snapshot. It becomes the snapshot when its sink is closed.
func (s *snapshotStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if m := s.marker(); m != nil && index < m.Meta.Index {
		return nil, fmt.Errorf("%w: %d, and %d", ErrStaleSnapshot, index, m.Meta.Index)
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

// Open returns the file that was just received, for Restore, or else a stream of the data
// file as it is now, with the meta of that. raft takes all that it sends from the meta, so
// it does not matter that the id was another one's.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if path, m := s.received(), s.marker(); path != "" && m.Meta.ID == id {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		meta := m.Meta
		if st, err := f.Stat(); err == nil {
			meta.Size = st.Size()
		}
		return &meta, &receivedFile{f}, nil
	}
	c, meta, err := s.copy()
	if err != nil {
		return nil, nil, err
	}
	return meta, s.streams.send(c), nil
}

// copy begins a copy of the data file, with its meta: index, term and configuration are
// those that the copy itself holds. A stream that is ahead of its meta leaves a member whose
// state is ahead of its log, and an entry can be lost that way (design: snapshots.md).
func (s *snapshotStore) copy() (*storage.Copy, *raft.SnapshotMeta, error) {
	m := s.marker() // before the copy begins: the file is never older than a published marker
	if m == nil {
		m = &marker{Meta: raft.SnapshotMeta{Version: raft.SnapshotVersionMax}}
	}
	c, err := s.fsm.copy()
	if err != nil {
		return nil, nil, err
	}
	meta := m.Meta
	h, err := holds(c)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	if h.index > m.FSMIndex && namesItself() {
		meta.Index, meta.Term = h.index, h.term
		if h.configurationIndex > meta.ConfigurationIndex {
			meta.Configuration, meta.ConfigurationIndex = h.configuration, h.configurationIndex
		}
	}
	meta.ID, meta.Size = fmt.Sprintf("%d-%d", meta.Term, meta.Index), c.Size()
	return c, &meta, nil
}

func (s *snapshotStore) publish(m *marker) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// raft fetches the index of a snapshot before one that it installs replaces the state;
	// the late marker would move the node back.
	if s.cur != nil && m.Meta.Index < s.cur.Meta.Index {
		return fmt.Errorf("%w: %d, and %d", ErrStaleSnapshot, m.Meta.Index, s.cur.Meta.Index)
	}
	if err := datadir.WriteFile(s.path(snapshotFile), append(b, '\n')); err != nil {
		return fmt.Errorf("write the snapshot's marker: %w", err)
	}
	s.cur = m
	return nil
}

// sink takes a reference, see reference.Persist, or the stream of another node.
type sink struct {
	store *snapshotStore
	m     marker
	ref   *reference
	in    *incoming // nil before the first Write
	done  bool
}

func (k *sink) ID() string { return k.m.Meta.ID }

// Write takes the next bytes of a stream.
func (k *sink) Write(p []byte) (int, error) {
	if k.in == nil {
		k.m.Received = receivedName()
		k.m.Meta.ID += "-received"
		var err error
		if k.in, err = k.store.streams.receive(k.store.path(k.m.Received)); err != nil {
			return 0, err
		}
	}
	return k.in.Write(p)
}

// receivedName is that of a new file: one that is half there must not have the name that a
// marker has.
func receivedName() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return strings.Replace(receivedFiles, "*", hex.EncodeToString(b), 1)
}

// Cancel drops what has come.
func (k *sink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	if k.in == nil {
		return nil
	}
	return k.in.drop(errCut)
}

// Close makes the snapshot durable and proves it before the marker names it. From then on
// a crash at any point ends with the swap done at the next start.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	if k.in != nil {
		if err := k.store.take(k.in, &k.m); err != nil {
			return errors.Join(err, k.Cancel())
		}
		k.done = true
		return nil
	}
	k.done = true
	if k.ref == nil {
		return errors.New("raftfsm: an empty snapshot")
	}
	k.m.FSMIndex, k.m.Epoch = k.ref.index, k.ref.epoch
	return k.store.publish(&k.m)
}

// take checks a file that was received whole, and publishes it as m.
func (s *snapshotStore) take(in *incoming, m *marker) error {
	if err := in.Finish(); err != nil {
		return err
	}
	h, err := fileHolds(s.path(m.Received))
	if err != nil {
		return err
	}
	if h.index > m.Meta.Index || h.term > m.Meta.Term || len(h.epoch) == 0 {
		return fmt.Errorf("%w: it holds entry %d of term %d, and was sent as %d of term %d", ErrForeignStream, h.index, h.term, m.Meta.Index, m.Meta.Term)
	}
	m.FSMIndex, m.Epoch = h.index, h.epoch
	if err := s.publish(m); err != nil {
		return err
	}
	in.finished()
	return nil
}
