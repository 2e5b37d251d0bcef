package node

import (
	"fmt"
	"slices"
	"time"

	"pogod/internal/admin"
	"pogod/raftfsm/disk"
)

// lookAtSpace is how often the free space is asked for.
const lookAtSpace = 250 * time.Millisecond

// watchSpace follows the free space for pushes. What asks for it may hang with the disk,
// and is waited for by nobody.
func (n *node) watchSpace() {
	n.space = disk.NewSpace(n.dir.Path, n.cfg.Node.MinFreeBytes)
	go func() { // ended by life, or with the process
		t := time.NewTicker(lookAtSpace)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				n.space.Look()
			case <-n.life.Done():
				return
			}
		}
	}()
}

const (
	noteRefuses = "pushes are refused, with 5, until there is more"
	noteLow     = "if this node led, pushes would be refused"

	noteSlow   = "the disk is slow: a sync of the log in %s takes %s (median of the last %d, the longest %s); pushes wait for %s"
	slowLeader = "it"
	slowOther  = "it while no other node that follows is quicker"
)

// lowNote says that there is too little room; "" while there is enough.
func (n *node) lowNote() string {
	err := n.space.Room()
	if err == nil {
		return ""
	}
	what := noteLow
	if n.leader.Leading() {
		what = noteRefuses
	}
	return err.Error() + ": " + what
}

// slowNote says that the disk is slow; "" while it is not.
func (n *node) slowNote() string {
	s, who := n.group.Syncs(), slowOther
	if !s.Slow {
		return ""
	}
	if n.leader.Leading() {
		who = slowLeader
	}
	round := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
	return fmt.Sprintf(noteSlow, n.dir.Path, round(s.Median), s.Recent, round(s.Longest), who)
}

// diskNotes are what is wrong with the disk of a node that serves all the same.
func (n *node) diskNotes() []string {
	return slices.DeleteFunc([]string{n.lowNote(), n.slowNote()}, func(s string) bool { return s == "" })
}

// tellDisk says in the log what has changed. It is called by one goroutine.
func (n *node) tellDisk(t *told) {
	low, slow := n.lowNote(), n.slowNote()
	switch {
	case low != "" && !t.low:
		n.log.Warn(low)
	case low == "" && t.low:
		n.log.Info("there is room for pushes again", "free", disk.Size(n.space.Standing().Free))
	}
	switch {
	case slow != "" && !t.slow:
		n.log.Warn(slow)
	case slow == "" && t.slow:
		n.log.Info("the disk is no longer slow")
	}
	t.low, t.slow = low != "", slow != ""
}

// statusSyncs shows how long syncs take.
func statusSyncs(s disk.SyncStanding) admin.Syncs {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	doc := admin.Syncs{Slow: s.Slow, Recent: s.Recent, MedianMS: ms(s.Median), LongestMS: ms(s.Longest), Count: s.Count, TotalSeconds: s.Sum.Seconds()}
	for i, n := range s.Buckets {
		doc.Buckets = append(doc.Buckets, admin.SyncBucket{Seconds: disk.Bounds[i].Seconds(), Count: n})
	}
	return doc
}
