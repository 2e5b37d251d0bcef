package workers

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

// Reservations shows which jobs the state machine holds for this node.
type Reservations interface {
	// Reserved appends the deliveries of a session to buf, oldest lease first, and
	// returns the entry up to which that is so.
	Reserved(buf []queue.Delivery, session uint64) (deliveries []queue.Delivery, applied uint64)
	// Watch gets a signal after entries were applied.
	Watch() <-chan struct{}
	// Ready returns how many jobs wait in a line: a queue's, or that of its suspects.
	Ready(line string) uint64
}

// Session tells this node's session.
type Session interface {
	// Session returns the present session, 0 while there is none.
	Session() uint64
	// Confirmed gets a signal when one was opened, ended, confirmed or became overdue.
	Confirmed() <-chan struct{}
	// Standing says what may be done with what the state showed after the entry applied.
	Standing(applied uint64) raftfsm.Standing
}

// Attempts settles what a handler left; *queue.Client does.
type Attempts interface {
	// Begin notes that an attempt starts; settling is called before a call of its
	// handler that may settle it is proposed.
	Begin(d *queue.Delivery, settling func())
	// Settling reports whether the handler has settled, or is settling, the delivery.
	Settling(lease uint64) bool
	// End notes that it ended, and releases the job when it was not settled.
	End(ctx context.Context, d *queue.Delivery, cause command.Cause, reason string) (released bool, err error)
	// GiveBack releases a delivery that never started.
	GiveBack(ctx context.Context, d *queue.Delivery) error
}

// Offers takes this node's free threads; *leader.Leader does.
type Offers interface {
	Offer(c leader.Credits)
}

// Processes knows the PHP hosts; *Hosts does.
type Processes interface {
	// Interrupt stops an attempt in the host with that process id.
	Interrupt(pid int, slot int64, lease uint64)
	// Ended waits a moment for the end of the process and says how it ended; ok is
	// false when it lives on or is no host.
	Ended(pid int) (e Exit, ok bool)
	// Replace lets the process finish what it runs, and starts another in its place. It
	// reports whether it is a host.
	Replace(pid int, why string) bool
	// Kill ends the process, if it is a host.
	Kill(pid int, why string)
}

// Pool is one worker of the configuration: a script and its threads, or threads that
// come from outside.
type Pool struct {
	Name   string
	Queues []string // served in this order
	Script string   // for messages; "" for threads from outside
	// MaxJobs is how many jobs a script is given before it is told to end; 0: no bound.
	MaxJobs int
}

// Config of Pools.
type Config struct {
	Pools        []Pool
	Reservations Reservations
	Session      Session
	Attempts     Attempts
	Offers       Offers
	Processes    Processes
	Quarantine   QuarantineProcesses // nil when no pool is one
	// KillGrace is how long after its interrupt an attempt may be stuck before its PHP
	// host is killed.
	KillGrace time.Duration
	Clock     clock.Clock
	Log       *slog.Logger
}

// startWithin is how long a reserved job may wait for its thread before it is given
// back, its attempt not counted.
const startWithin = time.Second

// startUntil is how long after its reservation a job may start at all. What a node sees is up
// to half of the time to live of its session old, which is 3 s, and a lease may end 5 s after
// the reservation: one that is not longer ago has not ended meanwhile.
const startUntil = 2 * time.Second

// Pools is this node's threads and what they run.
type Pools struct {
	cfg Config
	set atomic.Pointer[settings] // what Configure replaces

	mu       sync.Mutex // guards what follows; held for map operations, never across a call that waits
	threads  map[*link.Conn]*thread
	attempts map[uint64]*attempt  // by lease: running
	started  map[uint64]struct{}  // leases that were started or given back, until the state no longer has them
	pending  map[uint64]pending   // leases that have no thread yet
	looked   looked               // when credits were counted last
	failures map[string]failure   // by pool: the last script that ended badly
	restarts map[string]uint64    // by pool: scripts that ended
	lately   []endedName          // names of attempts that ended, a ring
	nextName int                  // where lately is written next
	demanded map[string]time.Time // by quarantine: when its host was asked for last; of run alone
	leaving  map[int]struct{}     // process ids of hosts that get no new jobs
	// Connections that have asked for a delivery (reserve.go).
	reservers map[*link.Conn]*reserver
	draining  bool
	idle      chan struct{} // non-nil while somebody waits for no attempt to run

	wake chan struct{} // holds one signal: a thread came free, an attempt ended
	quit chan struct{}
	wg   sync.WaitGroup
}

type failure struct {
	message string
	at      time.Time
}

// NewPools starts to serve threads. Close stops it.
func NewPools(cfg Config) *Pools {
	p := &Pools{
		cfg: cfg, threads: map[*link.Conn]*thread{}, attempts: map[uint64]*attempt{}, reservers: map[*link.Conn]*reserver{},
		started: map[uint64]struct{}{}, pending: map[uint64]pending{},
		failures: map[string]failure{}, restarts: map[string]uint64{}, demanded: map[string]time.Time{}, leaving: map[int]struct{}{},
		wake: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	p.set.Store(&settings{cfg.Pools, cfg.KillGrace})
	p.wg.Add(1)
	go p.run() // ended by Close
	return p
}

// Close stops reconciling and waits for what is under way. Drain first.
func (p *Pools) Close() {
	close(p.quit)
	p.wg.Wait()
}

func (p *Pools) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Pools) run() {
	defer p.wg.Done()
	applied := p.cfg.Reservations.Watch()
	var buf []queue.Delivery
	timer := p.cfg.Clock.AfterFunc(time.Hour, p.signal)
	defer timer.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-applied:
		case <-p.cfg.Session.Confirmed():
		case <-p.wake:
		}
		var again time.Duration
		buf, again = p.reconcile(buf[:0])
		if d := p.demand(); d > 0 && (again == 0 || d < again) {
			again = d
		}
		if again > 0 {
			timer.Reset(again)
		}
	}
}

// reconcile compares what the state has reserved for this node's session with what was
// started, and tells the leader how many threads are free. Nothing starts while the
// session is not freshly confirmed: it may have ended, and its jobs be another's. It
// returns when to look again, 0 for not by itself.
func (p *Pools) reconcile(buf []queue.Delivery) ([]queue.Delivery, time.Duration) {
	session := p.cfg.Session.Session()
	vain := p.emptyHanded()
	buf, applied := p.cfg.Reservations.Reserved(buf, session)
	standing := p.cfg.Session.Standing(applied)
	now := p.cfg.Clock.Now()
	var starts []*attempt
	var late []queue.Delivery
	var again time.Duration

	p.mu.Lock()
	var free map[string][]*thread // made for the first that is to be started
	held := make(map[uint64]struct{}, len(buf))
	for i := range buf {
		d := buf[i]
		held[d.Lease] = struct{}{}
		if _, ok := p.started[d.Lease]; ok {
			continue
		}
		if d.Waited >= startUntil || p.late(&d) {
			delete(p.pending, d.Lease)
			p.started[d.Lease] = struct{}{}
			late = append(late, d)
			continue
		}
		if free == nil && standing == raftfsm.Fresh {
			free = p.free()
		}
		if all := free[d.Pool]; len(all) > 0 {
			free[d.Pool] = all[1:]
			delete(p.pending, d.Lease)
			starts = append(starts, p.begin(all[0], d))
			continue
		}
		w, ok := p.pending[d.Lease]
		if !ok {
			w = pending{d.Pool, now}
			p.pending[d.Lease] = w
		}
		if left := startWithin - now.Sub(w.since); left > 0 && !p.draining {
			if again == 0 || left < again {
				again = left
			}
			continue
		}
		delete(p.pending, d.Lease)
		p.started[d.Lease] = struct{}{}
		late = append(late, d)
	}
	for lease := range p.started {
		if _, ok := held[lease]; !ok {
			delete(p.started, lease)
		}
	}
	for lease := range p.pending {
		if _, ok := held[lease]; !ok {
			delete(p.pending, lease)
		}
	}
	var lost []*attempt
	for lease, a := range p.attempts {
		_, ok := held[lease]
		if ok && standing != raftfsm.Overdue || a.cut.done {
			continue
		}
		if p.cfg.Attempts.Settling(lease) {
			if !ok && a.t.reserver != nil {
				p.settledHold(a)
			}
			continue
		}
		a.cut = cut{true, command.Interrupted, "its lease was lost"}
		lost = append(lost, a)
	}
	p.looked = looked{session, applied, standing == raftfsm.Fresh}
	credits := p.creditsLocked(now)
	p.mu.Unlock()

	if session != 0 {
		p.cfg.Offers.Offer(credits)
	}
	for _, a := range starts {
		p.deliver(a)
	}
	for _, a := range lost {
		p.cfg.Log.Warn("an attempt lost its lease and is interrupted", "queue", a.d.Queue, "job", a.d.Job, "attempt", a.d.Attempts)
		if a.t.reserver != nil {
			p.later(func() { p.finish(a, command.Interrupted, "") })
			continue
		}
		p.interrupt(a)
	}
	for _, d := range late {
		p.giveBack(d)
	}
	for _, t := range vain {
		p.waited(t)
	}
	return buf, again
}

// free returns the threads that wait, by pool. mu is held.
func (p *Pools) free() map[string][]*thread {
	all := make(map[string][]*thread, len(p.pools()))
	if p.draining {
		return all
	}
	for _, t := range p.threads {
		if t.waiting {
			all[t.worker] = append(all[t.worker], t)
		}
	}
	for _, r := range p.reservers {
		if t := r.waiting; t != nil {
			all[t.worker] = append(all[t.worker], t)
		}
	}
	return all
}

// begin makes t run d. mu is held.
func (p *Pools) begin(t *thread, d queue.Delivery) *attempt {
	a := &attempt{d: d, t: t}
	t.waiting, t.running = false, a
	t.jobs++
	p.attempts[d.Lease] = a
	p.started[d.Lease] = struct{}{}
	if t.reserver != nil {
		t.reserver.took(a)
	}
	p.cfg.Attempts.Begin(&a.d, func() { p.settling(a) })
	return a
}

// inlineDelivery is the largest message that is written by the reconciling goroutine:
// it fits the socket's buffer, which is empty while its thread waits.
const inlineDelivery = 64 << 10

// deliver hands the attempt's message to its thread and starts its time-out.
func (p *Pools) deliver(a *attempt) {
	body, err := encodeDelivery(&a.d)
	if err != nil {
		// It will never fit, so the attempt counts: given back, it would come at once
		// and for ever.
		p.cfg.Log.Error("a job cannot be handed out", "queue", a.d.Queue, "job", a.d.Job, "error", err)
		p.later(func() {
			p.finish(a, command.Broke, err.Error())
			if a.t.reserver != nil {
				_ = a.t.conn.Answer(1, nothing) // a connection that is gone needs no answer
				return
			}
			p.waits(a.t)
		})
		return
	}
	if a.t.reserver != nil {
		_, body, _ = link.ParseDelivery(body) // nothing can interrupt it: the state frees the job
	} else if a.d.Timeout > 0 {
		timer := p.cfg.Clock.AfterFunc(a.d.Timeout, func() { p.timeOut(a) })
		p.mu.Lock()
		a.timer = timer
		ended := a.t.running != a
		p.mu.Unlock()
		if ended {
			timer.Stop()
		}
	}
	if len(body) <= inlineDelivery {
		p.answer(a, body)
		return
	}
	p.later(func() { p.answer(a, body) })
}

// later calls f beside the reconciling goroutine, which calls this: f ends by a write
// (the thread reads, or its connection closes) or by settleTimeout.
func (p *Pools) later(f func()) { p.wg.Go(f) }

func (p *Pools) answer(a *attempt, body []byte) {
	if a.t.conn.Answer(1, body) != nil {
		// The thread is gone before it could start: Closed sees to the thread.
		p.later(func() { p.finish(a, command.Unstarted, "") })
	}
}

// waits notes that a thread, still in Next, is free again.
func (p *Pools) waits(t *thread) {
	p.mu.Lock()
	_, connected := p.threads[t.conn]
	leave := connected && p.leavesLocked(t)
	t.waiting = connected && !leave
	p.mu.Unlock()
	if leave {
		_ = t.conn.Answer(0, nil) // a thread that is gone needs no answer
	}
	p.signal()
}

// timeOut interrupts an attempt that ran past its job's time-out.
func (p *Pools) timeOut(a *attempt) {
	reason := queue.TimeoutReason(a.d.Timeout)
	p.mu.Lock()
	if a.t.running != a || a.cut.done {
		p.mu.Unlock()
		return
	}
	a.cut = cut{true, command.TimedOut, reason}
	p.mu.Unlock()
	p.cfg.Log.Warn("an attempt "+reason+" and is interrupted", "queue", a.d.Queue, "job", a.d.Job, "attempt", a.d.Attempts)
	p.interrupt(a)
}

// settleTimeout bounds how long the node tries to tell the state how an attempt ended.
// After it the lease's deadline does.
const settleTimeout = 10 * time.Second

// finish ends an attempt: the thread is free of it, and the job is released unless the
// handler settled it. The first call for an attempt counts.
func (p *Pools) finish(a *attempt, cause command.Cause, reason string) {
	p.mu.Lock()
	if a.t.running != a {
		p.mu.Unlock()
		return
	}
	a.t.running, a.t.soon = nil, false
	a.t.quick = !a.settled.IsZero() && p.cfg.Clock.Now().Sub(a.settled) < quickReturn
	p.dropAttempt(a)
	p.remember(a)
	if a.t.reserver != nil {
		delete(a.t.reserver.held, a.d.Lease)
	}
	for _, t := range []clock.Timer{a.timer, a.stuck} {
		if t != nil {
			t.Stop()
		}
	}
	if a.cut.done && cause != command.Unstarted {
		cause, reason = a.cut.cause, a.cut.reason
	}
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	released, err := p.cfg.Attempts.End(ctx, &a.d, cause, reason)
	switch {
	case err != nil:
		p.cfg.Log.Warn("could not release a job; its lease will end by itself", "queue", a.d.Queue, "job", a.d.Job, "error", err)
	case released && cause == command.Crashed && a.d.Suspect:
		p.crashedAlone(&a.d, reason)
	case released && cause != command.Unstarted:
		p.cfg.Log.Warn("a job was released", "queue", a.d.Queue, "job", a.d.Job, "attempt", a.d.Attempts, "reason", reason, "worker", a.t.worker)
	}
	p.signal()
}

// dropAttempt forgets an attempt, and tells Drain when it was the last. mu is held.
func (p *Pools) dropAttempt(a *attempt) {
	delete(p.attempts, a.d.Lease)
	if len(p.attempts) == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// giveBack releases a delivery that found no thread in time.
func (p *Pools) giveBack(d queue.Delivery) {
	p.later(func() {
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		if err := p.cfg.Attempts.GiveBack(ctx, &d); err != nil {
			p.cfg.Log.Warn("could not give a job back; its lease will end by itself", "queue", d.Queue, "job", d.Job, "error", err)
		}
	})
}
