package workers

import (
	"time"

	"pogod/raftfsm/leader"
)

// pending is a reservation that waits for its thread.
type pending struct {
	pool  string
	since time.Time
}

// looked says up to where the reservations were seen.
type looked struct {
	session uint64
	applied uint64
	fresh   bool // jobs might be started
}

// quickReturn is how soon after it began to settle its job a handler comes back to Next
// to be expected there: the sync of the settling, and some.
const quickReturn = 20 * time.Millisecond

// settling notes that the handler of a settles its job. A thread that came back quickly
// the last time is offered to the leader now, so that its next job is reserved in the very
// entry of the settling, and waits for it when it comes: one sync a job instead of two. If
// it does not come, another thread takes the job, or it is given back.
func (p *Pools) settling(a *attempt) {
	p.mu.Lock()
	a.settled = p.cfg.Clock.Now()
	a.t.soon = a.t.running == a && a.t.quick && !a.cut.done && !p.leavesLocked(a.t) && p.looked.fresh
	if !a.t.soon {
		p.mu.Unlock()
		return
	}
	credits := p.creditsLocked(a.settled)
	p.mu.Unlock()
	credits.Follows = true
	p.cfg.Offers.Offer(credits)
}

// creditsLocked counts the threads of each pool that are free or as good as free.
// Reservations that wait for a thread have taken theirs. mu is held.
func (p *Pools) creditsLocked(now time.Time) leader.Credits {
	c := leader.Credits{Session: p.looked.session, Applied: p.looked.applied, Pools: make([]leader.Pool, 0, len(p.pools()))}
	for _, pool := range p.pools() {
		free := 0
		if !p.draining && p.looked.fresh {
			for _, t := range p.threads {
				soon := t.soon && now.Sub(t.running.settled) < quickReturn
				if t.worker == pool.Name && (t.waiting || soon) && !p.leavesLocked(t) {
					free++
				}
			}
			for _, w := range p.pending {
				if w.pool == pool.Name {
					free--
				}
			}
		}
		c.Pools = append(c.Pools, leader.Pool{Name: pool.Name, Queues: pool.Queues, Free: max(free, 0)})
	}
	c.Pools = p.reserverCredits(c.Pools)
	return c
}
