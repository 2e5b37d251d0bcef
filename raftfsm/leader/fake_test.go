package leader

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"pogod/internal/clock"
	"pogod/internal/command"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds a wait for a signal in a test that fails.
const patience = 20 * time.Second

var errFake = errors.New("raft says no")

// fakeRaft takes entries and holds them until the test answers.
type fakeRaft struct {
	lead     chan bool
	entries  chan *entry
	barriers chan *future
	verifies chan *future
	term     atomic.Uint64

	mu   sync.Mutex // guards the rest
	all  []*future
	down bool
}

// keep notes a future, so that it ends when raft is shut down.
func (r *fakeRaft) keep(f *future) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all = append(r.all, f); r.down {
		f.resolve(nil, raft.ErrRaftShutdown)
	}
}

func (r *fakeRaft) shutdown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = true
	for _, f := range r.all {
		f.resolve(nil, raft.ErrRaftShutdown)
	}
}

// future implements raft.ApplyFuture; the test resolves it.
type future struct {
	once sync.Once
	done chan struct{}
	err  error
	out  any
}

func newFuture() *future { return &future{done: make(chan struct{})} }

func (f *future) Error() error  { <-f.done; return f.err }
func (f *future) Response() any { return f.out }
func (f *future) Index() uint64 { return 0 }
func (f *future) resolve(out any, err error) {
	f.once.Do(func() {
		f.out, f.err = out, err
		close(f.done)
	})
}

// entry is one Apply, decoded.
type entry struct {
	*future
	time     int64
	batch    string
	commands []command.Command
}

func (r *fakeRaft) Apply(p []byte, _ time.Duration) raft.ApplyFuture {
	e, err := command.DecodeEntry(p)
	if err != nil {
		panic(err)
	}
	x := &entry{future: newFuture(), time: e.Time, batch: string(e.Batch)}
	for rest := e.Commands; len(rest) > 0; {
		var c command.Command
		if rest, err = c.Decode(rest); err != nil {
			panic(err)
		}
		x.commands = append(x.commands, c)
	}
	r.keep(x.future)
	r.entries <- x
	return x
}

func (r *fakeRaft) Barrier(time.Duration) raft.Future {
	f := newFuture()
	r.keep(f)
	r.barriers <- f
	return f
}

func (r *fakeRaft) VerifyLeader() raft.Future {
	f := newFuture()
	r.keep(f)
	r.verifies <- f
	return f
}

func (r *fakeRaft) CurrentTerm() uint64   { return r.term.Load() }
func (r *fakeRaft) LeaderCh() <-chan bool { return r.lead }

// fakeState is what has been applied.
type fakeState struct {
	mu       sync.Mutex
	ready    map[string]uint64
	paused   string // the queue that is
	due      int64
	now      int64
	hash     string
	old      []string // superseded
	sessions map[uint64]string
	applied  uint64
	watch    chan struct{}
}

func (s *fakeState) Ready(queue string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready[queue]
}

func (s *fakeState) Paused(queue string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return queue == s.paused
}

func (s *fakeState) NextTick() (due, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.due, s.now
}

func (s *fakeState) DefinitionsHash() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hash
}

func (s *fakeState) Superseded(hash string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.old, hash)
}

func (s *fakeState) Sessions() map[uint64]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.sessions)
}

func (s *fakeState) Applied() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

func (s *fakeState) Watch() <-chan struct{} { return s.watch }

// set changes the state without a signal.
func (s *fakeState) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// spyClock is a clock.Spy that fails the test.
type spyClock struct{ *clock.Spy }

// await waits until a timer of d was set.
func (c *spyClock) await(t *testing.T, d time.Duration) {
	t.Helper()
	if !c.Await(d, patience) {
		t.Fatalf("no timer of %s was set", d)
	}
}
