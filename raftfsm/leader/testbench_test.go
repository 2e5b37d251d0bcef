package leader

import (
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/raftfsm"
)

// begin is when the fake clock begins, unix milliseconds.
const begin = 1_763_849_472_000

// bench is a leader over fakes.
type bench struct {
	*Leader
	t     *testing.T
	raft  *fakeRaft
	state *fakeState
	clock *spyClock
	index uint64
	wait  func() (*raftfsm.Outcome, error) // of the last push

	submits sync.Mutex // guards waits
	waits   []func() (*raftfsm.Outcome, error)
	stopped sync.Once
}

// newBench returns one that does not lead yet; the definitions have the hash "h". Session
// 7 is its own, 8 and 9 are of the nodes a and b.
func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchTTL(t, 0)
}

func newBenchTTL(t *testing.T, ttl time.Duration) *bench {
	t.Helper()
	b := &bench{
		t:    t,
		raft: &fakeRaft{lead: make(chan bool, 1), entries: make(chan *entry, 10_000), barriers: make(chan *future, 100), verifies: make(chan *future, 100)},
		state: &fakeState{
			ready: map[string]uint64{}, due: math.MaxInt64, hash: "h", watch: make(chan struct{}, 1),
			sessions: map[uint64]string{7: "own", 8: "a", 9: "b"},
		},
		clock: &spyClock{clock.NewSpy(time.UnixMilli(begin))},
		index: 100,
	}
	b.Leader = New(Config{
		Raft: b.raft, State: b.state, Clock: b.clock, Node: "own", SessionTTL: ttl, Definitions: []byte{1}, Hash: "h", Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(b.stop)
	return b
}

// Submit keeps what is to be waited for, for a test that does not care: Close waits too.
func (b *bench) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	wait := sync.OnceValues(b.Leader.Submit(batch, pushes))
	b.submits.Lock()
	defer b.submits.Unlock()
	b.waits = append(b.waits, wait)
	return wait
}

// stop ends raft and the leader, once.
func (b *bench) stop() {
	b.stopped.Do(func() {
		b.raft.shutdown()
		b.submits.Lock()
		defer b.submits.Unlock()
		for _, wait := range b.waits {
			_, _ = wait() // raft has answered
		}
		b.Close()
	})
}

// leading returns one that leads.
func leading(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.lead()
	return b
}

// lead makes it the leader.
func (b *bench) lead() {
	b.t.Helper()
	b.raft.lead <- true
	b.barrier().resolve(nil, nil)
	b.until("it leads", b.Leading)
}

// depose makes it a follower.
func (b *bench) depose() {
	b.t.Helper()
	b.raft.lead <- false
	b.until("it does not lead", func() bool { return !b.Leading() })
}

// until waits, each time for all signals so far to be worked on.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !ok(); b.settle() {
		if time.Now().After(end) {
			b.t.Fatal("it never came that", what)
		}
	}
}

func (b *bench) barrier() *future {
	b.t.Helper()
	select {
	case f := <-b.raft.barriers:
		return f
	case <-time.After(patience):
		b.t.Fatal("no barrier")
		return nil
	}
}

// entry waits for the next entry.
func (b *bench) entry() *entry {
	b.t.Helper()
	select {
	case e := <-b.raft.entries:
		return e
	case <-time.After(patience):
		b.t.Fatal("no entry")
		return nil
	}
}

// quiet fails when an entry was proposed; what could have proposed it has run.
func (b *bench) quiet(why string) {
	b.t.Helper()
	b.settle()
	select {
	case e := <-b.raft.entries:
		b.t.Fatalf("%s: an entry with %+v", why, e.commands)
	default:
	}
}

// settle waits until run has worked on all signals so far: it sets its timer after each.
func (b *bench) settle() {
	b.t.Helper()
	for range 2 { // the first may be of work that was under way
	drain:
		for {
			select {
			case <-b.clock.Set():
			default:
				break drain
			}
		}
		b.signal()
		select {
		case <-b.clock.Set():
		case <-time.After(patience):
			b.t.Fatal("it does not work")
		}
	}
}

// apply applies an entry: the Reserves in it get what they ask for.
func (b *bench) apply(e *entry) {
	var results []command.Result
	for _, c := range e.commands {
		results = append(results, command.Result{Code: command.Accepted, Count: c.Count})
	}
	b.answers(e, results...)
}

// credits offers free threads of the pool p for queues, as of everything applied.
func (b *bench) credits(free int, queues ...string) {
	b.Offer(Credits{Session: 7, Applied: b.index, Pools: []Pool{{Name: "p", Queues: queues, Free: free}}})
}

// offer offers free threads of the pool p of a session, as of everything applied.
func (b *bench) offer(session uint64, free int, queues ...string) {
	b.Offer(Credits{Session: session, Applied: b.index, Follows: true, Pools: []Pool{{Name: "p", Queues: queues, Free: free}}})
}

// push submits a batch that pushes n jobs, and returns its entry.
func (b *bench) push(queue string, n int) *entry {
	b.t.Helper()
	b.wait = b.Submit(nil, pushes(queue, n))
	return b.entry()
}

// undo fails the entry of the last push.
func (b *bench) undo(e *entry) {
	e.resolve(nil, errFake)
	_, _ = b.wait()
}

// answers applies an entry: its own commands get these results.
func (b *bench) answers(e *entry, results ...command.Result) {
	b.index++
	b.state.set(func() { b.state.now, b.state.applied = max(b.state.now, e.time), b.index })
	e.resolve(&raftfsm.Outcome{Index: b.index, Leader: results}, nil)
}

// share of an entry: jobs by session, whatever the pool and queue.
func (e *entry) share() map[uint64]int {
	m := map[uint64]int{}
	for _, c := range e.commands {
		if c.Op == command.Reserve {
			m[c.Session] += int(c.Count)
		}
	}
	return m
}

// reserves of an entry: jobs by "pool/queue".
func (e *entry) reserves() map[string]uint64 {
	m := map[string]uint64{}
	for _, c := range e.commands {
		if c.Op == command.Reserve {
			m[c.Pool+"/"+c.Queue] += c.Count
		}
	}
	return m
}

func (e *entry) has(op command.Op) bool {
	return slices.ContainsFunc(e.commands, func(c command.Command) bool { return c.Op == op })
}
