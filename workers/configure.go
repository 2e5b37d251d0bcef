package workers

import (
	"context"
	"slices"
	"time"

	"pogod/internal/link"
)

// What a changed configuration changes here, while everything runs. Configure of Pools and
// of Dispatch is for moments in which both the old hosts and the new ones have threads: the
// node first gives them the old pools and the new ones, then has Hosts go over, and then
// gives them the new ones alone.

// settings of Pools, which change together.
type settings struct {
	pools     []Pool
	killGrace time.Duration
}

// Configure replaces Config.Pools and KillGrace. Threads of a pool that is gone end their
// attempts and get no more jobs.
func (p *Pools) Configure(pools []Pool, killGrace time.Duration) {
	p.set.Store(&settings{pools, killGrace})
	p.mu.Lock()
	var waiting []*thread
	for _, t := range p.threads {
		if t.waiting && p.leavesLocked(t) {
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

func (p *Pools) pools() []Pool { return p.set.Load().pools }

// Configure replaces DispatchConfig.Pools. A pool that stays keeps its queue and its
// figures. Tasks that wait in one that is gone break, those that run there may end.
func (d *Dispatch) Configure(pools []TaskPool) {
	var told, left []letter
	d.mu.Lock()
	before := d.pools
	d.pools, d.order = make(map[string]*taskPool, len(pools)), make([]*taskPool, 0, len(pools))
	for _, c := range pools {
		p := before[c.Name]
		if p == nil {
			p = &taskPool{}
		}
		p.TaskPool = c
		d.pools[c.Name] = p
		d.order = append(d.order, p)
		if p.armed { // max_wait may be another
			p.timer.Reset(0)
		}
	}
	for name, p := range before {
		if d.pools[name] != nil {
			continue
		}
		for t := p.head; t != nil; t = p.head {
			d.unqueueLocked(t)
			p.figures.failed++
			told = append(told, d.concludeLocked(t, link.Broke, []byte("pool \""+name+"\" is no longer in the configuration")))
		}
		if p.timer != nil {
			p.timer.Stop()
		}
		for _, th := range d.threads {
			if th.pool == p {
				th.leaving = true
			}
		}
		for _, th := range p.free {
			left = append(left, letter{conn: th.conn})
		}
		p.free = nil
	}
	d.idleLocked()
	d.mu.Unlock()
	for _, l := range append(told, left...) {
		d.post(l)
	}
}

// Configure replaces HostsConfig.Hosts: a host that stays gets a new process, with all that
// Reload says of it, one that is new is started, and one that is gone finishes what it runs,
// once the others are ready. It waits for that until ctx ends. Errors wrap ErrReload; then
// the hosts are as they were before, each with a process of the old configuration.
func (h *Hosts) Configure(ctx context.Context, hosts []Host) error {
	h.mu.Lock()
	if h.stopping {
		h.mu.Unlock()
		return h.reloaded(ctx, nil)
	}
	before := make([]Host, 0, len(h.hosts))
	for _, x := range h.hosts {
		if !x.gone {
			before = append(before, x.Host)
		}
	}
	h.takeLocked(hosts)
	target := h.askReloadLocked(hosts) // at once: a host that is new is not started yet, and not twice
	h.mu.Unlock()
	err := h.reloaded(ctx, target)
	h.mu.Lock()
	if err != nil {
		hosts = before
		h.takeLocked(before)
	}
	leaving := h.dropLocked(hosts)
	if err != nil {
		h.askReloadLocked(nil) // of some the new process has taken over
	}
	h.mu.Unlock()
	h.dismiss(link.Retire, leaving)
	return err
}

// names reports whether hosts has one of x's name.
func names(hosts []Host, x *host) bool {
	return slices.ContainsFunc(hosts, func(c Host) bool { return c.Spec.Name == x.Spec.Name })
}

// takeLocked has the next process of each host be as hosts say, and starts those that are
// new. mu is held.
func (h *Hosts) takeLocked(hosts []Host) {
	for _, c := range hosts {
		i := slices.IndexFunc(h.hosts, func(x *host) bool { return !x.gone && x.Spec.Name == c.Spec.Name })
		if i >= 0 {
			h.hosts[i].Host = c
			continue
		}
		x := newHost(c)
		h.hosts = append(h.hosts, x)
		if !h.stopping {
			h.wg.Add(1)
			go h.keep(x) // ended by Stop, or when it is dropped
		}
	}
}

// dropLocked lets hosts go that are not named any more, and returns the lives that are to be
// told. mu is held.
func (h *Hosts) dropLocked(named []Host) (leaving []*life) {
	for _, x := range h.hosts {
		if x.gone || names(named, x) {
			continue
		}
		x.gone = true
		leaving = append(leaving, x.letGoLocked(x.lives...)...)
		x.now, x.next = nil, nil
		x.signal()
	}
	h.announceLocked()
	return leaving
}

// forgetLocked takes a host out that is gone and has no life any more. mu is held.
func (h *Hosts) forgetLocked(x *host) {
	h.hosts = slices.DeleteFunc(h.hosts, func(other *host) bool { return other == x })
	h.announceLocked()
}
