package raftfsm

import (
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

// retryPause is between two attempts when there is no leader.
const retryPause = 20 * time.Millisecond

// refusedFor is how long pushes are refused after the leader has refused some, before it is
// asked again.
const refusedFor = 200 * time.Millisecond

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
