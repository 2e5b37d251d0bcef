package workers

import (
	"context"
	"sync"

	"pogod/internal/command"
)

// Drain stops handing out jobs, tells waiting threads to leave their loops, and waits
// until no attempt runs or ctx ends. It reports whether all have ended; Cut ends the
// others.
func (p *Pools) Drain(ctx context.Context) (idle bool) {
	p.mu.Lock()
	p.draining = true
	var waiting []*thread
	for _, t := range p.threads {
		if t.waiting {
			t.waiting = false
			waiting = append(waiting, t)
		}
	}
	answer := p.drainReservers()
	ended := make(chan struct{})
	if len(p.attempts) == 0 {
		close(ended)
	} else {
		p.idle = ended
	}
	p.mu.Unlock()
	p.signal()
	answer()
	for _, t := range waiting {
		_ = t.conn.Answer(0, nil) // a thread that is gone needs no answer
	}
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// Cut interrupts the attempts that still run and releases their jobs, as interruptions.
// Drain first.
func (p *Pools) Cut() {
	p.mu.Lock()
	var left []*attempt
	for _, a := range p.attempts {
		if !a.cut.done {
			a.cut = cut{true, command.Interrupted, "the node was shut down while it ran"}
		}
		left = append(left, a)
	}
	p.mu.Unlock()
	var released sync.WaitGroup // together, so that they share log entries
	for _, a := range left {
		p.cfg.Processes.Interrupt(a.t.conn.Peer.PID, a.t.slot, a.d.Lease)
		released.Go(func() { p.finish(a, command.Interrupted, "") })
	}
	released.Wait()
}
