package queue

import "pogod/internal/command"

// pause pauses a queue or resumes it. Reserve takes nothing from one that is paused, and
// Table says that nothing is ready there, so nobody asks; all else goes on: pushes, what
// comes due, and the attempts that run.
func (s *State) pause(c *command.Command) command.Result {
	q := s.byName[c.Queue]
	if q == nil {
		return command.Result{Code: command.UnknownQueue}
	}
	if paused := c.Op == command.Pause; q.paused != paused {
		q.paused, q.dirty = paused, true
		q.show()
		s.publish()
	}
	return command.Result{Code: command.Accepted}
}
