package workers

import (
	"context"
	"fmt"
	"strings"
	"time"

	"pogod/internal/link"
)

// Host states.
const (
	hostStarting = "starting"
	hostReady    = "ready"
	hostDraining = "draining"
	hostWaiting  = "waiting to restart"
	hostOnDemand = "on demand"
	hostStopped  = "stopped"
)

// HostStatus is what status tells of one process of a host, or of a host without one.
type HostStatus struct {
	Name      string
	PID       int // 0: no process
	State     string
	StartedAt time.Time
	Restarts  uint64 // of the host: processes that ended, or were replaced, by no wish of anybody
	LastExit  string // how the host's last process ended, "" if none has
	Version   string // of PHP, "" before the process is ready
}

// Status of all hosts: each with the process that new work goes to, and behind it those
// that start and those that drain.
func (h *Hosts) Status() []HostStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]HostStatus, 0, len(h.hosts))
	for _, x := range h.hosts {
		of := func(l *life) HostStatus {
			return HostStatus{
				Name: x.Spec.Name, PID: l.pid, State: l.state(), StartedAt: l.started, Restarts: x.restarts, LastExit: x.lastExit, Version: l.version,
			}
		}
		switch {
		case x.now != nil:
			all = append(all, of(x.now))
		case !x.gone:
			all = append(all, HostStatus{Name: x.Spec.Name, State: h.stateLocked(x), Restarts: x.restarts, LastExit: x.lastExit})
		}
		for _, l := range x.lives {
			if l != x.now {
				all = append(all, of(l))
			}
		}
	}
	return all
}

// stateLocked is the state of a host, by the life that new work goes to.
func (h *Hosts) stateLocked(x *host) string {
	switch {
	case x.now != nil:
		return x.now.state()
	case h.stopping:
		return hostStopped
	case x.OnDemand && !h.cfg.Clock.Now().Before(x.until):
		return hostOnDemand
	case h.cfg.Clock.Now().Before(x.resume):
		return hostWaiting
	}
	return hostStarting
}

// NotReady names the hosts that do not serve now and says why, "" when all do. Hosts on
// demand are not counted.
func (h *Hosts) NotReady() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, x := range h.hosts {
		state := h.stateLocked(x)
		if x.OnDemand || x.gone || state == hostReady {
			continue
		}
		text := fmt.Sprintf("PHP host %s is %s", x.Spec.Name, state)
		if x.lastExit != "" {
			text += fmt.Sprintf(" (last exit: %s)", x.lastExit)
		}
		names = append(names, text)
	}
	return strings.Join(names, "; ")
}

// WaitReady waits until all hosts are ready or ctx ends.
func (h *Hosts) WaitReady(ctx context.Context) error {
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		missing := h.NotReady()
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", missing, ctx.Err())
		}
	}
}

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
