package leader

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pogod/internal/command"
)

const ttl = 6 * time.Second

// cluster returns a leader that ends silent sessions.
func cluster(t *testing.T) *bench {
	t.Helper()
	b := newBenchTTL(t, ttl)
	b.lead()
	return b
}

// pass lets time pass, with all the looks that belong there.
func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	for ; d > 0; d -= ttl / lookEvery {
		b.settle()
		b.clock.Advance(min(d, ttl/lookEvery))
		b.settle()
	}
}

// heard submits an empty batch of a session, which is answered.
func (b *bench) heard(session uint64) {
	b.t.Helper()
	wait := b.Submit(command.AppendBatch(nil, command.Batch{Session: session}), nil)
	b.apply(b.entry())
	if _, err := wait(); err != nil {
		b.t.Fatal(err)
	}
}

// ends returns the sessions that the next entry ends.
func (b *bench) ends() (e *entry, sessions []uint64) {
	b.t.Helper()
	e = b.entry()
	for _, c := range e.commands {
		if c.Op == command.SetTime {
			continue // a clock was set
		}
		if c.Op != command.EndSession {
			b.t.Errorf("%+v", c)
		}
		sessions = append(sessions, c.Session)
	}
	slices.Sort(sessions)
	return e, sessions
}

// fails answers an entry that ends sessions with an error, and waits until that is noted.
func (b *bench) fails(e *entry) {
	b.t.Helper()
	e.resolve(nil, errFake)
	b.until("the failure is noted", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return !slices.ContainsFunc(b.book.sessions, func(s *session) bool { return s.ending })
	})
}

func TestSessionsExpireOnlyAfterAFullTimeToLiveOfOwnLeadership(t *testing.T) {
	t.Parallel()
	b := newBenchTTL(t, ttl)
	b.pass(2 * ttl)
	b.quiet("it does not lead")
	b.raft.lead <- true
	barrier := b.barrier()
	b.clock.Advance(2 * ttl) // takes over for so long
	barrier.resolve(nil, nil)
	b.until("it leads", b.Leading)
	b.pass(ttl - time.Millisecond)
	b.quiet("it leads for less than the time to live")
	b.depose()
	b.lead()
	b.pass(ttl/2 - ttl/lookEvery)
	b.clock.Advance(time.Millisecond)
	b.heard(8)
	b.pass(ttl/lookEvery - time.Millisecond)
	b.pass(ttl/2 - time.Millisecond)
	b.quiet("it leads again for less than the time to live")
	b.pass(time.Millisecond)
	e, got := b.ends()
	if !slices.Equal(got, []uint64{9}) {
		t.Fatal("sessions that were ended:", got)
	}
	b.state.set(func() { delete(b.state.sessions, 9) })
	b.apply(e)
	b.pass(ttl/2 - ttl/lookEvery)
	b.quiet("session 8 was heard a millisecond late for this look")
	b.pass(ttl / lookEvery)
	if _, got = b.ends(); !slices.Equal(got, []uint64{8}) {
		t.Fatal("sessions that were ended:", got)
	}
}

func TestADeposedLeaderEndsNoSession(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.pass(ttl - time.Millisecond)
	b.depose()
	b.pass(ttl)
	b.quiet("it does not lead")
}

// Between two looks another node led, and heard the session.
func TestADepositionBetweenTwoLooksStartsTheCountAnew(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.pass(ttl - time.Millisecond)
	b.raft.term.Add(2)
	b.pass(time.Millisecond)
	b.quiet("it was deposed, whether it was told or not")
	b.lead() // the last of two changes is all that raft tells
	b.pass(ttl - time.Millisecond)
	b.quiet("it was deposed meanwhile")
}

func TestTheLeadersOwnSessionNeverExpires(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.state.set(func() { b.state.sessions = map[uint64]string{7: "own"} })
	b.pass(3 * ttl)
	b.quiet("it is the own one")
}

func TestNoSessionExpiresWithoutATimeToLive(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.pass(3 * ttl)
	b.clock.Advance(24 * time.Hour)
	b.quiet("sessions live for ever")
}

func TestBatchesAndOpeningsAreSignsOfLifeAndOffersAreNot(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	done := make(chan struct{})
	life := func() {
		for range lookEvery - 1 {
			b.pass(ttl / lookEvery)
			b.offer(9, 3, "q")
			b.heard(8)
			go func() { // ended by the entry's outcome
				defer func() { done <- struct{}{} }()
				_, _ = b.OpenSession("c", 1)
			}()
			e := b.entry()
			b.state.set(func() { b.state.sessions[20] = "c" })
			b.answers(e, command.Result{Code: command.Accepted, Session: 20})
			<-done
		}
	}
	life()
	b.pass(ttl / lookEvery)
	e, got := b.ends()
	if !slices.Equal(got, []uint64{9}) {
		t.Fatal("sessions that were ended:", got)
	}
	b.state.set(func() { delete(b.state.sessions, 9) })
	b.apply(e)
	life()
	b.pass(ttl / lookEvery)
	b.quiet("they have opened and sent")
}

// The log is slow, not the node, and what the node would say next waits for the answer.
func TestABatchThatIsNotAnsweredKeepsItsSession(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.state.set(func() { b.state.sessions = map[uint64]string{8: "a"} })
	b.pass(ttl / 2)
	wait := b.Submit(command.AppendBatch(nil, command.Batch{Session: 8, Number: 1}), nil)
	e := b.entry()
	b.pass(2 * ttl)
	b.quiet("its batch is under way")
	e.resolve(nil, errFake)
	if _, err := wait(); !errors.Is(err, errFake) {
		t.Fatal(err)
	}
	b.pass(ttl - ttl/lookEvery)
	b.quiet("its batch was under way in a look of less than the time to live before")
	b.pass(ttl / lookEvery)
	if _, got := b.ends(); !slices.Equal(got, []uint64{8}) {
		t.Fatal("sessions that were ended:", got)
	}
}

// Nobody waits for its batch, for its link is gone: what came later was answered.
func TestABatchThatNobodyWaitsForDoesNotKeepItsSession(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.state.set(func() { b.state.sessions = map[uint64]string{8: "a"} })
	b.Submit(command.AppendBatch(nil, command.Batch{Session: 8, Number: 1}), nil)
	b.apply(b.entry())
	b.heard(7)
	b.pass(ttl)
	if _, got := b.ends(); !slices.Equal(got, []uint64{8}) {
		t.Fatal("sessions that were ended:", got)
	}
}

func TestASessionThatALookFindsCountsFromThere(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.state.set(func() { b.state.sessions = nil })
	b.pass(ttl)
	b.offer(20, 3, "q") // knows it, and proves nothing
	b.state.set(func() { b.state.sessions = map[uint64]string{20: "c", 21: "d"} })
	b.pass(ttl / lookEvery)
	b.pass(ttl - time.Millisecond)
	b.quiet("seen for less than the time to live")
	b.pass(time.Millisecond)
	if _, got := b.ends(); !slices.Equal(got, []uint64{20, 21}) {
		t.Fatal("sessions that were ended:", got)
	}
}

func TestAStallOfTheLeaderStartsTheCountAnew(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.pass(ttl / 2)
	b.clock.Advance(ttl/stallFrom + time.Millisecond) // from the look at half of it
	b.settle()
	b.pass(ttl - time.Millisecond)
	b.quiet("it counts from the stall")
	b.pass(time.Millisecond)
	if _, got := b.ends(); !slices.Equal(got, []uint64{8, 9}) {
		t.Fatal("sessions that were ended:", got)
	}

	// A shorter one is no reason: it still hears within the time to live.
	b = cluster(t)
	b.pass(ttl / 2)
	b.clock.Advance(ttl / stallFrom)
	b.settle()
	b.pass(ttl/4 - time.Millisecond)
	b.quiet("less than the time to live")
	b.pass(time.Millisecond)
	if _, got := b.ends(); !slices.Equal(got, []uint64{8, 9}) {
		t.Fatal("sessions that were ended:", got)
	}
}

func TestTheEndOfASessionIsTriedAgainButNeverTwiceAtOnce(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.pass(ttl)
	e, _ := b.ends()
	b.pass(2 * ttl)
	b.quiet("one is under way")
	b.fails(e)
	b.pass(ttl / lookEvery)
	e, got := b.ends()
	if !slices.Equal(got, []uint64{8, 9}) {
		t.Fatal("sessions that were ended:", got)
	}
	// One of them is heard before that fails as well.
	b.heard(8)
	b.fails(e)
	b.pass(ttl / lookEvery)
	if _, got = b.ends(); !slices.Equal(got, []uint64{9}) {
		t.Fatal("sessions that were ended:", got)
	}
}

func TestTheLeaderLooksTwelveTimesInATimeToLive(t *testing.T) {
	t.Parallel()
	b := cluster(t)
	b.signal()
	b.clock.await(t, ttl/12)
	b.clock.Advance(ttl / 12)
	b.clock.await(t, ttl/12)
	b.clock.Advance(100 * time.Millisecond)
	b.signal()
	b.clock.await(t, ttl/12-100*time.Millisecond)
}
