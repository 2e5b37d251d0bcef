package storage

import (
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// compactBatch is how much of a file Compact writes with one fsync, in bytes.
const compactBatch = 16 << 20

// Compact writes what the data file at from holds, which nobody has open, to a new one at
// to, without free pages, and makes that durable. Both are verified whole. It fails with
// ErrCorrupt; what is at to is then to be removed.
func Compact(from, to string) error {
	if err := VerifyFile(from); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	src, err := Open(from)
	if err != nil {
		return err
	}
	size := int64(0)
	err = Guard(func() error {
		dst, err := bolt.Open(to, 0o600, &bolt.Options{InitialMmapSize: mmapSize, FreelistType: bolt.FreelistMapType})
		if err != nil {
			return err
		}
		err = bolt.Compact(dst, src.db, compactBatch)
		err2 := dst.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
		return errors.Join(err, err2, dst.Close())
	})
	if err == nil {
		err = cut(to, size)
	}
	if err = errors.Join(err, src.Close()); err != nil {
		return fmt.Errorf("compact %s: %w", from, err)
	}
	return VerifyFile(to)
}

// cut takes away what bbolt has put behind the last page, for the next ones.
func cut(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}
