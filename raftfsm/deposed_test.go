package raftfsm_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/queue"
	"pogod/raftfsm"
)

func TestALeaderDeposedAndElectedAgainWithBatchesOfBothTermsInFlight(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	old := c.leading()
	other := c.follower(old)
	loads := []*load{other.load(20), c.follower(old, other).load(20)}
	for round := range 3 {
		loads[0].more(t, 200)
		c.separate(old) // with batches in its log that nobody else has
		next := c.leading()
		if next == old {
			t.Fatal("a leader without a quorum leads on")
		}
		loads[0].more(t, 200)
		loads[1].more(t, 200)
		c.connect(old)
		if round < 2 {
			loads[1].more(t, 100)
		}
		id := raft.ServerID(old.dir.NodeID())
		for late := time.After(patience); c.leading() != old; {
			// It is refused while old catches up, which it does between two attempts.
			_ = c.leading().group.Raft.LeadershipTransferToServer(id, raft.ServerAddress(id)).Error()
			select {
			case <-time.After(20 * time.Millisecond):
			case <-late:
				t.Fatal("leadership does not come back")
			}
		}
	}
	loads[0].more(t, 200)
	accepted := 0
	for _, l := range loads {
		l.end()
		accepted += len(l.accepted)
		if len(l.failed) > 0 || l.twice > 0 {
			t.Errorf("%d pushes failed, the first with %v; %d were answered with another's id", len(l.failed), l.failed[:min(len(l.failed), 1)], l.twice)
		}
	}
	all, err := c.leading().queue.Stats(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	if got := all[0].Counters.Enqueued; got != uint64(accepted) {
		t.Errorf("%d pushes accepted, %d jobs there", accepted, got)
	}
	c.equal()
}

func TestReadsOfOnesOwnWritesOnAFollower(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	m := c.follower(c.leading())
	for i := range 300 {
		if _, err := m.queue.Push(t.Context(), "q", nil, 0); err != nil {
			t.Fatal(err)
		}
		all, err := m.queue.Stats(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		if n := all[0].Gauges.Ready; n != uint64(i+1) {
			t.Fatalf("%d pushes were answered, status shows %d", i+1, n)
		}
	}
}

// lossy loses every third batch on its way, and every third answer.
type lossy struct {
	raftfsm.Submitter
	mu sync.Mutex // guards n
	n  int
}

var errLost = errors.New("lost on the way")

func (s *lossy) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	s.mu.Lock()
	s.n++
	n := s.n
	s.mu.Unlock()
	if n%3 == 1 {
		return func() (*raftfsm.Outcome, error) { return nil, errLost }
	}
	wait := s.Submitter.Submit(batch, pushes)
	if n%3 == 2 {
		return wait
	}
	return func() (*raftfsm.Outcome, error) {
		_, _ = wait()
		return nil, errLost
	}
}

func TestABatchLostInTheMiddleOfTwo(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	defer n.stop(t)
	p := raftfsm.NewProposer(raftfsm.ProposerConfig{
		Node: "another", NextOpening: func() (uint64, error) { return 1, nil }, Submitter: &lossy{Submitter: n.leader},
		Clock: clock.System(), InFlight: 2, Timeout: 20 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
	defer func() { _ = p.Close(t.Context()) }()
	m := &member{queue: queue.NewClient(p, n.group.FSM)}
	l := m.load(40)
	l.more(t, 400)
	l.end()
	if len(l.failed) > 0 || l.twice > 0 {
		t.Error(l.failed, l.twice)
	}
	if got := n.stats(t).Counters.Enqueued; got != uint64(len(l.accepted)) {
		t.Errorf("%d pushes accepted, %d jobs there", len(l.accepted), got)
	}
}

func TestAReserveForASessionThatEndedDoesNothing(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "f"))
	defer func() { _ = a.fsm.Close() }()
	encoded, hash := definitions.Encode()
	a.leader(command.Command{Op: command.Define, Definitions: encoded, Hash: hash})
	live := a.leader(command.Command{Op: command.OpenSession, Node: "live", Number: 1}).Session
	gone := a.leader(command.Command{Op: command.OpenSession, Node: "gone", Number: 1}).Session
	a.batch(live, 1, 0, "a", "b")
	a.leader(command.Command{Op: command.EndSession, Session: gone})
	reserve := command.Command{Op: command.Reserve, Session: gone, Queue: "q", Pool: "p", Count: 2}
	if r := a.leader(reserve); r.Code != command.Accepted || r.Count != 0 || a.pending() != 2 {
		t.Errorf("%+v, %d ready", r, a.pending())
	}
	reserve.Session = live
	if r := a.leader(reserve); r.Count != 2 || a.pending() != 0 {
		t.Errorf("%+v, %d ready", r, a.pending())
	}
}

// An opening that was under way when its node was killed must not end the session of the
// node's next life, nor free what that holds.
func TestALateOpeningOfAnEarlierBoot(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "f"))
	defer func() { _ = a.fsm.Close() }()
	encoded, hash := definitions.Encode()
	a.leader(command.Command{Op: command.Define, Definitions: encoded, Hash: hash})
	now := a.leader(command.Command{Op: command.OpenSession, Node: "n", Number: 8}).Session
	a.batch(now, 1, 0, "a")
	a.leader(command.Command{Op: command.Reserve, Session: now, Queue: "q", Pool: "p", Count: 1})
	if r := a.leader(command.Command{Op: command.OpenSession, Node: "n", Number: 7}); r.Code != command.Failure {
		t.Errorf("%+v", r)
	}
	if held, _ := a.fsm.Reserved(nil, now); len(held) != 1 || a.pending() != 0 {
		t.Errorf("%d held, %d ready", len(held), a.pending())
	}
	if o := a.batch(now, 2, 1, "b"); o.Status != raftfsm.Applied {
		t.Errorf("%+v", o)
	}
}
