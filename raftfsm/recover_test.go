package raftfsm_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pogod/internal/clock"
	"pogod/internal/datadir"
	"pogod/raftfsm"
)

func recoverAt(t *testing.T, path string, dry bool) (raftfsm.Recovery, error) {
	t.Helper()
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	errDry := errors.New("dry")
	r, err := raftfsm.Recover(dir, clock.System(), func(raftfsm.Recovery) error {
		if dry {
			return errDry
		}
		return nil
	}, func(int64, int64) {})
	if errors.Is(err, errDry) {
		err = nil
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	return r, err
}

// A node alone whose log is lost is refused, with the command that brings it back. That has
// all of the data file, and what comes afterwards.
func TestASingleNodeWhoseLogIsLost(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	n := start(t, path)
	for range 100 {
		n.push(t, "x")
	}
	last := n.push(t, "last")
	n.stop(t)
	remove(t, path, "log")
	if _, err := tryStart(t, path); err == nil || !strings.Contains(err.Error(), "`pogod cluster recover`") {
		t.Fatal(err)
	}
	r, err := recoverAt(t, path, false)
	if err != nil || r.LogLost == nil || r.Index < 100 || r.FromLog != 0 || len(r.Members) > 0 {
		t.Errorf("%+v %v", r, err)
	}
	for round := range 2 {
		n = start(t, path)
		if id := n.push(t, "after"); id.Seq <= last.Seq {
			t.Errorf("id %v comes after %v", id, last)
		}
		if ready := n.stats(t).Gauges.Ready; ready != uint64(102+round) {
			t.Errorf("start %d: %d jobs", round, ready)
		}
		n.stop(t)
	}
}

// What the log has and the data file has not is kept, up to where the log is damaged. A
// recovery that was cut off when the log had been put aside begins again.
func TestRecoverTakesWhatTheLogHas(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	n := start(t, base)
	n.push(t, "one")
	n.stop(t)
	early := filepath.Join(t.TempDir(), "early.db")
	copyFile(t, filepath.Join(base, "state.db"), early)
	n = start(t, base)
	for range 10 {
		n.push(t, "two")
	}
	n.push(t, "the payload that is damaged")
	for range 10 {
		n.push(t, "three")
	}
	n.stop(t)
	copyFile(t, early, filepath.Join(base, "state.db"))
	for name, c := range map[string]struct {
		spoil func(dir string)
		want  uint64
		lost  string
	}{
		"whole":   {func(string) {}, 22, ""},
		"damaged": {func(d string) { flipIn(t, filepath.Join(d, "log"), []byte("payload that is damaged")) }, 11, "the log is damaged"},
		"cut off": {func(d string) {
			if err := os.Rename(filepath.Join(d, "log"), filepath.Join(d, "log.replaced")); err != nil {
				t.Fatal(err)
			}
		}, 22, ""},
		"of another node": {func(d string) {
			remove(t, d, "log")
			other := start(t, filepath.Join(d, "other"))
			for range 30 {
				other.push(t, "foreign")
			}
			other.stop(t)
			if err := os.Rename(filepath.Join(d, "other", "log"), filepath.Join(d, "log")); err != nil {
				t.Fatal(err)
			}
			remove(t, d, "other")
		}, 1, "it is not the one that this node has had before"},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		c.spoil(dir)
		before := tree(t, dir)
		dry, err := recoverAt(t, dir, true)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("%s: a dry run changed something:\n%s\n%s", name, before, after)
		}
		r, err := recoverAt(t, dir, false)
		if err != nil || (r.LogLost == nil) != (c.lost == "") || r.LogLost != nil && !strings.Contains(r.LogLost.Error(), c.lost) || r.Index != dry.Index || r.FromLog != dry.FromLog {
			t.Errorf("%s: %+v, and dry %+v: %v", name, r, dry, err)
		}
		n := start(t, dir)
		if ready := n.stats(t).Gauges.Ready; ready != c.want {
			t.Errorf("%s: %d jobs, want %d", name, ready, c.want)
		}
		n.stop(t)
	}
	remove(t, base, "state.db")
	if _, err := recoverAt(t, base, false); !errors.Is(err, raftfsm.ErrNotRecoverable) {
		t.Errorf("without a data file: %v", err)
	}
}

// tree is the content of all files of a directory, but for its lock.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		text, err := os.ReadFile(path)
		b.WriteString(path + " " + strings.TrimRight(string(text), "\x00") + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
