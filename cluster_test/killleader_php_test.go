//go:build php

package cluster_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestClusterKillLeader kills the leader again and again under load, with PHP workers on
// all nodes. No push on the others may fail, none may be doubled, and every accepted job
// is settled in the end. How long pushes wait for an election is told and not judged.
// POGOD_CRASH_ROUNDS says how often, 5 times without.
func TestClusterKillLeader(t *testing.T) {
	var records []string
	c := newCluster(t, phpBin(t), func(n *node) { records = append(records, n.runPHP()) })
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: 60, PHP: 70, Plain: true, Outstanding: outstanding, Rate: pushRate})
	term := c.term()
	for round := range envInt(t, "POGOD_CRASH_ROUNDS", 5) {
		if line, err := l.ask("loaded", nil); err != nil || line != "loaded" {
			t.Fatal(line, err)
		}
		pause(t.Context(), time.Second) // of load between two kills
		leader := c.leader()
		if err := l.tell("burst"); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), burstFor/2)
		if err := l.tell(fmt.Sprint("fault ", round+1, " ", faultKill, " ", leader)); err != nil {
			t.Fatal(err)
		}
		if err := c.killed(l, leader, round+1); err != nil {
			t.Fatal(err)
		}
		c.leader() // another one, before the first is back
		c.nodes[leader].start()
		c.whole()
		if err := l.tell(fmt.Sprint("heal ", round+1)); err != nil {
			t.Fatal(err)
		}
	}
	handled := 0
	var stalls []time.Duration
	r, err := c.judge(l, func(h *history) (err error) {
		handled, err = readPHP(h, records...)
		stalls = h.stalls(t)
		return err
	})
	r.elections = c.term() - term
	r.consistent(t, err)
	t.Logf("deliveries to PHP: %d", handled)
	if handled == 0 || len(stalls) == 0 {
		t.Fatal("PHP has handled nothing, or no push was under way at a kill")
	}
	slices.Sort(stalls)
	t.Logf("%d pushes waited for an election: p50 %s, p99 %s, the longest %s", len(stalls),
		stalls[len(stalls)/2].Round(time.Millisecond), stalls[len(stalls)*99/100].Round(time.Millisecond), stalls[len(stalls)-1].Round(time.Millisecond))
}

// stalls returns how long the pushes on the nodes that lived have taken, of those that were
// sent before the first one was accepted after a kill and answered after it. They must
// have been accepted.
func (h *history) stalls(t *testing.T) (took []time.Duration) {
	t.Helper()
	byAnswer := make([]*pushSeen, 0, len(h.pushes))
	for _, p := range h.pushes {
		if p.answered {
			byAnswer = append(byAnswer, p)
		}
	}
	slices.SortFunc(byAnswer, func(a, b *pushSeen) int { return cmp.Compare(a.endAt, b.endAt) })
	var gaps []time.Duration
	for i, f := range h.faults {
		if f.what != evFault {
			continue
		}
		end := h.at
		if i+2 < len(h.faults) {
			end = h.faults[i+2].at // behind the end of this one, the next one
		}
		// The first accepted after the longest silence before the next kill.
		last, gap, again := f.at, time.Duration(0), f.at
		for _, p := range byAnswer {
			if p.code != 1 || p.endAt < f.at || p.endAt > end {
				continue
			}
			if d := micros(p.endAt - last); d > gap {
				gap, again = d, p.endAt
			}
			last = p.endAt
		}
		gaps = append(gaps, gap.Round(time.Millisecond))
		for _, p := range byAnswer {
			if p.at > again || p.endAt < again || fmt.Sprint(p.node) == f.where {
				continue
			}
			took = append(took, micros(p.endAt-p.at))
			if want, ok := refusal[p.plan]; p.code != 1 && (!ok || want != p.code) {
				t.Errorf("push %d on node %d was answered %d in the election after node %s was killed", p.n, p.node, p.code, f.where)
			}
		}
	}
	t.Logf("the longest time without an accepted push at each kill: %v", gaps)
	return took
}
