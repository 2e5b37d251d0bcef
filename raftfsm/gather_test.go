package raftfsm_test

import (
	"testing"
	"time"

	"pogod/raftfsm"
)

const gather = 60 * time.Microsecond

// nothing checks that no batch was started.
func (b *proposerBench) nothing(why string) {
	b.t.Helper()
	select {
	case x := <-b.submitter.batches:
		b.t.Fatalf("%s: %s travels", why, x.names())
	default:
	}
}

// Callers that push one job after the other share a sync, instead of falling into halves
// that take turns: a batch waits for those that the last one answered, but not for long,
// and not again soon when nobody came.
func TestABatchWaitsForTheCallersThatWereJustAnswered(t *testing.T) {
	t.Parallel()
	b := prepareWith(t, 0, raftfsm.ProposerConfig{Gather: gather})
	<-b.Confirmed()
	one := b.propose("1", 0)
	x := b.batch() // nobody was answered yet
	two := b.propose("2", 0)
	b.nothing("one batch travels at once")
	x.applied()
	b.want(one, nil)
	b.clock.await(t, gather, 1)
	b.nothing("the first caller may come back")
	one = b.propose("1", 0)
	x = b.batch()
	if x.names() != "21" {
		t.Error("the two did not meet:", x.names())
	}
	three := b.propose("3", 0)
	x.applied()
	b.want(one, nil)
	b.want(two, nil)
	b.clock.await(t, gather, 1)
	b.clock.Advance(gather) // neither comes back
	if x = b.batch(); x.names() != "3" {
		t.Error(x.names())
	}
	four := b.propose("4", 0)
	x.applied()
	b.want(three, nil)
	if x = b.batch(); x.names() != "4" { // at once: the last wait was for nobody
		t.Error(x.names())
	}
	x.applied()
	b.want(four, nil)
}

// A caller alone never waits: its next call is the one that was to be waited for.
func TestALoneCallerIsNotKeptWaiting(t *testing.T) {
	t.Parallel()
	b := prepareWith(t, 0, raftfsm.ProposerConfig{Gather: gather})
	<-b.Confirmed()
	for range 3 {
		c := b.propose("1", 0)
		b.batch().applied()
		b.want(c, nil)
	}
}
