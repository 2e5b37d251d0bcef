package workers

import (
	"fmt"
	"slices"

	"pogod/internal/link"
)

// hit is an interrupt that is to be sent.
type hit struct {
	pid    int
	slot   int64
	number uint64
}

// endLocked ends a task that runs; one that does not is nothing. mu is held.
func (d *Dispatch) endLocked(number uint64, outcome link.Outcome, result []byte) letter {
	t := d.running[number]
	if t == nil {
		return letter{}
	}
	d.freeLocked(t)
	if t.cut != "" {
		return letter{}
	}
	switch outcome {
	case link.Returned:
		t.pool.figures.done++
	case link.Refused:
		t.pool.figures.failed++
	default:
		t.pool.figures.failed++
		if outcome = link.Broke; len(result) == 0 {
			result = []byte("the script ended before the job returned")
		}
	}
	return d.concludeLocked(t, outcome, result)
}

// TaskEnded is a thread's word that its script has ended, within the task with that
// number, or 0. Without an envelope the result says why, "" when it came to its own end.
func (d *Dispatch) TaskEnded(c *link.Conn, pool string, number uint64, outcome link.Outcome, result []byte, status int64) error {
	text := ""
	if outcome != link.Returned && outcome != link.Refused {
		text = string(result)
	}
	d.mu.Lock()
	t := d.running[number]
	if t != nil && t.cut != "" {
		text = t.cut // PHP says what the interrupt looked like to it
	}
	p := d.pools[pool]
	if p != nil {
		p.figures.restarts++
		if text != "" {
			p.figures.lastError, p.figures.lastErrorAt = text, d.cfg.Clock.Now()
		}
	}
	if th := d.threads[c]; th != nil && p != nil {
		p.free = slices.DeleteFunc(p.free, func(x *taskThread) bool { return x == th })
	}
	if text != "" && t != nil {
		result = fmt.Appendf(nil, "the worker of pool %q failed: %s", pool, text)
	}
	told := d.endLocked(number, outcome, result)
	d.idleLocked()
	d.mu.Unlock()
	if text != "" {
		d.cfg.Log.Warn("the script of a pool ended", "pool", pool, "status", status, "error", text)
	}
	d.post(told)
	return c.Answer(1, nil)
}

// Closed is told when a connection has ended: nobody awaits its tasks any more, and what
// its thread ran is broken.
func (d *Dispatch) Closed(c *link.Conn) {
	d.mu.Lock()
	var hits []hit
	if k := d.callers[c]; k != nil {
		hits = d.abandonLocked(k, "the connection that dispatched it was lost")
		delete(d.callers, c)
		if k.timer != nil {
			k.timer.Stop()
		}
	}
	th := d.threads[c]
	delete(d.threads, c)
	var t *task
	if th != nil {
		th.pool.free = slices.DeleteFunc(th.pool.free, func(x *taskThread) bool { return x == th })
		if t = th.running; t != nil && t.cut != "" {
			d.freeLocked(t)
			t = nil
		}
	}
	d.idleLocked()
	d.mu.Unlock()
	d.interrupt(hits)
	if t == nil {
		return
	}
	why := "its connection was lost"
	if e, ok := d.cfg.Processes.Ended(c.Peer.PID); ok {
		why = "its PHP host ended by " + e.How
	} else {
		d.interrupt([]hit{{c.Peer.PID, th.slot, t.number}}) // it lives on, for nobody
	}
	d.mu.Lock()
	told := d.endLocked(t.number, link.Broke, fmt.Appendf(nil, "the worker of pool %q failed: %s", th.pool.Name, why))
	d.idleLocked()
	d.mu.Unlock()
	d.post(told)
}

func (d *Dispatch) interrupt(hits []hit) {
	for _, h := range hits {
		d.cfg.Processes.Interrupt(h.pid, h.slot, h.number)
	}
}
