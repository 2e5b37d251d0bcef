package workers

import (
	"time"

	"pogod/internal/clock"
	"pogod/internal/command"
)

// Leave stops handing out jobs to the threads of a host, by its process id: those that
// wait are told to leave their loops, the others when they ask. What runs there goes on.
func (p *Pools) Leave(pid int) {
	p.mu.Lock()
	p.leaving[pid] = struct{}{}
	var waiting []*thread
	for _, t := range p.threads {
		if t.conn.Peer.PID != pid {
			continue
		}
		t.soon = false
		if t.waiting {
			t.waiting = false
			waiting = append(waiting, t)
		}
	}
	p.mu.Unlock()
	p.signal()
	for _, t := range waiting {
		_ = t.conn.Answer(0, nil) // a thread that is gone needs no answer
	}
}

// Left is told that a host has ended: its process id may come again.
func (p *Pools) Left(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.leaving, pid)
}

// leavesLocked says whether a thread gets no more jobs: the node drains, its host is let
// go, its pool is gone, or its script has had its share. mu is held.
func (p *Pools) leavesLocked(t *thread) bool {
	if _, ok := p.leaving[t.conn.Peer.PID]; ok || p.draining {
		return true
	}
	pool := p.pool(t.worker)
	return pool == nil || pool.MaxJobs > 0 && t.jobs >= pool.MaxJobs
}

// stuckAfter is how long an attempt that was interrupted may take to come back. PHP looks
// at an interrupt between two operations; what has not looked by then is inside one, in C.
const stuckAfter = 2 * time.Second

// replaced is the reason of an attempt whose host was killed for the sake of another.
const replaced = "its PHP host was replaced: another job was stuck"

// interrupt stops an attempt that was cut. Its host is replaced if it does not come back.
func (p *Pools) interrupt(a *attempt) {
	p.cfg.Processes.Interrupt(a.t.conn.Peer.PID, a.t.slot, a.d.Lease)
	p.watch(a, stuckAfter, p.isStuck)
}

// watch calls f after a while, if a still runs then.
func (p *Pools) watch(a *attempt, after time.Duration, f func(*attempt)) {
	var timer clock.Timer
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.t.running != a {
		return
	}
	timer = p.cfg.Clock.AfterFunc(after, func() {
		p.mu.Lock()
		runs := a.t.running == a
		p.mu.Unlock()
		if runs {
			f(a)
		}
	})
	a.stuck = timer
}

// isStuck has the host of a replaced: it takes no new jobs, and its other attempts have
// until the end of the grace.
func (p *Pools) isStuck(a *attempt) {
	if !p.cfg.Processes.Replace(a.t.conn.Peer.PID, "an attempt was interrupted and has not come back") {
		return // a process of somebody else, who may end it
	}
	p.cfg.Log.Error("an attempt is stuck in an operation that PHP cannot interrupt", "queue", a.d.Queue, "job", a.d.Job, "attempt", a.d.Attempts,
		"worker", a.t.worker, "host_killed_within", max(p.set.Load().killGrace-stuckAfter, 0))
	p.watch(a, max(p.set.Load().killGrace-stuckAfter, 0), p.killHost)
}

// killHost kills the host of a, which is still stuck. The others there were merely
// interrupted by that.
func (p *Pools) killHost(a *attempt) {
	pid := a.t.conn.Peer.PID
	p.mu.Lock()
	for _, other := range p.attempts {
		if other.t.conn.Peer.PID == pid && !other.cut.done {
			other.cut = cut{true, command.Interrupted, replaced}
		}
	}
	p.mu.Unlock()
	p.cfg.Processes.Kill(pid, "an attempt was stuck")
}
