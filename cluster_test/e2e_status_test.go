//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// phpStatus is one queue of pogo_queue_status.
type phpStatus struct {
	queueStatus
	Ready                  bool
	ReservedTotal          int `json:"reserved_total"`
	Released               int
	DroppedPayloadTooLarge int     `json:"dropped_payload_too_large"`
	DroppedShutdown        int     `json:"dropped_shutdown"`
	BackendErrors          int     `json:"backend_errors"`
	MaxPayloadBytes        int     `json:"max_payload_bytes"`
	OldestPendingAt        *string `json:"oldest_pending_at"`
}

func parseStatus(t *testing.T, text string) (ready bool, queues []phpStatus) {
	t.Helper()
	var doc struct {
		Ready  bool
		Queues []phpStatus
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err, text)
	}
	return doc.Ready, doc.Queues
}

// queue is what a page sees of a queue.
func (s *site) queue(t *testing.T, name string) phpStatus {
	t.Helper()
	_, queues := parseStatus(t, s.call(t, "pogo_queue_status", name).text(t))
	if len(queues) != 1 || queues[0].Queue != name {
		t.Fatalf("the status of queue %s: %+v", name, queues)
	}
	return queues[0]
}

// TestE2EStatus follows the gauges and counters of a queue through its life and that of
// its node.
func TestE2EStatus(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue.life]\nmax_messages = 4\nmax_payload_bytes = 1000\nbackoff = []\n"+worker(t, "life", "plan.php", 1))
	t.Run("shape", func(t *testing.T) { testStatusShape(t, s) })
	t.Run("moves", func(t *testing.T) { testStatusMoves(t, s) })

	eventually(t, "nothing runs", func() bool { return s.queue(t, "life").Reserved == 0 })
	index := s.applied(t)
	requireCodes(t, s, "life", []string{strings.Repeat("x", 1001)}, 3)
	// What never reached the log is counted through it a moment later.
	eventually(t, "the refusal is in the log", func() bool { return s.applied(t) > index })
	before := s.queue(t, "life")
	if before.DroppedFull != 1 || before.DroppedPayloadTooLarge != 2 || before.Failed != 1 || before.Delayed != 1 {
		t.Fatalf("%+v", before)
	}
	for i, end := range []func(){s.stop, s.kill, s.stop} {
		end()
		s.serve(t)
		if after := s.queue(t, "life"); after != before {
			t.Errorf("after end %d %+v, before %+v", i+1, after, before)
		}
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil { // a second one hurries, and ends well too
		t.Fatal(err)
	}
	s.stop()
}

// applied is the last index of the log that the node has applied.
func (s *site) applied(t *testing.T) int {
	t.Helper()
	return s.document(t).Raft.AppliedIndex
}

func testStatusShape(t *testing.T, s *site) {
	for _, c := range [][]any{{"default"}, {"nowhere"}} {
		var doc struct{ Queues []map[string]any }
		text := s.call(t, "pogo_queue_status", c...).text(t)
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"queue", "ready", "pending", "delayed", "reserved", "failed", "enqueued", "reserved_total", "acked", "released", "failed_total",
			"dropped_full", "dropped_payload_too_large", "dropped_shutdown", "backend_errors", "max_payload_bytes", "oldest_pending_at", "suspects",
			"paused", "deleted", "purged", "retried",
		}
		if len(doc.Queues) != 1 || len(doc.Queues[0]) != len(want) {
			t.Fatalf("%d keys are wanted: %s", len(want), text)
		}
		for _, key := range want {
			if _, ok := doc.Queues[0][key]; !ok {
				t.Errorf("no %s in %s", key, text)
			}
		}
		for key, v := range doc.Queues[0] {
			zero := slices.Contains([]any{float64(0), nil, false}, v)
			if c[0] == "nowhere" && key != "queue" && !zero {
				t.Errorf("%s of an unknown queue is %v", key, v)
			}
		}
		if got := doc.Queues[0]["ready"]; got != (c[0] == "default") {
			t.Errorf("ready of queue %s: %v", c[0], got)
		}
	}
	replies := s.calls(t, []any{"pogo_queue_status"}, []any{"pogo_queue_status", nil}, []any{"pogo_queue_status", ""})
	ready, queues := parseStatus(t, replies[0].text(t))
	var names []string
	for _, q := range queues {
		names = append(names, q.Queue)
	}
	if !ready || !slices.Equal(names, []string{"default", "life"}) {
		t.Errorf("ready %v, queues %q", ready, names)
	}
	for _, r := range replies[1:] {
		if string(r.Result) != string(replies[0].Result) {
			t.Errorf("%s differs from %s", r.Result, replies[0].Result)
		}
	}
}

func testStatusMoves(t *testing.T, s *site) {
	start := time.Now()
	gated := s.push(t, "life", always(step{"gate", "life"}, step{"ack"}))
	s.await(t, "life", gated, "start", 1)
	waits := s.push(t, "life", plans{"1": {step{"release"}}, "2": {step{"fail", "by wish"}}})
	s.push(t, "life", "later", 3600)
	s.push(t, "life", always(step{"ack"}))
	requireCodes(t, s, "life", []string{"no room"}, 0)
	requireCodes(t, s, "life", []string{strings.Repeat("x", 1001)}, 3)
	got := s.queue(t, "life")
	oldest := got.OldestPendingAt
	got.OldestPendingAt = nil
	want := phpStatus{Ready: true, ReservedTotal: 1, DroppedPayloadTooLarge: 1, MaxPayloadBytes: 1000}
	want.queueStatus = queueStatus{Queue: "life", Pending: 2, Delayed: 1, Reserved: 1, Enqueued: 4, DroppedFull: 1}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if oldest == nil {
		t.Fatal("no oldest_pending_at")
	}
	at, err := time.Parse(time.RFC3339, *oldest)
	if err != nil || at.Before(start.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("oldest_pending_at is %s (%v)", *oldest, err)
	}
	if ms := fmt.Sprint(at.UnixMilli()); !strings.HasPrefix(waits, ms+"-") {
		t.Errorf("oldest_pending_at is %s ms, and the oldest job's id %s", ms, waits)
	}
	s.open(t, "life")
	s.await(t, "life", waits, "fail", 1)
	eventually(t, "all is done", func() bool { return s.queue(t, "life").Acked == 2 })
	got = s.queue(t, "life")
	want.queueStatus = queueStatus{Queue: "life", Delayed: 1, Failed: 1, Enqueued: 4, Acked: 2, FailedTotal: 1, DroppedFull: 1}
	want.ReservedTotal, want.Released = 4, 1
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

var failedTests = []sharedTest{
	{"failed list", func(t *testing.T) string { return worker(t, "list", "plan.php", 1) }, testFailedList},
	{"failed limit", func(t *testing.T) string { return worker(t, "many", "plan.php", 4) }, testFailedLimit},
	{"retry", func(t *testing.T) string { return worker(t, "retry", "plan.php", 1) }, testRetry},
	{"own writes", func(t *testing.T) string { return worker(t, "own", "plan.php", 1) }, testOwnWrites},
}

func ids(list []failedEntry) []string {
	var all []string
	for _, f := range list {
		all = append(all, f.ID)
	}
	return all
}

func testFailedList(t *testing.T, s *site) {
	start := time.Now()
	var jobs []string
	for _, reason := range []string{"first", "second", "third"} {
		job := s.push(t, "list", always(step{"fail", reason}))
		s.await(t, "list", job, "fail", 1)
		jobs = append([]string{job}, jobs...)
	}
	list := s.failedList(t, "list")
	if !slices.Equal(ids(list), jobs) {
		t.Fatalf("got %q, want the newest first: %q", ids(list), jobs)
	}
	f := list[0]
	at, err := time.Parse(time.RFC3339, f.FailedAt)
	if err != nil || at.Before(start.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("failed_at is %s (%v)", f.FailedAt, err)
	}
	if want := (failedJob{jobs[0], "list", `{"*":[["fail","third"]]}`, "third", 1}); f.failedJob != want || f.OriginalID != jobs[0] {
		t.Errorf("got %+v, want %+v", f, want)
	}
	for limit, want := range map[int]int{-5: 1, 0: 1, 1: 1, 2: 2, 3: 3, 1 << 40: 3} {
		if got := ids(s.failedList(t, "list", limit)); !slices.Equal(got, jobs[:want]) {
			t.Errorf("limit %d: %q", limit, got)
		}
	}
	for want := 1; want >= 0; want-- {
		if a := s.call(t, "pogo_queue_forget_failed", "list", jobs[1]).answer(t); a.Count == nil || *a.Count != want {
			t.Errorf("forget: %+v, want a count of %d", a, want)
		}
	}
	if got := s.call(t, "pogo_queue_purge_failed", "list").text(t); got != `{"ok":true,"count":2,"code":1}` {
		t.Error(got)
	}
	if got := s.queue(t, "list"); got.Failed != 0 || got.FailedTotal != 3 || len(s.failedList(t, "list")) != 0 {
		t.Errorf("after the purge: %+v", got)
	}
}

// testFailedLimit lists more jobs than one answer holds.
func testFailedLimit(t *testing.T, s *site) {
	const jobs = 1003
	calls := make([][]any, jobs)
	for i := range calls {
		calls[i] = []any{"pogo_queue_push", "many", `{"*":[["fail"]]}`}
	}
	s.calls(t, calls...)
	eventually(t, "all failed", func() bool { return s.queue(t, "many").Failed == jobs })
	for limit, want := range map[int]int{5000: 1000, 1000: 1000, 999: 999} {
		if got := len(s.failedList(t, "many", limit)); got != want {
			t.Errorf("limit %d: %d jobs", limit, got)
		}
	}
	if got := len(s.failedList(t, "many")); got != 100 {
		t.Errorf("no limit: %d jobs", got)
	}
	if got := s.call(t, "pogo_queue_purge_failed", "many").text(t); got != fmt.Sprintf(`{"ok":true,"count":%d,"code":1}`, jobs) {
		t.Error(got)
	}
}

func testRetry(t *testing.T, s *site) {
	first := s.push(t, "retry", plans{"1": {step{"release"}}, "2": {step{"fail", "not yet"}}})
	last := first
	for range 2 {
		s.await(t, "retry", last, "fail", 1)
		a := s.call(t, "pogo_queue_retry_failed", "retry", last).answer(t)
		if !a.OK || a.ID == last {
			t.Fatalf("retry of %s: %+v", last, a)
		}
		if got := s.call(t, "pogo_queue_retry_failed", "retry", last).code(t); got != 5 {
			t.Errorf("retried twice: %d", got)
		}
		last = a.ID
		if n := s.await(t, "retry", last, "start", 1); n.Attempts != 1 {
			t.Errorf("the retried job begins with attempt %d", n.Attempts)
		}
	}
	s.await(t, "retry", last, "fail", 1)
	list := s.failedList(t, "retry")
	if len(list) != 1 || list[0].ID != last || list[0].OriginalID != first || list[0].Attempts != 2 {
		t.Errorf("got %+v, want job %s of %s", list, last, first)
	}
}

// testOwnWrites reads in the script that has written.
func testOwnWrites(t *testing.T, s *site) {
	job := s.push(t, "own", always(step{"fail", "mine"}, step{"call", "pogo_queue_failed", "own"}, step{"call", "pogo_queue_status", "own"}))
	s.await(t, "own", job, "call", 2)
	seen := s.notes(t, "own", job, "call")
	list := reply{Result: seen[0].Result}.answer(t).Failed
	if len(list) != 1 || list[0].ID != job || list[0].Reason != "mine" {
		t.Errorf("fail, then failed: %s", seen[0].Result)
	}
	if _, queues := parseStatus(t, reply{Result: seen[1].Result}.text(t)); queues[0].Failed != 1 || queues[0].Reserved != 0 {
		t.Errorf("fail, then status: %+v", queues)
	}
	replies := s.calls(t, []any{"pogo_queue_forget_failed", "own", job}, []any{"pogo_queue_failed", "own"},
		[]any{"pogo_queue_push", "own", "later", 3600}, []any{"pogo_queue_status", "own"})
	if left := replies[1].answer(t).Failed; len(left) != 0 {
		t.Errorf("forget, then failed: %+v", left)
	}
	if _, queues := parseStatus(t, replies[3].text(t)); queues[0].Delayed != 1 || queues[0].Failed != 0 {
		t.Errorf("push, then status: %+v", queues)
	}
}
