package workers

import (
	"slices"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
	"pogod/raftfsm"
)

// reserve starts a call for a delivery of these queues, one a line.
func (k *caller) reserve(queues string, wait time.Duration) <-chan answer {
	c := make(chan answer, 1)
	go func() { // ended by the answer, or by closing the client
		code, body, err := k.c.Call(link.Request(nil, link.Reserve).String(queues).Int(wait.Milliseconds()))
		c <- answer{code: code, msg: string(body), err: err}
	}()
	return c
}

// holds lets k reserve a job of queue "q" and returns its delivery.
func (b *bench) holds(k *caller) queue.Delivery {
	b.t.Helper()
	c := k.reserve("q", time.Minute)
	b.state.await(b.t, "a credit", func() bool { return b.state.free("reserve/q") == 1 })
	d := b.state.reserve(job("reserve/q", "q", "x"))
	if a := get(b.t, c); a.code != 1 || a.msg != messageOf(d) || a.err != nil {
		b.t.Fatalf("%+v, want %s", a, messageOf(d))
	}
	return d
}

func messageOf(d queue.Delivery) string {
	return `{"id":"` + d.ID() + `","queue":"` + d.Queue + `","payload":"` + string(d.Payload) + `","attempts":1,"job":"` + d.Job.String() + `"}`
}

func (s *fakeState) offered(pool string) (queues []string, free int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.credits.Pools {
		if p.Name == pool {
			return p.Queues, p.Free
		}
	}
	return nil, -1
}

func TestReserveIsACreditAndGetsItsJob(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	one, two, other := b.thread("", 0), b.thread("", 0), b.thread("", 0)
	c, _, _ := one.reserve("high\nq", time.Minute), two.reserve("high\nq", time.Minute), other.reserve("q", time.Minute)
	s.await(t, "the credits", func() bool { return s.free("reserve/high/q") == 2 && s.free("reserve/q") == 1 && s.free("mail") == 0 })
	if queues, _ := s.offered("reserve/high/q"); !slices.Equal(queues, []string{"high", "q"}) {
		t.Error(queues)
	}
	two.c.Close()
	s.await(t, "the credit of a call that is gone is taken back", func() bool { return s.free("reserve/high/q") == 1 })
	d := s.reserve(job("reserve/high/q", "q", "x"))
	if a := get(t, c); a.code != 1 || a.msg != messageOf(d) {
		t.Errorf("%+v", a)
	}
	s.await(t, "no credit is left", func() bool { return s.free("reserve/high/q") == -1 && s.free("reserve/q") == 1 })
	if n, ok := b.pools.Named(d.Lease); !ok || n.Job != d.Job.String() {
		t.Error(n, ok)
	}
	if now := s.seen(); now.running != 1 || len(now.gaveBack) != 0 {
		t.Errorf("%+v", now)
	}
}

func TestReserveWaitsNoLongerThanItSays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k := b.thread("", 0)
	c := k.reserve("q", 1500*time.Millisecond)
	s.await(t, "the credit", func() bool { return s.free("reserve/q") == 1 })
	b.clock.Advance(1499 * time.Millisecond)
	select {
	case a := <-c:
		t.Fatalf("it came early: %+v", a)
	default:
	}
	b.clock.Advance(time.Millisecond)
	if a := get(t, c); a.code != 1 || a.msg != "null" {
		t.Errorf("%+v", a)
	}
	s.await(t, "the credit is taken back", func() bool { return s.free("reserve/q") == -1 })
	// The leader has not heard: what comes now goes back, uncounted, and at once.
	d := s.reserve(job("reserve/q", "q", "x"))
	s.await(t, "it is given back", func() bool { return len(s.gaveBack) == 1 })
	if now := s.seen(); now.gaveBack[0].Lease != d.Lease || now.running != 0 || len(now.ends) != 0 {
		t.Errorf("%+v", now)
	}
}

// A job that comes too late for one call is right for the next one for the same queues.
func TestReserveTakesWhatWasForAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k, other := b.thread("", 0), b.thread("", 0)
	c := k.reserve("q", time.Minute)
	_ = other.reserve("high\nq", time.Minute)
	s.await(t, "the credits", func() bool { return s.free("reserve/q") == 1 && s.free("reserve/high/q") == 1 })
	d := s.reserve(job("reserve/q", "q", "x"))
	if a := get(t, c); a.msg != messageOf(d) {
		t.Errorf("%+v", a)
	}
	s.reserve(job("reserve/q", "q", "y")) // as for a call that has ended
	s.await(t, "it is given back", func() bool { return len(s.gaveBack) == 1 })
}

func TestReserveOfWhatIsReadyNow(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k := b.thread("", 0)
	if a := get(t, k.reserve("q\nlow", 0)); a.code != 1 || a.msg != "null" {
		t.Errorf("nothing is ready: %+v", a)
	}
	s.change(func() { s.ready = map[string]uint64{"low": 1} })
	c := k.reserve("q\nlow", 0)
	s.await(t, "the credit", func() bool { return s.free("reserve/q/low") == 1 })
	var d queue.Delivery
	s.apply(func() {
		s.ready["low"] = 0
		d = s.reserveLocked(job("reserve/q/low", "low", "x"))
	})
	if a := get(t, c); a.msg != messageOf(d) {
		t.Errorf("%+v", a)
	}
	gone := func() { s.await(t, "the credit is taken back", func() bool { return s.free("reserve/q/low") == -1 }) }
	gone()
	// Somebody else gets it.
	s.change(func() { s.ready["low"] = 1 })
	c = k.reserve("q\nlow", 0)
	s.await(t, "the credit", func() bool { return s.free("reserve/q/low") == 1 })
	s.apply(func() { s.ready["low"] = 0 })
	if a := get(t, c); a.code != 1 || a.msg != "null" {
		t.Errorf("it is another's: %+v", a)
	}
	gone()
	// Nobody is given it.
	s.change(func() { s.ready["low"] = 1 })
	c = k.reserve("q\nlow", 0)
	s.await(t, "the credit", func() bool { return s.free("reserve/q/low") == 1 })
	b.clock.Advance(time.Second)
	if a := get(t, c); a.msg != "null" {
		t.Errorf("%+v", a)
	}
}

func TestReservedIsGivenBackWhenItsConnectionCloses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k := b.thread("", 0)
	settled, first, second := b.holds(k), b.holds(k), b.holds(k)
	s.settle(settled.Lease)
	b.reconciled()
	k.c.Close()
	s.await(t, "both are released", func() bool { return len(s.ends) == 2 })
	for _, e := range s.seen().ends {
		if e.d.Lease != first.Lease && e.d.Lease != second.Lease || e.cause != command.Interrupted || e.reason != "the connection that reserved it was closed" {
			t.Errorf("%+v", e)
		}
	}
	s.await(t, "no attempt is left", func() bool { return len(s.running) == 0 })
	if now := s.seen(); len(now.interrupts) != 0 || now.credits.Session != 7 {
		t.Errorf("%+v", now)
	}
	b.pools.mu.Lock()
	defer b.pools.mu.Unlock()
	if len(b.pools.attempts)+len(b.pools.reservers) != 0 {
		t.Error("something is left behind")
	}
}

// The handler of a job may reserve others: they end with its attempt.
func TestReservedIsGivenBackWhenTheAttemptEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k := b.thread("mail", 3)
	own := b.deliver(k, job("mail", "q", "own"))
	more := b.holds(k)
	s.settle(own.Lease)
	k.next()
	b.onlyEnd(more.Lease, command.Interrupted, "the attempt that reserved it has ended")
	s.await(t, "the thread is free again", func() bool { return s.free("mail") == 1 })
}

// What was settled is no attempt any more, but its settling call may be made again until
// the next call.
func TestReservedIsOverOnceItIsSettled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k := b.thread("", 0)
	d := b.holds(k)
	s.settle(d.Lease)
	b.reconciled()
	if !b.pools.Drain(t.Context()) {
		t.Error("it holds up a drain")
	}
	if s.seen().running != 1 {
		t.Error("it was forgotten before the next call")
	}
	if a := get(t, k.reserve("q", 0)); a.msg != "null" {
		t.Errorf("%+v", a)
	}
	s.await(t, "it is forgotten", func() bool { return len(s.running) == 0 })
	if len(s.seen().ends) != 0 {
		t.Error("it was released")
	}
}

func TestReservedThatRanOutOfTimeIsForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k := b.thread("", 0)
	d := b.holds(k)
	b.clock.Advance(time.Hour)
	b.reconciled()
	if now := s.seen(); now.running != 1 || len(now.interrupts)+len(now.ends) != 0 {
		t.Errorf("the state frees it, not the node: %+v", now)
	}
	s.apply(func() { s.dropLocked(d.Lease) })
	s.await(t, "the attempt is over", func() bool { return len(s.running) == 0 })
	if len(s.seen().interrupts) != 0 {
		t.Error("there is nothing to interrupt")
	}
	b.holds(k) // it goes on
}

func TestReserveWhileDraining(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	k, busy := b.thread("", 0), b.thread("", 0)
	held := b.holds(busy)
	c := k.reserve("q", time.Minute)
	s.await(t, "the credit", func() bool { return s.free("reserve/q") == 1 })
	drained := make(chan bool, 1)
	go func() { drained <- b.pools.Drain(t.Context()) }() // ended by the end of the last attempt
	if a := get(t, c); a.code != 0 || a.msg != "null" {
		t.Errorf("%+v", a)
	}
	if a := get(t, k.reserve("q", time.Minute)); a.code != 0 || a.msg != "null" {
		t.Errorf("%+v", a)
	}
	late := s.reserve(job("reserve/q", "q", "late"))
	s.await(t, "what comes late goes back", func() bool { return len(s.gaveBack) == 1 && s.gaveBack[0].Lease == late.Lease })
	select {
	case <-drained:
		t.Error("the drain did not wait for what is held")
	default:
	}
	s.settle(held.Lease)
	select {
	case idle := <-drained:
		if !idle {
			t.Error("not idle")
		}
	case <-time.After(patience):
		t.Error("the drain does not see that it was settled")
	}
}

func TestReserveStartsNothingWhileTheSessionIsStale(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	c := b.thread("", 0).reserve("q", time.Minute)
	s.await(t, "the credit", func() bool { return s.free("reserve/q") == 1 })
	s.change(func() { s.standing = raftfsm.Stale })
	d := s.reserve(job("reserve/q", "q", "x"))
	b.reconciled()
	if s.seen().running != 0 || s.free("reserve/q") != -1 {
		t.Fatal("it was started")
	}
	s.change(func() { s.standing = raftfsm.Fresh })
	s.opened <- struct{}{}
	if a := get(t, c); a.msg != messageOf(d) {
		t.Errorf("%+v", a)
	}
}
