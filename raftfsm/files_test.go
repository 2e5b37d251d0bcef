package raftfsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// A kill in the very first start can leave raft's term without the entry that names the
// group. Such a node begins again; one whose log was lost later is refused at once.
func TestKilledInItsFirstStart(t *testing.T) {
	t.Parallel()
	for term, want := range map[uint64]string{1: "", 2: "the log is lost"} {
		dir := t.TempDir()
		logDir := filepath.Join(dir, "log")
		if err := os.Mkdir(logDir, 0o700); err != nil {
			t.Fatal(err)
		}
		meta := &metadb.BoltMetaDB{}
		w, err := wal.Open(logDir, wal.WithMetaStore(meta))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.SetUint64([]byte("CurrentTerm"), term), w.Close(), meta.Close()); err != nil {
			t.Fatal(err)
		}
		n, err := tryStart(t, dir)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("term %d: %v", term, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n.push(t, "x")
		n.stop(t)
		n = start(t, dir)
		if n.stats(t).Gauges.Ready != 1 {
			t.Errorf("%+v", n.stats(t))
		}
		n.stop(t)
	}
}

// Files that do not belong together are refused with the reason, and left as they are.
func TestMismatchedFilesAreRefused(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	n := start(t, base)
	for range 50 {
		n.push(t, "x")
	}
	if err := n.group.Snapshot(); err != nil {
		t.Fatal(err)
	}
	n.push(t, "y")
	n.stop(t)
	n = start(t, base)
	early := filepath.Join(t.TempDir(), "early.db")
	n.stop(t)
	copyFile(t, filepath.Join(base, "state.db"), early)
	n = start(t, base)
	for range 50 {
		n.push(t, "z")
	}
	if err := n.group.Snapshot(); err != nil {
		t.Fatal(err)
	}
	n.stop(t)

	for name, c := range map[string]struct {
		spoil func(dir string)
		want  string
	}{
		"no data file":  {func(d string) { remove(t, d, "state.db") }, "no data file"},
		"old data file": {func(d string) { copyFile(t, early, filepath.Join(d, "state.db")) }, "older than the snapshot marker"},
		"no log":        {func(d string) { remove(t, d, "log") }, "the log"},
		"other data file": {func(d string) {
			other := start(t, filepath.Join(d, "other"))
			other.push(t, "x")
			other.stop(t)
			copyFile(t, filepath.Join(d, "other", "state.db"), filepath.Join(d, "state.db"))
		}, "not the one that the snapshot marker names"},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		c.spoil(dir)
		n, err := tryStart(t, dir)
		if err == nil {
			n.stop(t)
			t.Errorf("%s: it started", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
