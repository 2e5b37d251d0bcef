package leader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/command"
	"pogod/raftfsm"
)

func TestCreditsAreKeptPerSession(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(7, 3, "q")
	b.offer(8, 3, "q")
	b.offer(8, 5, "q")
	b.Offer(Credits{Session: 7, Applied: b.index - 1, Follows: true, Pools: []Pool{{"p", []string{"q"}, 50}}})
	wantShare(t, b.push("q", 99), map[uint64]int{7: 3, 8: 5})
	b.offer(8, 5, "q")
	wantShare(t, b.push("q", 99), map[uint64]int{}) // both are on their way
	// That one node has seen an entry says nothing of another's threads.
	e := b.push("other", 0)
	b.apply(e)
	b.offer(7, 1, "q")
	wantShare(t, b.push("q", 99), map[uint64]int{})
}

func TestANodesCreditsShowOnlyItsOwnReserves(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(7, 2, "q")
	b.offer(8, 2, "q")
	e := b.push("q", 4)
	b.apply(e)
	if _, err := b.wait(); err != nil {
		t.Fatal(err)
	}
	b.offer(8, 1, "q") // it runs one, the other one has ended
	wantShare(t, b.push("q", 9), map[uint64]int{8: 1})
}

func TestCreditsThatWereStaleWhenTheTermBeganAreIgnored(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.index = 99
	b.offer(7, 3, "q") // before the elections
	b.offer(8, 3, "q")
	b.index = 100
	b.offer(9, 1, "q")
	b.raft.lead <- true
	barrier := b.barrier()
	b.index = 99
	b.offer(8, 3, "q")                            // while it waits for the entries of earlier terms
	b.state.set(func() { b.state.applied = 100 }) // some of which reserved for these threads
	barrier.resolve(nil, nil)
	b.until("it leads", b.Leading)
	b.offer(7, 3, "q") // late
	wantShare(t, b.push("q", 50), map[uint64]int{9: 1})
	b.index = 100
	b.offer(7, 2, "q")
	wantShare(t, b.push("q", 50), map[uint64]int{7: 2})
}

func TestReserveIsNotProposedForASessionThatEnded(t *testing.T) {
	t.Parallel()
	// started runs f, which waits for the outcome of an entry, and ends session 8 with it.
	started := func(b *bench, f func() error, results ...command.Result) {
		done := make(chan error, 1)
		go func() { done <- f() }() // ended by the entry's outcome
		e := b.entry()
		b.state.set(func() { delete(b.state.sessions, 8) })
		b.answers(e, results...)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for name, end := range map[string]func(b *bench){
		"a later opening": func(b *bench) {
			started(b, func() error { _, err := b.OpenSession("a", 3); return err }, command.Result{Code: command.Accepted, Session: 20})
		},
		"its end": func(b *bench) {
			started(b, func() error { return b.EndSession(8) }, command.Result{Code: command.Accepted})
		},
		"its expiry": func(b *bench) {
			b.pass(ttl/2 + ttl/lookEvery)
			b.heard(9)
			b.pass(ttl/2 - ttl/lookEvery)
			e := b.entry()
			if !e.has(command.EndSession) {
				t.Error(e.commands)
			}
			wantShare(t, b.push("q", 1), map[uint64]int{9: 1}) // under way
			b.state.set(func() { delete(b.state.sessions, 8) })
			b.fails(e) // raft cannot say that it was applied
		},
		"a look": func(b *bench) {
			b.state.set(func() { delete(b.state.sessions, 8) })
			b.pass(ttl / lookEvery)
		},
		"a Reserve that got nothing": func(b *bench) {
			e := b.push("q", 1)
			wantShare(t, e, map[uint64]int{8: 1})
			b.state.set(func() { delete(b.state.sessions, 8) })
			b.answers(e, command.Result{Code: command.Accepted})
			_, _ = b.wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := cluster(t)
			b.offer(8, 40, "q")
			b.offer(9, 5, "q")
			end(b)
			got := b.push("q", 99).share()
			if got[8] != 0 || got[9] == 0 {
				t.Error(got)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if _, ok := b.book.find(8); ok {
				t.Error("the session is kept")
			}
		})
	}
}

func TestASessionOpenedWhileOthersAreForgottenIsKept(t *testing.T) {
	t.Parallel()
	b := leading(t)
	before := b.state.Sessions()
	b.state.set(func() { b.state.sessions = map[uint64]string{7: "own", 20: "a"} })
	b.offer(8, 1, "q")
	b.offer(20, 2, "q")
	b.mu.Lock()
	b.retain(before)
	b.retain(map[uint64]string{7: "own"})
	b.mu.Unlock()
	wantShare(t, b.push("q", 9), map[uint64]int{20: 2})
}

// What a session was to take that has ended is there for others before the entry with its
// Reserve is answered.
func TestJobsThatAnEndedSessionWasToTakeGoToOthers(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.state.set(func() { b.state.ready["q"] = 5 })
	b.offer(8, 9, "q")
	e := b.push("x", 0)
	wantShare(t, e, map[uint64]int{8: 5})
	wait := b.wait
	b.state.set(func() { delete(b.state.sessions, 8) })
	b.prune()
	b.offer(9, 9, "q")
	wantShare(t, b.push("x", 0), map[uint64]int{9: 5})
	b.answers(e, command.Result{Code: command.Accepted})
	_, _ = wait() // changes nothing any more
	wantShare(t, b.push("x", 0), map[uint64]int{})
}

func TestALeaderDeposedAndElectedAgainForgetsWhatItKnew(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(b *bench){
		"deposed and elected": func(b *bench) { b.depose(); b.raft.lead <- true },
		"only the last told":  func(b *bench) { b.raft.lead <- true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := leading(t)
			b.offer(8, 4, "q")
			b.offer(9, 1, "q")
			b.state.set(func() { b.state.ready["q"] = 2 })
			earlier := b.push("x", 0)
			wantShare(t, earlier, map[uint64]int{8: 2})
			wait := b.wait
			again(b)
			barrier := b.barrier()
			wantShare(t, b.push("q", 5), map[uint64]int{}) // it takes over
			b.index = 120                                  // the entries of another leader
			b.state.set(func() { b.state.applied = 120 })
			barrier.resolve(nil, nil)
			b.until("it leads", b.Leading)

			wantShare(t, b.push("q", 5), map[uint64]int{}) // no credits
			b.offer(8, 3, "q")
			// Nothing of what was proposed before counts, neither threads nor jobs, ...
			now := b.push("x", 0)
			wantShare(t, now, map[uint64]int{8: 2})
			// ... and late answers change nothing: the entry was lost, or got less.
			earlier.resolve(nil, raft.ErrLeadershipLost)
			if _, err := wait(); !errors.Is(err, raft.ErrLeadershipLost) {
				t.Error(err)
			}
			wantShare(t, b.push("q", 5), map[uint64]int{8: 1})
		})
	}
}

// raft is elected again before the leader knows that it was deposed: threads may have been
// given away meanwhile.
func TestNothingIsReservedInATermThatWasNotTakenOver(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.offer(8, 4, "q")
	b.raft.term.Add(2)
	wantShare(t, b.push("q", 2), map[uint64]int{})
	b.raft.lead <- true
	barrier := b.barrier()
	b.raft.term.Add(2) // once more
	barrier.resolve(nil, nil)
	b.until("it leads", b.Leading)
	b.offer(8, 4, "q")
	wantShare(t, b.push("q", 2), map[uint64]int{})
	b.lead()
	b.offer(8, 4, "q")
	wantShare(t, b.push("q", 2), map[uint64]int{8: 2})
}

func TestOffersOfATakeoverThatFailedAreForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.raft.lead <- true
	b.offer(8, 4, "q")
	b.barrier().resolve(nil, raft.ErrLeadershipLost)
	b.depose()
	b.settle()
	b.lead()
	wantShare(t, b.push("q", 2), map[uint64]int{})
}

func TestErrorsOfEntriesThatRaftDidNotAppend(t *testing.T) {
	t.Parallel()
	b := leading(t)
	for err, unsent := range map[error]bool{
		raft.ErrNotLeader:                    true,
		raft.ErrEnqueueTimeout:               true,
		raft.ErrLeadershipTransferInProgress: true,
		raft.ErrLeadershipLost:               false,
		raft.ErrRaftShutdown:                 false,
		raft.ErrAbortedByRestore:             false,
		errFake:                              false,
	} {
		check := func(what string, got error) {
			if !errors.Is(got, err) || errors.Is(got, raftfsm.ErrNotSent) != unsent {
				t.Errorf("%s: raft answered %q, the caller got %q", what, err, got)
			}
		}
		b.push("q", 1).resolve(nil, err)
		_, got := b.wait()
		check("Submit", got)
		done := make(chan error, 1)
		for what, f := range map[string]func() error{
			"OpenSession": func() error { _, err := b.OpenSession("a", 1); return err },
			"EndSession":  func() error { return b.EndSession(8) },
		} {
			go func() { done <- f() }() // ended by the entry's outcome
			b.entry().resolve(nil, err)
			check(what, <-done)
		}
	}
	// The state machine has stopped: the entry is in the log.
	b.push("q", 1).resolve(&raftfsm.Outcome{Err: errFake}, nil)
	if _, err := b.wait(); errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
}

type read struct {
	index uint64
	err   error
}

func (b *bench) read(ctx context.Context) <-chan read {
	done := make(chan read, 1)
	go func() { // ended by raft's answers
		index, err := b.ReadIndex(ctx)
		done <- read{index, err}
	}()
	return done
}

func (b *bench) verify() *future {
	b.t.Helper()
	select {
	case f := <-b.raft.verifies:
		return f
	case <-time.After(patience):
		b.t.Fatal("raft was not asked")
		return nil
	}
}

func TestReadIndexIsWhatWasAppliedAtABarrierOfTheLeader(t *testing.T) {
	t.Parallel()
	b := leading(t)
	got := b.read(t.Context())
	verify := b.verify()
	select {
	case <-b.raft.barriers:
		t.Error("a barrier of a leader that is not sure")
	default:
	}
	verify.resolve(nil, nil)
	barrier := b.barrier()
	b.state.set(func() { b.state.applied = 500 })
	barrier.resolve(nil, nil)
	if r := <-got; r.index != 500 || r.err != nil {
		t.Error(r)
	}
}

func TestReadIndexOfANodeThatDoesNotLeadSaysSo(t *testing.T) {
	t.Parallel()
	for _, err := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost} {
		b := leading(t)
		got := b.read(t.Context())
		b.verify().resolve(nil, err)
		r := <-got
		if !errors.Is(r.err, raftfsm.ErrNotSent) || !errors.Is(r.err, err) || !strings.Contains(fmt.Sprint(r.err), "node own, which was asked, is not the leader") {
			t.Error(r.err)
		}
		got = b.read(t.Context())
		b.verify().resolve(nil, nil)
		b.barrier().resolve(nil, err)
		if r = <-got; !errors.Is(r.err, raftfsm.ErrNotSent) {
			t.Error(r.err)
		}
	}
}

func TestReadIndexEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := leading(t)
	ctx, cancel := context.WithCancel(t.Context())
	got := b.read(ctx)
	b.verify()
	cancel()
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Error(r.err)
	}
	got = b.read(over(t))
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Error(r.err)
	}
}
