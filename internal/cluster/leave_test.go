package cluster

import (
	"errors"
	"strings"
	"testing"

	"pogod/internal/cluster/identity"
)

// A node is demoted, removed, told, and not talked to any more; the word of it is not undone.
func TestARemovedNodeIsNoMember(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	for range 4 { // two members, and two votes
		get(t, a.raft.added, "a change of the members")
	}
	for _, at := range []*node{a, b} {
		if err := at.Remove(t.Context(), Removal{Node: c.id}); !errors.Is(err, ErrDeclined) || !strings.Contains(err.Error(), "is up: run `pogod cluster leave` on it") {
			t.Error(err)
		}
		if err := at.Remove(t.Context(), Removal{Node: other}); !errors.Is(err, ErrDeclined) || !strings.Contains(err.Error(), "no member") {
			t.Error(err)
		}
	}
	if err := c.Remove(t.Context(), Removal{Check: true}); err != nil || len(a.raft.added) > 0 {
		t.Error("to ask changes something:", err)
	}
	if err := c.Remove(t.Context(), Removal{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"demoted " + c.id, "removed " + c.id} {
		if got := get(t, a.raft.added, want); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	get(t, c.Removed(), "word to the node that was removed")
	for _, n := range []*node{a, b} {
		eventually(t, "the link is gone, for good", func() bool { return n.book.isRemoved(c.id) && n.linkTo(c.id) == nil })
	}
	b.book.learn(identity.Peer{ID: c.id, Address: c.way.address(), Version: 1 << 40})
	if !b.book.isRemoved(c.id) {
		t.Error("an address makes it a member again")
	}
	if _, err := b.admit(t.Context(), identity.Peer{ID: c.id, Address: c.way.address()}); !errors.Is(err, errBarred) {
		t.Error(err)
	}
	if err := b.Remove(t.Context(), Removal{Node: c.id}); err != nil || len(a.raft.added) > 0 {
		t.Error("to remove it twice is not to remove it:", err)
	}
}

// The rest must have a majority that is up: what would stop the cluster is declined, force
// or not, and what would leave no room for one more failure needs force.
func TestARemovalThatWouldStopTheClusterIsDeclined(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	for range 4 {
		get(t, a.raft.added, "a change of the members")
	}
	c.Close()
	eventually(t, "it is down", func() bool { return a.linkTo(c.id) == nil })
	for _, r := range []Removal{{}, {Force: true}} {
		if err := b.Remove(t.Context(), r); !errors.Is(err, ErrDeclined) || !strings.Contains(err.Error(), "of the 2 voters that would be left 1 would be up") {
			t.Error(err)
		}
	}
	if len(a.raft.added) > 0 {
		t.Error("something was begun:", <-a.raft.added)
	}
	if err := b.Remove(t.Context(), Removal{Node: c.id}); err != nil { // which is dead
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), Removal{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Remove(t.Context(), Removal{Check: true}); !errors.Is(err, ErrDeclined) || !strings.Contains(err.Error(), "the last node") {
		t.Error(err)
	}
}
