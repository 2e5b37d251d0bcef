package raftfsm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/datadir"
	"pogod/storage"
)

// ErrHasData is returned when a data directory holds a node's data already.
var ErrHasData = errors.New("there is a node's data already")

// Vacant says whether a data directory, which need not exist, holds no data of a node. It
// fails with ErrHasData.
func Vacant(dir string) error {
	for _, name := range []string{stateFile, damagedFile, snapshotFile, logDir} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%w: %s", ErrHasData, filepath.Join(dir, name))
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// RestoreBackup makes what a backup of size bytes holds the beginning of a new node, or of a
// new cluster's first, whose data directory is vacant. Its jobs are there as they were, those
// that ran are ready again. read is called with how many bytes were read of how many. It
// fails as VerifyBackup does, and leaves the directory vacant then.
func RestoreBackup(dir *datadir.Dir, c clock.Clock, f io.ReaderAt, size int64, read func(done, total int64)) (BackupHeader, error) {
	if err := Vacant(dir.Path); err != nil {
		return BackupHeader{}, err
	}
	m := &metered{read: read, total: size}
	h, _, err := readBackupHeader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return h, err
	}
	s := &snapshotStore{dir: dir.Path}
	return h, backupDamaged(s.begin(dir.NodeID(), func(w io.Writer) error {
		_, err := io.Copy(io.MultiWriter(w, m), io.NewSectionReader(f, h.begin, size-h.begin))
		return err
	}, func(path string) ([]byte, error) { return rebase(path, c) }))
}

// begin makes the data file that write writes the beginning of a group of one, whatever
// was there: it is received, checked, rebased by then, which returns its new epoch, and
// published as a snapshot at entry 1. The log begins behind that, so that members that join
// are sent the file: what it holds is in no log. A crash leaves what was there, or what is
// there afterwards.
func (s *snapshotStore) begin(node string, write func(w io.Writer) error, then func(path string) (epoch []byte, err error)) error {
	m := marker{Received: receivedName()}
	in, err := storage.Receive(s.path(m.Received))
	if err != nil {
		return err
	}
	if err = write(in); err == nil {
		err = in.Finish()
	}
	if err == nil {
		m.Epoch, err = then(s.path(m.Received))
	}
	if err != nil {
		return errors.Join(err, in.Cancel())
	}
	one := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(node), Address: raft.ServerAddress(node)}}}
	m.Meta = raft.SnapshotMeta{Version: raft.SnapshotVersionMax, ID: "1-1-received", Index: 1, Term: 1, Configuration: one, ConfigurationIndex: 1}
	s.mu.Lock()
	s.cur = nil // of another history
	s.mu.Unlock()
	if err := s.publish(&m); err != nil {
		return err
	}
	return s.swap()
}

// openFile opens the state machine of a data file that nobody has open.
func openFile(path string, c clock.Clock) (*FSM, error) {
	store, err := storage.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := OpenFSM(store, c)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return f, nil
}

// rebase makes a data file that nobody has open one that no log has been applied to, and
// returns its new epoch. Entries of another log would else be skipped, as far as the file's
// own index goes, and be lost. The counter and cluster time go on, so that no id comes a
// second time; sessions are gone, and what they had reserved is ready again.
func rebase(path string, c clock.Clock) (epoch []byte, err error) {
	err = storage.Guard(func() error {
		f, err := openFile(path, c)
		if err != nil {
			return err
		}
		f.mu.Lock()
		err = f.rebase()
		epoch = f.epoch
		f.mu.Unlock()
		return errors.Join(err, f.Close())
	})
	return epoch, err
}

// rebase is the rebase of an FSM that nothing is applied to. mu is held.
func (f *FSM) rebase() error {
	tx, err := f.store.Tx()
	if err != nil {
		return err
	}
	meta, err1 := tx.Bucket(metaBucket)
	bucket, err2 := tx.Bucket(sessionsBucket)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for node := range f.sessions.byNode {
		if err := bucket.Delete([]byte(node)); err != nil {
			return err
		}
	}
	f.sessions = newSessions()
	f.env.Tx, f.env.Now, f.env.Live = tx, f.now, f.sessions.live
	if err := f.queue.EndSessions(&f.env); err != nil {
		return err
	}
	f.applied, f.confIdx, f.epoch = position{}, 0, make([]byte, 16)
	_, _ = rand.Read(f.epoch) // never fails
	return errors.Join(meta.Delete(keyConf), meta.Put(keyEpoch, append(make([]byte, 0, 16+storage.SealSize), f.epoch...)))
}
