package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrFileDamaged is returned when the data file, or the marker that belongs to it, is
// damaged, missing or an older copy, while the log is whole. The node keeps its id: the
// file of another node takes its place.
var ErrFileDamaged = errors.New("the data file cannot be used")

// ErrLogLost is returned when entries are missing from the log: the node may have
// forgotten what it told others that it had.
var ErrLogLost = errors.New("the log is lost, in whole or in part")

// found is what a start finds on the disk.
type found struct {
	marker      *marker  // nil: none
	file        position // of the data file
	epoch       []byte
	fresh       bool // there is no data file
	first, last uint64
}

// fits checks, before raft starts, that data file, marker and log belong together. It
// answers cut when the log ends before the marker and must be emptied. It fails with
// ErrFileDamaged or ErrLogLost.
func (f *found) fits() (cut bool, err error) {
	file := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrFileDamaged}, args...)...)
	}
	log := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrLogLost}, args...)...)
	}
	m := f.marker
	switch {
	case m == nil && f.fresh && f.last == 0:
		return false, nil // a fresh node
	case m == nil && f.fresh && f.first == 1:
		return false, nil // stopped before its first commit: the log has it all
	case f.fresh && m != nil:
		return false, file("there is a snapshot marker at entry %d but no data file", m.Meta.Index)
	case m == nil && f.first > 1:
		return false, file("the log begins at entry %d but there is no snapshot marker", f.first)
	case m == nil && f.last < f.file.index:
		return false, log("the data file is at entry %d but the log ends at %d", f.file.index, f.last)
	case m == nil:
		return false, nil
	case f.last == 0 && f.file.index > m.FSMIndex && bytes.Equal(m.Epoch, f.epoch):
		return false, log("the data file is at entry %d, the snapshot marker at %d and the log is empty", f.file.index, m.FSMIndex)
	case !bytes.Equal(m.Epoch, f.epoch):
		return false, file("the data file is not the one that the snapshot marker names")
	case f.file.index < m.FSMIndex:
		return false, file("the data file is at entry %d, older than the snapshot marker, which needs %d", f.file.index, m.FSMIndex)
	case f.last > 0 && f.first > m.Meta.Index+1:
		return false, file("the log begins at entry %d but the snapshot ends at %d", f.first, m.Meta.Index)
	case f.last > 0 && f.last < f.file.index && f.last >= m.Meta.Index:
		return false, log("the data file is at entry %d but the log ends at %d", f.file.index, f.last)
	case f.last > 0 && f.last < m.Meta.Index:
		if f.file.index > m.FSMIndex {
			return false, log("the data file is at entry %d, the snapshot marker at %d and the log ends at %d", f.file.index, m.FSMIndex, f.last)
		}
		return true, nil
	}
	return false, nil
}
