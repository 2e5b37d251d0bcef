package cluster

import (
	"errors"
	"strings"
	"testing"
)

// Leadership goes to the node that is named, or to the one that has applied most, asked
// of a follower too; a node that cannot lead is declined, and nothing was begun.
func TestTransferToANodeThatCanLead(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	linked(t, a, b, c)
	for range 4 { // two members, and two votes
		get(t, a.raft.added, "a change of the members")
	}
	b.applies(10, a)
	c.applies(20, a)
	transfer := func(at *node, to, want string) {
		t.Helper()
		done := make(chan error, 1)
		go func() { // ended by the new leader
			got, err := at.Transfer(t.Context(), to)
			if err == nil && got != want {
				err = errors.New("node " + got + " leads")
			}
			done <- err
		}()
		if got := get(t, a.raft.added, "the hand-over"); got != "leader "+want {
			t.Errorf("%s, not to %s", got, want)
		}
		for _, n := range []*node{a, b, c} {
			n.lead(want)
		}
		if err := get(t, done, "the answer"); err != nil {
			t.Error(err)
		}
		for _, n := range []*node{a, b, c} {
			n.lead(a.id)
			eventually(t, "the first leads again", func() bool { return n.leaderNow() == a.id })
		}
	}
	transfer(a, "", c.id)
	transfer(b, "", c.id)
	transfer(c, b.id, b.id)
	for _, at := range []*node{a, b} {
		if _, err := at.Transfer(t.Context(), other); !errors.Is(err, ErrDeclined) || !strings.Contains(err.Error(), "no member") {
			t.Error(err)
		}
	}
	if got, err := b.Transfer(t.Context(), a.id); got != a.id || err != nil {
		t.Error("who leads cannot stay:", got, err)
	}
	c.Close()
	eventually(t, "it is down", func() bool { return a.linkTo(c.id) == nil })
	if _, err := b.Transfer(t.Context(), c.id); !errors.Is(err, ErrDeclined) || !strings.Contains(err.Error(), "down or lags") {
		t.Error(err)
	}
	if len(a.raft.added) > 0 {
		t.Error("something was begun:", <-a.raft.added)
	}
}

// A leader whose disk has little room has one lead that has more, though another one has
// applied more, and leads on while there is none.
func TestALeaderWithLittleRoomHandsOver(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	linked(t, a, b, c)
	for range 4 { // two members, and two votes
		get(t, a.raft.added, "a change of the members")
	}
	knows := func(tight bool, of ...*node) {
		t.Helper()
		for _, n := range of {
			n.little.Store(tight)
			eventually(t, "it is known how much room there is", func() bool {
				a.mu.Lock()
				defer a.mu.Unlock()
				return a.peers[n.id].tight == tight
			})
		}
	}
	knows(true, b, c)
	c.applies(20, a)
	a.little.Store(true)
	a.look()
	if len(a.raft.added) > 0 {
		t.Fatal("no node has room:", <-a.raft.added)
	}
	knows(false, b)
	if got := get(t, a.raft.added, "the hand-over"); got != "leader "+b.id {
		t.Error(got)
	}
	a.journal.await(t, 1, "level=WARN", "another one is to lead", b.id)
}
