package workers

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pogod/internal/link"
)

func TestDispatchedTaskAndItsResult(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, thread := b.peer(), b.peer()
	first := thread.next("default", 0, 0, "")
	for h := range int64(3) {
		script.dispatch(h+1, "default", fmt.Sprint("message ", h+1))
	}
	r := b.reply(first)
	if r.message != "message 1" || r.number&link.TaskBit == 0 {
		t.Fatalf("%+v", r)
	}
	waits := script.await(2, time.Minute)
	second := b.reply(thread.next("default", r.number, link.Returned, "one"))
	third := b.reply(thread.next("default", second.number, link.Refused, "two"))
	if second.message != "message 2" || third.message != "message 3" || second.number <= r.number || third.number <= second.number {
		t.Errorf("%+v %+v", second, third)
	}
	// The result that is awaited, and with it that of another handle.
	b.result(waits, told{2, link.Refused, "two"}, told{1, link.Returned, "one"})
	if r := b.reply(script.await(1, 0)); r.code != 5 || !strings.Contains(r.message, "no handle 1 ") {
		t.Errorf("a result is told twice: %+v", r)
	}
	thread.next("default", third.number, link.Broke, "no result")
	b.result(script.await(3, 0), told{3, link.Broke, "no result"})
	if s := b.d.Status()[0]; s.Done != 1 || s.Failed != 2 || s.Waiting != 1 || s.Running != 0 || s.Queued != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAwaitTimesOut(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, thread := b.peer(), b.peer()
	script.dispatch(1, "default", "runs")
	script.dispatch(2, "default", "waits")
	script.dispatch(3, "default", "stays")
	r := b.reply(thread.next("default", 0, 0, ""))
	for _, x := range []struct {
		handle int64
		where  string
	}{{2, `its job waits for a thread of pool "default"`}, {1, "its job runs"}} {
		waits := script.await(x.handle, 2*time.Second)
		b.clock.await(t, 2*time.Second)
		b.clock.Advance(2*time.Second - 1)
		select {
		case r := <-waits:
			t.Fatalf("too early: %+v", r)
		default:
		}
		b.clock.Advance(1)
		b.result(waits, told{x.handle, link.Broke, "no result within the time-out of 2s: " + x.where + ", and is cancelled"})
	}
	if hits := b.interrupts(); len(hits) != 1 || hits[0].number != r.number || hits[0].slot != 3 {
		t.Errorf("%+v", hits)
	}
	// The thread is occupied until it comes back; its result is nobody's.
	if s := b.d.Status()[0]; s.TimedOut != 2 || s.Running != 1 || s.Queued != 1 {
		t.Errorf("%+v", s)
	}
	if r := b.reply(thread.next("default", r.number, link.Returned, "late")); r.message != "stays" {
		t.Errorf("%+v", r)
	}
	if s := b.d.Status()[0]; s.Done != 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// A timer that was set for one call is used by the next, whose time-out is later.
func TestAwaitAgain(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, thread := b.peer(), b.peer()
	script.dispatch(1, "default", "one")
	script.dispatch(2, "default", "two")
	r := b.reply(thread.next("default", 0, 0, ""))
	waits := script.await(1, time.Second)
	b.clock.await(t, time.Second)
	r = b.reply(thread.next("default", r.number, link.Returned, "one"))
	b.result(waits, told{1, link.Returned, "one"})
	b.clock.Advance(time.Second / 2)
	waits = script.await(2, 3*time.Second)
	b.clock.Advance(time.Second) // the first timer
	b.clock.await(t, 2500*time.Millisecond)
	b.clock.Advance(2 * time.Second)
	b.result(waits, told{2, link.Broke, "no result within the time-out of 3s: its job runs, and is cancelled"})
	if hits := b.interrupts(); len(hits) != 1 || hits[0].number != r.number {
		t.Errorf("%+v", hits)
	}
}

func TestMaxWait(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t, TaskPool{Name: "slow", MaxWait: 10 * time.Second})
	script := b.peer()
	script.dispatch(1, "slow", "old")
	b.clock.await(t, 10*time.Second)
	b.clock.Advance(4 * time.Second)
	script.dispatch(2, "slow", "young")
	waits := script.await(1, time.Hour)
	b.clock.Advance(6 * time.Second)
	const why = `no thread of pool "slow" was free within 10s (its max_wait)`
	b.result(waits, told{1, link.Broke, why})
	if s := b.d.Status()[0]; s.Queued != 1 || s.TimedOut != 1 {
		t.Errorf("%+v", s)
	}
	b.clock.Advance(4 * time.Second)
	b.result(script.await(2, 0), told{2, link.Broke, why})
	// The next one has its own time, after the queue was empty.
	script.dispatch(3, "slow", "new")
	b.clock.Advance(9 * time.Second)
	if r := b.reply(b.peer().next("slow", 0, 0, "")); r.message != "new" {
		t.Errorf("%+v", r)
	}
}

func TestHandlesEndWithTheirScript(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, thread := b.peer(), b.peer()
	other := b.peer()
	for h := range int64(3) {
		script.dispatch(h, "default", fmt.Sprint(h))
	}
	other.dispatch(1, "default", "another's")
	r := b.reply(thread.next("default", 0, 0, ""))
	r = b.reply(thread.next("default", r.number, link.Returned, "done, not told"))
	if err := script.Send(link.Request(nil, link.Abandon)); err != nil {
		t.Fatal(err)
	}
	b.served(link.Abandon, 1)
	if s := b.d.Status()[0]; s.Cancelled != 2 || s.Queued != 1 || s.Running != 1 {
		t.Errorf("%+v", s)
	}
	if hits := b.interrupts(); len(hits) != 1 || hits[0].number != r.number {
		t.Errorf("%+v", hits)
	}
	for h := range int64(3) {
		if r := b.reply(script.await(h, 0)); r.code != 5 {
			t.Errorf("%+v", r)
		}
	}
	script.dispatch(1, "default", "again") // the connection goes on, and may use the number again
	if r = b.reply(thread.next("default", r.number, link.Returned, "nobody's")); r.message != "another's" {
		t.Errorf("%+v", r)
	}
	script.Close()
	other.Close()
	b.served(255, 2)
	if s := b.d.Status()[0]; s.Cancelled != 4 || s.Queued != 0 || len(b.d.callers) != 0 {
		t.Errorf("%+v, %d callers", s, len(b.d.callers))
	}
}

func TestThreadIsLost(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script := b.peer()
	for h, x := range []struct{ how, want string }{
		{"SIGSEGV", `the worker of pool "default" failed: its PHP host ended by SIGSEGV`},
		{"", `the worker of pool "default" failed: its connection was lost`},
	} {
		b.mu.Lock()
		if delete(b.ends, os.Getpid()); x.how != "" {
			b.ends[os.Getpid()] = x.how
		}
		b.mu.Unlock()
		thread, idle := b.peer(), b.peer()
		first := thread.next("default", 0, 0, "")
		script.dispatch(int64(h), "default", "x")
		b.reply(first)
		waits := script.await(int64(h), time.Hour)
		idle.next("default", 0, 0, "")
		thread.Close()
		b.result(waits, told{int64(h), link.Broke, x.want})
		idle.Close()
		b.served(255, 2)
		if s := b.d.Status()[0]; s.Waiting != 0 || s.Running != 0 || s.Failed != uint64(h+1) {
			t.Errorf("%+v", s)
		}
	}
}

func TestScriptEndsWithinTask(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, thread := b.peer(), b.peer()
	ended := func(number uint64, outcome link.Outcome, result string) {
		code, _, err := thread.Call(link.Request(nil, link.TaskEnded).String("default").Int(3).Int(int64(number)).Int(int64(outcome)).String(result).Int(255))
		if code != 1 || err != nil {
			t.Fatal(code, err)
		}
	}
	for h, x := range []struct {
		outcome link.Outcome
		said    string
		want    told
	}{
		{link.Broke, "exit(0)", told{0, link.Broke, `the worker of pool "default" failed: exit(0)`}},
		{link.NoOutcome, "", told{1, link.Broke, "the script ended before the job returned"}},
		{link.Returned, "{}", told{2, link.Returned, "{}"}},
	} {
		script.dispatch(int64(h), "default", "x")
		ended(b.reply(thread.next("default", 0, 0, "")).number, x.outcome, x.said)
		b.result(script.await(int64(h), 0), x.want)
	}
	ended(0, link.NoOutcome, "")
	if s := b.d.Status()[0]; s.Restarts != 4 || s.Done != 1 || s.Failed != 2 || s.LastError != "exit(0)" {
		t.Errorf("%+v", s)
	}
}

func TestUnknownAndFullPools(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script := b.peer()
	script.dispatch(1, "nosuch", "x")
	b.result(script.await(1, time.Hour), told{1, link.Broke, `no pool is called "nosuch": name it with [[pool]] in pogod.toml`})
	for h := range int64(maxQueued + 1) {
		if err := script.Send(link.Request(nil, link.Dispatch).Int(h).String("default").String("x")); err != nil {
			t.Fatal(err)
		}
	}
	b.result(script.await(maxQueued, time.Hour), told{maxQueued, link.Broke, `pool "default" is full: 65536 jobs wait for a thread`})
	if s := b.d.Status()[0]; s.Queued != maxQueued || s.Failed != 1 {
		t.Errorf("%+v", s)
	}
	if r := b.reply(b.peer().next("nosuch", 0, 0, "")); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestDispatchDrains(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, busy, idle, retired := b.peer(), b.peer(), b.peer(), b.peer()
	first := busy.next("default", 0, 0, "")
	script.dispatch(1, "default", "runs")
	r := b.reply(first)
	gone := retired.next("default", 0, 0, "")
	b.d.Retire(os.Getpid())
	if r := b.reply(gone); r.code != 0 || r.err != nil {
		t.Errorf("%+v", r)
	}
	if r := b.reply(b.peer().next("default", 0, 0, "")); r.code != 0 || r.err != nil {
		t.Errorf("a thread that comes late: %+v", r)
	}
	b.d.Left(os.Getpid())
	waits := idle.next("default", 0, 0, "")
	drained := make(chan bool, 1)
	go func() { drained <- b.d.Drain(context.Background()) }() // ended by the task's end
	for leaving := false; !leaving; {
		b.d.mu.Lock()
		leaving = b.d.leaving
		b.d.mu.Unlock()
	}
	script.dispatch(2, "default", "too late")
	b.result(script.await(2, 0), told{2, link.Broke, "the node is shutting down"})
	busy.dispatch(7, "default", "of the task that runs")
	last := b.reply(waits)
	if last.message != "of the task that runs" {
		t.Errorf("%+v", last)
	}
	waits = idle.next("default", last.number, link.Returned, "x")
	if r := b.reply(busy.next("default", r.number, link.Returned, "done")); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if !<-drained {
		t.Error("not idle")
	}
	if r := b.reply(waits); r.code != 0 {
		t.Errorf("%+v", r)
	}
	b.result(script.await(1, 0), told{1, link.Returned, "done"})
}

func TestDispatchIsCut(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, thread := b.peer(), b.peer()
	script.dispatch(1, "default", "runs")
	script.dispatch(2, "default", "waits")
	r := b.reply(thread.next("default", 0, 0, ""))
	waits := script.await(1, time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if b.d.Drain(ctx) {
		t.Error("idle")
	}
	b.d.Cut()
	b.result(waits, told{1, link.Broke, "the node was shut down while the job ran"}, told{2, link.Broke, "the node was shut down before a thread was free"})
	if hits := b.interrupts(); len(hits) != 1 || hits[0].number != r.number {
		t.Errorf("%+v", hits)
	}
	if r := b.reply(thread.next("default", r.number, link.Broke, "interrupted")); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// Results that are large, or many, do not travel with another one.
func TestLargeResults(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	script, thread := b.peer(), b.peer()
	big := strings.Repeat("x", 10<<20)
	for h := range int64(3) {
		script.dispatch(h, "default", big)
	}
	var last uint64
	for range 3 {
		r := b.reply(thread.next("default", last, link.Returned, big))
		if last = r.number; r.message != big {
			t.Fatal(len(r.message))
		}
	}
	thread.next("default", last, link.Returned, "small")
	for _, h := range []int64{1, 0} {
		if r := b.reply(script.await(h, 0)); len(r.results) != 1 || r.results[0].handle != h || r.results[0].result != big {
			t.Errorf("%d results", len(r.results))
		}
	}
	b.result(script.await(2, 0), told{2, link.Returned, "small"})
}

func TestResultsNotAwaitedAreBounded(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t)
	b.d.maxKept = 2 << 20
	script, thread := b.peer(), b.peer()
	mib := strings.Repeat("x", 1<<20)
	for h := range int64(5) {
		script.dispatch(h, "default", "x")
	}
	r := b.reply(thread.next("default", 0, 0, ""))
	for range 3 {
		r = b.reply(thread.next("default", r.number, link.Returned, mib))
	}
	b.result(script.await(2, 0), told{2, link.Broke, "the results that this script has not awaited have over 2 MiB: await them sooner"})
	waits := script.await(3, time.Hour) // one that is awaited is not kept
	r = b.reply(thread.next("default", r.number, link.Returned, mib))
	b.result(waits, told{3, link.Returned, mib})
	b.result(script.await(0, 0), told{0, link.Returned, mib})
	thread.next("default", r.number, link.Returned, mib)
	b.result(script.await(4, 0), told{4, link.Returned, mib})
}
