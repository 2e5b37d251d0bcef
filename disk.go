package main

import (
	"time"

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
)

// diskNotes are what is wrong with the disk of a node that serves all the same.
func (n *node) diskNotes() []string {
	err := n.space.Room()
	if err == nil {
		return nil
	}
	what := noteLow
	if n.leader.Leading() {
		what = noteRefuses
	}
	return []string{err.Error() + ": " + what}
}

// tellSpace says in the log what has changed. It is called by one goroutine.
func (n *node) tellSpace(t *told) {
	notes, s := n.diskNotes(), n.space.Standing()
	switch low := len(notes) > 0; {
	case low && !t.low:
		n.log.Warn(notes[0])
	case !low && t.low:
		n.log.Info("there is room for pushes again", "free", disk.Size(s.Free))
	}
	t.low = len(notes) > 0
}
