// Package leader is what only the node that leads does: it stamps batches with cluster
// time and gives them to raft, hands ready jobs to free threads of all nodes, wakes
// delayed jobs and lost leases, ends the sessions of nodes that fell silent, and sees
// that the queues are defined as its configuration says.
//
// All it knows beyond the replicated state is soft, and kept in a book that begins anew
// with each leadership: how many threads of each node's pools are free (credits), which
// reservations it has proposed and not yet seen in a credit, and when it heard of a
// session last. A leader that dies loses nothing; the next one is told anew.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	VerifyLeader() raft.Future
	LeaderCh() <-chan bool
	CurrentTerm() uint64
}

// State is the part of *raftfsm.FSM that a leader needs.
type State interface {
	Ready(queue string) uint64 // 0 of a paused one
	Paused(queue string) bool
	NextTick() (due, now int64)
	DefinitionsHash() string     // of the definitions in force
	Superseded(hash string) bool // whether those were in force, and others came after them
	Watch() <-chan struct{}
	Sessions() map[uint64]string // the node of each live session
	Applied() uint64             // the last entry that was applied
}

// Config of a Leader.
type Config struct {
	Raft        Raft
	State       State
	Clock       clock.Clock
	Clocks      Clocks        // of the voters; nil: this node is alone, and its own clock is all
	Node        string        // this node's id
	SessionTTL  time.Duration // a session of another node that is silent for so long is ended; 0: none ever is, the node is alone
	Definitions []byte        // queue.Definitions, encoded; until Define gives others
	Hash        string        // of Definitions
	Room        func() error  // nil while the disk has room for pushes, else why not; nil: it always has
	Log         *slog.Logger
}

// Pool is how many threads of a pool are free.
type Pool struct {
	Name   string
	Queues []string // in the order in which they are served
	Free   int
}

// Credits are a node's free threads. They replace what it said before in that session.
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

	mu       sync.Mutex // guards what follows; held while an entry is given to raft, so that stamps and entries have one order
	leading  bool       // the entry that opens the term is applied, the queues are defined
	term     uint64     // of this leadership
	book     *book
	stamps   stamps
	commands []byte // of the entry that is being made
	solo     bool   // an entry that work proposed is under way
	closed   bool   // raft is given no more entries
	given    uint64 // entries that raft was given
	told     uint64 // of them, the last that is known to be answered: raft answers in order

	looked time.Duration // Mono, when it last looked for silent sessions; of run alone

	wake  chan struct{} // holds one signal: credits came, an entry was applied, a timer fired
	ready chan struct{} // closed when it first leads, with the queues defined
	quit  chan struct{}
	done  chan struct{}
	wg    sync.WaitGroup // entries under way
}

// New starts a leader, which waits for its node to lead. Close stops it.
func New(cfg Config) *Leader {
	l := &Leader{cfg: cfg, book: newBook(), wake: make(chan struct{}, 1), ready: make(chan struct{}), quit: make(chan struct{}), done: make(chan struct{})}
	go l.run() // ended by Close
	return l
}

// Close stops it, gives raft nothing more, and waits for the entries under way: those that
// raft has not taken from its queue when it is shut down are never answered. Call it once,
// while raft still runs.
func (l *Leader) Close() {
	close(l.quit)
	<-l.done
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
}

// errClosed is the answer to what comes after Close.
var errClosed = fmt.Errorf("%w: the node is shutting down", raftfsm.ErrNotSent)

// Leading reports whether the node leads now.
func (l *Leader) Leading() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leading
}

// unbroken reports whether nobody else can have led since this node took over: raft tells
// its term at once, and leadership late. mu is held.
func (l *Leader) unbroken() bool { return l.leading && l.term == l.cfg.Raft.CurrentTerm() }

func (l *Leader) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Submit implements raftfsm.Submitter. Of its errors those that wrap raftfsm.ErrNotSent
// or raftfsm.ErrNoRoom say that the batch is in no log. wait is to be called, once.
func (l *Leader) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	if len(pushes) > 0 && l.cfg.Room != nil {
		if err := l.cfg.Room(); err != nil {
			return func() (*raftfsm.Outcome, error) { return nil, fmt.Errorf("%w: %w", raftfsm.ErrNoRoom, err) }
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.assign(l.commands[:0], pushes)
	l.hear(batch)
	return l.apply(batch, x)
}

// OpenSession implements raftfsm.Submitter.
func (l *Leader) OpenSession(node string, number uint64) (uint64, error) {
	r, err := l.command(&command.Command{Op: command.OpenSession, Node: node, Number: number})
	switch {
	case err != nil:
		return 0, err
	case r.Code != command.Accepted:
		return 0, raftfsm.ErrSessionRefused
	}
	l.prune() // its earlier session has ended
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.live(r.Session, node == l.cfg.Node).hear(l.cfg.Clock.Mono())
	return r.Session, nil
}

// EndSession implements raftfsm.Submitter.
func (l *Leader) EndSession(session uint64) error {
	_, err := l.command(&command.Command{Op: command.EndSession, Session: session})
	if err == nil {
		l.prune()
	}
	return err
}

// ReadIndex returns an entry that a node must have applied to show all that was answered
// before the call. An error that wraps raftfsm.ErrNotSent says that another leader is to
// be asked.
func (l *Leader) ReadIndex(ctx context.Context) (uint64, error) {
	done := make(chan error, 1)
	go func() { // ended by raft's answers: it steps down when it has none
		err := l.cfg.Raft.VerifyLeader().Error() // one that was deposed finds out without an entry
		if err == nil {
			err = l.cfg.Raft.Barrier(applyTimeout).Error()
		}
		done <- err
	}()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case err := <-done:
		switch {
		case err == nil:
			return l.cfg.State.Applied(), nil
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
			return 0, fmt.Errorf("%w: node %s, which was asked, is not the leader: %w", raftfsm.ErrNotSent, l.cfg.Node, err)
		}
		return 0, unsent(err)
	}
}

// command proposes one command of its own and waits.
func (l *Leader) command(c *command.Command) (command.Result, error) {
	enc, err := c.Append(nil)
	if err != nil {
		return command.Result{}, err
	}
	l.mu.Lock()
	wait := l.apply(nil, extra{commands: enc})
	l.mu.Unlock()
	o, err := wait()
	if err != nil {
		return command.Result{}, err
	}
	return o.Leader[0], nil
}

// extra is what the leader adds to an entry, and what it notes when that is answered.
type extra struct {
	commands  []byte
	proposals []proposal // the Reserves among them, which come last
	skip      int        // commands before them
}

// apply stamps an entry and gives it to raft. mu is held.
func (l *Leader) apply(batch []byte, x extra) (wait func() (*raftfsm.Outcome, error)) {
	err := l.begin()
	if l.closed {
		err = errClosed
	}
	if err != nil {
		return func() (*raftfsm.Outcome, error) {
			l.answered(0, x, nil)
			return nil, err
		}
	}
	stamp, commands := l.stamp(x.commands)
	entry := command.AppendEntry(make([]byte, 0, 48+len(batch)+len(commands)), command.Entry{Time: stamp, Batch: batch, Commands: commands})
	x.commands = nil // may be used for the next entry
	l.given++
	number := l.given
	l.wg.Add(1)
	future := l.cfg.Raft.Apply(entry, applyTimeout)
	return func() (*raftfsm.Outcome, error) {
		defer l.wg.Done()
		outcome, err := answer(future)
		l.answered(number, x, outcome)
		return outcome, err
	}
}

func answer(future raft.ApplyFuture) (*raftfsm.Outcome, error) {
	if err := future.Error(); err != nil {
		return nil, unsent(err)
	}
	outcome := future.Response().(*raftfsm.Outcome)
	if outcome.Err != nil {
		return nil, outcome.Err
	}
	return outcome, nil
}

// unsent marks the errors that raft answers only for what it has not appended to its log.
func unsent(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return fmt.Errorf("%w: %w", raftfsm.ErrNotSent, err)
	}
	return err
}

// answered notes what became of an entry; outcome is nil when that is not known.
func (l *Leader) answered(number uint64, x extra, outcome *raftfsm.Outcome) {
	if len(x.proposals) == 0 && l.cfg.SessionTTL == 0 {
		return
	}
	l.mu.Lock()
	l.told = max(l.told, number)
	short := false
	for i := range x.proposals {
		p := &x.proposals[i]
		if outcome == nil {
			p.settle(0, 0)
			continue
		}
		got := int(outcome.Leader[x.skip+i].Count)
		short = short || got < p.n
		p.settle(outcome.Index, got)
	}
	l.mu.Unlock()
	if short {
		l.prune() // or it would be asked for a session that has ended again and again
	}
	if outcome != nil && len(x.proposals) > 0 {
		l.signal()
	}
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
		changed := false
		select {
		case <-l.quit:
			return
		case elected = <-lead:
			changed = true
		case <-again:
			changed = elected && !l.Leading()
		case <-applied:
		case <-l.wake:
		}
		if changed {
			if again := l.follow(elected); again > 0 {
				retry.Reset(again)
			}
		}
		timer.Reset(min(l.work(), l.look()))
	}
}

// follow takes leadership over, or gives it up, and returns when to try again if it could
// not take over. raft tells only the last of several changes, so a leader may be elected
// again without having been deposed.
func (l *Leader) follow(elected bool) (again time.Duration) {
	l.mu.Lock()
	if l.leading || !elected {
		l.leading = false
		l.book = newBook()
		l.stamps = stamps{}
	}
	l.mu.Unlock()
	if !elected {
		return 0
	}
	err := l.takeOver()
	switch {
	case errors.Is(err, errNoClocks):
		return clocksPause
	case err != nil:
		level := slog.LevelError
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, errRedefined) {
			level = slog.LevelDebug // another was elected, or it goes on at once
		}
		l.cfg.Log.Log(context.Background(), level, "cannot lead", "error", err)
		return retryPause
	}
	select {
	case <-l.ready:
	default:
		close(l.ready)
	}
	return 0
}

// takeOver waits until the entries of earlier terms are applied, defines the queues if
// the configuration has something new to say, and leads.
func (l *Leader) takeOver() error {
	term := l.cfg.Raft.CurrentTerm()
	if err := l.cfg.Raft.Barrier(applyTimeout).Error(); err != nil {
		return err
	}
	// Up to here others led. What this node proposed as an earlier leader is below too, or
	// in no log: raft takes entries in the order of the calls, and none since has a Reserve.
	floor := l.cfg.State.Applied()
	hash, err := l.defineOwn()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Hash != hash {
		return errRedefined
	}
	l.looked = l.cfg.Clock.Mono()
	l.stamps.begun = false // the state has the stamps of other leaders now
	if err := l.begin(); err != nil {
		return err
	}
	l.book.begin(floor)
	for id, node := range l.cfg.State.Sessions() {
		l.book.live(id, node == l.cfg.Node).hear(l.looked)
	}
	l.leading, l.term = true, term
	return nil
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
	x := extra{}
	wait := time.Hour
	if left := due - l.time(); left <= 0 {
		tick, err := (&command.Command{Op: command.Tick}).Append(l.commands[:0])
		if err != nil {
			return wait
		}
		x = l.assign(tick, nil)
		x.skip = 1
	} else {
		if left < wait.Milliseconds() {
			wait = time.Duration(left) * time.Millisecond
		}
		x = l.assign(l.commands[:0], nil)
	}
	if len(x.commands) == 0 {
		return wait
	}
	l.solo = true
	l.propose(x, func() { l.solo = false })
	return wait
}

// propose gives raft an entry of the leader's own, and calls then, with mu held, when it
// is answered. mu is held.
func (l *Leader) propose(x extra, then func()) {
	outcome := l.apply(nil, x)
	l.wg.Add(1)
	go func() { // ended by the entry's outcome: applied, or raft shut down
		defer l.wg.Done()
		_, err := outcome()
		if err != nil {
			l.cfg.Log.Debug("an entry of the leader's own failed", "error", err)
		}
		l.mu.Lock()
		then()
		l.mu.Unlock()
		l.signal()
	}()
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
