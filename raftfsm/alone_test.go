package raftfsm

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/storage"
)

// alone is a state machine with its snapshot store, without raft.
type alone struct {
	t     *testing.T
	dir   string
	fsm   *FSM
	snaps *snapshotStore
	clock *clock.Fake
}

func newAlone(t *testing.T, dir string) *alone {
	t.Helper()
	b := &alone{t: t, dir: dir, clock: clock.NewFake(time.Unix(1_700_000_000, 0))}
	var err error
	if b.snaps, err = openSnapshotStore(dir, newStreams(b.clock, slog.New(slog.DiscardHandler))); err != nil {
		t.Fatal(err)
	}
	if err := b.snaps.swap(); err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	if b.fsm, err = OpenFSM(store, b.clock); err != nil {
		t.Fatal(err)
	}
	b.snaps.fsm, b.fsm.hold, b.fsm.last = b.fsm, b.snaps.streams.holding, b.snaps.marker
	t.Cleanup(func() { _ = b.fsm.Close() }) // it may be closed already
	return b
}

// group is a configuration with members of these ids.
func group(ids ...string) raft.Configuration {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return c
}

// apply applies an entry that names the group's members.
func (b *alone) apply(index, term uint64, ids ...string) *Outcome {
	b.t.Helper()
	l := &raft.Log{Index: index, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(group(ids...))}
	return b.fsm.ApplyBatch([]*raft.Log{l})[0].(*Outcome)
}

// snapshot does what raft does for a snapshot at the entry that it believes to be last.
func (b *alone) snapshot(index, term uint64, c raft.Configuration, ci uint64) error {
	b.t.Helper()
	ref, err := b.fsm.Snapshot()
	if err != nil {
		return err
	}
	k, err := b.snaps.Create(1, index, term, c, ci, nil)
	if err != nil {
		return err
	}
	return errors.Join(ref.Persist(k), k.Close())
}

// snapped applies an entry and takes a snapshot of it.
func (b *alone) snapped(index, term uint64) {
	b.t.Helper()
	b.apply(index, term, "a")
	if err := b.snapshot(index, term, group("a"), index); err != nil {
		b.t.Fatal(err)
	}
}

// stream does what raft does to send a snapshot.
func (b *alone) stream() (*raft.SnapshotMeta, []byte) {
	b.t.Helper()
	all, err := b.snaps.List()
	if err != nil || len(all) != 1 {
		b.t.Fatal(all, err)
	}
	meta, r, err := b.snaps.Open(all[0].ID)
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		b.t.Fatal(err)
	}
	return meta, p
}

// install does what raft does with a stream that it receives, up to Restore.
func (b *alone) install(meta *raft.SnapshotMeta, p []byte) (id string, err error) {
	b.t.Helper()
	k, err := b.snaps.Create(1, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		return "", err
	}
	for part := range slices.Chunk(p, 10_000) {
		if _, err := k.Write(part); err != nil {
			b.t.Fatal(err)
		}
	}
	if int64(len(p)) != meta.Size {
		return "", errors.Join(errors.New("short"), k.Cancel())
	}
	return k.ID(), k.Close()
}

// restore is what follows.
func (b *alone) restore(id string) error {
	b.t.Helper()
	_, r, err := b.snaps.Open(id)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	return b.fsm.Restore(r)
}

func (b *alone) files() string {
	b.t.Helper()
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
