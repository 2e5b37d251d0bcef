package leader

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/raftfsm"
	"pogod/raftfsm/clocks"
)

const year = 365 * 24 * time.Hour

// stampOf submits an empty batch and returns its stamp, after begin.
func (b *bench) stampOf() time.Duration {
	b.t.Helper()
	b.Submit(nil, nil)
	return time.Duration(b.entry().time-begin) * time.Millisecond
}

// voters gives the leader the clocks of itself and two others, which measures sets.
func (b *bench) voters() {
	c := clocks.New(clocks.Config{
		Clock: b.clock, Node: "own", Voters: func() []string { return []string{"own", "a", "b"} }, Log: slog.New(slog.DiscardHandler),
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg.Clocks = c
}

// measures a clock that is that far ahead of one that was never set.
func (b *bench) measures(node string, ahead time.Duration) {
	mono := b.clock.Mono()
	b.cfg.Clocks.(*clocks.Clocks).Measured(node, time.UnixMilli(begin).Add(mono+ahead), mono, mono)
}

func TestClusterTimeGoesOnAtHalfSpeedWhileTheClockIsBehind(t *testing.T) {
	t.Parallel()
	b := leading(t)
	stamp := func() int64 { return b.stampOf().Milliseconds() }
	b.clock.Advance(time.Second)
	if got := stamp(); got != 1000 {
		t.Error(got)
	}
	b.clock.Advance(-time.Minute)
	last := int64(1000)
	for i := range 61 {
		got := stamp()
		if got < last || got != 1000+int64(i)*500 {
			t.Fatalf("after %d s: %d, before it was %d", i, got, last)
		}
		last = got
		for range 40 { // many looks lose nothing
			b.clock.Advance(25 * time.Millisecond)
			stamp()
		}
	}
	// 61 s after the step the clock says 2 s, cluster time 31.5 s.
	b.clock.Advance(20 * time.Second)
	if got := stamp(); got != 41_500 {
		t.Error("still behind:", got)
	}
	b.clock.Advance(20 * time.Second)
	if got := stamp(); got != 42_000 {
		t.Error("the clock has caught up:", got)
	}
}

func TestClusterTimeBeginsWhereTheStateIs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.state.set(func() { b.state.now = begin + 9000 })
	b.raft.lead <- true
	b.barrier().resolve(nil, nil)
	if err := b.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Submit(nil, nil)
	if got := b.entry().time; got != begin+9000 {
		t.Error(got - begin)
	}
}

func TestClusterTimeOfALeaderElectedAgainBeginsWhereTheStateIs(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.clock.Advance(time.Hour)
	if e := b.push("x", 0); e.time != begin+time.Hour.Milliseconds() { // and is lost
		t.Error(e.time - begin)
	}
	b.depose()
	b.clock.Advance(-time.Hour) // to begin
	b.raft.lead <- true
	barrier := b.barrier()
	if e := b.push("x", 0); e.time != begin {
		t.Error("before it leads:", e.time-begin)
	}
	b.state.set(func() { b.state.now = begin + 9000 }) // the stamps of another leader
	barrier.resolve(nil, nil)
	b.until("it leads", b.Leading)
	if e := b.push("x", 0); e.time != begin+9000 {
		t.Error(e.time - begin)
	}
}

func TestClusterTimeIsTheMedianWhateverTheLeadersClock(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{10 * time.Minute, -10 * time.Minute, year, -year} {
		b := leading(t)
		b.voters()
		b.measures("a", 0)
		b.measures("b", 0)
		if got := b.stampOf(); got != 0 {
			t.Error(got)
		}
		b.clock.Step(step)
		b.clock.Advance(time.Second)
		if got := b.stampOf(); (got - time.Second).Abs() > 2*time.Millisecond {
			t.Errorf("its clock was stepped by %s, cluster time by %s", step, got-time.Second)
		}
	}
}

func TestClusterTimeGoesOnAtHalfSpeedWhileTheClocksOfAMajorityAreNotKnown(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.voters()
	b.measures("a", 0)
	b.measures("b", 0)
	b.clock.Advance(59 * time.Second)
	if got := b.stampOf(); got != 59*time.Second {
		t.Error(got)
	}
	b.clock.Advance(10 * time.Second)
	if got := b.stampOf(); got != 64*time.Second {
		t.Error("they are old:", got)
	}
	b.clock.Advance(10 * time.Second)
	b.measures("a", 0)
	b.Submit(nil, nil)
	if from, to, ok := leap(b.entry()); !ok || from != 74*time.Second || to != 79*time.Second {
		t.Error("one is measured again:", from, to, ok)
	}
}

// A node that has just started and leads takes nothing before it knows the clocks: time
// would stand where the last leader left it, and leap.
func TestANewLeaderWaitsForTheClocksOfAMajority(t *testing.T) {
	t.Parallel()
	for _, measured := range []bool{true, false} {
		b := newBench(t)
		b.voters()
		b.clock.Advance(year)
		b.raft.lead <- true
		for range 3 {
			b.barrier().resolve(nil, nil)
			b.clock.await(t, clocksPause)
			if _, err := b.Submit([]byte("batch"), pushes("q", 1))(); !errors.Is(err, raftfsm.ErrNotSent) || b.Leading() {
				t.Error(err)
			}
			if _, err := b.OpenSession("a", 1); !errors.Is(err, raftfsm.ErrNotSent) {
				t.Error(err)
			}
			b.quiet("it knows no clock")
			b.clock.Advance(clocksPause)
		}
		want := 0 * time.Second // where the state is
		if measured {
			b.measures("a", 0)
			want = year + 3*clocksPause
		} else {
			b.clock.Advance(clocksWithin)
		}
		b.barrier().resolve(nil, nil)
		b.until("it leads", b.Leading)
		b.Submit(nil, nil)
		e := b.entry()
		if measured && e.time != begin+want.Milliseconds() || !measured && e.time != 0 || len(e.commands) > 0 {
			t.Errorf("measured %v: stamped %d, with %+v", measured, e.time, e.commands)
		}
	}
}

// leap returns how time was set in an entry, and where it stood before.
func leap(e *entry) (from, to time.Duration, ok bool) {
	last := len(e.commands) - 1
	if last < 0 || e.commands[last].Op != command.SetTime {
		return 0, 0, false
	}
	return time.Duration(e.time-begin) * time.Millisecond, time.Duration(e.commands[last].Time-begin) * time.Millisecond, true
}

// A clock that was set ahead makes leaps of time, which leases do not take part in: the
// entry is of the time before, and what is reserved in it is moved along.
func TestLeasesAreMovedAlongWhenTimeLeaps(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{10 * time.Minute, year} {
		b := leading(t)
		b.credits(1, "q")
		if got := b.stampOf(); got != 0 {
			t.Error(got)
		}
		b.clock.Advance(time.Second)
		b.clock.Step(step)
		b.Submit(nil, pushes("q", 1))
		e := b.entry()
		if from, to, ok := leap(e); !ok || from != time.Second || to != time.Second+step || len(e.commands) != 2 || e.commands[0].Op != command.Reserve {
			t.Errorf("%s to %s %v %+v", from, to, ok, e.commands)
		}
		b.Submit(nil, nil)
		e = b.entry()
		if _, _, ok := leap(e); ok || e.time != begin+(time.Second+step).Milliseconds() {
			t.Errorf("%d %+v", e.time-begin, e.commands)
		}
	}
	// None is what passed in an election, a second or less, or a majority that was not known.
	b := newBench(t)
	b.clock.Advance(time.Hour)
	b.lead()
	b.clock.Step(time.Second)
	b.Submit(nil, nil)
	if e := b.entry(); len(e.commands) != 0 || e.time != begin+(time.Hour+time.Second).Milliseconds() {
		t.Errorf("%d %+v", e.time-begin, e.commands)
	}
}

// What work finds due by a time that leaped is handed out by an entry after the one that
// sets the time.
func TestATickAfterALeap(t *testing.T) {
	t.Parallel()
	b := leading(t)
	b.stampOf()
	b.clock.Step(year)
	b.state.set(func() { b.state.due = begin + 5000 })
	b.signal()
	e := b.entry()
	if from, to, ok := leap(e); !ok || from != 0 || to != year || !e.has(command.Tick) {
		t.Errorf("%s to %s %+v", from, to, e.commands)
	}
	b.apply(e)
	if e = b.entry(); !e.has(command.Tick) || e.time != begin+year.Milliseconds() {
		t.Errorf("%d %+v", e.time-begin, e.commands)
	}
	b.state.set(func() { b.state.due = begin + 2*year.Milliseconds() })
	b.apply(e)
	b.quiet("nothing is due")
}

func TestTimeIsSetBackWhenAskedFor(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{2 * time.Second, 10 * time.Minute, year} {
		b := newBench(t)
		b.state.set(func() { b.state.now = begin + ahead.Milliseconds() })
		b.lead()
		type answer struct {
			Reset
			err error
		}
		done := make(chan answer, 1)
		go func() { // ended by the entry's outcome
			r, err := b.ResetTime(t.Context())
			done <- answer{r, err}
		}()
		e := b.entry()
		if from, to, ok := leap(e); !ok || from != ahead || to != 0 || len(e.commands) != 1 {
			t.Errorf("%s to %s %v %+v", from, to, ok, e.commands)
		}
		if got := b.stampOf(); got != 0 {
			t.Error("the entry behind it would set it ahead again:", got)
		}
		b.state.set(func() { b.state.now = begin })
		b.index++
		e.resolve(&raftfsm.Outcome{Index: b.index, Leader: []command.Result{{Code: command.Accepted}}}, nil)
		if a := <-done; a.err != nil || a.Back != ahead || a.To.UnixMilli() != begin {
			t.Error(a)
		}
		b.clock.Advance(time.Second)
		if got := b.stampOf(); got != time.Second {
			t.Error(got)
		}
	}
}

func TestTimeIsNotSetBack(t *testing.T) {
	t.Parallel()
	refused := func(b *bench, why error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { // ended at once, or by the outcome of the entry that should not be
			_, err := b.ResetTime(t.Context())
			done <- err
		}()
		select {
		case err := <-done:
			if !errors.Is(err, why) {
				t.Errorf("%v, want %v", err, why)
			}
		case e := <-b.raft.entries:
			t.Errorf("it was not refused with %q: %+v", why, e.commands)
			e.resolve(nil, errFake)
		}
	}
	refused(newBench(t), raftfsm.ErrNotSent)
	refused(leading(t), ErrNotReset) // it is right
	ahead := func(d time.Duration) *bench {
		b := newBench(t)
		b.state.set(func() { b.state.now = begin + d.Milliseconds() })
		b.lead()
		return b
	}
	refused(ahead(999*time.Millisecond), ErrNotReset)
	b := ahead(year)
	b.voters()
	refused(b, ErrNotReset) // to what?
	b.measures("a", 0)
	go func() { // ended by the entry's outcome
		if _, err := b.ResetTime(context.Background()); !errors.Is(err, errFake) {
			t.Error(err)
		}
	}()
	b.entry().resolve(nil, errFake)
	b.until("time is the state's again", func() bool { return b.stampOf() == year })
}

func TestSessionsDoNotExpireWhenClocksAreSet(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{10 * time.Minute, -10 * time.Minute, year, -year} {
		b := cluster(t)
		b.pass(ttl / 2)
		b.clock.Step(step)
		b.pass(ttl/2 - time.Millisecond)
		b.quiet("they live on")
		b.pass(time.Millisecond)
		if _, got := b.ends(); !slices.Equal(got, []uint64{8, 9}) {
			t.Error("sessions that were ended:", got)
		}
	}
}
