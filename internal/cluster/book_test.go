package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
)

const self, other = "000000000000000a", "000000000000000b"

func peerAt(id, port string, version uint64) identity.Peer {
	return identity.Peer{ID: id, Address: "10.0.0.7:" + port, Version: version}
}

func TestBookTakesTheNewest(t *testing.T) {
	t.Parallel()
	b := newBook(peerAt(self, "1", 5))
	changes := func() int {
		select {
		case <-b.changed:
			return 1
		default:
			return 0
		}
	}
	for i, c := range []struct {
		learn   identity.Peer
		changed int
		want    identity.Peer
	}{
		{peerAt(other, "2", 0), 1, peerAt(other, "2", 0)}, // a node that joined and has not started
		{peerAt(other, "2", 0), 0, peerAt(other, "2", 0)},
		{peerAt(other, "3", 0), 0, peerAt(other, "2", 0)}, // as new
		{peerAt(other, "3", 2), 1, peerAt(other, "3", 2)},
		{peerAt(other, "2", 1), 0, peerAt(other, "3", 2)}, // late
		{peerAt(other, "3", 4), 1, peerAt(other, "3", 4)}, // a restart: its version must be known, or an older one would win elsewhere
		{peerAt(self, "9", 4), 0, peerAt(self, "1", 5)},   // its own past
		{peerAt(self, "1", 7), 0, peerAt(self, "1", 5)},   // right, whatever the version
		{peerAt(self, "9", 5), 1, peerAt(self, "1", 6)},   // wrong and as new: overtaken
		{peerAt(self, "9", 9), 1, peerAt(self, "1", 10)},
	} {
		b.learn(c.learn)
		var got identity.Peer
		for _, p := range b.all() {
			if p.ID == c.want.ID {
				got = p
			}
		}
		if changed := changes(); got != c.want || changed != c.changed {
			t.Errorf("%d: %+v: has %+v, want %+v; changed %d, want %d", i, c.learn, got, c.want, changed, c.changed)
		}
	}
	if a := b.address(other); a != "10.0.0.7:3" {
		t.Error(a)
	}
	if a := b.address("000000000000000c"); a != "" {
		t.Error(a)
	}
}

func TestBookIsBounded(t *testing.T) {
	t.Parallel()
	b := newBook(peerAt(self, "1", 5))
	for i := range maxPeers + 10 {
		b.learn(peerAt(fmt.Sprintf("%016x", i+100), "1", 1))
	}
	if n := len(b.all()); n != maxPeers {
		t.Error(n)
	}
	// A member takes the place of one that was removed, and of no other.
	b.remove(fmt.Sprintf("%016x", 100))
	b.learn(identity.Peer{ID: other, Address: "10.0.0.1:1", Version: removed})
	if b.isRemoved(other) {
		t.Error("a node that is gone takes room")
	}
	b.learn(peerAt(other, "1", 1))
	if n := len(b.all()); n != maxPeers || b.address(other) == "" || b.isRemoved(fmt.Sprintf("%016x", 100)) {
		t.Error("no room for a member among those that were removed:", n)
	}
	f := fields{b: appendPeers(nil, b.all())}
	if f.peers(); f.done() != nil {
		t.Error("what it holds cannot be sent:", f.err)
	}
}

func TestBookIsKept(t *testing.T) {
	t.Parallel()
	a := found(t)
	a.book.learn(peerAt(other, "2", 3))
	eventually(t, "the file has it", func() bool {
		peers, err := readPeers(a.dir)
		return err == nil && reflect.DeepEqual(peers, a.book.all())
	})
	a.Close()
	a.open()
	if got := a.book.address(other); got != "10.0.0.7:2" {
		t.Error(got)
	}
	if st, err := os.Stat(a.dir.File(peersFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
}

// The members can be learned again, so a node starts without them, and says so.
func TestDamagedBook(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"no JSON": "{", "no id": `{"peers":[{"id":"x","address":"a:1"}]}`} {
		a := found(t)
		a.Close()
		if err := os.WriteFile(a.dir.File(peersFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		a.open()
		if a.journal.said("level=WARN", "to be learned anew") != 1 {
			t.Error(name, "was not told")
		}
	}
}

func TestAdvertiseIsChecked(t *testing.T) {
	t.Parallel()
	a := found(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Open(Config{
		Identity: a.cfg.Identity, Tokens: a.cfg.Tokens, Listener: ln, Advertise: "somewhere", Start: 1,
		Dir: a.dir, Clock: clock.System(), Log: slog.New(slog.DiscardHandler),
	}); err == nil || !strings.Contains(err.Error(), "[cluster] advertise") {
		t.Error(err)
	}
}
