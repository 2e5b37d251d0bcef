package clocks

import (
	"bytes"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pogod/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin is when the fake clocks begin.
var begin = time.UnixMilli(1_763_849_472_000)

const year = 365 * 24 * time.Hour

// bench is the Clocks of a node called "own".
type bench struct {
	*Clocks
	clock  *clock.Fake
	log    *bytes.Buffer
	voters []string
}

func newBench(voters ...string) *bench {
	b := &bench{clock: clock.NewFake(begin), log: &bytes.Buffer{}, voters: voters}
	b.clock.Advance(time.Hour) // Mono is not 0
	b.Clocks = New(Config{
		Clock: b.clock, Node: "own", Voters: func() []string { return b.voters },
		Log: slog.New(slog.NewTextHandler(b.log, nil)),
	})
	return b
}

// measures a node whose clock is that far ahead of the true time, which began with the
// fake clock and knows no steps, with that round trip.
func (b *bench) measures(id string, ahead, trip time.Duration) {
	now := b.clock.Mono()
	b.Measured(id, b.truth().Add(ahead-trip/2), now-trip, now)
}

// truth is the time that a clock would say that was never set.
func (b *bench) truth() time.Time { return begin.Add(b.clock.Mono()) }

// median is how far the median is ahead of the true time.
func (b *bench) median() (ahead time.Duration, known bool) {
	ms, known := b.Median(b.clock.Now(), b.clock.Mono())
	return time.Duration(ms-b.truth().UnixMilli()) * time.Millisecond, known
}

func (b *bench) wants(t *testing.T, what string, ahead time.Duration, known bool) {
	t.Helper()
	got, ok := b.median()
	if ok != known || known && (got-ahead).Abs() > 2*time.Millisecond {
		t.Errorf("%s: the median is %s ahead, known %v; want %s, %v", what, got, ok, ahead, known)
	}
}

// Clocks are compared with what a sort says, whatever the number of voters, whichever of
// them were measured, and whether this node votes.
func TestClusterTimeIsTheMedianOfTheVotersClocks(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	ids := []string{"own", "a", "b", "c", "d", "e", "f"}
	for range 5000 {
		b := newBench(ids[r.IntN(2):][:1+r.IntN(6)]...)
		offsets := []time.Duration{0, time.Second, -time.Second, 10 * time.Minute, -10 * time.Minute, year, -year, 5 * time.Second}
		var all []time.Duration
		own := offsets[r.IntN(len(offsets))]
		b.clock.Step(own)
		for _, id := range b.voters {
			ahead := offsets[r.IntN(len(offsets))]
			switch {
			case id == "own":
				all = append(all, own)
			case r.IntN(4) > 0:
				b.measures(id, ahead, time.Millisecond)
				all = append(all, ahead)
			}
		}
		b.measures("someone else", offsets[r.IntN(len(offsets))], time.Millisecond) // has no vote
		slices.Sort(all)
		known := len(all) > len(b.voters)/2
		var want time.Duration
		if known {
			want = all[(len(all)-1)/2] // of two the earlier
		}
		b.wants(t, strings.Join(b.voters, " "), want, known)
	}
}

func TestASingleVotersMedianIsItsOwnClock(t *testing.T) {
	t.Parallel()
	b := newBench("own")
	for _, step := range []time.Duration{0, 10 * time.Minute, year, -2 * year} {
		b.clock.Step(step)
		if ms, known := b.Median(b.clock.Now(), b.clock.Mono()); !known || ms != b.clock.Now().UnixMilli() {
			t.Errorf("after a step of %s: %d, %v", step, ms-b.clock.Now().UnixMilli(), known)
		}
	}
}

// A step of this node's own clock is no step of the others'.
func TestASteppedClockMovesTheMedianNoFurtherThanToTheNextVoter(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{10 * time.Minute, -10 * time.Minute, year, -year} {
		b := newBench("own", "a", "b")
		b.measures("a", 0, time.Millisecond)
		b.measures("b", 20*time.Millisecond, time.Millisecond)
		b.clock.Step(step)
		at := 20 * time.Millisecond
		if step < 0 {
			at = 0
		}
		b.wants(t, "the own one was stepped by "+step.String(), at, true)
	}
	for _, step := range []time.Duration{10 * time.Minute, -10 * time.Minute, year, -year} {
		b := newBench("own", "a", "b")
		b.measures("a", 0, time.Millisecond)
		b.measures("b", 0, time.Millisecond)
		b.measures("b", step, time.Second) // rough, and yet it tells of the step
		b.wants(t, "another's was stepped by "+step.String(), 0, true)
		b.measures("a", step, time.Millisecond)
		want := step
		if step > 0 { // b's is known to be half a second less for sure
			want -= 500 * time.Millisecond
		}
		if got, known := b.median(); !known || (got-want).Abs() > time.Second {
			t.Errorf("two were stepped by %s: %s, %v", step, got, known)
		}
	}
}

func TestTheMostPreciseMeasurementCounts(t *testing.T) {
	t.Parallel()
	b := newBench("own", "a", "b")
	b.clock.Step(-time.Minute)
	b.measures("b", year, time.Millisecond)
	at := b.clock.Mono()
	b.Measured("a", b.truth().Add(-time.Second), at-2*time.Second, at) // came late: up to 2 s wrong
	b.wants(t, "what is sure of it", -time.Second, true)               // own -1m, a 0 or -2s
	b.measures("a", 0, 2*time.Millisecond)
	b.wants(t, "a precise one", 0, true)
	b.Measured("a", b.truth(), at-2*time.Second, at)
	b.wants(t, "a rough one after it", 0, true)
	b.Measured("a", b.truth().Add(year), at, at-1) // that cannot be
	b.wants(t, "nonsense", 0, true)
}

// Clocks that agree as far as can be measured are equal: cluster time is the leader's own,
// not moved by every answer that was late on one way.
func TestClocksThatAgreeWithinTheMeasurementAreEqual(t *testing.T) {
	t.Parallel()
	b := newBench("own", "a", "b")
	for i := range 100 {
		b.clock.Advance(500 * time.Millisecond)
		at := b.clock.Mono()
		trip := time.Duration(1+i%50) * time.Millisecond
		wall := b.truth() // all of the trip was on the way there, for both
		if i%2 == 1 {
			wall = wall.Add(-trip) // or on the way back
		}
		b.Measured("a", wall, at-trip, at)
		b.Measured("b", wall, at-trip, at)
		if got, known := b.median(); got != 0 || !known {
			t.Fatalf("look %d: %s, %v", i, got, known)
		}
	}
}

func TestMeasurementsGrowOld(t *testing.T) {
	t.Parallel()
	b := newBench("own", "a", "b")
	b.clock.Step(time.Minute)
	b.wants(t, "nothing measured", 0, false)
	b.measures("a", 0, time.Millisecond)
	b.wants(t, "of two the earlier", 0, true)
	b.clock.Advance(fresh / 2)
	b.measures("b", 2*time.Minute, time.Millisecond)
	b.wants(t, "three", time.Minute, true)
	b.clock.Advance(fresh/2 - time.Millisecond)
	b.wants(t, "as old as may be", time.Minute, true)
	b.clock.Advance(time.Millisecond)
	b.wants(t, "one is old: of two the earlier", time.Minute, true)
	b.clock.Advance(fresh)
	b.wants(t, "both are", 0, false)
	b.voters = []string{"own"}
	b.clock.Advance(time.Second)
	b.wants(t, "the others have left", time.Minute, true)
}

func TestANewVoterWithAWildClock(t *testing.T) {
	t.Parallel()
	for _, wild := range []time.Duration{year, -year} {
		b := newBench("own")
		b.measures("a", wild, time.Millisecond)
		b.wants(t, "it has no vote", 0, true)
		b.voters = []string{"own", "a"}
		b.measures("a", wild, time.Millisecond)
		b.wants(t, "of two the earlier", min(0, wild), true) // and time goes on at half speed, if that is behind
		b.voters = []string{"own", "a", "b"}
		b.measures("b", time.Millisecond, time.Millisecond)
		b.wants(t, "a third one is right", 0, true)
	}
}

func TestANodeMoreThanASecondOffWarnsOnceForEachChange(t *testing.T) {
	t.Parallel()
	b := newBench("own", "a", "b")
	b.measures("b", 0, time.Millisecond)
	lines := func(what string, want ...string) {
		t.Helper()
		got := strings.Split(strings.TrimSpace(b.log.String()), "\n")
		b.log.Reset()
		if len(want) == 0 && got[0] == "" {
			return
		}
		ok := len(got) == len(want)
		for i := range got {
			ok = ok && strings.Contains(got[i], want[i])
		}
		if !ok {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	again := func(ahead time.Duration) {
		t.Helper()
		b.clock.Advance(500 * time.Millisecond)
		b.measures("b", 0, time.Millisecond)
		b.measures("a", ahead, time.Millisecond)
	}
	again(-year)
	again(0)
	lines("the first measurements")
	b.clock.Advance(settle)
	again(900 * time.Millisecond)
	lines("less than a second")
	again(10 * time.Minute)
	lines("ten minutes", `level=WARN msg="another node's clock is ahead of the median of the voters' clocks: set it, and keep it right with NTP" node=a ahead=10m0s`)
	for range 10 {
		again(10*time.Minute + 500*time.Millisecond)
	}
	lines("the same")
	again(-10 * time.Minute)
	lines("back", `node=a behind=10m0s`)
	again(0)
	lines("set", `level=INFO msg="a node's clock is right again" node=a`)
	again(0)
	lines("still")
	b.clock.Step(-year)
	again(0)
	lines("its own", `level=WARN msg="this node's clock is behind the median of the voters' clocks: set it, and keep it right with NTP" node=own behind=8760h0m0s`)
	b.clock.Step(year)
	again(0)
	lines("its own is set", `node=own`)
	b.clock.Advance(fresh)
	b.measures("c", year, time.Millisecond) // there is no median to be off from
	lines("no majority")
}

func TestReport(t *testing.T) {
	t.Parallel()
	b := newBench("own", "a", "b", "gone")
	if r := b.Report(); r.Known || len(r.Nodes) != 4 || !r.Median.IsZero() {
		t.Errorf("%+v", r)
	}
	b.clock.Step(-time.Minute)
	b.measures("a", year, 2*time.Millisecond)
	b.measures("b", 0, 2*time.Millisecond)
	b.measures("worker", 5*time.Second, 2*time.Millisecond)
	b.clock.Advance(3 * time.Second)
	r := b.Report()
	if !r.Known || r.Median.Sub(b.truth()).Abs() > 2*time.Millisecond || len(r.Nodes) != 5 {
		t.Fatalf("%+v", r)
	}
	for i, want := range []Node{
		{ID: "a", Voter: true, Known: true, Offset: year, Age: 3 * time.Second},
		{ID: "b", Voter: true, Known: true, Age: 3 * time.Second},
		{ID: "gone", Voter: true},
		{ID: "own", Self: true, Voter: true, Known: true, Offset: -time.Minute},
		{ID: "worker", Known: true, Offset: 5 * time.Second, Age: 3 * time.Second},
	} {
		got := r.Nodes[i]
		if (got.Offset-want.Offset).Abs() > 3*time.Millisecond || got.Error > 3*time.Millisecond {
			t.Errorf("%+v, want %+v", got, want)
		}
		if got.Offset, got.Error = want.Offset, 0; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	// Who has left is forgotten.
	b.voters = []string{"own", "b"}
	b.clock.Advance(fresh)
	b.measures("b", 0, time.Millisecond)
	if r := b.Report(); len(r.Nodes) != 2 || len(b.nodes) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestClocksAreReadWhileTheyAreMeasured(t *testing.T) {
	t.Parallel()
	b := newBench("own", "a", "b")
	c := New(Config{Clock: clock.System(), Node: "own", Voters: b.Clocks.cfg.Voters, Log: slog.New(slog.DiscardHandler)})
	var wg sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		wg.Go(func() { // ended by its loop
			for range 2000 {
				sent := clock.System().Mono()
				c.Measured(id, time.Now(), sent, clock.System().Mono())
			}
		})
	}
	wg.Go(func() { // ended by its loop
		for range 2000 {
			now, mono := clock.System().Now(), clock.System().Mono()
			if ms, known := c.Median(now, mono); known && math.Abs(float64(ms-now.UnixMilli())) > 60_000 {
				t.Error(ms, now.UnixMilli())
			}
			c.Report()
		}
	})
	wg.Wait()
}

func BenchmarkMedian(b *testing.B) {
	f := newBench("own", "a", "b")
	f.measures("a", 0, time.Millisecond)
	f.measures("b", 0, time.Millisecond)
	now, mono := f.clock.Now(), f.clock.Mono()
	b.ReportAllocs()
	for b.Loop() {
		f.Median(now, mono)
	}
}
