package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The faults, as the record names them. What they strike is a node's number; of a
// partition, the ways that are cut, as "0>1,1>0".
const (
	faultKill   = "kill"   // SIGKILL; over when the node is ready again
	faultPause  = "pause"  // SIGSTOP; over after SIGCONT
	faultAlone  = "alone"  // cut from both others, both ways
	faultBridge = "bridge" // two nodes hear the third one, and not each other
	faultOneWay = "oneway" // a node does not hear another, which hears it
	faultLeave  = "leave"  // SIGTERM, and a start; over when the node is ready again
	faultDisk   = "disk"   // writes or syncs fail; over when the node is ready again
	faultFull   = "full"   // the same, for there is no room
	faultWipe   = "wipe"   // SIGKILL, its data is gone, and it joins again; over when it votes
	faultFlip   = "flip"   // SIGKILL, and a flipped bit in the data file; over when the node is ready again
	faultClock  = "clock"  // its clock is set wrong; over when it is right
)

// parseWays is the reverse of formatWays; nil for what names a node.
func parseWays(where string) (ways []way) {
	for s := range strings.SplitSeq(where, ",") {
		var w way
		if n, _ := fmt.Sscanf(s, "%d>%d", &w.from, &w.to); n == 2 {
			ways = append(ways, w)
		}
	}
	return ways
}

func formatWays(ways []way) string {
	all := make([]string, len(ways))
	for i, w := range ways {
		all[i] = fmt.Sprintf("%d>%d", w.from, w.to)
	}
	return strings.Join(all, ",")
}

// span is a stretch of time, in microseconds since the load began.
type span struct{ from, to int64 }

// A session ends 6 s after the last word of its node. That may have been said, and lost
// its way, before a fault began; and a node takes a moment to be heard again.
const (
	sessionSilence = 4 * time.Second // of a node, at least, for its session to end
	heardAfter     = 2 * time.Second // silences with less between them are one
	startedLate    = time.Second     // a node that is woken may yet start what it was starting
)

// silences returns for each node when it may not have been heard by whoever led: it was
// down or paused, had no other node, or not one that could lead. Two of three nodes elect a
// leader and hear each other, so the third one's faults are no excuse of theirs.
func silences(faults []event, nodes int, end int64) [][]span {
	all := make([][]span, nodes)
	for i := range nodes {
		for _, s := range during(faults, end, func(active []event) bool { return silentNodes(active, nodes)[i] }) {
			if n := len(all[i]); n > 0 && micros(s.from-all[i][n-1].to) < heardAfter {
				all[i][n-1].to = s.to
				continue
			}
			all[i] = append(all[i], s)
		}
	}
	return all
}

// during returns when the faults that lasted were such.
func during(faults []event, end int64, such func(active []event) bool) (spans []span) {
	var active []event
	since := int64(-1)
	note := func(is bool, at int64) {
		switch {
		case is && since < 0:
			since = at
		case !is && since >= 0:
			spans = append(spans, span{since, at})
			since = -1
		}
	}
	for _, e := range faults {
		active = slices.DeleteFunc(active, func(a event) bool { return e.what == evHeal && a.round == e.round })
		if e.what == evFault {
			active = append(active, e)
		}
		note(such(active), e.at)
	}
	note(false, end)
	return spans
}

// silentNodes says which nodes may not be heard while these faults last.
func silentNodes(active []event, nodes int) []bool {
	down, cut := make([]bool, nodes), map[way]bool{}
	for _, e := range active {
		for _, w := range parseWays(e.where) {
			cut[w], cut[way{w.to, w.from}] = true, true // without answers, no way is of use
		}
		var node int
		if n, _ := fmt.Sscan(e.where, &node); n == 1 && slices.Contains([]string{faultKill, faultPause, faultDisk, faultFull, faultWipe, faultFlip}, e.fault) {
			down[node] = true
		}
	}
	others := make([]int, nodes) // that each one can talk to
	for i := range nodes {
		for k := range nodes {
			if i != k && !down[i] && !down[k] && !cut[way{i, k}] {
				others[i]++
			}
		}
	}
	silent := make([]bool, nodes)
	for i := range nodes {
		silent[i] = others[i] == 0
		for k := range nodes {
			silent[i] = silent[i] || cut[way{i, k}] && others[k] > 0
		}
	}
	return silent
}

// TestSilences says whose sessions may end in which faults.
func TestSilences(t *testing.T) {
	t.Parallel()
	const second = int64(time.Second / time.Microsecond)
	for _, c := range []struct {
		name   string
		record string // seconds
		want   string
	}{
		{"none", "", "[[] [] []]"},
		{"killed", "fault 1 1 kill 0\nheal 9 1", "[[{1 9}] [] []]"},
		{"paused", "fault 1 1 pause 0\nheal 9 1", "[[{1 9}] [] []]"},
		{"alone", "fault 1 1 alone 0>1,1>0,0>2,2>0\nheal 9 1", "[[{1 9}] [] []]"},
		{"bridge", "fault 1 1 bridge 0>2,2>0\nheal 9 1", "[[{1 9}] [] [{1 9}]]"},
		{"one way", "fault 1 1 oneway 1>2\nheal 9 1", "[[] [{1 9}] [{1 9}]]"},
		{"no quorum, two killed", "fault 1 1 kill 0\nfault 3 2 kill 1\nheal 5 1\nheal 9 2", "[[{1 5}] [{3 9}] [{3 5}]]"},
		{"no quorum, one killed and one paused", "fault 1 1 kill 0\nfault 3 2 pause 1\nheal 5 1\nheal 9 2", "[[{1 5}] [{3 9}] [{3 5}]]"},
		{"no quorum, a pause in a partition", "fault 1 1 alone 0>1,1>0,0>2,2>0\nfault 3 2 pause 1\nheal 5 2\nheal 9 1", "[[{1 9}] [{3 5}] [{3 5}]]"},
		{"soon again", "fault 1 1 pause 0\nheal 3 1\nfault 4 2 pause 0\nheal 6 2\nfault 9 3 pause 0\nheal 10 3", "[[{1 6} {9 10}] [] []]"},
		{"never over", "fault 1 1 pause 0", "[[{1 20}] [] []]"},
	} {
		var faults []event
		if err := readRecord(strings.NewReader(c.record), func(e event) error { faults = append(faults, e); return nil }); err != nil {
			t.Fatal(err)
		}
		for i := range faults {
			faults[i].at *= second
		}
		got := silences(faults, 3, 20*second)
		for _, spans := range got {
			for i := range spans {
				spans[i].from /= second
				spans[i].to /= second
			}
		}
		if s := fmt.Sprint(got); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}
