package workers

import (
	"fmt"
	"testing"
	"time"
)

// TestPagesAreCountedOverLives has processes that follow each other, and two at once, tell
// figures of pages.
func TestPagesAreCountedOverLives(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	b := newHostBench(t, playing(t, "host+stubborn"), file)
	tell := func(pid int, requests uint64) {
		t.Helper()
		b.hosts.Interrupt(pid, tellPages, requests)
		b.log.await(t, fmt.Sprintf("printed %d ", requests)) // behind the figures, on the same connection
	}
	want := func(s PageStatus) {
		t.Helper()
		if got := b.hosts.Pages(); got != s {
			t.Errorf("%+v\nwant %+v", got, s)
		}
	}
	first := b.ready(0)
	want(PageStatus{})
	tell(first.PID, 10)
	tell(first.PID, 15)
	want(PageStatus{Requests: 15, Busy: 2, Waiting: 1, Ready: 3, Restarts: 1, Crashes: 2, Failed: 3, LastError: "why", LastErrorAt: time.UnixMilli(15)})

	answer := b.reload(t.Context())
	if err := getError(t, answer); err != nil {
		t.Fatal(err)
	}
	both := b.lives(hostReady, hostDraining)
	tell(both[0].PID, 4)
	tell(first.PID, 16) // it still finishes what it runs
	want(PageStatus{Requests: 20, Busy: 4, Waiting: 2, Ready: 3, Restarts: 2, Crashes: 4, Failed: 6, LastError: "why", LastErrorAt: time.UnixMilli(16)})

	b.hosts.Interrupt(first.PID, 0, dieOfKill)
	b.lives(hostReady)
	want(PageStatus{Requests: 20, Busy: 2, Waiting: 1, Ready: 3, Restarts: 2, Crashes: 4, Failed: 6, LastError: "why", LastErrorAt: time.UnixMilli(16)})
	b.hosts.Interrupt(both[0].PID, 0, dieOfKill)
	b.await("its end", func(s HostStatus) bool { return s.State == hostWaiting })
	want(PageStatus{Requests: 20, Restarts: 2, Crashes: 4, Failed: 6, LastError: "why", LastErrorAt: time.UnixMilli(16)})
}
