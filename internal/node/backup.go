package node

import (
	"io"

	"pogod/raftfsm"
)

// Backup implements admin.Backups.
func (s source) Backup() (r io.ReadCloser, size int64, err error) {
	about := raftfsm.BackupHeader{Version: s.n.build.Version}
	if s.n.id != nil {
		about.Cluster = s.n.id.Cluster
	}
	return s.n.group.Backup(about)
}
