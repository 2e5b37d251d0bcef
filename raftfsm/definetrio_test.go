package raftfsm_test

import (
	"slices"
	"testing"
	"time"

	"pogod/queue"
)

// inForce waits until all members have applied the definitions with that hash, and checks
// whose are others.
func (c *trio) inForce(what, hash string, differ ...bool) {
	c.t.Helper()
	for i, m := range c.members {
		changed := m.group.FSM.Watch()
		for late := time.After(patience); m.group.FSM.DefinitionsHash() != hash; {
			select {
			case <-changed:
			case <-late:
				c.t.Fatalf("%s: member %d has the definitions %s, not %s", what, i, m.group.FSM.DefinitionsHash(), hash)
			}
		}
	}
	var got []bool
	for _, m := range c.members {
		got = append(got, m.leader.Differs())
	}
	if !slices.Equal(got, differ) {
		c.t.Errorf("%s: whose differ: %v, want %v", what, got, differ)
	}
}

// Leadership that moves during a rolling change does not flip the definitions: those that
// were superseded come back only when somebody asks for them.
func TestDefinitionsDoNotFlipWhenLeadershipMoves(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	c.lead(c.members[0])
	_, old := definitions.Encode()
	changed := definitions
	changed.Queues = map[string]queue.Definition{"q": definitions.Queues["q"], "more": definitions.Queues["q"]}
	encoded, hash := changed.Encode()
	c.inForce("at first", old, false, false, false)

	// A follower's file is changed, and it comes to lead.
	if leads, err := c.members[1].leader.Define(encoded, hash); leads || err != nil {
		t.Fatal(leads, err)
	}
	c.inForce("it does not lead", old, false, true, false)
	c.lead(c.members[1])
	c.inForce("it leads", hash, true, false, true)
	// A job of a queue that only the new file has.
	if _, err := c.members[2].queue.Push(t.Context(), "more", nil, 0); err != nil {
		t.Error(err)
	}
	for range 2 {
		for _, m := range []*member{c.members[2], c.members[0]} {
			c.lead(m)
			if _, err := m.queue.Push(t.Context(), "more", nil, 0); err != nil {
				t.Error("with the old file at the leader:", err)
			}
			c.inForce("one with the old file leads", hash, true, false, true)
		}
	}
	// Another file is changed, and its node reads it: nothing is new.
	if leads, err := c.members[0].leader.Define(encoded, hash); !leads || err != nil {
		t.Error(leads, err)
	}
	c.inForce("the file of the one that leads is changed, too", hash, false, false, true)
	// Somebody asks for the old ones, on a node that does not lead, which tells the one that does.
	before, oldHash := definitions.Encode()
	if leads, err := c.members[2].leader.Define(before, oldHash); leads || err != nil {
		t.Error(leads, err)
	}
	if err := c.leading().leader.Redefine(t.Context(), before, oldHash); err != nil {
		t.Error(err)
	}
	c.inForce("asked for", old, true, true, false)
	c.lead(c.members[1])
	c.inForce("they stay", old, true, true, false)
	c.equal()
}
