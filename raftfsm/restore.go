package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"pogod/storage"
)

// The files of streams in the data directory.
const receivedFiles = "received-*.db"

// contents says what a data file, or a copy, holds.
type contents struct {
	position
	epoch              []byte
	configuration      raft.Configuration
	configurationIndex uint64 // 0: none
}

// viewer is a store, or a copy.
type viewer interface {
	View(f func(tx *storage.Tx) error) error
}

func holds(v viewer) (c contents, err error) {
	err = v.View(func(tx *storage.Tx) error {
		meta, err := tx.Bucket(metaBucket)
		if err != nil {
			return err
		}
		number := func(key []byte) uint64 {
			b, err2 := meta.Get(key)
			if err = errors.Join(err, err2); len(b) != 8 {
				return 0
			}
			return binary.BigEndian.Uint64(b)
		}
		c.index, c.term, c.configurationIndex = number(keyApplied), number(keyTerm), number(keyConfIdx)
		epoch, err2 := meta.Get(keyEpoch)
		conf, err3 := meta.Get(keyConf)
		c.epoch = bytes.Clone(epoch)
		if len(conf) > 0 {
			c.configuration = raft.DecodeConfiguration(conf) // copies
		} else {
			c.configurationIndex = 0
		}
		return errors.Join(err, err2, err3)
	})
	return c, err
}

// fileHolds looks at a file that nobody has open.
func fileHolds(path string) (c contents, err error) {
	err = storage.Guard(func() error {
		s, err := storage.Open(path)
		if err != nil {
			return err
		}
		c, err = holds(s)
		return errors.Join(err, s.Close())
	})
	return c, err
}

// copy begins a copy of the data file as it was committed last.
func (f *FSM) copy() (*storage.Copy, error) {
	for {
		f.mu.Lock()
		store, err := f.store, f.err
		f.mu.Unlock()
		if err != nil {
			return nil, err
		}
		c, err := store.Copy()
		if !errors.Is(err, storage.ErrClosed) {
			return c, err
		}
	}
}

// receivedFile is a file that waits for Restore.
type receivedFile struct{ *os.File }

// Restore makes the received file the data file, and begins with what it holds. Whoever
// acts on the state finds it changed, as after any entry. A stream of this node's own file,
// which raft.RecoverCluster opens, means what is there already.
func (f *FSM) Restore(rc io.ReadCloser) error {
	if w, ok := rc.(raft.ReadCloserWrapper); ok {
		rc = w.WrappedReadCloser()
	}
	r, ok := rc.(*receivedFile)
	if !ok || !restores() {
		return nil // raft closes it
	}
	f.mu.Lock()
	if f.err == nil {
		f.stop(f.swap(r.Name()))
	}
	err := f.err
	f.mu.Unlock()
	if err == nil {
		f.notify()
	}
	return err
}

// swap puts a file in the data file's place. mu is held.
func (f *FSM) swap(path string) error {
	if f.pending != nil {
		f.pending.Stop()
		f.pending = nil
	}
	if err := f.store.Rollback(); err != nil {
		return fmt.Errorf("drop the open transaction: %w", err)
	}
	if err := replace(path, f.store.Path()); err != nil {
		return fmt.Errorf("swap in the received data file: %w", err)
	}
	old := f.store
	store, err := storage.Open(old.Path())
	if err != nil {
		return err
	}
	f.store = store
	f.closing.Go(func() { _ = old.Close() }) // waits for its readers, which raft's goroutine must not; nothing of it is needed
	f.cmds, f.bytes = 0, 0
	if err := storage.Guard(f.load); err != nil {
		return fmt.Errorf("read the received data file: %w", err)
	}
	return nil
}
