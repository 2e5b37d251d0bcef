package cluster

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
)

func TestJoinThroughAFollower(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	d := newNode(t).join(b)
	for _, id := range []string{b.id, c.id, d.id} {
		if got := get(t, a.raft.added, "an addition"); got != "nonvoter "+id {
			t.Errorf("%s, not %s", got, id)
		}
	}
	b.journal.await(t, 1, "level=INFO", "node joined", d.id)
	linked(t, a, b, c, d)
}

func TestAdmissionTwiceIsOne(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	peers, err := b.admit(t.Context(), identity.Peer{ID: c.id, Address: c.way.address()})
	if err != nil || len(peers) != 3 {
		t.Error(peers, err)
	}
	if len(a.raft.added) != 2 {
		t.Error("it was added again")
	}
}

// A node that lost its data comes back under a new id: the one that it was is removed,
// once it is known to be gone, and before the new one has a vote.
func TestANodeInPlaceOfOneThatIsGone(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	for len(a.raft.added) > 0 {
		<-a.raft.added
	}
	again := newNode(t)
	p := identity.Peer{ID: again.id, Address: c.way.address()}
	for _, n := range []*node{a, b} {
		if _, err := n.admit(t.Context(), p); err == nil || !strings.Contains(err.Error(), "node "+c.id+" is up at") {
			t.Error(err)
		}
	}
	if _, err := a.admit(t.Context(), identity.Peer{ID: again.id, Address: a.way.address()}); err == nil || !strings.Contains(err.Error(), "is up at") {
		t.Error("in place of the leader:", err)
	}
	if len(a.raft.added) != 0 || a.book.address(again.id) != "" {
		t.Fatal("it is a member")
	}
	c.Close()
	eventually(t, "it is down", func() bool { return a.linkTo(c.id) == nil })
	for range 2 { // the answer may be lost
		if _, err := b.admit(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"nonvoter " + again.id, "removed " + c.id} {
		if got := get(t, a.raft.added, want); got != want {
			t.Error(got, "and not", want)
		}
	}
	if len(a.raft.added) != 0 {
		t.Error("and then", <-a.raft.added)
	}
	a.journal.await(t, 1, "level=INFO", "node removed", c.id, again.id)
	for _, n := range []*node{a, b} { // should it come back after all, it is told
		eventually(t, "it is noted as removed", func() bool { return n.book.isRemoved(c.id) })
	}
	if len(a.Members()) != 3 {
		t.Errorf("%+v", a.Members())
	}
}

// Nobody dials an id at an address where another node is now.
func TestReplacedIsNotDialed(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	for _, n := range []*node{a, b, c} {
		for _, o := range []*node{a, b, c} {
			if n.replaced(o.id) {
				t.Error(o.id, "is replaced")
			}
		}
		n.book.learn(identity.Peer{ID: "000000000000000c", Address: n.way.address(), Version: removed})
		if n.replaced(n.id) {
			t.Error("by a node that was removed")
		}
		n.book.learn(identity.Peer{ID: other, Address: b.way.address()})
		if !n.replaced(other) || n.replaced(b.id) && n != b {
			t.Error(n.replaced(other), n.replaced(b.id))
		}
	}
}

func TestAdmissionWaitsForALeader(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	b.lead("")
	b.journal.await(t, 1, "no leader is known")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := identity.Peer{ID: other, Address: "127.0.0.1:1"}
	if _, err := b.admit(ctx, p); err == nil || !strings.Contains(err.Error(), "no leader has taken it in time") || !strings.Contains(err.Error(), "majority") {
		t.Error(err)
	}
	if _, err := b.ReadIndex(t.Context()); err == nil {
		t.Error("there is a leader")
	}
	admitted := make(chan error, 1)
	go func() { // ended by the leader
		_, err := b.admit(t.Context(), p)
		admitted <- err
	}()
	a.raft.mu.Lock()
	a.raft.addErr = raft.ErrLeadershipLost // is tried again
	a.raft.mu.Unlock()
	b.lead(a.id)
	select {
	case err := <-admitted:
		t.Error("admitted too early", err)
	case <-time.After(2 * admitAgain): // nothing signals what does not happen
	}
	a.raft.mu.Lock()
	a.raft.addErr = nil
	a.raft.mu.Unlock()
	if err := get(t, admitted, "the admission"); err != nil {
		t.Error(err)
	}
	if a.book.address(other) == "" || b.book.address(other) == "" {
		t.Error("its address is not known")
	}
}

func TestFollowerAdmitsNobody(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	c.lead(b.id) // wrong
	c.journal.await(t, 1, "node leads", b.id)
	ctx, cancel := context.WithTimeout(t.Context(), admitAgain/2)
	defer cancel()
	if _, err := c.admit(ctx, identity.Peer{ID: other, Address: "127.0.0.1:1"}); err == nil {
		t.Error("a follower admitted a node")
	}
	if len(b.raft.added) != 0 || len(a.raft.added) != 2 {
		t.Error("it was added")
	}
}

// A vote is for a member that is up and has caught up, at two looks in a row.
func TestPromotion(t *testing.T) {
	t.Parallel()
	a := newNode(t)
	a.clock = clock.NewFake(time.Now()) // stands, so that nobody else looks
	a.found()
	b := newNode(t)
	token, _ := a.cfg.Tokens.Issue()
	_, peers, err := identity.Join(t.Context(), b.dir, a.listens, token, b.way.address())
	if err == nil {
		err = WritePeers(b.dir, peers)
	}
	if err != nil {
		t.Fatal(err)
	}
	get(t, a.raft.added, "the member")
	look := func(times int, when string) {
		t.Helper()
		for range times {
			a.look()
		}
		if len(a.raft.added) > 0 {
			t.Fatal(when, <-a.raft.added)
		}
	}
	const far = 5 * lagWithin
	a.applies(far)
	look(3, "it is not up:")
	b.open()
	a.journal.await(t, 1, "link up", b.id)
	b.applies(far-lagWithin-1, a)
	look(3, "it lags:")
	b.applies(far-lagWithin, a)
	look(1, "it was not near before:")
	b.applies(1, a)
	look(1, "it lags again:")
	b.applies(far, a)
	look(1, "it was not near before:")
	a.lead("")
	get(t, a.changed, "the change")
	look(3, "this node does not lead:")
	a.lead(a.id)
	get(t, a.changed, "the change")

	look(1, "it was not near before:")
	a.first.Store(far + 2)
	look(3, "it is sent the data file first:")
	a.first.Store(far + 1)
	look(1, "it was not near before:")
	a.look()
	if got := get(t, a.raft.added, "the vote"); got != "voter "+b.id {
		t.Error(got)
	}
	a.journal.await(t, 1, "level=INFO", "node promoted", b.id)
	look(3, "it has a vote:")
}

func TestUpToDate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		p    peer
		want bool
	}{
		"up, just heard, equal":         {peer{link: &link{}, heard: now, applied: 5000}, true},
		"ahead":                         {peer{link: &link{}, heard: now, applied: 6000}, true},
		"as far behind as it may be":    {peer{link: &link{}, heard: now.Add(-heardWithin), applied: 5000 - lagWithin}, true},
		"too far behind":                {peer{link: &link{}, heard: now, applied: 5000 - lagWithin - 1}, false},
		"not up":                        {peer{heard: now, applied: 5000}, false},
		"heard too long ago":            {peer{link: &link{}, heard: now.Add(-heardWithin - 1), applied: 5000}, false},
		"up, and not a word of it said": {peer{link: &link{}}, false},
	} {
		if got := c.p.upToDate(5000, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	b.applies(77)
	var m []Member
	eventually(t, "all is measured", func() bool {
		m = a.Members()
		return len(m) == 3 && !slices.ContainsFunc(m, func(m Member) bool {
			return !m.Self && (!m.Up || m.RoundTrip <= 0 || m.LastHeard.IsZero()) || m.ID == b.id && m.Applied != 77
		})
	})
	if !slices.IsSortedFunc(m, func(a, b Member) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("not sorted")
	}
	for _, m := range m {
		n := map[string]*node{a.id: a, b.id: b, c.id: c}[m.ID]
		if m.Address != n.way.address() || m.Self != (n == a) || m.Leader != (n == a) || m.RoundTrip > patience {
			t.Errorf("%+v", m)
		}
	}
	b.Close()
	eventually(t, "it is down", func() bool {
		m := a.Members()
		return slices.ContainsFunc(m, func(m Member) bool { return m.ID == b.id && !m.Up && !m.LastHeard.IsZero() })
	})
	// A node that has not heard from raft yet shows those of whom it knows.
	m = c.Members()
	if len(m) != 3 || slices.ContainsFunc(m, func(m Member) bool { return m.Voter }) {
		t.Errorf("%+v", m)
	}
}

// The clock of a node is known from the first moment of a link, and what it says is of a
// moment between the two that are told.
func TestClocksAreMeasuredOnTheLinks(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := newNode(t)
	skewed := &clock.Skewed{}
	skewed.Set(365 * 24 * time.Hour)
	b.clock = skewed
	b.join(a)
	for range 5 {
		before := time.Now()
		m := get(t, a.clocks, "a measurement")
		after := time.Now()
		ago := a.clock.Mono() - m.sent
		if m.node != b.id || m.sent > m.received || m.received-m.sent > patience {
			t.Errorf("%+v", m)
		}
		real := m.wall.Add(-365 * 24 * time.Hour)
		if real.Before(before.Add(-ago-time.Second)) || real.After(after.Add(time.Second)) {
			t.Errorf("the clock that is a year ahead was said to be at %s, at %s", m.wall, after)
		}
		m = get(t, b.clocks, "a measurement")
		if d := time.Since(m.wall); m.node != a.id || d.Abs() > patience {
			t.Errorf("%+v: %s ago", m, d)
		}
	}
}

// Who joins with a worker's token, at a node that does not lead, stays without a vote,
// however near it is; it cannot lead, and can leave.
func TestAWorkerNeverHasAVote(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	for range 4 { // two members, and two votes
		get(t, a.raft.added, "a change of the members")
	}
	d := newNode(t)
	token, _ := b.cfg.Tokens.IssueWorker()
	id, peers, err := identity.Join(t.Context(), d.dir, b.listens, token, d.way.address())
	if err == nil {
		err = WritePeers(d.dir, peers)
	}
	if err != nil || !id.Worker {
		t.Fatal(id, err)
	}
	if got := get(t, a.raft.added, "the worker"); got != "nonvoter "+d.id {
		t.Error(got)
	}
	d.open()
	linked(t, a, b, c, d)
	d.lead(a.id)
	get(t, d.changed, "who leads")
	d.applies(20, a)
	for range 5 {
		a.look()
	}
	if len(a.raft.added) > 0 {
		t.Fatal("it was given something:", <-a.raft.added)
	}
	i := slices.IndexFunc(a.Members(), func(m Member) bool { return m.ID == d.id })
	if m := a.Members()[i]; m.Voter || !m.Worker || !m.Up {
		t.Errorf("%+v", m)
	}
	if _, err := b.Transfer(t.Context(), d.id); err == nil || !strings.Contains(err.Error(), "has no vote, so it cannot lead") {
		t.Error(err)
	}
	// It got no answer and has another token now: what that one says counts.
	for _, worker := range []bool{true, false, true} {
		if _, err := b.admit(t.Context(), identity.Peer{ID: d.id, Address: d.way.address(), Worker: worker}); err != nil {
			t.Error(err)
		}
		if m := a.Members()[i]; m.Worker != worker {
			t.Errorf("worker: %v, not %v", m.Worker, worker)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := d.Remove(ctx, Removal{}); err != nil {
		t.Error(err)
	}
	get(t, d.Removed(), "word to the worker that left")
}
