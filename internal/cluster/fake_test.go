package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"pogod/internal/command"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// journal is a log whose lines can be waited for.
type journal struct {
	mu    sync.Mutex
	cond  *sync.Cond
	lines []string
}

func newJournal() *journal {
	j := &journal{}
	j.cond = sync.NewCond(&j.mu)
	return j
}

func (j *journal) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	j.lines = append(j.lines, string(p))
	j.mu.Unlock()
	j.cond.Broadcast()
	return len(p), nil
}

func has(line string, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
}

// await waits for n lines with all the words.
func (j *journal) await(t testing.TB, n int, words ...string) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		j.mu.Lock()
		late = true
		j.mu.Unlock()
		j.cond.Broadcast()
	})
	defer timer.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.count(words) < n {
		if late {
			t.Fatalf("no %d lines with %q in:\n%s", n, words, strings.Join(j.lines, ""))
		}
		j.cond.Wait()
	}
}

func (j *journal) count(words []string) (n int) {
	for _, l := range j.lines {
		if has(l, words) {
			n++
		}
	}
	return n
}

// said returns how many lines with all the words there are.
func (j *journal) said(words ...string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count(words)
}

// get waits for something on a channel.
func get[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("waited in vain for", what)
	}
	return v
}

// eventually asks again and again: for what nobody signals.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("waited in vain until", what)
		}
	}
}

// fakeRaft is a Raft that is told who leads.
type fakeRaft struct {
	mu        sync.Mutex
	leader    string
	servers   []raft.Server
	index     uint64
	observers int
	addErr    error
	added     chan string // "nonvoter <id>", "voter <id>", "demoted <id>", "removed <id>" or "leader <id>"
}

type fakeFuture struct {
	raft.IndexFuture
	err   error
	index uint64
	conf  raft.Configuration
}

func (f *fakeFuture) Error() error                      { return f.err }
func (f *fakeFuture) Index() uint64                     { return f.index }
func (f *fakeFuture) Configuration() raft.Configuration { return f.conf }

func (r *fakeRaft) LeaderWithID() (raft.ServerAddress, raft.ServerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return raft.ServerAddress(r.leader), raft.ServerID(r.leader)
}

func (r *fakeRaft) RegisterObserver(*raft.Observer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observers++
}

func (r *fakeRaft) DeregisterObserver(*raft.Observer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observers--
}

func (r *fakeRaft) GetConfiguration() raft.ConfigurationFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &fakeFuture{index: r.index, conf: raft.Configuration{Servers: slices.Clone(r.servers)}}
}

func (r *fakeRaft) AddNonvoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.add(raft.Server{Suffrage: raft.Nonvoter, ID: id, Address: a}, "nonvoter ", prev)
}

func (r *fakeRaft) AddVoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.add(raft.Server{Suffrage: raft.Voter, ID: id, Address: a}, "voter ", prev)
}

func (r *fakeRaft) DemoteVoter(id raft.ServerID, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.add(raft.Server{Suffrage: raft.Nonvoter, ID: id, Address: raft.ServerAddress(id)}, "demoted ", prev)
}

func (r *fakeRaft) RemoveServer(id raft.ServerID, prev uint64, _ time.Duration) raft.IndexFuture {
	f := r.add(raft.Server{ID: id}, "removed ", prev)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers = slices.DeleteFunc(r.servers, func(o raft.Server) bool { return o.ID == id })
	return f
}

func (r *fakeRaft) LeadershipTransferToServer(id raft.ServerID, _ raft.ServerAddress) raft.Future {
	r.added <- "leader " + string(id)
	return &fakeFuture{}
}

func (r *fakeRaft) add(s raft.Server, as string, prev uint64) raft.IndexFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addErr != nil {
		return &fakeFuture{err: r.addErr}
	}
	if prev != 0 && prev != r.index { // 0: whatever it is
		return &fakeFuture{err: fmt.Errorf("the configuration is %d, not %d", r.index, prev)}
	}
	r.index++
	r.servers = slices.DeleteFunc(r.servers, func(o raft.Server) bool { return o.ID == s.ID })
	r.servers = append(r.servers, s)
	r.added <- as + string(s.ID)
	return &fakeFuture{index: r.index}
}

// fakeLeader is a Leader that notes what it is given.
type fakeLeader struct {
	mu     sync.Mutex
	err    error         // answers everything
	hold   chan struct{} // no batch is answered before it is closed; nil: at once
	index  uint64
	waits  atomic.Int64 // for batches
	called chan string  // gets each call, in the order of the calls; nil: nothing is noted
}

func newFakeLeader() *fakeLeader { return &fakeLeader{called: make(chan string, 10_000)} }

// quiet notes nothing from now on.
func (l *fakeLeader) quiet() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.called = nil
}

func (l *fakeLeader) note(format string, args ...any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.called == nil {
		return l.err
	}
	l.called <- fmt.Sprintf(format, args...)
	return l.err
}

// fail answers everything with that error from now on.
func (l *fakeLeader) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// keep answers no batch that comes from now on before release, or the end of the test.
func (l *fakeLeader) keep(t testing.TB) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hold := make(chan struct{})
	l.hold = hold
	release = sync.OnceFunc(func() {
		l.mu.Lock()
		l.hold = nil
		l.mu.Unlock()
		close(hold)
	})
	t.Cleanup(release)
	return release
}

func (l *fakeLeader) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	text := string(batch)
	if len(text) > 64 {
		text = fmt.Sprintf("%d bytes", len(text))
	}
	err := l.note("submit %s %v", text, pushes)
	l.mu.Lock()
	hold := l.hold
	l.index++
	o := &raftfsm.Outcome{
		Index: l.index, Status: raftfsm.Gap, Last: uint64(len(batch)),
		Results: []command.Result{{Code: command.Accepted, Job: command.JobID{Millis: 5, Seq: l.index}}, {Code: command.Failure}},
		Leader:  []command.Result{{Count: 3}},
	}
	l.mu.Unlock()
	return func() (*raftfsm.Outcome, error) {
		l.waits.Add(1)
		if hold != nil {
			<-hold
		}
		if err != nil {
			return nil, err
		}
		return o, nil
	}
}

func (l *fakeLeader) OpenSession(node string, number uint64) (uint64, error) {
	return 7, l.note("open %s %d", node, number)
}

func (l *fakeLeader) EndSession(session uint64) error { return l.note("end %d", session) }

func (l *fakeLeader) Offer(c leader.Credits) { _ = l.note("offer %+v", c) }

func (l *fakeLeader) ReadIndex(ctx context.Context) (uint64, error) {
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	err := l.note("read")
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	return 42, err
}

func (l *fakeLeader) ResetTime(context.Context) (leader.Reset, error) {
	return leader.Reset{Back: 90 * time.Second, To: time.UnixMilli(1_763_849_472_000)}, l.note("reset")
}

func (l *fakeLeader) Redefine(_ context.Context, definitions []byte, hash string) error {
	return l.note("define %s %s", definitions, hash)
}
