package workers

import (
	"slices"
	"strings"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
)

// Quarantine is where suspects run: jobs that ran in a PHP host that ended by itself, and
// of which one ended it. Each worker that runs in a PHP host has a quarantine, which is a
// pool and a host of one thread for the same script: a job is alone in its process there,
// so that a crash is its own. The host is started when there are suspects.

const quarantineSuffix = "/quarantine" // a worker's name has no slash

// QuarantineOf returns the name of a worker's quarantine: of the pool and of its host.
func QuarantineOf(worker string) string { return worker + quarantineSuffix }

// IsQuarantine reports whether a pool or host of that name is a worker's quarantine.
func IsQuarantine(name string) bool { return strings.HasSuffix(name, quarantineSuffix) }

// WithQuarantine returns the pools, and behind them the quarantine of each that runs in a
// PHP host.
func WithQuarantine(pools []Pool) []Pool {
	all := pools
	for _, p := range pools {
		if p.Script == "" {
			continue
		}
		q := Pool{Name: QuarantineOf(p.Name), Script: p.Script}
		for _, name := range p.Queues {
			q.Queues = append(q.Queues, queue.Suspects(name))
		}
		all = append(all, q)
	}
	return all
}

// QuarantineHosts returns the hosts of the quarantines of all workers that hosts run. All
// but the thread is as in the worker's own host.
func QuarantineHosts(hosts []Host) (all []Host) {
	for _, h := range hosts {
		for _, w := range h.Spec.Jobs {
			if w.Dispatch {
				continue // a task is in nobody's state: it fails with its host
			}
			spec := h.Spec
			spec.Name, spec.Web = QuarantineOf(w.Name), nil
			w.Name, w.Threads, w.FirstSlot = spec.Name, 1, 0
			spec.Jobs = []link.WorkerSpec{w}
			all = append(all, Host{Spec: spec, OnDemand: true})
		}
	}
	return all
}

// QuarantineProcesses are the hosts of the quarantines; *Hosts does.
type QuarantineProcesses interface {
	// Demand has the host of that name run for the next minute.
	Demand(name string)
	// Runs reports whether the process is one of the host of that name.
	Runs(name string, pid int) bool
}

// Runs implements QuarantineProcesses.
func (h *Hosts) Runs(name string, pid int) bool {
	return slices.ContainsFunc(h.Status(), func(s HostStatus) bool { return s.Name == name && s.PID == pid })
}

// demandEvery is how often a host that is wanted is asked for again: well within the
// minute after which it would end.
const demandEvery = 15 * time.Second

// demand asks for the hosts of the quarantines that have something to run, and returns
// when to look again, 0 for not by itself. While there are no suspects it looks at a
// counter for each queue. Only run calls it.
func (p *Pools) demand() (again time.Duration) {
	pools := p.pools()
	for i := range pools {
		pool := &pools[i]
		if !IsQuarantine(pool.Name) {
			continue
		}
		last, before := p.demanded[pool.Name]
		if !p.suspects(pool) && (!before || !p.busy(pool.Name)) {
			delete(p.demanded, pool.Name)
			continue
		}
		if now := p.cfg.Clock.Now(); !before || now.Sub(last) >= demandEvery {
			p.demanded[pool.Name] = now
			p.cfg.Quarantine.Demand(pool.Name)
		}
		again = demandEvery
	}
	return again
}

// suspects reports whether jobs wait for a quarantine.
func (p *Pools) suspects(pool *Pool) bool {
	for _, line := range pool.Queues {
		if p.cfg.Reservations.Ready(line) > 0 {
			return true
		}
	}
	return false
}

// busy reports whether a job was reserved for a pool, and has not ended.
func (p *Pools) busy(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.attempts {
		if a.t.worker == name {
			return true
		}
	}
	for _, w := range p.pending {
		if w.pool == name {
			return true
		}
	}
	return false
}

// welcome reports whether a process may take jobs of a pool: in a quarantine only its
// host may, in which nothing else runs.
func (p *Pools) welcome(worker string, pid int) bool {
	return !IsQuarantine(worker) || p.cfg.Quarantine.Runs(worker, pid)
}

// lostBy says how an attempt ended whose connection was lost, by its process.
func lostBy(e Exit) (command.Cause, string) {
	reason := "PHP host ended by " + e.How
	if e.Planned {
		return command.Interrupted, reason
	}
	return command.Crashed, reason
}

// crashedAlone tells of a job that ended its PHP host, in which it was alone.
func (p *Pools) crashedAlone(d *queue.Delivery, reason string) {
	attrs := []any{
		"queue", d.Queue, "job", d.Job, "attempt", d.Attempts, "crashes", d.Crashes + 1, "max_crashes", d.MaxCrashes, "reason", reason,
	}
	if d.MaxCrashes > 0 && d.Crashes+1 >= d.MaxCrashes {
		p.cfg.Log.Error("a job crashed its PHP host alone in quarantine, and is failed: it has had max_crashes", attrs...)
		return
	}
	p.cfg.Log.Error("a job crashed its PHP host alone in quarantine, and is tried there again", attrs...)
}
