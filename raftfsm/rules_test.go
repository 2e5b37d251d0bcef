package raftfsm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pogod/storage"
)

// Each rule about snapshots has a test that is named after it; docs/reliability.md lists
// them.

// The meta of a stream is what its own read transaction holds, whatever the marker says and
// whatever is applied while it runs.
func TestOpenReturnsTheMetaOfTheReadTransaction(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.apply(2, 1, "a")
	if err := b.snapshot(3, 1, group("a"), 2); err != nil { // 3 is a no-op
		t.Fatal(err)
	}
	if meta, _ := b.stream(); meta.Index != 3 || meta.Term != 1 || meta.ConfigurationIndex != 2 {
		t.Errorf("nothing was applied since: %+v", meta)
	}
	b.apply(5, 2, "a", "b")
	b.fsm.flush()
	b.apply(6, 2, "a", "b", "c") // not committed
	all, _ := b.snaps.List()
	meta, r, err := b.snaps.Open(all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	b.apply(7, 3, "d")
	b.fsm.flush()
	p, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if meta.Index != 5 || meta.Term != 2 || meta.ConfigurationIndex != 5 || len(meta.Configuration.Servers) != 2 || meta.Size != int64(len(p)) {
		t.Errorf("%+v, %d bytes", meta, len(p))
	}
	to := newAlone(t, t.TempDir())
	id, err := to.install(meta, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.restore(id); err != nil {
		t.Fatal(err)
	}
	if h, err := holds(to.fsm.store); err != nil || h.index != 5 || h.term != 2 || h.configurationIndex != 5 {
		t.Errorf("%+v %v", h, err)
	}
	if to.fsm.Applied() != 5 || to.fsm.confIdx != 5 {
		t.Error("in memory it is at", to.fsm.Applied(), to.fsm.confIdx)
	}
	// Ahead of its meta: the entries between would be skipped on the receiver.
	for _, named := range []position{{4, 2}, {5, 1}} {
		meta.Index, meta.Term = named.index, named.term
		if _, err := newAlone(t, t.TempDir()).install(meta, p); !errors.Is(err, ErrForeignStream) {
			t.Errorf("a stream that is ahead of its meta, %+v: %v", named, err)
		}
	}
}

func TestASnapshotBelowTheOneThereIsIsRefused(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.apply(2, 1, "a")
	late, err := b.snaps.Create(1, 2, 1, group("a"), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := b.fsm.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	b.snapped(9, 1)
	if err := errors.Join(ref.Persist(late), late.Close()); !errors.Is(err, ErrStaleSnapshot) {
		t.Error("one that was begun before:", err)
	}
	if _, err := b.snaps.Create(1, 8, 1, group("a"), 2, nil); !errors.Is(err, ErrStaleSnapshot) {
		t.Error("a new one:", err)
	}
	if m := b.snaps.marker(); m.Meta.Index != 9 {
		t.Error("the snapshot is at", m.Meta.Index)
	}
}

func TestNothingNewToSnapshotWhenNothingWasApplied(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.snapped(2, 1)
	if err := b.snapshot(3, 1, group("a"), 2); !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		t.Error(err)
	}
	b.apply(4, 1, "a")
	if err := b.snapshot(4, 1, group("a"), 4); err != nil {
		t.Error(err)
	}
}

// No snapshot is taken while a stream runs, nor before its receiver follows again, which
// it may never do.
func TestNoSnapshotWhileAStreamRuns(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.snapped(2, 1)
	b.apply(3, 1, "a")
	_, r, err := b.snaps.Open("")
	if err != nil {
		t.Fatal(err)
	}
	out := r.(*outgoing)
	b.snaps.streams.to(out.t, "b")
	held := func(when string, want bool) {
		t.Helper()
		_, err := b.fsm.Snapshot()
		if errors.Is(err, raft.ErrNothingNewToSnapshot) != want || err != nil && !want {
			t.Errorf("%s: %v", when, err)
		}
	}
	held("while it runs", true)
	b.clock.Advance(time.Hour)
	held("while it runs for long", true)
	if running, _, _ := b.snaps.streams.all(); len(running) != 1 || running[0].Peer != "b" || running[0].Total != out.t.total.Load() || running[0].Total == 0 {
		t.Errorf("%+v", running)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	held("before its receiver follows", true)
	b.snaps.streams.follows("c")
	held("when another one follows", true)
	b.snaps.streams.follows("b")
	held("when its receiver follows", false)
	if _, sent, _ := b.snaps.streams.all(); sent != 1 {
		t.Error(sent, "streams were sent")
	}

	again := func(whole bool) {
		t.Helper()
		_, r, err := b.snaps.Open("")
		if err != nil {
			t.Fatal(err)
		}
		b.snaps.streams.to(r.(*outgoing).t, "b")
		if whole {
			_, err = io.Copy(io.Discard, r)
		}
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
	}
	again(false) // to a member that is down, and raft tries without end
	held("after a stream that was cut off", false)
	b.apply(4, 1, "a")
	again(true)
	held("after another whole one", true)
	b.clock.Advance(heldFor + time.Second)
	held("when its receiver has not come back", false)
	b.fsm.hold = nil
	if _, err := b.fsm.Snapshot(); err != nil {
		t.Error("as raft.RecoverCluster needs it:", err)
	}
}

// A stream that is short, long, changed, or of a file that is damaged itself, changes
// nothing on the receiver.
func TestTheStreamEndsInACRC(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.snapped(2, 1)
	meta, p := b.stream()
	to := newAlone(t, t.TempDir())
	to.apply(1, 1, "z")
	to.fsm.flush()
	before := to.files()
	flipped := bytes.Clone(p)
	flipped[len(p)/2] ^= 1
	for name, p := range map[string][]byte{"flipped": flipped, "cut off": p[:len(p)-1], "empty": {}, "long": append(bytes.Clone(p), 0)} {
		if _, err := to.install(meta, p); err == nil {
			t.Error(name, "was taken")
		}
		m := *meta
		m.Size = int64(len(p))
		if _, err := to.install(&m, p); err == nil {
			t.Error(name, "was taken, with its size")
		}
	}
	if after := to.files(); after != before || to.snaps.marker() != nil || to.fsm.Applied() != 1 {
		t.Errorf("the directory had %s and has %s; snapshot %+v; at %d", before, after, to.snaps.marker(), to.fsm.Applied())
	}
	if _, _, n := to.snaps.streams.all(); n != 0 {
		t.Error(n, "streams were received")
	}
	if _, err := to.install(meta, p); err != nil {
		t.Error(err)
	}
}

// What was received whole is swapped in at the next start if Restore did not come to it,
// what was received in part is removed.
func TestAReceivedSnapshotIsSwappedInAtStart(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.snapped(7, 2)
	meta, p := b.stream()
	to := newAlone(t, t.TempDir())
	to.apply(1, 1, "z")
	k, err := to.snaps.Create(1, 9, 3, group("a"), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write(p[:1000]); err != nil { // and never more
		t.Fatal(err)
	}
	if _, err := to.install(meta, p); err != nil {
		t.Fatal(err)
	}
	if err := to.fsm.Close(); err != nil {
		t.Fatal(err)
	}
	to = newAlone(t, to.dir)
	if to.fsm.Applied() != 7 || to.files() != snapshotFile+" "+stateFile {
		t.Error("at entry", to.fsm.Applied(), "with", to.files())
	}
	f := found{marker: to.snaps.marker(), file: to.fsm.applied, epoch: to.fsm.epoch}
	if cut, err := f.fits(); cut || err != nil {
		t.Error("with an empty log:", err)
	}
	f.first, f.last = 1, 5
	if cut, err := f.fits(); !cut || err != nil {
		t.Error("with the log of before:", cut, err)
	}
}

// Whoever reads the old file when another takes its place reads on, and holds nobody up.
func TestTheOldFileIsClosedWithoutWaitingForItsReaders(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.snapped(7, 2)
	meta, p := b.stream()
	to := newAlone(t, t.TempDir())
	to.apply(1, 1, "z")
	id, err := to.install(meta, p)
	if err != nil {
		t.Fatal(err)
	}
	watched := to.fsm.Watch()
	err = to.fsm.View(func(tx *storage.Tx) error {
		if err := to.restore(id); err != nil { // would never return
			return err
		}
		meta, err := tx.Bucket(metaBucket)
		if err != nil {
			return err
		}
		conf, err := meta.Get(keyConf)
		if err == nil && raft.DecodeConfiguration(conf).Servers[0].ID != "z" {
			t.Error("the view has become one of another file")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(watched) != 1 {
		t.Error("nobody was told that the state has changed")
	}
	if to.fsm.Applied() != 7 {
		t.Error("at entry", to.fsm.Applied())
	}
	// New entries go into the new file.
	to.apply(8, 2, "b")
	to.fsm.flush()
	if h, err := holds(to.fsm.store); err != nil || h.index != 8 {
		t.Errorf("%+v %v", h, err)
	}
}

// raft.RecoverCluster restores a node from its own stream: that is what it has.
func TestRestoreOfOnesOwnStreamChangesNothing(t *testing.T) {
	t.Parallel()
	b := newAlone(t, t.TempDir())
	b.snapped(2, 1)
	b.apply(3, 1, "a")
	if err := b.restore(b.snaps.marker().Meta.ID); err != nil || b.fsm.Applied() != 3 {
		t.Error(err, b.fsm.Applied())
	}
}

// raft treats the log otherwise after an install when it is not told this.
func TestTheLogIsMonotonic(t *testing.T) {
	t.Parallel()
	s, err := openLog(t.TempDir(), defaultLogBytes, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	cache, err := raft.NewLogCache(64, s)
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := any(cache).(raft.MonotonicLogStore); !ok || !m.IsMonotonic() {
		t.Error("raft does not know it")
	}
}

// What fits together, and what is refused as what: the log is another matter than the file.
func TestWhatAStartFinds(t *testing.T) {
	t.Parallel()
	one, two := []byte("one"), []byte("two")
	at := func(index, fsm uint64) *marker {
		return &marker{Meta: raft.SnapshotMeta{Index: index}, FSMIndex: fsm, Epoch: one}
	}
	for name, c := range map[string]struct {
		f   found
		cut bool
		err error
	}{
		"nothing at all":                       {found{fresh: true}, false, nil},
		"stopped before its first commit":      {found{fresh: true, first: 1, last: 9}, false, nil},
		"no snapshot yet":                      {found{file: position{index: 5}, epoch: one, first: 1, last: 9}, false, nil},
		"file ahead of the log, no marker":     {found{file: position{index: 10}, epoch: one, first: 1, last: 9}, false, ErrLogLost},
		"marker alone":                         {found{marker: at(5, 5), fresh: true, first: 1, last: 9}, false, ErrFileDamaged},
		"marker alone is missing":              {found{file: position{index: 5}, epoch: one, first: 3, last: 9}, false, ErrFileDamaged},
		"all is well":                          {found{marker: at(5, 4), file: position{index: 7}, epoch: one, first: 3, last: 9}, false, nil},
		"an old copy of the file":              {found{marker: at(5, 4), file: position{index: 3}, epoch: one, first: 3, last: 9}, false, ErrFileDamaged},
		"another file":                         {found{marker: at(5, 4), file: position{index: 7}, epoch: two, first: 3, last: 9}, false, ErrFileDamaged},
		"the log begins after the marker":      {found{marker: at(5, 5), file: position{index: 5}, epoch: one, first: 7, last: 9}, false, ErrFileDamaged},
		"just installed":                       {found{marker: at(5, 4), file: position{index: 4}, epoch: one}, false, nil},
		"installed, and the log is lost":       {found{marker: at(5, 4), file: position{index: 7}, epoch: one}, false, ErrLogLost},
		"ahead of marker and log":              {found{marker: at(5, 5), file: position{index: 10}, epoch: one, first: 3, last: 9}, false, ErrLogLost},
		"installed, the old log is there":      {found{marker: at(50, 49), file: position{index: 49}, epoch: one, first: 3, last: 9}, true, nil},
		"ahead of the marker, the log too old": {found{marker: at(50, 49), file: position{index: 60}, epoch: one, first: 3, last: 9}, false, ErrLogLost},
	} {
		cut, err := c.f.fits()
		if cut != c.cut || !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: cut %v, %v", name, cut, err)
		}
	}
}

// A node whose file is damaged goes on from another's only if that reaches what its own
// log holds: behind its end, or at an entry that is the same.
func TestTheFileThatIsFetchedReachesTheLog(t *testing.T) {
	t.Parallel()
	g := &Group{snaps: &snapshotStore{cur: &marker{Meta: raft.SnapshotMeta{Index: 12}}}}
	var err error
	if g.log, err = openLog(t.TempDir(), defaultLogBytes, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.log.close() }()
	for i := uint64(10); i <= 20; i++ {
		if err := g.log.StoreLog(&raft.Log{Index: i, Term: 1 + i/16}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		index, term uint64
		want        bool
	}{
		{21, 2, true}, {1000, 9, true}, {20, 2, true}, {17, 2, true}, {13, 1, true}, // behind the end, or the same entry
		{20, 3, false}, {17, 1, false}, // an entry that another leader had there
		{11, 1, false}, {9, 1, false}, // below the snapshot, and below the log
	} {
		if err := g.reaches(&raft.SnapshotMeta{Index: c.index, Term: c.term}); (err == nil) != c.want || err != nil && !errors.Is(err, errNotYet) {
			t.Errorf("entry %d of term %d: %v", c.index, c.term, err)
		}
	}
}

// raft-wal takes a damaged last entry for a write that was cut off, and forgets it. It was
// not: a log that was closed well ends where it did.
func TestTheEndOfTheLogIsNotForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reopen := func() (*logStore, error) {
		t.Helper()
		s, err := openLog(dir, defaultLogBytes, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.check(0); err != nil {
			return s, err
		}
		return s, s.opened()
	}
	s, err := reopen()
	for i := uint64(1); i <= 5 && err == nil; i++ {
		err = s.StoreLog(&raft.Log{Index: i, Term: 1, Data: bytes.Repeat([]byte{'a' + byte(i)}, 50)})
	}
	if err = errors.Join(err, s.close()); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("ffffff"))] ^= 1
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second start finds it, too
		s, err := reopen()
		if _, last, _ := s.indexes(); last != 4 || !errors.Is(err, ErrLogDamaged) {
			t.Errorf("it ends at %d: %v", last, err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Whom a node has voted for is not forgotten by a flipped bit.
func TestTermAndVoteHaveASum(t *testing.T) {
	t.Parallel()
	s, err := openLog(t.TempDir(), defaultLogBytes, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	vote := []byte("LastVoteCand")
	if err := errors.Join(s.SetUint64(currentTerm, 77), s.Set(vote, []byte("0123456789abcdef"))); err != nil {
		t.Fatal(err)
	}
	if n, err := s.GetUint64(currentTerm); n != 77 || err != nil {
		t.Error(n, err)
	}
	if b, err := s.Get(vote); string(b) != "0123456789abcdef" || err != nil {
		t.Error(string(b), err)
	}
	if n, err := s.GetUint64([]byte("none")); n != 0 || err != nil {
		t.Error(n, err)
	}
	for _, key := range [][]byte{currentTerm, vote} {
		b, err := s.WAL.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		b[2] ^= 4
		if err := s.WAL.Set(key, b); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(key); !errors.Is(err, ErrLogDamaged) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := s.check(0); !errors.Is(err, ErrLogDamaged) {
		t.Error("a start:", err)
	}
}
