package storage

import (
	"errors"
	"io"
	"os"
)

// Resync writes the meta pages of a bbolt file again as they are read, and syncs it. After a
// sync that failed the page cache may show a meta page that the disk does not have; the next
// commits would then reuse pages that the disk's own needs. Pages that no meta page names
// are written before they are named. Nobody else may write the file. A file that is not
// there is left alone.
func Resync(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	metas := make([]byte, 2*os.Getpagesize())
	n, err := f.ReadAt(metas, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil {
		_, err = f.WriteAt(metas[:n], 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
