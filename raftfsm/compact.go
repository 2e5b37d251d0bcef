package raftfsm

import (
	"errors"
	"os"

	"pogod/internal/datadir"
	"pogod/storage"
)

// Compact writes a node's data file anew, without its free pages: no node runs on the
// directory. It returns its size before and after, in bytes; written is where the new one
// grows meanwhile. A crash leaves the one or the other. It fails with storage.ErrCorrupt.
func Compact(dir *datadir.Dir, writing func(path string)) (before, after int64, err error) {
	s, err := openSnapshotStore(dir.Path, nil)
	if err == nil {
		err = s.swap()
	}
	if err != nil {
		return 0, 0, err
	}
	if _, err := os.Lstat(dir.File(damagedFile)); err == nil {
		return 0, 0, ErrFileDamaged
	}
	from, to := dir.File(stateFile), s.path(receivedName()) // the next start removes it, if it is left over
	writing(to)
	if err := storage.Compact(from, to); err != nil {
		if err2 := os.Remove(to); !errors.Is(err2, os.ErrNotExist) {
			err = errors.Join(err, err2)
		}
		return 0, 0, err
	}
	old, err1 := os.Stat(from)
	made, err2 := os.Stat(to)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, err
	}
	return old.Size(), made.Size(), replace(to, from)
}
