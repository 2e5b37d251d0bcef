package workers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrReload is returned when a host's new process did not become ready. The old one, if
// there was one, goes on.
var ErrReload = errors.New("the PHP hosts were not reloaded")

// Reload replaces the process of every host by a new one, started beside it, and waits
// until the new ones are ready or ctx ends; the old ones then finish what they run. What
// is asked for while a reload has not begun yet is one reload. Errors wrap ErrReload:
// where a new process did not become ready, the old one goes on.
func (h *Hosts) Reload(ctx context.Context) error {
	return h.reloaded(ctx, h.askReload())
}

// askReload asks for a reload of all hosts, and returns the generations that have it.
func (h *Hosts) askReload() map[*host]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.askReloadLocked(nil)
}

// askReloadLocked is askReload of the hosts that are named, nil of all. mu is held.
func (h *Hosts) askReloadLocked(named []Host) map[*host]uint64 {
	target := make(map[*host]uint64, len(h.hosts))
	for _, x := range h.hosts {
		if x.gone || named != nil && !names(named, x) {
			continue
		}
		if x.started == x.wanted { // what runs may have read the old code
			x.wanted++
			x.resume = time.Time{}
		}
		target[x] = x.wanted
		x.signal()
	}
	return target
}

// reloaded waits until every host is of its target generation.
func (h *Hosts) reloaded(ctx context.Context, target map[*host]uint64) error {
	for {
		h.mu.Lock()
		changed, stopping := h.changed, h.stopping
		waiting, failed := 0, []string(nil)
		for _, x := range h.hosts {
			wanted, asked := target[x]
			switch {
			case !asked || x.gone: // it came later, or is wanted no more
			case x.now != nil && x.now.ready && x.now.generation >= wanted:
			case x.OnDemand && x.now == nil: // its next process has the new code
			case x.failed >= wanted:
				failed = append(failed, fmt.Sprintf("the new process of PHP host %s ended before it was ready (%s)", x.Spec.Name, x.failure))
			default:
				waiting++
			}
		}
		h.mu.Unlock()
		switch {
		case stopping:
			return fmt.Errorf("%w: the node is shutting down", ErrReload)
		case waiting == 0 && failed != nil:
			return fmt.Errorf("%w: %s", ErrReload, strings.Join(failed, "; "))
		case waiting == 0:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w yet: %w", ErrReload, ctx.Err())
		}
	}
}
