package leader

import "pogod/internal/command"

// Raise raises the cluster's feature level, when this node leads, and returns when that is
// applied: all members know it. A lower one changes nothing.
func (l *Leader) Raise(level uint64) error {
	_, err := l.command(&command.Command{Op: command.SetLevel, Number: level})
	return err
}
