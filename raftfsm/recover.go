package raftfsm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/datadir"
	"pogod/storage"
)

// Recovery is what a node can go on with whose log, or whose majority, is lost.
type Recovery struct {
	Index   uint64   // of the last entry that it holds
	FromLog uint64   // entries of the log that the data file did not hold
	Members []string // ids of the others in the group, which are left behind
	LogLost error    // why the log, or the rest of it, cannot be used; nil: it is whole
}

// ErrNotRecoverable is returned when there is no data file to go on with, or no need to.
var ErrNotRecoverable = errors.New("this node cannot be recovered")

const (
	replacedLog  = "log.replaced" // where the log goes
	recoverFiles = "recover-*"    // the copy of the log that is read
)

// Recover makes this node alone the beginning of a new group, with all that its data file
// and, where it can be read, its log hold; no node runs on the directory. What only others
// had, or the lost part of a log, is missing. The log of before is kept as log.replaced.
// proceed is called with what there is to go on with, before anything is changed; its error
// ends it. A crash leaves what was there, what is there afterwards, or a directory with
// which no node starts until Recover is called again. copied is called with how many bytes
// of the data file are copied of how many. It fails with ErrNotRecoverable.
func Recover(dir *datadir.Dir, c clock.Clock, proceed func(Recovery) error, copied func(done, total int64)) (r Recovery, err error) {
	no := func(what string, err error) error { return fmt.Errorf("%w: %s: %w", ErrNotRecoverable, what, err) }
	s, _ := openSnapshotStore(dir.Path, nil) // a damaged marker is not needed
	if s == nil {
		return r, no("the snapshot's marker", os.ErrPermission)
	}
	path := dir.File(stateFile)
	if received := s.received(); received != "" {
		path = received // swapped in at the next start
	} else if why, err := os.ReadFile(dir.File(damagedFile)); err == nil {
		return r, no("its data file is damaged", errors.New(string(why)))
	}
	if err := storage.VerifyFile(path); err != nil {
		return r, no("its data file cannot be used", err)
	}
	from := dir.File(logDir)
	if _, err := os.Lstat(from); errors.Is(err, os.ErrNotExist) {
		from = dir.File(replacedLog) // an earlier call was cut off
	}
	log, err := copyLog(dir, from)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(log)) }()
	err = s.begin(dir.NodeID(), func(w io.Writer) error { return copyState(path, w, copied) }, func(copy string) (epoch []byte, err error) {
		if err := r.replay(copy, log, dir, s.marker(), c); err != nil {
			return nil, err
		}
		if err := proceed(r); err != nil {
			return nil, err
		}
		if epoch, err = rebase(copy, c); err != nil {
			return nil, err
		}
		// From here on no node starts before the end.
		if to := dir.File(replacedLog); from != to {
			err = errors.Join(os.RemoveAll(to), os.Rename(from, to), datadir.SyncDir(dir.Path))
		}
		return epoch, err
	})
	if err != nil {
		return r, err
	}
	return r, dir.SetLogID("")
}

// copyLog copies a log, which to open changes, and returns where to. None is an empty one.
func copyLog(dir *datadir.Dir, from string) (path string, err error) {
	stray, err := filepath.Glob(dir.File(recoverFiles))
	for _, path := range stray {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return "", err
	}
	if path, err = os.MkdirTemp(dir.Path, recoverFiles); err != nil {
		return "", err
	}
	if err := os.CopyFS(path, os.DirFS(from)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", errors.Join(fmt.Errorf("copy the log: %w", err), os.RemoveAll(path))
	}
	return path, nil
}

// copyState writes a copy of a data file that nobody has open.
func copyState(path string, w io.Writer, copied func(done, total int64)) error {
	store, err := storage.Open(path)
	if err != nil {
		return err
	}
	c, err := store.Copy()
	if err != nil {
		return errors.Join(err, store.Close())
	}
	_, err = c.WriteTo(io.MultiWriter(w, &metered{read: copied, total: c.Size()}))
	return errors.Join(err, c.Close(), store.Close())
}

// replay applies what the log has and the data file has not, as far as that can be read.
func (r *Recovery) replay(path, logPath string, dir *datadir.Dir, m *marker, c clock.Clock) error {
	f, err := openFile(path, c)
	if err != nil {
		return err
	}
	log, err := openLog(logPath, defaultLogBytes, hclog.NewNullLogger())
	if err == nil {
		r.LogLost, err = r.fromLog(f, log, dir.LogID(), m)
		_ = log.close() // a copy
	} else {
		r.LogLost, err = err, nil
	}
	r.Index = f.applied.index
	err = errors.Join(err, f.Close())
	if err != nil {
		return err
	}
	h, err := fileHolds(path)
	if h.configurationIndex == 0 && m != nil {
		h.configuration = m.Meta.Configuration
	}
	for _, s := range h.configuration.Servers {
		if string(s.ID) != dir.NodeID() {
			r.Members = append(r.Members, string(s.ID))
		}
	}
	return err
}

// fromLog is replay with a log that could be opened. It returns why not all of it can be
// used, and an error when the state machine refused what it holds.
func (r *Recovery) fromLog(f *FSM, log *logStore, id string, m *marker) (lost, err error) {
	got, err := log.Get(idKey)
	if err != nil {
		return err, nil //nolint:nilerr // it is why the log is lost
	}
	if string(got) != id {
		return fmt.Errorf("%w: it is not the one that this node has had before", ErrLogLost), nil
	}
	first, last, err := log.indexes()
	end, err2 := log.GetUint64(endKey)
	if err := errors.Join(err, err2); err != nil {
		return err, nil //nolint:nilerr // likewise
	}
	at := f.applied
	floor := at.index // up to where nothing of the log is needed
	if m != nil && m.FSMIndex <= at.index {
		floor = max(floor, m.Meta.Index)
	}
	var l raft.Log
	switch {
	case last < floor:
		lost = fmt.Errorf("%w: it ends at entry %d, and the data file is at %d", ErrLogLost, last, floor)
		if last == 0 && m != nil && at.index == m.FSMIndex {
			lost = nil // emptied, after the file was received
		}
		return lost, nil
	case first > floor+1:
		return fmt.Errorf("%w: it begins at entry %d, and the data file is at %d", ErrLogLost, first, floor), nil
	case first <= at.index:
		if err := log.GetLog(at.index, &l); err != nil {
			return err, nil //nolint:nilerr // likewise
		}
		if l.Term != at.term {
			return fmt.Errorf("%w: it is of another history than the data file", ErrLogLost), nil
		}
	}
	if last < end {
		lost = fmt.Errorf("%w: it ends at entry %d, and was closed at %d", ErrLogLost, last, end)
	}
	for i := max(first, at.index+1); i <= last; i++ {
		l = raft.Log{}
		if err := log.GetLog(i, &l); err != nil {
			return err, nil //nolint:nilerr // likewise
		}
		if l.Type != raft.LogCommand && l.Type != raft.LogConfiguration {
			continue
		}
		if err := f.ApplyBatch([]*raft.Log{&l})[0].(*Outcome).Err; err != nil {
			return nil, err
		}
		r.FromLog++
	}
	return lost, nil
}
