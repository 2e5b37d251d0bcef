package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"pogod/internal/datadir"
)

// ErrLeft is returned by Load when the node has left its cluster, or was removed from it.
var ErrLeft = errors.New("this node has left its cluster")

// leftFile, in the cluster's folder, marks a directory whose node is no member any more.
const leftFile = "left.json"

type leftDoc struct {
	Node string `json:"node"`
}

// MarkLeft notes that the node is no member any more. Its data stays; Load fails with
// ErrLeft from now on, and Join makes a new node of the directory.
func MarkLeft(dir *datadir.Dir) error {
	b, err := json.Marshal(leftDoc{dir.NodeID()})
	if err == nil {
		err = datadir.WriteFile(filepath.Join(dir.File(folder), leftFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("note that the node has left: %w", err)
	}
	return nil
}

// hasLeft says whether the node has left, and who it was.
func hasLeft(dir *datadir.Dir) (node string, left bool) {
	b, err := os.ReadFile(filepath.Join(dir.File(folder), leftFile))
	if err != nil {
		return "", false
	}
	var doc leftDoc
	if json.Unmarshal(b, &doc) != nil || !validID(doc.Node) {
		return "unknown", true
	}
	return doc.Node, true
}

// putAway makes a new node of the directory of one that has left: what that had is moved to
// the folder left-ID in it. The mark goes last, so that a crash before is made up for by
// the next attempt. A directory of any other node stays as it is.
func putAway(dir *datadir.Dir) error {
	node, left := hasLeft(dir)
	if !left {
		return nil
	}
	to := dir.File("left-" + node)
	err := os.MkdirAll(to, 0o700)
	if err == nil && dir.NodeID() == node {
		err = dir.Renew()
	}
	for _, name := range []string{"state.db", "state.db.damaged", "log", "snapshot.json", folder} { // all but the last as raftfsm names them
		if err != nil {
			break
		}
		if err = os.Rename(dir.File(name), filepath.Join(to, name)); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = errors.Join(datadir.SyncDir(to), datadir.SyncDir(dir.Path))
	}
	if err != nil {
		return fmt.Errorf("put the data of node %s, which has left, into %s: %w", node, to, err)
	}
	return nil
}
