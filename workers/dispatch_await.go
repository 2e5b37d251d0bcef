package workers

import (
	"fmt"
	"time"

	"pogod/internal/link"
)

// maxAwait bounds a time-out, so that times can be added to it.
const maxAwait = 365 * 24 * time.Hour

// Await is a caller's call for the result of a handle. It is answered when there is one,
// or at the time-out, which cancels the task; 0 takes what is there.
func (d *Dispatch) Await(c *link.Conn, handle int64, timeout time.Duration) error {
	timeout = min(max(timeout, 0), maxAwait)
	d.mu.Lock()
	k := d.callers[c]
	var t *task
	if k != nil {
		t = k.tasks[handle]
	}
	if t == nil {
		d.mu.Unlock()
		return c.Answer(5, fmt.Appendf(nil, "the node knows no handle %d of this connection", handle))
	}
	if k.awaited != nil {
		d.mu.Unlock()
		return fmt.Errorf("%w: a connection awaits one handle at a time", link.ErrFrame)
	}
	if t.outcome != link.NoOutcome {
		l := d.tellLocked(k, t)
		d.mu.Unlock()
		d.post(l)
		return nil
	}
	k.awaited, k.timeout = t, timeout
	if timeout == 0 {
		l, hits := d.timeOutLocked(k)
		d.mu.Unlock()
		d.post(l)
		d.interrupt(hits)
		return nil
	}
	k.deadline = d.cfg.Clock.Now().Add(timeout)
	d.armLocked(k, timeout)
	d.mu.Unlock()
	return nil
}

// armLocked sees to it that the caller's timer fires at the deadline or before, when it
// is set again. So most calls set none. mu is held.
func (d *Dispatch) armLocked(k *taskCaller, left time.Duration) {
	if !k.fires.IsZero() && !k.fires.After(k.deadline) {
		return
	}
	k.fires = k.deadline
	if k.timer == nil {
		k.timer = d.cfg.Clock.AfterFunc(left, func() { d.awaitedTooLong(k) })
		return
	}
	k.timer.Reset(left)
}

// awaitedTooLong is a caller's timer.
func (d *Dispatch) awaitedTooLong(k *taskCaller) {
	d.mu.Lock()
	now := d.cfg.Clock.Now()
	if k.fires.After(now) || d.callers[k.conn] != k { // it was set anew meanwhile, or the caller is gone
		d.mu.Unlock()
		return
	}
	k.fires = time.Time{}
	if k.awaited == nil {
		d.mu.Unlock()
		return
	}
	if left := k.deadline.Sub(now); left > 0 {
		d.armLocked(k, left)
		d.mu.Unlock()
		return
	}
	l, hits := d.timeOutLocked(k)
	d.mu.Unlock()
	d.post(l)
	d.interrupt(hits)
}

// timeOutLocked cancels what the caller waits for and tells it so. mu is held.
func (d *Dispatch) timeOutLocked(k *taskCaller) (letter, []hit) {
	t := k.awaited
	where := "its job runs"
	if t.queued {
		where = fmt.Sprintf("its job waits for a thread of pool %q", t.pool.Name)
	}
	t.pool.figures.timedOut++
	hits := d.cutLocked(t, "its caller's time-out was over")
	l := d.concludeLocked(t, link.Broke, fmt.Appendf(nil, "no result within the time-out of %s: %s, and is cancelled", k.timeout, where))
	d.idleLocked()
	return l, hits
}

// cutLocked takes a task from its queue, or its thread from it. It leaves its caller
// alone. mu is held.
func (d *Dispatch) cutLocked(t *task, why string) []hit {
	switch {
	case t.queued:
		d.unqueueLocked(t)
	case t.thread != nil && d.running[t.number] == t:
		t.cut = why
		return []hit{{t.thread.conn.Peer.PID, t.thread.slot, t.number}}
	}
	return nil
}

// Abandon gives up all handles of a connection.
func (d *Dispatch) Abandon(c *link.Conn) {
	d.mu.Lock()
	var hits []hit
	if k := d.callers[c]; k != nil {
		hits = d.abandonLocked(k, "the script that dispatched it has ended")
		d.idleLocked()
	}
	d.mu.Unlock()
	d.interrupt(hits)
}

// abandonLocked cancels what a caller has not awaited. mu is held.
func (d *Dispatch) abandonLocked(k *taskCaller, why string) (hits []hit) {
	for _, t := range k.tasks {
		if t.outcome == link.NoOutcome {
			t.pool.figures.cancelled++
			hits = append(hits, d.cutLocked(t, why)...)
		}
	}
	clear(k.tasks)
	k.done, k.kept, k.awaited = nil, 0, nil
	return hits
}

// waitedTooLong is a pool's timer: it breaks the tasks that found no thread in time.
func (d *Dispatch) waitedTooLong(p *taskPool) {
	d.mu.Lock()
	now := d.cfg.Clock.Now()
	var told []letter
	p.armed = false
	for t := p.head; t != nil; t = p.head {
		if left := p.MaxWait - now.Sub(t.at); left > 0 {
			p.armed = true
			p.timer.Reset(left)
			break
		}
		d.unqueueLocked(t)
		p.figures.timedOut++
		why := fmt.Sprintf("no thread of pool %q was free within %s (its max_wait)", p.Name, p.MaxWait)
		if p.figures.lastError != "" && d.threadsLocked(p) == 0 {
			why += "; its script last failed with: " + p.figures.lastError
		}
		told = append(told, d.concludeLocked(t, link.Broke, []byte(why)))
	}
	d.idleLocked()
	d.mu.Unlock()
	for _, l := range told {
		d.post(l)
	}
}

// threadsLocked counts the threads of a pool that are connected. mu is held.
func (d *Dispatch) threadsLocked(p *taskPool) (n int) {
	for _, th := range d.threads {
		if th.pool == p {
			n++
		}
	}
	return n
}
