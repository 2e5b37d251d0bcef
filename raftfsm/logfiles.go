package raftfsm

import (
	"github.com/hashicorp/raft-wal/types"

	"pogod/raftfsm/disk"
)

// logFiles are the files of raft-wal. They keep the first failure: one that comes when a
// segment is begun raft-wal tells in a line of its log alone, and the next append fails for
// another reason. And they time each sync.
type logFiles struct {
	types.VFS
	failed func(error)
	syncs  *disk.Syncs
}

func (f logFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	w, err := f.VFS.Create(dir, name, size)
	return f.file(w, err)
}

func (f logFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.VFS.OpenWriter(dir, name)
	return f.file(w, err)
}

func (f logFiles) file(w types.WritableFile, err error) (types.WritableFile, error) {
	if err != nil {
		return nil, f.note(err)
	}
	return logFile{w, f}, nil
}

func (f logFiles) note(err error) error {
	if err != nil {
		f.failed(err)
	}
	return err
}

type logFile struct {
	types.WritableFile
	of logFiles
}

func (f logFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.WritableFile.WriteAt(p, off)
	return n, f.of.note(err)
}

func (f logFile) Sync() error { return f.of.note(f.of.syncs.Time(f.WritableFile.Sync)) }
