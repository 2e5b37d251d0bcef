package raftfsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pogod/internal/clock"
	"pogod/internal/command"
)

// Submitter takes a node's batches to the leader: raftfsm/leader here, the cluster's
// links on another node.
type Submitter interface {
	// Submit starts a batch on its way, in the order of the calls, and returns how to
	// wait for it. pushes says which queues the batch pushes to, and what it makes ready
	// there, so that the leader can hand it out in the same entry. It is nil for a batch
	// that may be in a log already: that is never refused for its pushes.
	Submit(batch []byte, pushes []QueueCount) (wait func() (*Outcome, error))
	// OpenSession opens a session for this node; number as in command.OpenSession. It
	// fails while there is no leader.
	OpenSession(node string, number uint64) (session uint64, err error)
	// EndSession ends it.
	EndSession(session uint64) error
}

// ErrNotSent is returned by a Submitter when the batch is surely in no log and never will
// be: no leader is known, its link is down, or it refused. Any other error leaves that
// open. Either way the proposer sends the same batch again.
var ErrNotSent = errors.New("no leader has taken it")

// ErrSessionRefused is returned by Submitter.OpenSession when the opening came late: a
// newer one of this node was applied, or its session has ended since.
var ErrSessionRefused = errors.New("a newer session of this node was opened")

// ErrNoRoom is returned by a Submitter for a batch with pushes that is surely in no log: the
// leader takes none, for its disk has little room. The proposer sends the rest of it.
var ErrNoRoom = errors.New("the leader takes no pushes")

// QueueCount is a number of jobs of a queue, 0 when they are all delayed.
type QueueCount struct {
	Queue string
	Count int
}

// A batch is closed by whichever comes first; a larger command travels alone.
const (
	batchCommands = 512
	batchBytes    = 512 << 10
)

// A batch waits for the callers that the last one answered, so that they share its sync:
// callers that push one job after the other would else fall into two halves that take
// turns. It waits for half of the time that a batch takes, leastGather at least; after a
// wait for nobody the next gatherAgain batches do not wait.
const (
	leastGather = 60 * time.Microsecond
	gatherAgain = 16
)

// ProposerConfig configures a Proposer.
type ProposerConfig struct {
	Node        string                 // the node's id
	NextOpening func() (uint64, error) // a persisted number that grows with every call
	Submitter   Submitter
	Clock       clock.Clock
	InFlight    int           // batches that travel at once, 1 (also 0) or 2; while one does the next gathers. On one node two are slower: each holds fewer commands, and the disk syncs one after the other
	Gather      time.Duration // the longest that a batch waits for the callers that the last one answered; 0: it does not
	Level       func() uint64 // of the cluster: commands above it are held back; nil: none is
	SessionTTL  time.Duration // after which the leader ends a session that it does not hear; 0: it never does, this node is the only voter
	Timeout     time.Duration // how long a call waits before it is withdrawn, or its outcome is called unknown; push_timeout, 10 s
	Log         *slog.Logger
}

// Proposer gathers the node's commands into numbered batches and sees each through:
// every error on the way means that the same batch is sent again.
type Proposer struct {
	cfg ProposerConfig

	mu      sync.Mutex    // guards what follows
	cond    *sync.Cond    // of mu: waiting, flying, session or closing changed
	waiting []*call       // not yet numbered; withdrawn ones are removed
	flying  []*flight     // numbered, oldest first; all of one session
	ended   []*flight     // surely not applied when their session ended, for the next one
	session uint64        // 0: none
	number  uint64        // of the last batch
	target  int           // calls that the next batch waits for: those that waited when the last landed, and those it answered
	alone   int           // batches that will not wait for that
	took    time.Duration // a batch, of late
	blocked bool          // for retryPause: there was no leader
	noRoom  error         // why the leader took no pushes, as of refused
	refused time.Time
	silent  bool  // a keep-alive is due
	closing bool  // no new calls
	quit    bool  // give up
	failure error // why this node takes nothing any more

	opening uint64 // run's: the number of an opening whose outcome is not known; 0: none

	timeout   atomic.Int64 // nanoseconds: ProposerConfig.Timeout, until SetTimeout gives another
	standing  standing
	lastIndex atomic.Uint64 // the greatest entry that a caller was told the outcome of
	confirmed chan struct{} // see Confirmed
	failed    chan struct{} // closed with failure set
	done      chan struct{} // closed when run has ended
	wg        sync.WaitGroup
}

// call is one Propose.
type call struct {
	enc    []byte
	push   string // the queue that it pushes to, or ""
	ready  int    // 1: it makes a job ready there
	result command.Result
	err    error
	done   chan struct{}
}

// flight is a batch on its way.
type flight struct {
	number    uint64
	session   uint64
	calls     []*call
	commands  []byte
	pushes    []QueueCount
	ambiguous bool // it may have been applied
	started   time.Time
	sent      time.Duration // the last time, see clock.Boot
}

// NewProposer starts a proposer. Close stops it.
func NewProposer(cfg ProposerConfig) *Proposer {
	p := &Proposer{cfg: cfg, failed: make(chan struct{}), done: make(chan struct{}), confirmed: make(chan struct{}, 1)}
	p.cond = sync.NewCond(&p.mu)
	p.SetTimeout(cfg.Timeout)
	p.standing.clock, p.standing.ttl, p.standing.looked = cfg.Clock, cfg.SessionTTL, cfg.Clock.Boot()
	go p.run() // ended by Close
	if every := cfg.SessionTTL / keepAlives / 2; every > 0 {
		tick := make(chan struct{}, 1)
		t := cfg.Clock.AfterFunc(every, func() { signal(tick) })
		p.wg.Go(func() { p.keepAlive(every, t, tick) }) // ended by Close
	}
	return p
}

// keepAlives is how many confirmations the session gets in its time to live, while the
// leader is there.
const keepAlives = 6

// keepAlive asks for an empty batch when nothing else confirmed the session for a while,
// and tells when it is overdue.
func (p *Proposer) keepAlive(every time.Duration, t clock.Timer, tick <-chan struct{}) {
	defer t.Stop()
	overdue := false
	for {
		select {
		case <-p.done:
			return
		case <-tick:
		}
		t.Reset(every)
		was := overdue
		if overdue = p.Standing(math.MaxUint64) == Overdue; overdue && !was {
			signal(p.confirmed)
		}
		if p.cfg.Clock.Boot()-p.standing.last() >= every+every/2 { // two ticks, or a slow one
			p.Nudge()
		}
	}
}

// Nudge has the session confirmed soon: another leader, say, is told of this node.
func (p *Proposer) Nudge() {
	p.mu.Lock()
	p.silent = p.session != 0 && len(p.flying) == 0 && p.cfg.SessionTTL > 0
	p.mu.Unlock()
	p.cond.Broadcast()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Standing says what may be done with the state as it was after the entry applied.
func (p *Proposer) Standing(applied uint64) Standing { return p.standing.of(applied) }

// Age returns how old the state after the entry applied may be; ok is false when that is
// not known, or not asked of the only voter.
func (p *Proposer) Age(applied uint64) (age time.Duration, ok bool) { return p.standing.age(applied) }

// LastIndex returns the greatest entry whose outcome a caller on this node was told: who
// reads its own writes waits until it is applied here.
func (p *Proposer) LastIndex() uint64 { return p.lastIndex.Load() }

// Session returns the node's present session, 0 while it has none.
func (p *Proposer) Session() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session
}

// Confirmed gets a signal when a session was opened, ended, confirmed or became overdue.
// It holds one signal.
func (p *Proposer) Confirmed() <-chan struct{} { return p.confirmed }

// SetTimeout replaces ProposerConfig.Timeout for the calls to come.
func (p *Proposer) SetTimeout(d time.Duration) { p.timeout.Store(int64(d)) }

// Propose implements queue.Proposer.
func (p *Proposer) Propose(ctx context.Context, c *command.Command) (command.Result, error) {
	enc, err := c.Append(make([]byte, 0, 96+len(c.Payload)))
	if err != nil {
		return command.Result{}, err
	}
	if p.cfg.Level != nil && c.Op.Level() > p.cfg.Level() {
		return command.Result{}, command.ErrHeldBack
	}
	k := &call{enc: enc, done: make(chan struct{})}
	if c.Op == command.Push {
		if k.push = c.Queue; c.Delay == 0 {
			k.ready = 1
		}
	}
	p.mu.Lock()
	if p.failure != nil {
		defer p.mu.Unlock()
		return command.Result{}, p.failure
	}
	if p.closing {
		p.mu.Unlock()
		return command.Result{}, command.ErrClosed
	}
	if k.push != "" && p.noRoom != nil && p.cfg.Clock.Now().Sub(p.refused) < refusedFor {
		defer p.mu.Unlock()
		return command.Result{}, p.noRoom
	}
	p.waiting = append(p.waiting, k)
	if n := len(p.waiting); n == 1 || n == p.target {
		p.cond.Broadcast()
	}
	p.mu.Unlock()
	if r, early := answerEarly(c); early {
		return r, nil
	}

	late := make(chan struct{})
	timer := p.cfg.Clock.AfterFunc(time.Duration(p.timeout.Load()), func() { close(late) })
	defer timer.Stop()
	select {
	case <-k.done:
		return k.result, k.err
	case <-ctx.Done():
	case <-late:
	case <-p.failed:
	}
	return p.giveUp(k)
}

// giveUp withdraws a call that is not yet numbered; the outcome of another is unknown.
func (p *Proposer) giveUp(k *call) (command.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiting, k); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		if p.failure != nil {
			return command.Result{}, p.failure
		}
		return command.Result{}, command.ErrNotTaken
	}
	select {
	case <-k.done:
		return k.result, k.err
	default:
		return command.Result{}, command.ErrOutcomeUnknown
	}
}

// run opens the session, and numbers and starts one batch after the other.
func (p *Proposer) run() {
	defer close(p.done)
	for {
		p.mu.Lock()
		for !p.quit && !p.canGoOn() {
			p.cond.Wait()
		}
		if p.quit {
			p.mu.Unlock()
			return
		}
		if p.session == 0 {
			p.requeue()
			p.mu.Unlock()
			p.openSession()
			continue
		}
		p.gather()
		if p.quit || p.session == 0 {
			p.mu.Unlock()
			continue
		}
		f, watermark := p.take()
		p.mu.Unlock()
		wait := p.submit(f, watermark)
		p.wg.Add(1)
		go p.see(f, wait) // ended by the batch's outcome, or by Close
	}
}

// canGoOn reports whether run has something to do: a batch may start, or a session may
// be opened, for which all of the last one must have landed. mu is held.
func (p *Proposer) canGoOn() bool {
	if p.session == 0 {
		return len(p.flying) == 0
	}
	return !p.blocked && (len(p.waiting) > 0 || p.silent && !p.closing) && len(p.flying) < max(p.cfg.InFlight, 1)
}

// gather waits until the callers that were just answered call again, or Gather has
// passed. mu is held, and let go meanwhile.
func (p *Proposer) gather() {
	target, before := min(p.target, batchCommands), len(p.waiting)
	if p.cfg.Gather == 0 || before >= target || before == 0 {
		return
	}
	if p.alone > 0 {
		p.alone--
		return
	}
	over := false
	t := p.cfg.Clock.AfterFunc(min(max(p.took/2, leastGather), p.cfg.Gather), func() {
		p.mu.Lock()
		over = true
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer t.Stop()
	for !over && !p.quit && len(p.waiting) < target {
		p.cond.Wait()
	}
	if len(p.waiting) == before {
		p.alone = gatherAgain
	}
}

// requeue puts what the last session did not apply first, in its old order. mu is held.
func (p *Proposer) requeue() {
	slices.SortFunc(p.ended, func(a, b *flight) int { return cmp.Compare(a.number, b.number) })
	var calls []*call
	for _, f := range p.ended {
		calls = append(calls, f.calls...)
	}
	p.ended = nil
	p.waiting = append(calls, p.waiting...)
}

// openSession tries once, and waits a little after a failure. An opening that may have
// been applied is tried again under the same number, which answers the same session.
func (p *Proposer) openSession() {
	var err error
	if p.opening == 0 {
		p.opening, err = p.cfg.NextOpening()
	}
	sent := p.cfg.Clock.Boot()
	var id uint64
	if err == nil {
		id, err = p.cfg.Submitter.OpenSession(p.cfg.Node, p.opening)
	}
	if err == nil || errors.Is(err, ErrSessionRefused) {
		p.opening = 0
	}
	if err != nil {
		p.cfg.Log.Debug("no session yet", "error", err)
		p.pause()
		return
	}
	p.standing.opened(id, sent)
	p.mu.Lock()
	p.session, p.number = id, 0
	p.mu.Unlock()
	signal(p.confirmed)
}

// retryPause is between two attempts when there is no leader.
const retryPause = 20 * time.Millisecond

// pause waits for retryPause or Close.
func (p *Proposer) pause() {
	over := false
	t := p.cfg.Clock.AfterFunc(retryPause, func() {
		p.mu.Lock()
		over = true
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer t.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !over && !p.quit {
		p.cond.Wait()
	}
}

// take makes a batch of what waits. mu is held.
func (p *Proposer) take() (f *flight, watermark uint64) {
	n, size := 0, 0
	for n < len(p.waiting) && n < batchCommands {
		if size += len(p.waiting[n].enc); n > 0 && size > batchBytes {
			break
		}
		n++
	}
	p.number++
	f = &flight{number: p.number, session: p.session, calls: slices.Clone(p.waiting[:n]), started: p.cfg.Clock.Now()}
	p.waiting = slices.Delete(p.waiting, 0, n)
	p.flying = append(p.flying, f)
	p.silent = false
	return f, p.flying[0].number - 1
}

// submit encodes a batch and starts it.
func (p *Proposer) submit(f *flight, watermark uint64) func() (*Outcome, error) {
	if f.commands == nil {
		size := 0
		for _, k := range f.calls {
			size += len(k.enc)
		}
		f.commands = make([]byte, 0, size)
		for _, k := range f.calls {
			f.commands = append(f.commands, k.enc...)
			if k.push == "" {
				continue
			}
			if i := slices.IndexFunc(f.pushes, func(q QueueCount) bool { return q.Queue == k.push }); i >= 0 {
				f.pushes[i].Count += k.ready
			} else {
				f.pushes = append(f.pushes, QueueCount{k.push, k.ready})
			}
		}
	}
	b := command.AppendBatch(make([]byte, 0, 40+len(f.commands)), command.Batch{
		Session: f.session, Number: f.number, Watermark: watermark, Commands: f.commands,
	})
	f.sent = p.cfg.Clock.Boot()
	if f.ambiguous {
		f.pushes = nil // it may be in a log: whoever leads is to take it
	}
	return p.cfg.Submitter.Submit(b, f.pushes)
}

// see waits for a batch's outcome and sends it again, with the same number, until it
// has one.
func (p *Proposer) see(f *flight, wait func() (*Outcome, error)) {
	defer p.wg.Done()
	for {
		o, err := wait()
		if err == nil && o.Err != nil {
			err = o.Err
		}
		switch {
		case errors.Is(err, ErrNotSent):
			if !f.ambiguous && p.takeBack(f) {
				return
			}
		case errors.Is(err, ErrNoRoom):
			if !f.ambiguous && p.withoutPushes(f, err) {
				return
			}
			f.ambiguous = true // a later batch is numbered: this one must be seen through
		case err != nil:
			p.cfg.Log.Debug("a batch is sent again", "number", f.number, "error", err)
			f.ambiguous = true
		case o.Status == Applied:
			p.told(o.Index)
			if p.standing.confirmed(f.sent, o.Index) && p.cfg.SessionTTL > 0 {
				signal(p.confirmed)
			}
			p.land(f, o.Results, nil)
			return
		case o.Status == Ended:
			p.sessionEnded(f)
			return
		case o.Status == Passed:
			p.land(f, nil, command.ErrOutcomeUnknown)
			return
		}
		p.pause()
		p.mu.Lock()
		quit, watermark := p.quit, p.flying[0].number-1
		p.mu.Unlock()
		if quit {
			p.land(f, nil, command.ErrOutcomeUnknown)
			return
		}
		wait = p.submit(f, watermark)
	}
}

// told notes an entry whose outcome a caller is told.
func (p *Proposer) told(index uint64) {
	for {
		last := p.lastIndex.Load()
		if index <= last || p.lastIndex.CompareAndSwap(last, index) {
			return
		}
	}
}

// takeBack undoes the numbering of a batch that is in no log: its calls wait again, and
// can be withdrawn. It reports false when a later batch is numbered already.
func (p *Proposer) takeBack(f *flight) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.undo(f, f.calls) {
		return false
	}
	p.blocked = true
	p.cfg.Clock.AfterFunc(retryPause, func() {
		p.mu.Lock()
		p.blocked = false
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	p.cond.Broadcast() // Close may wait for the last flight
	return true
}

// undo takes back the number of a batch that is in no log, unless a later one has one, and
// has these of its calls wait again. mu is held.
func (p *Proposer) undo(f *flight, calls []*call) bool {
	if p.quit || p.session != f.session || p.flying[len(p.flying)-1] != f {
		return false
	}
	p.remove(f)
	p.number--
	p.waiting = append(slices.Clone(calls), p.waiting...)
	p.silent = len(f.calls) == 0
	return true
}

// refusedFor is how long pushes are refused after the leader has refused some, before it is
// asked again.
const refusedFor = 200 * time.Millisecond

// withoutPushes is takeBack of a batch that the leader refused for its pushes: these are
// answered so, and the rest is sent at once.
func (p *Proposer) withoutPushes(f *flight, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(f.calls), func(k *call) bool { return k.push != "" })
	if !p.undo(f, rest) {
		return false
	}
	p.noRoom, p.refused = fmt.Errorf("%w: %w", command.ErrNotAccepted, err), p.cfg.Clock.Now()
	for _, k := range f.calls {
		if k.push != "" {
			k.err = p.noRoom
			close(k.done)
		}
	}
	p.cond.Broadcast()
	return true
}

// land answers the calls of a batch.
func (p *Proposer) land(f *flight, results []command.Result, err error) {
	if err == nil && len(results) != len(f.calls) {
		p.cfg.Log.Error("a batch was answered with the wrong number of results", "number", f.number, "calls", len(f.calls), "results", len(results))
		err = command.ErrOutcomeUnknown
	}
	took := p.cfg.Clock.Now().Sub(f.started)
	p.mu.Lock()
	p.target = len(p.waiting) + len(f.calls)
	p.took += (took - p.took) / 8
	p.mu.Unlock()
	for i, k := range f.calls {
		if k.err = err; err == nil {
			k.result = results[i]
		}
		close(k.done)
	}
	p.mu.Lock()
	p.remove(f)
	p.mu.Unlock()
	p.cond.Broadcast()
}

// remove takes a batch out of flying. mu is held.
func (p *Proposer) remove(f *flight) {
	if i := slices.Index(p.flying, f); i >= 0 {
		p.flying = slices.Delete(p.flying, i, i+1)
	}
}

// sessionEnded lets run open a new session. A batch that was surely not applied goes
// into it; of another nobody can know.
func (p *Proposer) sessionEnded(f *flight) {
	p.cfg.Log.Warn("the node's session ended; a new one is opened", "session", f.session)
	p.standing.opened(0, 0)
	if p.cfg.SessionTTL > 0 {
		signal(p.confirmed)
	}
	p.mu.Lock()
	p.session = 0
	quit := p.quit
	if !f.ambiguous && !quit {
		p.remove(f)
		p.ended = append(p.ended, f)
	}
	p.mu.Unlock()
	switch {
	case f.ambiguous:
		p.land(f, nil, command.ErrOutcomeUnknown)
	case quit:
		p.land(f, nil, command.ErrClosed)
	}
	p.cond.Broadcast()
}

// Fail gives up, for a node that cannot go on: from now on calls get command.ErrNotAccepted
// with the reason, and those that were sent command.ErrOutcomeUnknown, all at once.
func (p *Proposer) Fail(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return
	}
	p.failure, p.quit = fmt.Errorf("%w: %w", command.ErrNotAccepted, why), true
	close(p.failed)
	p.cond.Broadcast()
}

// Close takes no more calls, waits until those under way are answered or ctx ends,
// ends the session, and stops. Calls that are left get command.ErrClosed, or
// ErrOutcomeUnknown when they were sent.
func (p *Proposer) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.quit = true
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer stop()
	for !p.quit && p.session != 0 && len(p.waiting)+len(p.flying) > 0 {
		p.cond.Wait()
	}
	session := p.session
	p.quit = true
	p.requeue()
	for _, k := range p.waiting {
		k.err = command.ErrClosed
		close(k.done)
	}
	p.waiting = nil
	p.mu.Unlock()
	p.cond.Broadcast()
	<-p.done
	var err error
	if session != 0 && ctx.Err() == nil {
		err = p.cfg.Submitter.EndSession(session)
	}
	p.wg.Wait()
	return errors.Join(err, ctx.Err())
}
