package raftfsm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pogod/internal/clock"
	"pogod/internal/datadir"
	"pogod/queue"
	"pogod/raftfsm"
	"pogod/storage"
)

// restoreTo restores a backup into a directory.
func restoreTo(t *testing.T, path string, b []byte) error {
	t.Helper()
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = raftfsm.RestoreBackup(dir, clock.System(), bytes.NewReader(b), int64(len(b)), func(int64, int64) {})
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	return err
}

// A file with a high applied index, which comes from elsewhere, must not swallow what is
// written next, and its jobs are all there: those that ran are ready, with nothing spent.
func TestARestoredFileIsRebased(t *testing.T) {
	t.Parallel()
	a := start(t, t.TempDir())
	for range 300 {
		a.push(t, "before")
	}
	if _, err := a.queue.Push(t.Context(), "q", []byte("later"), time.Hour); err != nil {
		t.Fatal(err)
	}
	held := a.reserve(t, 2)
	if err := a.queue.Fail(t.Context(), "q", held[0].ID(), "because"); err != nil {
		t.Fatal(err)
	}
	held = held[1:]
	last := a.push(t, "last")
	session := a.proposer.Session()
	h, b := takeBackup(t, a)
	a.stop(t)

	path := t.TempDir()
	if err := restoreTo(t, path, b); err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(filepath.Join(path, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := raftfsm.OpenFSM(store, clock.System())
	if err != nil {
		t.Fatal(err)
	}
	if d, at := f.Reserved(nil, session); at != 0 || len(d) > 0 || len(f.Sessions()) > 0 {
		t.Errorf("it is at entry %d, with %+v and %v", at, d, f.Sessions())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	n := start(t, path)
	if at := n.group.FSM.Applied(); at >= h.Index || h.Index < 300 {
		t.Errorf("it is at entry %d, and the backup of %d", at, h.Index)
	}
	if g := n.stats(t).Gauges; g.Ready != 300 || g.Delayed != 1 || g.Reserved != 0 || g.Failed != 1 {
		t.Errorf("%+v", g)
	}
	for range 50 {
		if id := n.push(t, "after"); id.Seq <= last.Seq {
			t.Fatalf("id %v comes after %v", id, last)
		}
	}
	jobs, err := n.queue.Failed(t.Context(), "q", 10)
	if err != nil || len(jobs) != 1 || jobs[0].Reason != "because" {
		t.Errorf("%+v %v", jobs, err)
	}
	n.stop(t)
	n = start(t, path)
	defer n.stop(t)
	if g := n.stats(t).Gauges; g.Ready != 350 || g.Delayed != 1 {
		t.Errorf("after a restart: %+v", g)
	}
	// The job that ran comes once more, and its lease of before settles nothing.
	if err := n.queue.Ack(t.Context(), "q", held[0].ID()); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("a lease of before: %v", err)
	}
	d := n.reserve(t, 350)
	for _, d := range d {
		if d.Job == held[0].Job && (d.Attempts != 2 || d.Lease <= held[0].Lease) {
			t.Errorf("%+v, and before it was %+v", d, held[0])
		}
	}
}

// A directory with data takes no backup, and a backup that is not whole leaves none.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	a := start(t, t.TempDir())
	a.push(t, "x")
	_, b := takeBackup(t, a)
	path := a.dir.Path
	a.stop(t)
	if err := restoreTo(t, path, b); !errors.Is(err, raftfsm.ErrHasData) {
		t.Error(err)
	}
	a = start(t, path)
	defer a.stop(t)
	if a.stats(t).Gauges.Ready != 1 {
		t.Error("its job is gone")
	}
	b[len(b)-100] ^= 1
	path = t.TempDir()
	if err := restoreTo(t, path, b); !errors.Is(err, raftfsm.ErrBackupDamaged) {
		t.Error(err)
	}
	if err := raftfsm.Vacant(path); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(path, "*.db")); len(left) > 0 {
		t.Error(left)
	}
}

// A restore that was killed before its end has restored nothing, or all.
func TestRestoreThatWasKilled(t *testing.T) {
	t.Parallel()
	a := start(t, t.TempDir())
	a.push(t, "x")
	_, b := takeBackup(t, a)
	a.stop(t)
	path := t.TempDir()
	if err := restoreTo(t, path, b); err != nil {
		t.Fatal(err)
	}
	// As it is just before its last step: the marker names the file that is to be swapped in.
	m, err := os.ReadFile(filepath.Join(path, "snapshot.json"))
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(m, []byte("received-"))
	if err := os.Rename(filepath.Join(path, "state.db"), filepath.Join(path, string(m[i:i+len("received-0123456789abcdef.db")]))); err != nil {
		t.Fatal(err)
	}
	n := start(t, path)
	defer n.stop(t)
	if n.stats(t).Gauges.Ready != 1 {
		t.Errorf("%+v", n.stats(t))
	}
}
