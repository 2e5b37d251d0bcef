package clock

import (
	"slices"
	"testing"
	"time"
)

func TestFakeCallsInOrderOfTime(t *testing.T) {
	t.Parallel()
	start := time.UnixMilli(1_000)
	c := NewFake(start)
	var got []string
	c.AfterFunc(2*time.Second, func() { got = append(got, "b@"+c.Now().Sub(start).String()) })
	var again Timer
	again = c.AfterFunc(time.Second, func() {
		got = append(got, "a@"+c.Now().Sub(start).String())
		if len(got) == 1 {
			again.Reset(2 * time.Second)
		}
	})
	stopped := c.AfterFunc(time.Second, func() { got = append(got, "never") })
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop said the wrong thing")
	}
	c.Advance(10 * time.Second)
	if want := []string{"a@1s", "b@2s", "a@3s"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if c.Advance(-time.Minute); c.Now().Sub(start) != -50*time.Second {
		t.Error("the clock was not set back:", c.Now().Sub(start))
	}
}

func TestSpyTellsOfTimersThatAreSet(t *testing.T) {
	t.Parallel()
	c := NewSpy(time.UnixMilli(0))
	timer := c.AfterFunc(time.Second, func() {})
	c.AfterFunc(time.Minute, func() {})
	if !c.Await(time.Minute, time.Minute) || c.Await(time.Second, time.Millisecond) {
		t.Error("the timers before the one that was awaited are not forgotten")
	}
	if timer.Reset(time.Second); !c.Await(time.Second, time.Minute) {
		t.Error("a timer that was reset is not told of")
	}
}

func TestSkewedSetsTheWallClockAlone(t *testing.T) {
	t.Parallel()
	c := &Skewed{}
	for _, d := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute, 365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		before := time.Now()
		c.Set(d)
		now := c.Now()
		after := time.Now()
		if wall := now.Round(0).Add(-d); wall.Before(before.Round(0)) || wall.After(after.Round(0)) {
			t.Errorf("off by %s it says %s, at %s", d, now, after)
		}
		if passed := now.Sub(before); passed < 0 || passed > after.Sub(before) {
			t.Errorf("off by %s, %s passed while %s did", d, passed, after.Sub(before))
		}
	}
}

func TestFakeSteps(t *testing.T) {
	t.Parallel()
	start := time.UnixMilli(0)
	c := NewFake(start)
	fired := 0
	c.AfterFunc(time.Second, func() { fired++ })
	c.Advance(time.Second - 1)
	for _, d := range []time.Duration{time.Hour, -2 * time.Hour} {
		c.Step(d)
		if c.Mono() != time.Second-1 || c.Boot() != time.Second-1 || fired > 0 {
			t.Errorf("a step of %s: mono %s, boot %s, %d timers fired", d, c.Mono(), c.Boot(), fired)
		}
	}
	if c.Advance(1); fired != 1 || c.Now().Sub(start) != time.Second-time.Hour {
		t.Errorf("%d timers fired at %s", fired, c.Now())
	}
}
