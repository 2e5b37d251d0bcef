package workers

import "time"

// PoolStatus is what status tells of a pool.
type PoolStatus struct {
	Name        string
	Queues      []string
	Script      string
	Quarantine  bool   // it runs suspects
	Suspects    uint64 // that wait for it
	Threads     int    // connected
	Waiting     int    // free
	Running     int    // in an attempt
	Restarts    uint64 // scripts that ended
	LastError   string
	LastErrorAt time.Time
}

// Status of all pools, in the order of the configuration.
func (p *Pools) Status() []PoolStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]PoolStatus, 0, len(p.pools()))
	for _, pool := range p.pools() {
		f := p.failures[pool.Name]
		s := PoolStatus{Name: pool.Name, Quarantine: IsQuarantine(pool.Name), Queues: pool.Queues, Script: pool.Script, Restarts: p.restarts[pool.Name], LastError: f.message, LastErrorAt: f.at}
		for _, line := range pool.Queues {
			if s.Quarantine {
				s.Suspects += p.cfg.Reservations.Ready(line)
			}
		}
		for _, t := range p.threads {
			if t.worker != pool.Name {
				continue
			}
			s.Threads++
			switch {
			case t.running != nil:
				s.Running++
			case t.waiting:
				s.Waiting++
			}
		}
		all = append(all, s)
	}
	return all
}

// Named is how a job is called in the log.
type Named struct {
	Queue   string
	Job     string
	Attempt uint64
}

// keptNames is how many attempts that ended keep their names, for output that comes
// behind the end.
const keptNames = 256

// Named returns which job runs, or ran lately, under a lease.
func (p *Pools) Named(lease uint64) (n Named, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.attempts[lease]; a != nil {
		return a.named(), true
	}
	for _, old := range p.lately {
		if old.lease == lease {
			return old.Named, true
		}
	}
	return Named{}, false
}

func (a *attempt) named() Named { return Named{a.d.Queue, a.d.Job.String(), a.d.Attempts} }

// remember keeps the name of an attempt that ends. mu is held.
func (p *Pools) remember(a *attempt) {
	old := endedName{a.d.Lease, a.named()}
	if len(p.lately) < keptNames {
		p.lately = append(p.lately, old)
		return
	}
	p.lately[p.nextName] = old
	p.nextName = (p.nextName + 1) % keptNames
}

type endedName struct {
	lease uint64
	Named
}
