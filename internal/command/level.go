package command

import (
	"errors"
	"fmt"
)

// A feature level is how much of what may stand in the log a version of pogod knows. A
// command stops every node that does not know it, so one that came after the founding
// set, level 1, is proposed only when the cluster's level is its own or more; and that is
// raised, by a SetLevel, when all members know it.

// founding is the level of the commands that there always were.
const founding = 1

// levels of the commands that came later. Append-only.
var levels = map[Op]uint64{}

// MaxLevel is the feature level of this version: the greatest of its commands.
func MaxLevel() uint64 {
	level := uint64(founding)
	for _, l := range levels {
		level = max(level, l)
	}
	return level
}

// Level is the feature level that a cluster must have for the command.
func (o Op) Level() uint64 { return max(levels[o], founding) }

var (
	// ErrHeldBack is returned by a proposer for a command that is not yet known to all
	// members. Nothing was proposed.
	ErrHeldBack = errors.New("not accepted: not all nodes of the cluster know this yet; run the same pogod on all of them")
	// ErrNewerLevel is returned for what a later version of pogod left behind.
	ErrNewerLevel = errors.New("a newer pogod was here")
)

// CheckLevel fails with ErrNewerLevel for the level of a cluster that this version does not
// know all commands of.
func CheckLevel(level uint64) error {
	if level <= MaxLevel() {
		return nil
	}
	return fmt.Errorf("%w: the cluster has feature level %d, and this version knows up to %d; start the newer one again, for there is no way back", ErrNewerLevel, level, MaxLevel())
}
