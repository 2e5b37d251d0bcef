package raftfsm_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/raftfsm"
)

// patience bounds a wait for a signal in a test that fails.
const patience = 20 * time.Second

var errFake = errors.New("no leader")

// fakeSubmitter hands every batch to the test, which answers it.
type fakeSubmitter struct {
	batches chan *sent

	mu       sync.Mutex // guards the rest
	session  uint64
	refuse   []error // openings that fail
	openings []uint64
	ended    []uint64
	all      []*sent
	down     bool
}

// shutdown answers everything, now and from now on, as raft does when it is shut down.
func (s *fakeSubmitter) shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for _, x := range s.all {
		x.fail()
	}
}

// fail answers what is not yet answered.
func (x *sent) fail() {
	select {
	case x.outcome <- answer{nil, errFake}:
	default:
	}
}

// sent is one Submit, decoded.
type sent struct {
	command.Batch
	commands []command.Command
	pushes   []raftfsm.QueueCount
	outcome  chan answer
}

type answer struct {
	outcome *raftfsm.Outcome
	err     error
}

func (s *fakeSubmitter) Submit(p []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	b, err := command.DecodeBatch(p)
	if err != nil {
		panic(err)
	}
	x := &sent{Batch: b, pushes: pushes, outcome: make(chan answer, 1)}
	for rest := b.Commands; len(rest) > 0; {
		var c command.Command
		if rest, err = c.Decode(rest); err != nil {
			panic(err)
		}
		x.commands = append(x.commands, c)
	}
	s.mu.Lock()
	if s.all = append(s.all, x); s.down {
		x.fail()
	}
	s.mu.Unlock()
	s.batches <- x
	return func() (*raftfsm.Outcome, error) {
		a := <-x.outcome
		return a.outcome, a.err
	}
}

func (s *fakeSubmitter) OpenSession(_ string, number uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openings = append(s.openings, number)
	if len(s.refuse) > 0 {
		err := s.refuse[0]
		s.refuse = s.refuse[1:]
		return 0, err
	}
	s.session++
	return s.session, nil
}

func (s *fakeSubmitter) EndSession(session uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, session)
	return nil
}

func (x *sent) answer(o *raftfsm.Outcome, err error) { x.outcome <- answer{o, err} }

// applied answers each command with its place as Count.
func (x *sent) applied() { x.appliedAs(0) }

// appliedAs is applied, as that entry.
func (x *sent) appliedAs(index uint64) {
	o := &raftfsm.Outcome{Index: index}
	for i := range x.commands {
		o.Results = append(o.Results, command.Result{Code: command.Accepted, Count: uint64(i)})
	}
	x.answer(o, nil)
}

func (x *sent) status(s raftfsm.Status) { x.answer(&raftfsm.Outcome{Status: s}, nil) }

// names of the commands' queues, joined.
func (x *sent) names() (all string) {
	for _, c := range x.commands {
		all += c.Queue
	}
	return all
}

// spyClock is a fake clock that counts the timers that are set.
type spyClock struct {
	*clock.Fake
	mu      sync.Mutex            // guards the rest
	set     map[time.Duration]int // not yet awaited
	changed chan struct{}         // closed and made anew at every timer
}

func newSpyClock() *spyClock {
	return &spyClock{Fake: clock.NewFake(time.UnixMilli(1000)), set: map[time.Duration]int{}, changed: make(chan struct{})}
}

func (c *spyClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := c.Fake.AfterFunc(d, f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set[d]++
	close(c.changed)
	c.changed = make(chan struct{})
	return t
}

// await waits until n more timers of d were set.
func (c *spyClock) await(t *testing.T, d time.Duration, n int) {
	t.Helper()
	late := time.After(patience)
	for {
		c.mu.Lock()
		enough, changed := c.set[d] >= n, c.changed
		if enough {
			c.set[d] -= n
		}
		c.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("no timer of %s was set", d)
		}
	}
}

// The proposer's pause between two attempts, and the time-out of the tests' calls.
const (
	pause   = 20 * time.Millisecond
	timeout = 10 * time.Second
)

type proposerBench struct {
	*raftfsm.Proposer
	t         *testing.T
	submitter *fakeSubmitter
	clock     *spyClock
}

func newProposerBench(t *testing.T) *proposerBench {
	t.Helper()
	b := prepare(t, 0)
	<-b.Confirmed()
	return b
}

// prepare returns a bench whose first openings are refused. Two batches may travel.
func prepare(t *testing.T, refuse int) *proposerBench {
	t.Helper()
	return prepareWith(t, refuse, raftfsm.ProposerConfig{InFlight: 2})
}

func prepareWith(t *testing.T, refuse int, cfg raftfsm.ProposerConfig, refusals ...error) *proposerBench {
	t.Helper()
	b := &proposerBench{
		t: t, submitter: &fakeSubmitter{batches: make(chan *sent, 1000), refuse: append(slices.Repeat([]error{errFake}, refuse), refusals...)},
		clock: newSpyClock(),
	}
	var number uint64
	cfg.Node, cfg.NextOpening = "n", func() (uint64, error) { number++; return number, nil }
	cfg.Submitter, cfg.Clock, cfg.Timeout, cfg.Log = b.submitter, b.clock, timeout, slog.New(slog.DiscardHandler)
	b.Proposer = raftfsm.NewProposer(cfg)
	t.Cleanup(func() {
		b.submitter.shutdown()
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.Close(over) // a second time, as a rule
	})
	return b
}

// proposed is the answer of one Propose.
type proposed struct {
	result command.Result
	err    error
}

// propose starts a call for a queue and returns where its answer comes; it waits until
// the call is with the proposer.
func (b *proposerBench) propose(queue string, payload int) <-chan proposed {
	b.t.Helper()
	c := make(chan proposed, 1)
	go func() { // ended by the answer
		r, err := b.Propose(b.t.Context(), &command.Command{Op: command.Push, Queue: queue, Payload: make([]byte, payload)})
		c <- proposed{r, err}
	}()
	b.clock.await(b.t, timeout, 1)
	return c
}

// batch waits for the next batch.
func (b *proposerBench) batch() *sent {
	b.t.Helper()
	select {
	case x := <-b.submitter.batches:
		return x
	case <-time.After(patience):
		b.t.Fatal("no batch")
		return nil
	}
}

// fill starts batches 1 and 2, of the queues a and b, so that what follows waits.
func (b *proposerBench) fill() (first, second *sent, a1, a2 <-chan proposed) {
	b.t.Helper()
	a1 = b.propose("a", 0)
	first = b.batch()
	a2 = b.propose("b", 0)
	return first, b.batch(), a1, a2
}

// paused waits for n pauses and ends them.
func (b *proposerBench) paused(n int) {
	b.t.Helper()
	b.clock.await(b.t, pause, n)
	b.clock.Advance(pause)
}

func (b *proposerBench) want(c <-chan proposed, err error) proposed {
	b.t.Helper()
	select {
	case got := <-c:
		if !errors.Is(got.err, err) {
			b.t.Errorf("%v, want %v", got.err, err)
		}
		return got
	case <-time.After(patience):
		b.t.Fatal("no answer")
		return proposed{}
	}
}
