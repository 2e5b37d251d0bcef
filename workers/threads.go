package workers

import (
	"slices"

	"pogod/internal/command"
	"pogod/internal/link"
)

// What threads say over the link.

// Next is a thread's call for its next job: its last attempt has ended. It is answered
// when there is one, or with 0 when the script must leave its loop.
func (p *Pools) Next(c *link.Conn, worker string, slot int64) error {
	script, known := p.script(worker)
	p.mu.Lock()
	t := p.threads[c]
	p.mu.Unlock()
	if !known && t == nil {
		p.cfg.Log.Warn("a worker that the configuration does not name asked for jobs; add it as [[worker]]", "worker", worker, "pid", c.Peer.PID)
		return c.Answer(0, nil)
	}
	if !p.welcome(worker, c.Peer.PID) {
		p.cfg.Log.Warn("only its own PHP host may take the jobs of a quarantine; name the worker itself", "worker", worker, "pid", c.Peer.PID)
		return c.Answer(0, nil)
	}
	p.mu.Lock()
	if t == nil { // nobody but this goroutine adds one
		t = &thread{conn: c, worker: worker, slot: slot}
		p.threads[c] = t
	}
	last := t.running
	p.mu.Unlock()
	p.loseHolds(c, "the attempt that reserved it has ended")
	if last != nil {
		p.finish(last, command.Unsettled, "the handler in "+script+" ended without ack, release or fail")
	}
	p.mu.Lock()
	leave := p.leavesLocked(t)
	t.waiting = !leave
	p.mu.Unlock()
	if leave {
		return c.Answer(0, nil)
	}
	p.signal()
	return nil
}

func (p *Pools) script(worker string) (script string, known bool) {
	pool := p.pool(worker)
	if pool == nil || pool.Script == "" {
		return "worker " + worker, pool != nil
	}
	return pool.Script, true
}

// pool returns the pool of that name, nil when there is none.
func (p *Pools) pool(name string) *Pool {
	all := p.pools()
	i := slices.IndexFunc(all, func(pool Pool) bool { return pool.Name == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// Ended is a thread's word that its script has ended; lease is that of the attempt
// which that cut short, or 0.
func (p *Pools) Ended(c *link.Conn, worker string, lease uint64, status int64, text string) error {
	p.mu.Lock()
	a := p.attempts[lease]
	if _, known := p.script(worker); known {
		p.restarts[worker]++
	}
	if a != nil && a.cut.done {
		text = a.cut.reason // PHP says what the interrupt looked like to it
	}
	if _, known := p.script(worker); known && text != "" {
		p.failures[worker] = failure{text, p.cfg.Clock.Now()}
	}
	if t := p.threads[c]; t != nil {
		t.waiting = false
	}
	p.mu.Unlock()
	if text != "" {
		p.cfg.Log.Warn("a worker script ended", "worker", worker, "status", status, "error", text)
	}
	if a != nil {
		if text == "" {
			text = "the script ended before the job was settled"
		}
		p.finish(a, command.Broke, text)
	}
	return c.Answer(1, nil)
}

// Closed is told when a connection has ended. What its thread ran is released: with the
// signal that ended the host, or as lost. The connections of a dead host come here at
// once, each on its goroutine, so that their releases share log entries.
func (p *Pools) Closed(c *link.Conn) {
	p.loseHolds(c, "the connection that reserved it was closed")
	p.mu.Lock()
	t := p.threads[c]
	delete(p.threads, c)
	var a *attempt
	wasCut := false
	if t != nil {
		t.waiting = false
		if a = t.running; a != nil {
			wasCut = a.cut.done
		}
	}
	p.mu.Unlock()
	switch {
	case t == nil:
	case a == nil:
		p.signal()
	case wasCut:
		p.finish(a, command.TimedOut, "")
	default:
		cause, reason := command.Interrupted, "the worker's connection was lost"
		if e, ok := p.cfg.Processes.Ended(c.Peer.PID); ok {
			cause, reason = lostBy(e)
		} else {
			p.cfg.Processes.Interrupt(c.Peer.PID, t.slot, a.d.Lease) // a handler that lives on has lost its job
		}
		p.finish(a, cause, reason)
	}
}
