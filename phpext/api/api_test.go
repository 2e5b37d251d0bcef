package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
)

// outcomes are the errors of the queue and their codes.
var outcomes = []struct {
	err  error
	code int32
}{
	{queue.ErrFull, 0},
	{nil, 1},
	{queue.ErrPayloadTooLarge, 3},
	{fmt.Errorf("wrapped: %w", command.ErrTooLarge), 3},
	{queue.ErrShuttingDown, 4},
	{queue.ErrNotHeld, 5},
	{queue.ErrUnknownJob, 5},
	{queue.ErrPayloadNotUTF8, 5},
	{command.ErrNotAccepted, 5},
	{command.ErrOutcomeUnknown, 5},
	{command.ErrClosed, 5},
	{errors.New("anything else"), 5},
	{queue.ErrUnknownQueue, 6},
}

func request(op link.Op, name string) link.Builder { return link.Request(nil, op).String(name) }

func TestCodesOfCallsThatAnswerJSON(t *testing.T) {
	t.Parallel()
	job := `{"ok":true,"id":"1763849472123-57","code":1}`
	count := `{"ok":true,"count":3,"code":1}`
	for name, c := range map[string]struct {
		request link.Builder
		success string
		call    string
	}{
		"push":   {request(link.Push, "q").String("payload").Int(7), job, "push q 7 7s"},
		"retry":  {request(link.RetryFailed, "q").String("1-2"), job, "retry q 1-2"},
		"forget": {request(link.ForgetFailed, "q").String("1-2"), count, "forget q 1-2"},
		"purge":  {request(link.PurgeFailed, "q"), count, "purge q"},
		"failed": {request(link.Failed, "q").Int(9), `{"ok":true,"queue":"q","failed":[],"code":1}`, "failed q 9"},
	} {
		b := newBench(t, true)
		b.queue.count = 3
		for _, o := range outcomes {
			b.queue.err = o.err
			code, body := b.call(c.request)
			if b.queue.last() != c.call {
				t.Errorf("%s called %q", name, b.queue.last())
			}
			want := c.success
			if o.err != nil {
				want = fmt.Sprintf(`{"ok":false,"code":%d,"message":%q}`, o.code, o.err.Error())
			}
			if code != o.code || body != want {
				t.Errorf("%s with %v: %d %s\nwant %s", name, o.err, code, body, want)
			}
		}
	}
}

func TestCodesOfSettling(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request func(queue, delivery string) link.Builder
		call    string
	}{
		"ack":     {func(q, d string) link.Builder { return request(link.Ack, q).String(d) }, "ack q 1-2:3"},
		"release": {func(q, d string) link.Builder { return request(link.Release, q).String(d).Int(5) }, "release q 1-2:3 5s"},
		"fail":    {func(q, d string) link.Builder { return request(link.Fail, q).String(d).String("why") }, "fail q 1-2:3 why"},
	} {
		b := newBench(t, true)
		// An empty queue or id is 5 before anything, even where the queue would say 6.
		b.queue.err = queue.ErrUnknownQueue
		for _, empty := range []link.Builder{c.request("", "1-2:3"), c.request("q", ""), c.request("", "")} {
			if code, body := b.call(empty); code != 5 || body != "" || b.queue.last() != "" {
				t.Errorf("%s of nothing: %d %q, called %q", name, code, body, b.queue.last())
			}
		}
		for _, o := range outcomes {
			b.queue.err = o.err
			if code, body := b.call(c.request("q", "1-2:3")); code != o.code || body != "" {
				t.Errorf("%s with %v: %d %q", name, o.err, code, body)
			}
			if b.queue.last() != c.call {
				t.Errorf("%s called %q", name, b.queue.last())
			}
		}
	}
}

func TestPayloadArrivesAsItIs(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	payload := strings.Repeat("a\x00ü<", 2<<20)
	if code, _ := b.call(request(link.Push, "q").String(payload).Int(0)); code != 1 || string(b.queue.big) != payload {
		t.Error(code, len(b.queue.big))
	}
}

func TestDelays(t *testing.T) {
	t.Parallel()
	const tenYears = 315_360_000
	for _, op := range []link.Op{link.Push, link.Release} {
		b := newBench(t, true)
		for delay, want := range map[int64]string{0: " 0s", 1: " 1s", tenYears: " 87600h0m0s"} {
			code, _ := b.call(request(op, "q").String("1-2:3").Int(delay))
			if code != 1 || !strings.HasSuffix(b.queue.last(), want) {
				t.Errorf("%d: %d %q", delay, code, b.queue.last())
			}
		}
		for _, delay := range []int64{-1, tenYears + 1, -1 << 63, 1<<63 - 1} {
			b.refuses(fmt.Sprint("delay ", delay), request(op, "q").String("1-2:3").Int(delay))
		}
	}
}

// refuses checks that a frame closes the connection, and nothing was called.
func (b *bench) refuses(what string, f link.Builder) {
	b.t.Helper()
	before := b.queue.last()
	c := b.dial(link.RolePHP)
	if code, body, err := c.Call(f); !errors.Is(err, link.ErrLost) {
		b.t.Errorf("%s: %d %q %v", what, code, body, err)
	}
	<-b.threads.closed
	if now := b.queue.last(); now != before {
		b.t.Errorf("%s: called %q", what, now)
	}
}

func TestMalformedFramesCloseTheConnection(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	full := map[link.Op]link.Builder{
		link.Push:         request(link.Push, "q").String("p").Int(0),
		link.Ack:          request(link.Ack, "q").String("1-2:3"),
		link.Release:      request(link.Release, "q").String("1-2:3").Int(0),
		link.Fail:         request(link.Fail, "q").String("1-2:3").String("why"),
		link.Status:       request(link.Status, "q"),
		link.Failed:       request(link.Failed, "q").Int(1),
		link.RetryFailed:  request(link.RetryFailed, "q").String("1-2"),
		link.ForgetFailed: request(link.ForgetFailed, "q").String("1-2"),
		link.PurgeFailed:  request(link.PurgeFailed, "q"),
		link.Publish:      request(link.Publish, "a").String("c").String("e").String("{}"),
		link.Broadcast:    request(link.Broadcast, "a").String("[]").String("e").String("{}"),
		link.PublishWith:  request(link.PublishWith, "a").String("[]").String("e").String("{}").String(""),
		link.Next:         request(link.Next, "w").Int(0),
		link.Ended:        request(link.Ended, "w").Int(0).Int(1).Int(2).String("x"),
	}
	for op, f := range full {
		b.refuses(fmt.Sprint("a field too many of ", op), f.String("more"))
		b.refuses(fmt.Sprint("no field of ", op), link.Request(nil, op))
	}
	b.refuses("an integer of 3 bytes", request(link.Push, "q").String("p").String("abc"))
	for _, op := range []link.Op{link.Hello, link.Ready, link.Output, link.Interrupt, link.Drain, 200} {
		b.refuses(fmt.Sprint("operation ", op), link.Request(nil, op))
	}
	if len(b.threads.calls) != 0 {
		t.Error(b.threads.calls)
	}
}

// reference is one queue of status with its keys in their order, as in docs/php-api.md.
const reference = `{"queue":"q","ready":true,"pending":1,"delayed":2,"reserved":3,"failed":4,"enqueued":11,"reserved_total":12,` +
	`"acked":13,"released":14,"failed_total":15,"dropped_full":16,"dropped_payload_too_large":17,"dropped_shutdown":18,` +
	`"backend_errors":19,"max_payload_bytes":1024,"oldest_pending_at":"2025-11-22T22:57:52.123Z","suspects":6,"paused":true,` +
	`"deleted":20,"purged":21,"retried":22}`

func TestStatus(t *testing.T) {
	t.Parallel()
	full := queue.Stats{
		Name: "q", Declared: true, Paused: true, Gauges: queue.Gauges{Ready: 1, Delayed: 2, Reserved: 3, Failed: 4, Bytes: 5, Suspects: 6},
		Counters: queue.Counters{
			Enqueued: 11, ReservedTotal: 12, Acked: 13, Released: 14, FailedTotal: 15, DroppedFull: 16,
			DroppedPayloadTooLarge: 17, DroppedShutdown: 18, BackendErrors: 19,
			Deleted: 20, Purged: 21, Retried: 22,
		},
		MaxPayloadBytes: 1024, OldestPending: time.UnixMilli(1763852272123),
	}
	b := newBench(t, true)
	b.queue.stats = []queue.Stats{full}
	if code, body := b.call(request(link.Status, "q")); code != 1 || body != `{"ready":true,"queues":[`+reference+`]}` || b.queue.last() != "stats q" {
		t.Errorf("%d %s, called %q", code, body, b.queue.last())
	}
	// One that is not known, and one that takes no pushes any more.
	b.queue.stats = []queue.Stats{{Name: "no"}}
	_, body := b.call(request(link.Status, "no"))
	unknown := object(t, body)["queues"].([]any)[0].(map[string]any)
	for key, v := range unknown {
		if want := map[string]any{"queue": "no", "ready": false, "paused": false, "oldest_pending_at": nil}[key]; v != want && (v != float64(0) || want != nil) {
			t.Errorf("%s is %v", key, v)
		}
	}
	if want := object(t, reference); len(unknown) != len(want) {
		t.Error(slices.Collect(maps.Keys(unknown)))
	}
	// All of them.
	b.queue.stats = []queue.Stats{full, {Name: "r"}}
	if _, body := b.call(request(link.Status, "")); len(object(t, body)["queues"].([]any)) != 2 || b.queue.last() != "stats " {
		t.Error(body, b.queue.last())
	}
	b.queue.stats = nil
	if _, body := b.call(request(link.Status, "")); body != `{"ready":true,"queues":[]}` {
		t.Error(body)
	}
	// A state machine that has stopped: the same shape.
	b.queue.err = errors.New("stopped")
	if code, body := b.call(request(link.Status, "")); code != 1 || body != `{"ready":false,"queues":[]}` {
		t.Error(code, body)
	}
}

func TestStatusOfNodeThatIsNotReady(t *testing.T) {
	t.Parallel()
	b := newBench(t, false)
	b.queue.stats = []queue.Stats{{Name: "q", Declared: true}}
	_, body := b.call(request(link.Status, "q"))
	if !strings.HasPrefix(body, `{"ready":false,"queues":[{"queue":"q","ready":false,`) {
		t.Error(body)
	}
}

func TestFailedList(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	b.queue.jobs = []*queue.Job{
		{
			ID: command.JobID{Millis: 5, Seq: 6}, Origin: command.JobID{Millis: 1, Seq: 2}, Payload: []byte("<\"\x00é"),
			Reason: "because", FailedAt: 1763852272120, Attempts: 3, Output: "half way\n",
		},
		{ID: command.JobID{Millis: 3, Seq: 4}},
	}
	want := `{"ok":true,"queue":"mail","failed":[` +
		`{"id":"5-6","queue":"mail","original_id":"1-2","payload":"<\"\u0000é","reason":"because","failed_at":"2025-11-22T22:57:52.120Z","attempts":3,"output":"half way\n"},` +
		`{"id":"3-4","queue":"mail","original_id":"3-4","payload":"","reason":"","failed_at":"1970-01-01T00:00:00.000Z","attempts":0,"output":""}],"code":1}`
	if code, body := b.call(request(link.Failed, "mail").Int(2)); code != 1 || body != want {
		t.Errorf("%d %s\nwant %s", code, body, want)
	}
	for limit, want := range map[int64]string{
		-1 << 63: "failed q 1", -1: "failed q 1", 0: "failed q 1", 1: "failed q 1",
		999: "failed q 999", 1000: "failed q 1000", 1001: "failed q 1000", 1<<63 - 1: "failed q 1000",
	} {
		b.call(request(link.Failed, "q").Int(limit))
		if got := b.queue.last(); got != want {
			t.Errorf("limit %d: %s", limit, got)
		}
	}
}

func TestAnswerThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	b.queue.jobs = []*queue.Job{{Payload: []byte(strings.Repeat("\x00", link.MaxFrame/6+1))}}
	code, body := b.call(request(link.Failed, "q").Int(1))
	if code != 5 || body != `{"ok":false,"code":5,"message":"the answer is too large: ask for fewer at once"}` {
		t.Errorf("%d %.200s", code, body)
	}
	// The connection lives on.
	if code, _ := b.call(request(link.PurgeFailed, "q")); code != 1 {
		t.Error(code)
	}
}

func TestThreadsAndHostsGetTheirFrames(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	if code, _ := b.call(request(link.Next, "mail").Int(4)); code != 0 {
		t.Error(code)
	}
	if code, _ := b.call(request(link.Ended, "mail").Int(4).Int(-1).Int(255).String("boom")); code != 1 {
		t.Error(code)
	}
	if want := []string{"next mail 4", "ended mail 18446744073709551615 255 boom"}; !slices.Equal(b.threads.calls, want) {
		t.Error(b.threads.calls)
	}
	host := b.dial(link.RoleHost)
	for _, op := range []link.Op{link.Ready, link.Output, link.Push} { // what a host may not say is the hosts' to refuse
		if err := host.Send(link.Request(nil, op)); err != nil {
			t.Fatal(err)
		}
		if got := <-b.threads.host; got != op {
			t.Error(got)
		}
	}
	if b.queue.last() != "" {
		t.Error(b.queue.last())
	}
	host.Close()
	<-b.threads.closed
}
