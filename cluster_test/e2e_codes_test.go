//go:build php

package cluster_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// sharedTest is a test of the node that all of them share: its queues and workers, and
// what it does with them.
type sharedTest struct {
	name     string
	settings func(t *testing.T) string // nil: none of its own
	run      func(t *testing.T, s *site)
}

// plain makes settings that need no worker.
func plain(settings string) func(*testing.T) string {
	return func(*testing.T) string { return settings }
}

// TestE2E runs one node with PHP for all that does not disturb each other.
func TestE2E(t *testing.T) {
	t.Parallel()
	tests := slices.Concat(codeTests, failedTests, workerTests(), attemptTests(), commandLineTests, pageTests)
	var settings strings.Builder
	settings.WriteString("[queue]\nbackoff = [\"50ms\", \"100ms\"]\n")
	for _, c := range tests {
		if c.settings != nil {
			settings.WriteString(c.settings(t))
		}
	}
	s := startSite(t, settings.String())
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, s)
		})
	}
}

var codeTests = []sharedTest{
	{"signatures", nil, testSignatures},
	{"full by messages", plain("[queue.full]\nmax_messages = 2\n"), testFullMessages},
	{"full by bytes", plain("[queue.bytes]\nmax_bytes = 10\n"), testFullBytes},
	{"reserved jobs count", func(t *testing.T) string {
		return "[queue.single]\nmax_messages = 1\n" + worker(t, "single", "plan.php", 1)
	}, testFullReserved},
	{"payload too large", plain("[queue.small]\nmax_payload_bytes = 16\n"), testTooLarge},
	{"refusals", plain("[queue.plain]\n"), testRefusals},
	{"values out of range", nil, testValues},
	{"stale delivery", func(t *testing.T) string {
		return "[queue.stale]\nvisibility_timeout = \"2s\"\n" + worker(t, "stale", "plan.php", 2)
	}, testStale},
	{"settled from a page", func(t *testing.T) string { return worker(t, "outside", "plan.php", 1) }, testSettledFromPage},
}

func testSignatures(t *testing.T, s *site) {
	_, body := s.page(t, "/signatures")
	var got []string
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err, body)
	}
	want := []string{
		"pogo_queue_push(string $queue, string $payload, int $delaySeconds = 0): string",
		"pogo_queue_ack(string $queue, string $deliveryId): int",
		"pogo_queue_release(string $queue, string $deliveryId, int $delaySeconds = 0): int",
		"pogo_queue_reserve(array $queues, float $wait = 0.0): string",
		"pogo_queue_fail(string $queue, string $deliveryId, string $reason = ''): int",
		"pogo_queue_status(?string $queue = null): string",
		"pogo_queue(string $data): int",
		"pogo_queue_failed(string $queue, int $limit = 100): string",
		"pogo_queue_retry_failed(string $queue, string $failedId): string",
		"pogo_queue_forget_failed(string $queue, string $failedId): string",
		"pogo_queue_purge_failed(string $queue): string",
		"pogo_dispatch(string $class, array $args = array (\n), string $pool = 'default'): int",
		"pogo_await(int $handle, float $timeout = 5.0): mixed",
		"pogo_pool_size(string $pool = 'default'): int",
		"pogo_websocket_publish(string $appId, string $channel, string $event, string $data): int",
		"pogo_websocket_broadcast_multi(string $appId, string $channels, string $event, string $data): int",
		"pogo_websocket_publish_with(string $appId, array $channels, string $event, string $data, array $options): int",
		"pogo_spawn(string $class, array $args = array (\n), string $pool = 'default'): int",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// requireCodes calls push with the payloads and compares the codes.
func requireCodes(t *testing.T, s *site, queue string, payloads []string, want ...int) {
	t.Helper()
	calls := make([][]any, 0, len(payloads))
	for _, p := range payloads {
		calls = append(calls, []any{"pogo_queue_push", queue, p})
	}
	for i, r := range s.calls(t, calls...) {
		if got := r.code(t); got != want[i] {
			t.Errorf("push %d of %d bytes to %s answered %s, want code %d", i+1, len(payloads[i]), queue, r.Result, want[i])
		}
	}
}

func testFullMessages(t *testing.T, s *site) {
	s.push(t, "full", "waits", 3600) // delayed jobs count too
	requireCodes(t, s, "full", []string{"a", "b", "c"}, 1, 0, 0)
	if text := s.call(t, "pogo_queue_push", "full", "d").text(t); !strings.HasPrefix(text, `{"ok":false,"code":0,"message":"`) {
		t.Errorf("no code 0 in %s", text)
	}
	if got := s.queue(t, "full"); got.DroppedFull != 3 || got.Enqueued != 2 || got.Pending != 1 || got.Delayed != 1 {
		t.Errorf("%+v", got)
	}
}

func testFullBytes(t *testing.T, s *site) {
	requireCodes(t, s, "bytes", []string{"12345678", "123", "12", ""}, 1, 0, 1, 1)
	requireCodes(t, s, "bytes", []string{"1"}, 0)
}

func testFullReserved(t *testing.T, s *site) {
	job := s.push(t, "single", always(step{"gate", "single"}, step{"ack"}))
	s.await(t, "single", job, "start", 1)
	requireCodes(t, s, "single", []string{"a"}, 0)
	s.open(t, "single")
	s.await(t, "single", job, "ack", 1)
	requireCodes(t, s, "single", []string{"a"}, 1)
}

func testTooLarge(t *testing.T, s *site) {
	requireCodes(t, s, "small", []string{strings.Repeat("x", 16), strings.Repeat("x", 17), strings.Repeat("x", 3<<20)}, 1, 3, 3)
	if got := s.call(t, "pogo_queue_push", "small", binary(strings.Repeat("\xff", 17))).code(t); got != 3 {
		t.Errorf("too large and not UTF-8: %d, want 3, which is looked for first", got)
	}
	if got := s.queue(t, "small"); got.DroppedPayloadTooLarge != 3 || got.MaxPayloadBytes != 16 || got.Enqueued != 1 {
		t.Errorf("%+v", got)
	}
	for size, want := range map[int]int{1 << 20: 1, 1<<20 + 1: 3, 20 << 20: 3} {
		if got := s.call(t, "pogo_queue_push", "default", map[string]int{"bytes": size}).code(t); got != want {
			t.Errorf("%d bytes to a queue with the default limit: %d, want %d", size, got, want)
		}
	}
}

func testRefusals(t *testing.T, s *site) {
	const delivery = "1763849472123-57:58"
	for _, c := range []struct {
		call []any
		want int
	}{
		{[]any{"pogo_queue_push", "plain", binary("\xc3\x28")}, 5},
		{[]any{"pogo_queue_push", "nowhere", binary("\xff")}, 5}, // before 6
		{[]any{"pogo_queue_push", "nowhere", "p"}, 6},
		{[]any{"pogo_queue_push", "", "p"}, 6},
		{[]any{"pogo_queue_ack", "nowhere", delivery}, 6},
		{[]any{"pogo_queue_release", "nowhere", delivery}, 6},
		{[]any{"pogo_queue_fail", "nowhere", delivery, "why"}, 6},
		{[]any{"pogo_queue_failed", "nowhere"}, 6},
		{[]any{"pogo_queue_retry_failed", "nowhere", "1-1"}, 6},
		{[]any{"pogo_queue_forget_failed", "nowhere", "1-1"}, 6},
		{[]any{"pogo_queue_purge_failed", "nowhere"}, 6},
		{[]any{"pogo_queue_ack", "plain", delivery}, 5},
		{[]any{"pogo_queue_release", "plain", delivery}, 5},
		{[]any{"pogo_queue_fail", "plain", delivery}, 5},
		{[]any{"pogo_queue_ack", "plain", "1763849472123-57"}, 5}, // a bare job id
		{[]any{"pogo_queue_ack", "plain", "nonsense"}, 5},
		{[]any{"pogo_queue_ack", "plain", binary("\xff:\xff")}, 5},
		{[]any{"pogo_queue_ack", "plain", ""}, 5},
		{[]any{"pogo_queue_release", "plain", ""}, 5},
		{[]any{"pogo_queue_fail", "plain", ""}, 5},
		{[]any{"pogo_queue_ack", "nowhere", ""}, 5}, // before 6
		{[]any{"pogo_queue_ack", "", delivery}, 5},
		{[]any{"pogo_queue_release", "", delivery}, 5},
		{[]any{"pogo_queue_fail", "", delivery}, 5},
		{[]any{"pogo_queue_retry_failed", "plain", "1-1"}, 5},
		{[]any{"pogo_queue_retry_failed", "plain", ""}, 5},
		{[]any{"pogo_queue_forget_failed", "plain", "1-1"}, 1}, // a count of 0
		{[]any{"pogo_queue_purge_failed", "plain"}, 1},
		{[]any{"pogo_queue_failed", "plain"}, 1},
		{[]any{"pogo_queue_push", "plain", ""}, 1},
		{[]any{"pogo_queue", "the old helper"}, 1},
		{[]any{"pogo_queue", binary("\xff")}, 5},
	} {
		r := s.calls(t, c.call)[0]
		if got := r.code(t); r.Error != "" || got != c.want {
			t.Errorf("%q answered %s%s, want code %d", c.call, r.Result, r.Error, c.want)
		}
	}
	const want = `{"ok":false,"code":5,"message":"payload is not UTF-8: base64-encode it"}`
	if got := s.call(t, "pogo_queue_push", "plain", binary("\xff")).text(t); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := s.call(t, "pogo_queue_forget_failed", "plain", "1-1").text(t); got != `{"ok":true,"count":0,"code":1}` {
		t.Error(got)
	}
	if got := s.call(t, "pogo_queue_failed", "plain").text(t); got != `{"ok":true,"queue":"plain","failed":[],"code":1}` {
		t.Error(got)
	}
}

func testValues(t *testing.T, s *site) {
	const tenYears = 10 * 365 * 24 * 3600
	for _, c := range [][]any{
		{"pogo_queue_push", "default", "p", -1},
		{"pogo_queue_push", "default", "p", tenYears + 1},
		{"pogo_queue_push", "nowhere", "p", -1},
		{"pogo_queue_release", "default", "1-1:1", -1},
		{"pogo_queue_release", "default", "1-1:1", tenYears + 1},
		{"pogo_queue_release", "", "", -1},
	} {
		if r := s.calls(t, c)[0]; !strings.HasPrefix(r.Error, "ValueError: "+c[0].(string)+"(): Argument #3 ($delaySeconds)") {
			t.Errorf("%v: %s%s", c, r.Result, r.Error)
		}
	}
	for _, c := range [][]any{{"pogo_queue_push", "default"}, {"pogo_queue"}, {"pogo_queue_ack", "default"}, {"pogo_queue_status", "a", "b"}} {
		if r := s.calls(t, c)[0]; !strings.HasPrefix(r.Error, "ArgumentCountError: ") {
			t.Errorf("%v: %s%s", c, r.Result, r.Error)
		}
	}
	if got := s.call(t, "pogo_queue_push", "default", "p", tenYears).code(t); got != 1 {
		t.Errorf("a delay of ten years: %d", got)
	}
}

// testStale settles with the lease of an attempt that timed out, while the next one
// runs, and after it has settled.
func testStale(t *testing.T, s *site) {
	job := s.push(t, "stale", plans{"1": {step{"spin"}}, "2": {step{"gate", "stale"}, step{"ack"}}})
	first := s.await(t, "stale", job, "start", 1)
	second := s.await(t, "stale", job, "start", 2)
	if first.ID == second.ID || first.Attempts != 1 || second.Attempts != 2 {
		t.Errorf("%+v, then %+v", first, second)
	}
	refuse := func(when, id string) {
		t.Helper()
		for _, verb := range []string{"ack", "release", "fail"} {
			if got := s.call(t, "pogo_queue_"+verb, "stale", id).code(t); got != 5 {
				t.Errorf("%s, %s with %s answered %d", when, verb, id, got)
			}
		}
	}
	refuse("while the next attempt runs", first.ID)
	refuse("a bare job id", job)
	s.open(t, "stale")
	if got := s.await(t, "stale", job, "ack", 1).code(); got != "1" {
		t.Errorf("the owner's ack answered %s", got)
	}
	eventually(t, "the worker waits again", func() bool { return s.queue(t, "stale").Acked == 1 })
	refuse("when the next owner has acked", first.ID)
	if got := s.queue(t, "stale"); got.ReservedTotal != 2 || got.Failed != 0 || got.waiting() != 0 {
		t.Errorf("%+v", got)
	}
}

// testSettledFromPage acks a running delivery from elsewhere on the node: its worker's
// own ack is the same call again.
func testSettledFromPage(t *testing.T, s *site) {
	job := s.push(t, "outside", always(step{"gate", "outside"}, step{"ack"}, step{"fail", "too late"}))
	id := s.await(t, "outside", job, "start", 1).ID
	if id != job+id[strings.LastIndexByte(id, ':'):] {
		t.Errorf("the delivery of job %s is %s", job, id)
	}
	if got := s.call(t, "pogo_queue_ack", "outside", id).code(t); got != 1 {
		t.Errorf("ack from a page: %d", got)
	}
	s.open(t, "outside")
	if got := s.await(t, "outside", job, "ack", 1).code(); got != "1" {
		t.Errorf("the same call again: %s", got)
	}
	if got := s.await(t, "outside", job, "fail", 1).code(); got != "5" {
		t.Errorf("another verb: %s", got)
	}
	if got := s.queue(t, "outside"); got.Acked != 1 || got.Failed != 0 {
		t.Errorf("%+v", got)
	}
}
