// Package leader is what only the node that leads does: it stamps batches with cluster
// time and gives them to raft, hands ready jobs to free threads, wakes delayed jobs and
// lost leases, and sees that the queues are defined as its configuration says.
//
// All it knows beyond the replicated state is soft: how many threads of each pool are
// free (credits), and which reservations it has proposed and not yet seen in a credit.
// A leader that dies loses nothing; the next one is told anew.
package leader

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/raftfsm"
)

// Raft is the part of *raft.Raft that a leader needs.
type Raft interface {
	Apply(entry []byte, timeout time.Duration) raft.ApplyFuture
	Barrier(timeout time.Duration) raft.Future
	LeaderCh() <-chan bool
}

// State is the part of *raftfsm.FSM that a leader needs.
type State interface {
	Ready(queue string) uint64
	NextTick() (due, now int64)
	DefinitionsHash() string
	Watch() <-chan struct{}
}

// Config of a Leader.
type Config struct {
	Raft        Raft
	State       State
	Clock       clock.Clock
	Definitions []byte // queue.Definitions, encoded
	Hash        string // of Definitions
	Log         *slog.Logger
}

// Pool is how many threads of a pool are free.
type Pool struct {
	Name   string
	Queues []string // in the order in which they are served
	Free   int
}

// Credits are a node's free threads. They replace what it said before.
type Credits struct {
	Session uint64
	Applied uint64 // the entry up to which the node had looked
	Pools   []Pool
	Follows bool // a batch of the node follows at once, and can carry what this allows
}

// applyTimeout bounds how long an entry waits to be taken by raft.
const applyTimeout = 5 * time.Second

// Leader implements raftfsm.Submitter on the node that leads.
type Leader struct {
	cfg Config

	mu        sync.Mutex // guards what follows; held while an entry is given to raft, so that stamps and entries have one order
	leading   bool       // the entry that opens the term is applied, the queues are defined
	credits   Credits
	proposals []*proposal
	turns     map[string]int // by pool: Reserves, for the share of later queues
	stamp     int64          // the last, unix milliseconds
	stampedAt time.Time

	wake  chan struct{} // holds one signal: credits came, an entry was applied, a timer fired
	ready chan struct{} // closed when it first leads, with the queues defined
	quit  chan struct{}
	done  chan struct{}
	wg    sync.WaitGroup // entries of its own under way
	solo  bool           // one is; guarded by mu
}

// proposal is a Reserve that was proposed.
type proposal struct {
	session uint64
	pool    string
	queue   string
	n       int
	old     int    // of n, jobs that its own entry does not push
	index   uint64 // of its entry; 0 until it is applied
}

// New starts a leader, which waits for its node to lead. Close stops it.
func New(cfg Config) *Leader {
	l := &Leader{cfg: cfg, turns: map[string]int{}, wake: make(chan struct{}, 1), ready: make(chan struct{}), quit: make(chan struct{}), done: make(chan struct{})}
	go l.run() // ended by Close
	return l
}

// Close stops it and waits for its entries under way. Call it once, after raft was shut
// down or while it still runs.
func (l *Leader) Close() {
	close(l.quit)
	<-l.done
	l.wg.Wait()
}

// Leading reports whether the node leads now.
func (l *Leader) Leading() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leading
}

// Offer takes a node's credits.
func (l *Leader) Offer(c Credits) {
	l.mu.Lock()
	if c.Session == l.credits.Session && c.Applied < l.credits.Applied {
		l.mu.Unlock()
		return // overtaken
	}
	l.credits = c
	l.drop(func(p *proposal) bool { return p.index != 0 && (p.session != c.Session || p.index <= c.Applied) })
	l.mu.Unlock()
	if !c.Follows {
		l.signal()
	}
}

func (l *Leader) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Submit implements raftfsm.Submitter.
func (l *Leader) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.apply(batch, l.assign(nil, pushes))
}

// OpenSession implements raftfsm.Submitter.
func (l *Leader) OpenSession(node string, number uint64) (uint64, error) {
	r, err := l.command(&command.Command{Op: command.OpenSession, Node: node, Number: number})
	if err == nil && r.Code != command.Accepted {
		err = raftfsm.ErrSessionRefused
	}
	return r.Session, err
}

// EndSession implements raftfsm.Submitter.
func (l *Leader) EndSession(session uint64) error {
	_, err := l.command(&command.Command{Op: command.EndSession, Session: session})
	return err
}

// command proposes one command of its own and waits.
func (l *Leader) command(c *command.Command) (command.Result, error) {
	enc, err := c.Append(nil)
	if err != nil {
		return command.Result{}, err
	}
	l.mu.Lock()
	wait := l.apply(nil, own{commands: enc})
	l.mu.Unlock()
	o, err := wait()
	if err != nil {
		return command.Result{}, err
	}
	return o.Leader[0], nil
}

// own is what the leader adds to an entry: commands, and which of them are Reserves.
type own struct {
	commands  []byte
	proposals []*proposal
	skip      int // commands before the first Reserve
}

// apply stamps an entry and gives it to raft. mu is held.
func (l *Leader) apply(batch []byte, o own) (wait func() (*raftfsm.Outcome, error)) {
	entry := command.AppendEntry(make([]byte, 0, 48+len(batch)+len(o.commands)), command.Entry{
		Time: l.time(), Batch: batch, Commands: o.commands,
	})
	l.proposals = append(l.proposals, o.proposals...)
	future := l.cfg.Raft.Apply(entry, applyTimeout)
	return func() (*raftfsm.Outcome, error) {
		if err := future.Error(); err != nil {
			l.forget(o.proposals)
			return nil, err
		}
		outcome := future.Response().(*raftfsm.Outcome)
		if outcome.Err != nil {
			l.forget(o.proposals)
			return nil, outcome.Err
		}
		l.applied(outcome, o)
		return outcome, nil
	}
}

// applied notes what the Reserves of an entry got.
func (l *Leader) applied(outcome *raftfsm.Outcome, o own) {
	if len(o.proposals) == 0 {
		return
	}
	l.mu.Lock()
	for i, p := range o.proposals {
		p.index, p.n = outcome.Index, int(outcome.Leader[o.skip+i].Count)
	}
	l.drop(func(p *proposal) bool { return p.index != 0 && (p.n == 0 || p.index <= l.credits.Applied) })
	l.mu.Unlock()
	l.signal()
}

func (l *Leader) forget(proposals []*proposal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range proposals {
		p.index, p.n = 1, 0
	}
	l.drop(func(p *proposal) bool { return p.index != 0 && p.n == 0 })
}

// drop removes proposals. mu is held.
func (l *Leader) drop(gone func(*proposal) bool) {
	kept := l.proposals[:0]
	for _, p := range l.proposals {
		if !gone(p) {
			kept = append(kept, p)
		}
	}
	l.proposals = kept
}

// laterShare is how often a later queue of a pool is served before the earlier ones, so
// that none starves: one reservation in so many.
const laterShare = 8

// assign adds Reserves for what is ready, counting what the entry itself pushes, to
// commands. mu is held.
func (l *Leader) assign(commands []byte, pushes []raftfsm.QueueCount) own {
	o := own{commands: commands}
	if !l.leading || l.credits.Session == 0 {
		return o
	}
	for _, pool := range l.credits.Pools {
		free := pool.Free
		for _, p := range l.proposals {
			if p.session == l.credits.Session && p.pool == pool.Name {
				free -= p.n
			}
		}
		for _, p := range o.proposals {
			if p.pool == pool.Name {
				free -= p.n
			}
		}
		if free <= 0 {
			continue
		}
		before := free
		turn := l.turns[pool.Name] + 1
		if k := len(pool.Queues); k > 1 && turn%laterShare == 0 {
			later := pool.Queues[1+(turn/laterShare)%(k-1)]
			free -= l.reserve(&o, pool.Name, later, 1, pushes)
		}
		for _, queue := range pool.Queues {
			if free > 0 {
				free -= l.reserve(&o, pool.Name, queue, free, pushes)
			}
		}
		if free < before {
			l.turns[pool.Name] = turn
		}
	}
	return o
}

// reserve adds a Reserve for at most n jobs of a queue, and returns for how many.
func (l *Leader) reserve(o *own, pool, queue string, n int, pushes []raftfsm.QueueCount) int {
	old := int(min(l.cfg.State.Ready(queue), math.MaxInt32))
	pushed := 0 // by this entry
	for _, p := range pushes {
		if p.Queue == queue {
			pushed += p.Count
		}
	}
	for _, p := range l.proposals {
		if p.queue == queue && p.index == 0 {
			old -= p.old // the others come with the pushes of its entry
		}
	}
	for _, p := range o.proposals {
		if p.queue == queue {
			old -= p.old
			pushed -= p.n - p.old
		}
	}
	if n = min(n, max(old, 0)+pushed, command.MaxRecords); n <= 0 {
		return 0
	}
	c := command.Command{Op: command.Reserve, Session: l.credits.Session, Queue: queue, Pool: pool, Count: uint64(n)}
	enc, err := c.Append(o.commands)
	if err != nil {
		return 0 // too large: names are bounded, so never
	}
	o.commands = enc
	o.proposals = append(o.proposals, &proposal{session: l.credits.Session, pool: pool, queue: queue, n: n, old: max(n-pushed, 0)})
	return n
}

// time is cluster time: the machine's, which never goes back here. While the machine's
// is behind the last stamp, time goes on at half speed until the machine has caught up.
// mu is held.
func (l *Leader) time() int64 {
	now := l.cfg.Clock.Now()
	wall := now.UnixMilli()
	if l.stampedAt.IsZero() {
		_, l.stamp = l.cfg.State.NextTick()
		l.stampedAt = now
	}
	if wall >= l.stamp {
		l.stamp, l.stampedAt = wall, now
		return l.stamp
	}
	passed := now.Sub(l.stampedAt)
	if passed < 0 { // a clock without a monotonic reading
		l.stampedAt = now
		return l.stamp
	}
	step := (passed / 2).Truncate(time.Millisecond)
	l.stamp += step.Milliseconds()
	l.stampedAt = l.stampedAt.Add(2 * step)
	return l.stamp
}

// retryPause is between two attempts to take over while raft says that this node leads.
const retryPause = time.Second

// run follows leadership, and proposes what no batch carries.
func (l *Leader) run() {
	defer close(l.done)
	timer := l.cfg.Clock.AfterFunc(time.Hour, l.signal)
	defer timer.Stop()
	again := make(chan struct{}, 1)
	retry := l.cfg.Clock.AfterFunc(time.Hour, func() {
		select {
		case again <- struct{}{}:
		default:
		}
	})
	defer retry.Stop()
	elected := false // raft says so
	applied := l.cfg.State.Watch()
	lead := l.cfg.Raft.LeaderCh()
	for {
		select {
		case <-l.quit:
			return
		case elected = <-lead:
			if !l.follow(elected) {
				retry.Reset(retryPause)
			}
		case <-again:
			if elected && !l.Leading() && !l.follow(true) {
				retry.Reset(retryPause)
			}
		case <-applied:
		case <-l.wake:
		}
		timer.Reset(l.work())
	}
}

// follow takes leadership over, or gives it up; false when it could not take over.
func (l *Leader) follow(leading bool) bool {
	var err error
	if leading {
		if err = l.takeOver(); err != nil {
			l.cfg.Log.Error("cannot lead", "error", err)
		}
	}
	l.mu.Lock()
	l.leading = leading && err == nil
	l.mu.Unlock()
	if leading && err == nil {
		select {
		case <-l.ready:
		default:
			close(l.ready)
		}
	}
	return err == nil
}

// takeOver waits until the entries of earlier terms are applied, and defines the queues
// if they are not as the configuration says.
func (l *Leader) takeOver() error {
	if err := l.cfg.Raft.Barrier(applyTimeout).Error(); err != nil {
		return err
	}
	if l.cfg.State.DefinitionsHash() == l.cfg.Hash {
		return nil
	}
	_, err := l.command(&command.Command{Op: command.Define, Definitions: l.cfg.Definitions, Hash: l.cfg.Hash})
	return err
}

// work proposes an entry of the leader's own when there is a reason, one at a time, and
// returns when to look again.
func (l *Leader) work() time.Duration {
	due, _ := l.cfg.State.NextTick()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leading || l.solo {
		return time.Hour // the change of either is a signal
	}
	o := own{}
	wait := time.Hour
	if left := due - l.time(); left <= 0 {
		enc, err := (&command.Command{Op: command.Tick}).Append(nil)
		if err != nil {
			return wait
		}
		o = l.assign(enc, nil)
		o.skip = 1
	} else {
		if left < wait.Milliseconds() {
			wait = time.Duration(left) * time.Millisecond
		}
		o = l.assign(nil, nil)
	}
	if len(o.commands) == 0 {
		return wait
	}
	l.solo = true
	outcome := l.apply(nil, o)
	l.wg.Add(1)
	go func() { // ended by the entry's outcome: applied, or raft shut down
		defer l.wg.Done()
		_, err := outcome()
		if err != nil {
			l.cfg.Log.Debug("an entry of the leader's own failed", "error", err)
		}
		l.mu.Lock()
		l.solo = false
		l.mu.Unlock()
		l.signal()
	}()
	return wait
}

// WaitReady waits until the node has led for the first time, with the queues defined, or
// ctx ends.
func (l *Leader) WaitReady(ctx context.Context) error {
	select {
	case <-l.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
