package identity

import (
	"errors"
	"os"

	"pogod/internal/datadir"
)

// Refound makes a new cluster with this node as its first member, in place of the one that it
// was in, whose folder is kept as cluster.replaced: members of that one cannot reach it any
// more, nor it them. undo brings that one back. It fails with ErrNone.
func Refound(dir *datadir.Dir) (i *Identity, undo func() error, err error) {
	if !Exists(dir) {
		return nil, nil, ErrNone
	}
	now, old := dir.File(folder), dir.File(folder+".replaced")
	undo = func() error { return errors.Join(os.RemoveAll(now), os.Rename(old, now), datadir.SyncDir(dir.Path)) }
	if err := errors.Join(os.RemoveAll(old), os.Rename(now, old)); err != nil {
		return nil, nil, err
	}
	if i, err = Init(dir); err != nil {
		return nil, nil, errors.Join(err, undo())
	}
	return i, undo, nil
}
