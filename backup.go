package main

import (
	"io"

	"pogod/raftfsm"
)

// Backup implements admin.Backups.
func (s source) Backup() (r io.ReadCloser, size int64, err error) {
	about := raftfsm.BackupHeader{Version: version}
	if s.n.id != nil {
		about.Cluster = s.n.id.Cluster
	}
	return s.n.group.Backup(about)
}
