package raftfsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/datadir"
	"pogod/raftfsm"
	"pogod/storage"
)

// smallLog is a bound that few pushes reach.
const smallLog = 64 << 10

// outgrow pushes until the log of a member has lost what is before the entry that another
// one has applied.
func (c *trio) outgrow(from, behind *member) {
	c.t.Helper()
	at := behind.group.FSM.Applied()
	for range 1000 {
		for i := range 20 {
			if _, err := from.queue.Push(c.t.Context(), "q", bytes.Repeat([]byte{byte(i)}, 2000), 0); err != nil {
				c.t.Fatal(err)
			}
		}
		st, err := c.leading().group.LogStats()
		if err != nil {
			c.t.Fatal(err)
		}
		if st.First > at+1 {
			return
		}
	}
	c.t.Fatal("the log does not lose its beginning")
}

// received waits until a member has received so many streams and follows.
func (c *trio) received(m *member, want uint64) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d streams received", want), func() bool {
		_, _, n := m.group.Streams()
		return n >= want && m.group.FSM.Applied() >= c.leading().group.FSM.Applied()
	})
}

// until waits for something that nobody tells of.
func (c *trio) until(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited in vain for %s: %s", patience, what)
		}
	}
}

// A member that was away for longer than the log is kept is sent the data file, and goes
// on as any other: its session is new, its state the same.
func TestAMemberThatLaggedPastTheLogIsSentTheFile(t *testing.T) {
	t.Parallel()
	c := newTrioOf(t, smallLog)
	l := c.leading()
	away := c.follower(l)
	c.separate(away)
	c.outgrow(l, away)
	changed := away.group.FSM.Watch()
	for len(changed) > 0 {
		<-changed
	}
	c.connect(away)
	c.received(away, 1)
	select {
	case <-changed:
	case <-time.After(patience):
		t.Error("who looks at the state was not told that it changed")
	}
	if n := away.group.FSM.Ready("q"); n == 0 {
		t.Error("the table of queues is the one of before")
	}
	if _, err := away.queue.Push(t.Context(), "q", []byte("from there"), 0); err != nil {
		t.Error(err)
	}
	c.equal()
}

// The same, under load, with the leader changing while the stream runs, and the receiver
// ending in the middle of one.
func TestStreamsUnderLoad(t *testing.T) {
	t.Parallel()
	c := newTrioOf(t, smallLog)
	away := c.follower(c.leading())
	other := c.follower(away, c.leading())
	for round := range 3 {
		c.separate(away)
		c.outgrow(other, away)
		ld := other.load(8)
		ld.more(t, 50)
		c.connect(away)
		switch round {
		case 1: // the leader changes while it sends, or nearly
			if err := c.leading().group.Raft.LeadershipTransfer().Error(); err != nil {
				t.Log(err)
			}
		case 2:
			away.shut()
			away.back()
		}
		ld.more(t, 50)
		c.received(away, 0)
		ld.end()
		if ld.twice > 0 || len(ld.failed) > 0 {
			t.Error(ld.twice, ld.failed)
		}
	}
	for _, m := range c.members {
		if err := m.group.Err(); err != nil {
			t.Error(err)
		}
	}
	c.equal()
}

// A data file that cannot be used is replaced by another member's: the node keeps its id,
// its votes and its log.
func TestOnlyTheFileDamaged(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"missing": func(t *testing.T, dir string) { remove(t, dir, "state.db") },
		"flipped": func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "state.db"))
			if err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(b, []byte("a payload to be found"))
			b[at] ^= 1
			if err := os.WriteFile(filepath.Join(dir, "state.db"), b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"no data file at all": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "state.db"), bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"marker missing": func(t *testing.T, dir string) { remove(t, dir, "snapshot.json") },
		"marker damaged": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "snapshot.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"noted": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "state.db.damaged"), []byte("a flip\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTrioOf(t, smallLog)
			l := c.leading()
			m := c.follower(l)
			if _, err := l.queue.Push(t.Context(), "q", []byte("a payload to be found"), 0); err != nil {
				t.Fatal(err)
			}
			c.outgrow(l, m)
			if err := m.group.Snapshot(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				t.Fatal(err)
			}
			before, _ := m.group.LogStats()
			if before.First == 1 {
				c.outgrow(l, m)
			}
			m.shut()
			spoil(t, m.dir.Path)
			m.back()
			if _, _, n := m.group.Streams(); n == 0 {
				t.Error("no data file came from another member")
			}
			if last := m.group.Raft.LastIndex(); last < before.Last {
				t.Errorf("the log ended at %d, and the node goes on from %d", before.Last, last)
			}
			c.received(m, 1)
			c.until("nothing is left over", func() bool { // the leader may send one more, which is there while it comes
				noted, _ := filepath.Glob(filepath.Join(m.dir.Path, "state.db.damaged"))
				received, _ := filepath.Glob(filepath.Join(m.dir.Path, "received-*"))
				return noted == nil && received == nil
			})
			c.equal()
		})
	}
}

// A log that is damaged, shorter than it was, or another one, cannot be made good: the node
// says so and how it comes back, and changes nothing.
func TestLogDamagedOrWiped(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.leading()
	m := c.follower(l)
	for i := range 100 {
		if _, err := l.queue.Push(t.Context(), "q", fmt.Appendf(nil, "payload %d", i), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.group.FSM.WaitApplied(t.Context(), l.group.FSM.Applied()); err != nil {
		t.Fatal(err)
	}
	m.shut()
	for name, spoil := range map[string]func(dir string){
		"wiped":        func(dir string) { remove(t, dir, "log") },
		"all but node": func(dir string) { remove(t, dir, "log"); remove(t, dir, "state.db"); remove(t, dir, "snapshot.json") },
		"flipped": func(dir string) {
			flipIn(t, filepath.Join(dir, "log"), []byte("payload 50"))
		},
		"flipped at its end": func(dir string) {
			flipIn(t, filepath.Join(dir, "log"), []byte("payload 99"))
		},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.CopyFS(dir, os.DirFS(m.dir.Path)); err != nil {
			t.Fatal(err)
		}
		spoil(dir)
		_, err := tryOpen(t, dir, m)
		if err == nil || !strings.Contains(err.Error(), "pogod cluster join") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		_, again := tryOpen(t, dir, m)
		if again == nil || err != nil && again.Error() != err.Error() {
			t.Errorf("%s, the second time: %v, after %v", name, again, err)
		}
	}
	m.back()
	c.equal()
}

// A flip that the scrubber finds ends the node, and it does not come back with that file.
func TestTheScrubberFindsAFlip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir)
	n.push(t, "a payload to be found")
	if err := n.group.Scrub(0); err != nil {
		t.Fatal(err)
	}
	if st := n.group.ScrubStats(); st.Runs != 1 || st.Bytes == 0 || st.LastEnd.IsZero() || st.Running {
		t.Errorf("%+v", st)
	}
	if err := n.group.Snapshot(); err != nil { // it commits
		t.Fatal(err)
	}
	flipIn(t, dir, []byte("a payload to be found"))
	if err := n.group.Scrub(0); !errors.Is(err, storage.ErrCorrupt) {
		t.Error(err)
	}
	select {
	case <-n.group.Failed():
	case <-time.After(patience):
		t.Error("the node goes on")
	}
	if err := n.group.Err(); !errors.Is(err, storage.ErrCorrupt) {
		t.Error(err)
	}
	n.leader.Close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_ = n.proposer.Close(over)
	_ = n.group.Close()
	if err := n.dir.Close(); err != nil {
		t.Fatal(err)
	}
	flipIn(t, dir, []byte("` payload to be found")) // back: it may have been the disk's mood
	if _, err := tryStart(t, dir); err == nil || !strings.Contains(err.Error(), "restore the whole directory") {
		t.Error(err)
	}
}

// flipIn changes a bit of the only place in a directory's files that has these bytes.
func flipIn(t *testing.T, dir string, what []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // a directory
		}
		if at := bytes.Index(b, what); at >= 0 {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%q is nowhere in %s", what, dir)
}

// tryOpen opens a copy of a member's directory, as a member.
func tryOpen(t *testing.T, path string, m *member) (*raftfsm.Group, error) {
	t.Helper()
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	_, transport := raft.NewInmemTransport(raft.ServerAddress(dir.NodeID()))
	g, err := raftfsm.Open(t.Context(), raftfsm.Config{
		Dir: dir, Clock: clock.System(), Log: slog.New(slog.DiscardHandler), Transport: transport, Joins: true, Peers: m,
	})
	if err == nil {
		_ = g.Close()
	}
	return g, err
}
