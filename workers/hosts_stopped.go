package workers

import (
	"context"

	"pogod/internal/link"
)

// WaitStopped waits until the hosts for which of holds have ended for good, or ctx ends.
// Drain first.
func (h *Hosts) WaitStopped(ctx context.Context, of func(*link.HostSpec) bool) {
	for {
		h.mu.Lock()
		changed, left := h.changed, false
		for _, x := range h.hosts {
			left = left || of(&x.Spec) && len(x.lives) > 0
		}
		h.mu.Unlock()
		if !left {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
