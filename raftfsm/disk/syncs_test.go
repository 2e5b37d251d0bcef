package disk

import (
	"errors"
	"testing"
	"time"

	"pogod/internal/clock"
)

func TestSyncs(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(0, 0))
	s := NewSyncs(c)
	if got := s.Standing(); got != (SyncStanding{}) {
		t.Errorf("%+v", got)
	}
	sync := func(n int, took time.Duration) {
		for range n {
			if err := s.Time(func() error { c.Advance(took); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(what string, recent int, median, longest time.Duration, slow bool) {
		t.Helper()
		if got := s.Standing(); got.Recent != recent || got.Median != median || got.Longest != longest || got.Slow != slow {
			t.Errorf("%s: %+v", what, got)
		}
	}
	sync(4, time.Second)
	want("too few to be judged", 4, time.Second, time.Second, false)
	sync(1, 200*time.Millisecond)
	want("slow", 5, time.Second, time.Second, true)
	sync(7, 60*time.Millisecond)
	want("not yet quick", 12, 60*time.Millisecond, time.Second, true)
	sync(20, time.Millisecond)
	want("quick again", 16, time.Millisecond, time.Millisecond, false)
	sync(64, 100*time.Millisecond)
	want("the last ones count", 16, 100*time.Millisecond, 100*time.Millisecond, true)
	c.Advance(time.Minute)
	want("idle", 0, 0, 0, false)
	broken := errors.New("EIO")
	if err := s.Time(func() error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	got := s.Standing()
	if got.Count != 96 || got.Sum != 4*time.Second+200*time.Millisecond+7*60*time.Millisecond+20*time.Millisecond+6400*time.Millisecond {
		t.Errorf("%+v", got)
	}
	if got.Buckets != [len(Bounds)]uint64{0, 20, 20, 20, 20, 20, 20, 91, 92, 92, 96, 96, 96} {
		t.Errorf("%v", got.Buckets)
	}
}
