package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
)

// Bounds of a Reserve. The extension throws ValueError for a longer wait.
const (
	maxReserveWait   = 24 * time.Hour
	maxReserveQueues = 64 // their names make the name of a pool
)

// reserve answers pogo_queue_reserve, at once or when there is a delivery.
func (s *Server) reserve(c *link.Conn, names string, millis int64) error {
	wait := time.Duration(millis) * time.Millisecond
	if millis < 0 || millis > maxReserveWait.Milliseconds() {
		return fmt.Errorf("%w: a wait below 0 or over a day", link.ErrFrame)
	}
	var queues []string
	for name := range strings.SplitSeq(names, "\n") {
		if !slices.Contains(queues, name) {
			queues = append(queues, name)
		}
		if len(queues) > maxReserveQueues {
			return c.Answer(int32(command.UnknownQueue), fmt.Appendf(nil, "must name at most %d queues", maxReserveQueues))
		}
	}
	switch err := s.queue.Reservable(s.ctx, queues); {
	case err == nil:
		return s.threads.Reserve(c, queues, wait)
	case errors.Is(err, queue.ErrUnknownQueue):
		return c.Answer(int32(command.UnknownQueue), []byte("must name queues that are declared: "+err.Error()))
	default:
		return c.Answer(0, []byte("null")) // this node lags behind its callers, or ends
	}
}
