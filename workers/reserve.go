package workers

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
	"pogod/raftfsm/leader"
)

// Reserving for loops of one's own: a connection may ask for a delivery at any time, and
// hold several. While it asks it is one more free thread to the leader, of a pool that is
// named by the queues it asks for; a delivery that it got is an attempt like any other,
// in a thread of its own that nobody can interrupt, and belongs to the connection.

// reserver is a connection that has asked for a delivery.
type reserver struct {
	waiting *thread // of the call that waits; nil: none does
	queues  []string
	soon    bool // that call takes only what is ready now
	timer   clock.Timer
	held    map[uint64]*attempt // by lease
	// Settled, and known to queue.Client until the next call: a settling call that is
	// made again is answered as the first was.
	settled []queue.Delivery
}

// reservePrefix begins the names of pools of reservers. No worker's name has a '/'.
const reservePrefix = "reserve/"

func reservePool(queues []string) string { return reservePrefix + strings.Join(queues, "/") }

// readySoon bounds a call that does not wait for jobs to come: what is ready has to go
// through the log to be reserved, and may go to somebody else there.
const readySoon = time.Second

// nothing is the answer without a delivery.
var nothing = []byte("null")

// Reserve is a connection's call for one delivery from the first of the queues that has
// one. It is answered with 1 and the delivery's message, which is "null" when there was
// none within wait, or with 0 and "null" when the node gives out no more. The delivery is
// held until it is settled or Closed, Next or the job's time-out frees it.
func (p *Pools) Reserve(c *link.Conn, queues []string, wait time.Duration) error {
	soon := wait <= 0
	empty := soon && !p.anyReady(queues)
	if soon {
		wait = readySoon
	}
	p.mu.Lock()
	r := p.reservers[c]
	if r == nil {
		r = &reserver{held: map[uint64]*attempt{}}
		p.reservers[c] = r
	}
	settled := r.settled
	r.settled = nil
	if p.draining || empty {
		code := int32(1)
		if p.draining {
			code = 0
		}
		p.mu.Unlock()
		p.forget(settled)
		return c.Answer(code, nothing)
	}
	t := &thread{conn: c, worker: reservePool(queues), slot: -1, waiting: true, reserver: r}
	r.waiting, r.queues, r.soon = t, queues, soon
	r.timer = p.cfg.Clock.AfterFunc(wait, func() { p.waited(t) })
	p.mu.Unlock()
	p.forget(settled)
	p.signal()
	return nil
}

func (p *Pools) anyReady(queues []string) bool {
	return slices.ContainsFunc(queues, func(q string) bool { return p.cfg.Reservations.Ready(q) > 0 })
}

// waited ends a call that got nothing. What was reserved for it and comes now is late.
func (p *Pools) waited(t *thread) {
	p.mu.Lock()
	waits := t.reserver.leave(t)
	p.mu.Unlock()
	if waits {
		_ = t.conn.Answer(1, nothing) // a connection that is gone needs no answer
		p.signal()
	}
}

// leave takes the call of t back and reports whether it waited. mu is held.
func (r *reserver) leave(t *thread) bool {
	if t == nil || r.waiting != t {
		return false
	}
	r.waiting, t.waiting = nil, false
	r.timer.Stop()
	return true
}

// took notes that the waiting call got a delivery. mu is held.
func (r *reserver) took(a *attempt) {
	r.leave(a.t)
	r.held[a.d.Lease] = a
}

// emptyHanded returns the calls for what is ready now, of which there is nothing. To be
// asked before the reservations are read: what was ready and is no more is among them.
func (p *Pools) emptyHanded() (calls []*thread) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.reservers {
		if r.waiting != nil && r.soon && !p.anyReady(r.queues) {
			calls = append(calls, r.waiting)
		}
	}
	return calls
}

// late reports whether a reservation is for a call that waits no more. mu is held.
func (p *Pools) late(d *queue.Delivery) bool {
	if !strings.HasPrefix(d.Pool, reservePrefix) {
		return false
	}
	for _, r := range p.reservers {
		if r.waiting != nil && r.waiting.worker == d.Pool {
			return false
		}
	}
	return true
}

// settledHold notes that the attempt of a reserver was settled and is over. mu is held.
func (p *Pools) settledHold(a *attempt) {
	r := a.t.reserver
	delete(r.held, a.d.Lease)
	r.settled = append(r.settled, a.d)
	a.t.running = nil
	p.dropAttempt(a)
}

// forget ends attempts that were settled.
func (p *Pools) forget(settled []queue.Delivery) {
	for i := range settled {
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		_, _ = p.cfg.Attempts.End(ctx, &settled[i], command.Interrupted, "") // there is nothing left to release
		cancel()
	}
}

// reserverCredits adds the calls that wait as pools. mu is held.
func (p *Pools) reserverCredits(all []leader.Pool) []leader.Pool {
	if len(p.reservers) == 0 || p.draining || !p.looked.fresh {
		return all
	}
	calls := map[string]leader.Pool{}
	for _, r := range p.reservers {
		if r.waiting != nil {
			pool := calls[r.waiting.worker]
			calls[r.waiting.worker] = leader.Pool{Name: r.waiting.worker, Queues: r.queues, Free: pool.Free + 1}
		}
	}
	for _, w := range p.pending {
		if pool, ok := calls[w.pool]; ok && pool.Free > 0 {
			pool.Free--
			calls[w.pool] = pool
		}
	}
	return append(all, slices.SortedFunc(maps.Values(calls), func(a, b leader.Pool) int { return cmp.Compare(a.Name, b.Name) })...)
}

// loseHolds gives back what a connection holds and ends its call: it was closed, or the
// attempt whose handler reserved has ended.
func (p *Pools) loseHolds(c *link.Conn, reason string) {
	p.mu.Lock()
	r := p.reservers[c]
	if r == nil {
		p.mu.Unlock()
		return
	}
	delete(p.reservers, c)
	waited := r.leave(r.waiting)
	held := slices.Collect(maps.Values(r.held))
	p.mu.Unlock()
	var ended sync.WaitGroup // together, so that they share log entries
	for _, a := range held {
		ended.Go(func() { p.finish(a, command.Interrupted, reason) })
	}
	ended.Wait()
	p.mu.Lock()
	settled := r.settled // reconcile may have added some meanwhile
	r.settled = nil
	p.mu.Unlock()
	p.forget(settled)
	if waited {
		p.signal()
	}
}

// drainReservers answers the calls that wait. mu is held; the answers are sent by the
// function that it returns.
func (p *Pools) drainReservers() (answer func()) {
	var calls []*thread
	for _, r := range p.reservers {
		if t := r.waiting; r.leave(t) {
			calls = append(calls, t)
		}
	}
	return func() {
		for _, t := range calls {
			_ = t.conn.Answer(0, nothing) // a connection that is gone needs no answer
		}
	}
}
