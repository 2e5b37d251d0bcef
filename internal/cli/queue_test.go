package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/admin"
	"pogod/internal/command"
	"pogod/queue"
)

// queued is the admin endpoint's fake node with a queue, mail, of failed jobs.
type queued struct {
	source
	mu     sync.Mutex
	failed []*queue.Job // the newest first; Attempts is their place
	room   int          // jobs that mail has room for
	calls  []string
	hold   chan struct{}      // RetryAll waits for it
	now    func(*admin.Queue) // says what mail is now
}

// withFailed serves a node with n failed jobs, the first one with number n, and with room for
// as many jobs.
func withFailed(t *testing.T, n, room int) (address string, q *queued) {
	t.Helper()
	q = &queued{room: room}
	for i := n; i > 0; i-- {
		q.failed = append(q.failed, &queue.Job{
			ID: command.JobID{Millis: 1767322985000, Seq: uint64(i)}, Payload: fmt.Appendf(nil, "job %d\n", i),
			Reason: "it broke", FailedAt: noon.Add(-time.Duration(n-i) * time.Minute).UnixMilli(), Attempts: uint64(i),
		})
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := admin.New(ln, q, nil, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- a.Serve() }() // ended by Shutdown
	t.Cleanup(func() {
		if err := errors.Join(a.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return a.Addr().String(), q
}

func (q *queued) mail() admin.Queue {
	at := noon.Add(-185 * time.Second)
	return admin.Queue{
		Queue: "mail", Ready: true, Pending: 12, Delayed: 3, Reserved: 2, Failed: uint64(len(q.failed)), Enqueued: 100, ReservedTotal: 98, Acked: 90,
		Released: 5, FailedTotal: 7, DroppedFull: 1, DroppedPayloadTooLarge: 2, DroppedShutdown: 3, BackendErrors: 4,
		MaxPayloadBytes: 1 << 20, OldestPendingAt: &at, Suspects: 1, Deleted: 5, Purged: 6, Retried: 7,
	}
}

func (q *queued) Queues(context.Context) ([]admin.Queue, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return []admin.Queue{{Queue: "default"}, q.mail()}, nil
}

func (q *queued) Queue(_ context.Context, name string) (admin.Queue, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch name {
	case "mail":
		doc := q.mail()
		if q.now != nil {
			q.now(&doc)
		}
		return doc, nil
	case "..":
		return admin.Queue{Queue: ".."}, nil
	}
	return admin.Queue{}, queue.ErrUnknownQueue
}

func (q *queued) FailedPage(_ context.Context, name string, before uint64, limit int) (jobs []*queue.Job, next uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if name != "mail" {
		return nil, 0, queue.ErrUnknownQueue
	}
	limit = min(limit, 4) // as if they were large
	for _, j := range q.failed {
		switch {
		case before != 0 && j.Attempts >= before:
		case len(jobs) == limit:
			return jobs, jobs[limit-1].Attempts, nil
		default:
			jobs = append(jobs, j)
		}
	}
	return jobs, 0, nil
}

func (q *queued) List(_ context.Context, name string, state queue.JobState, after queue.Position, limit int) ([]*queue.Job, queue.Position, error) {
	switch name {
	case "mail":
		all := []*queue.Job{
			{ID: command.JobID{Millis: 1767322985000, Seq: 6}, Payload: []byte("a\x1b[2Jb\n"), Attempts: 1},
			{ID: command.JobID{Millis: 1767323045000, Seq: 60}, Payload: []byte(strings.Repeat("é", 100))},
		}
		for _, j := range all {
			switch state {
			case queue.IsDelayed:
				j.DueAt = noon.Add(90 * time.Second).UnixMilli()
			case queue.IsReserved:
				j.ReservedAt, j.Pool = noon.Add(-90*time.Second).UnixMilli(), "jobs"
			}
		}
		if after.Place == 7 {
			return all[1:], queue.Position{}, nil
		}
		if limit < 2 {
			return all[:limit], queue.Position{Place: 7, Seq: 6}, nil
		}
		return all, queue.Position{}, nil
	case "empty":
		return nil, queue.Position{}, nil
	}
	return nil, queue.Position{}, queue.ErrUnknownQueue
}

// note keeps what was asked for.
func (q *queued) note(format string, args ...any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, fmt.Sprintf(format, args...))
}

func (q *queued) RetryAll(_ context.Context, name string, f queue.Filter) (uint64, error) {
	q.note("retry all %s %q %s", name, f.Reason, f.Age)
	if q.hold != nil {
		<-q.hold
	}
	if name != "mail" {
		return 0, queue.ErrUnknownQueue
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.failed), q.room)
	q.failed = q.failed[:len(q.failed)-n]
	if q.room -= n; q.room == 0 && len(q.failed) > 0 {
		return uint64(n), queue.ErrFull
	}
	return uint64(n), nil
}

func (q *queued) Pause(_ context.Context, name string) error {
	q.note("pause %s", name)
	return known(name)
}

func (q *queued) Resume(_ context.Context, name string) error {
	q.note("resume %s", name)
	return known(name)
}

func (q *queued) Clear(_ context.Context, name string) (uint64, error) {
	q.note("clear %s", name)
	return 15, known(name)
}

func (q *queued) Delete(_ context.Context, name, id string) error {
	q.note("delete %s %s", name, id)
	if id == "1-2" {
		return queue.ErrReserved
	}
	return known(name)
}

func known(name string) error {
	if name != "mail" {
		return queue.ErrUnknownQueue
	}
	return nil
}

func (q *queued) Push(_ context.Context, name string, payload []byte, delay time.Duration) (command.JobID, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(payload) > 100 {
		payload = fmt.Appendf(nil, "%d bytes", len(payload))
	}
	q.calls = append(q.calls, fmt.Sprintf("push %s %q %s", name, payload, delay))
	if name == "full" {
		return command.JobID{}, queue.ErrFull
	}
	return command.JobID{Millis: 8, Seq: 9}, nil
}

// take removes a failed job, and says whether there was one.
func (q *queued) take(id string) bool {
	n := len(q.failed)
	q.failed = slices.DeleteFunc(q.failed, func(j *queue.Job) bool { return j.ID.String() == id })
	return len(q.failed) < n
}

func (q *queued) RetryFailed(_ context.Context, _, id string) (command.JobID, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.room == 0:
		return command.JobID{}, queue.ErrFull
	case strings.HasSuffix(id, "-6"): // somebody else is quicker
		q.take(id)
		return command.JobID{}, queue.ErrUnknownJob
	case !q.take(id):
		return command.JobID{}, queue.ErrUnknownJob
	}
	q.room--
	return command.JobID{Millis: 8, Seq: 9}, nil
}

func (q *queued) ForgetFailed(_ context.Context, _, id string) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.take(id) {
		return 1, nil
	}
	return 0, nil
}

func (q *queued) PurgeFailed(context.Context, string) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.failed)
	q.failed = nil
	return uint64(n), nil
}

func TestQueueTables(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 6, 0)
	for name, args := range map[string][]string{"ls": {"ls"}, "show": {"show", "mail"}, "peek": {"peek", "mail"}, "delayed": {"peek", "mail", "--state", "delayed"}, "reserved": {"peek", "mail", "--state", "reserved"}, "failed": {"failed", "mail"}} {
		args = append(append([]string{"queue"}, args...), "--admin", addr)
		code, out, errs := run(Deps{}, args...)
		if code != 0 || errs != "" || strings.Contains(out, "\x1b") {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
		}
		golden(t, "queue_"+name+".txt", out)
		code, out, errs = run(Deps{}, append(args, "--json")...)
		if code != 0 || errs != "" || !json.Valid([]byte(out)) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
		}
	}
	var b bytes.Buffer
	doc := q.mail()
	doc.Ready, doc.Paused = false, true
	oneQueue(&b, &doc, noon, true)
	golden(t, "queue_show.colour.txt", b.String())

	code, out, errs := run(Deps{}, "queue", "failed", "mail", "--cursor", "3", "--limit", "2", "--admin", addr)
	if code != 0 || errs != "" || strings.Count(out, "\n") != 3 || !strings.Contains(out, "1767322985000-1 ") || strings.Contains(out, "older") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, out, errs := run(Deps{}, "queue", "failed", "mail", "--cursor", "1", "--admin", addr); code != 0 || out != "no failed job\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, out, errs := run(Deps{}, "queue", "peek", "mail", "--limit", "1", "--admin", addr); code != 0 || strings.Count(out, "\n") != 3 || !strings.HasSuffix(out, "there are more: add --cursor 7-6\n") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, out, errs := run(Deps{}, "queue", "peek", "empty", "--admin", addr); code != 0 || out != "no ready job\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, out, errs := run(Deps{}, "queue", "show", "..", "--json", "--admin", addr); code != 0 || !strings.HasPrefix(out, `{"queue":"..",`) {
		t.Errorf("%d %q %q", code, out, errs)
	}
	for _, args := range [][]string{{"show", "nowhere"}, {"peek", "nowhere"}, {"failed", "nowhere"}, {"retry", "nowhere", "--all"}} {
		code, out, errs := run(Deps{}, append(append([]string{"queue"}, args...), "--admin", addr)...)
		if want := "answers 404: queue nowhere: the queue is not declared: add it to [queue] or switch auto_create on\n"; code != ExitFailed || out != "" || !strings.HasSuffix(errs, want) {
			t.Errorf("%v: %d %q %q", args, code, out, errs)
		}
	}
	if code, _, errs := run(Deps{}, "queue", "failed", "mail", "--limit", "0", "--admin", addr); code != ExitFailed || !strings.Contains(errs, "limit is a number from 1 to 1000") {
		t.Errorf("%d %q", code, errs)
	}
}

func TestQueuePush(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 0, 0)
	for _, c := range []struct {
		args      []string
		stdin     string
		code      int
		out, errs string // errs: its end
		call      string
	}{
		{[]string{"mail", `{"a":"<b>"}`}, "", 0, "8-9\n", "", `push mail "{\"a\":\"<b>\"}" 0s`},
		{[]string{"mail", "a", "--delay", "1m30.0015s"}, "", 0, "8-9\n", "", `push mail "a" 1m30.002s`},
		{[]string{"mail", "a", "--json"}, "", 0, `{"queue":"mail","id":"8-9"}` + "\n", "", `push mail "a" 0s`},
		{[]string{"mail", ""}, "", 0, "8-9\n", "", `push mail "" 0s`},
		{[]string{"mail", "-"}, "two\nlines\n", 0, "8-9\n", "", `push mail "two\nlines\n" 0s`},
		{[]string{"mail", "-"}, strings.Repeat("<", 15<<20), 0, "8-9\n", "", `push mail "15728640 bytes" 0s`},
		{[]string{"--", "mail", "-x"}, "", 0, "8-9\n", "", `push mail "-x" 0s`},
		{[]string{"full", "a"}, "", 1, "", "answers 507: queue full: the queue is full: ask again when jobs are done, or raise its max_messages or max_bytes\n", `push full "a" 0s`},
		{[]string{"mail", "\xff"}, "", 1, "", "the payload is not UTF-8: encode it, with base64 for example\n", ""},
		{[]string{"mail", "-"}, strings.Repeat("x", 17<<20), 1, "", "the payload is over 16 MiB as a JSON string: no queue takes it\n", ""},
		{[]string{"mail", "a", "--delay", "-1s"}, "", 2, "", "--delay must not be below 0\n", ""},
		{[]string{"mail", "a", "--delay", "90000h"}, "", 1, "", "delay must be a number of seconds from 0 to 315360000 (ten years)\n", ""},
		{[]string{"mail", "a", "--delay", "5"}, "", 2, "", "\"pogod queue push --help\" lists the flags\n", ""},
		{[]string{"", "a"}, "", 2, "", "a queue must not be empty\n", ""},
		{[]string{"mail"}, "", 2, "", `pogod queue push takes a queue and a payload, as "pogod queue push QUEUE PAYLOAD": "pogod queue push --help" has examples` + "\n", ""},
	} {
		q.calls = nil
		code, out, errs := run(Deps{Stdin: strings.NewReader(c.stdin)}, append([]string{"queue", "push", "--admin", addr}, c.args...)...)
		if code != c.code || out != c.out || !strings.HasSuffix(errs, c.errs) || (errs == "") != (c.code == 0) || strings.Join(q.calls, "") != c.call {
			t.Errorf("%.40q: %d %q %q %q", c.args, code, out, errs, q.calls)
		}
	}
}

func TestQueueRetry(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 11, 100)
	code, out, errs := run(Deps{}, "queue", "retry", "mail", "1767322985000-11", "--admin", addr)
	if code != 0 || out != "8-9\n" || errs != "" || len(q.failed) != 10 {
		t.Errorf("%d %q %q %d", code, out, errs, len(q.failed))
	}
	code, out, errs = run(Deps{}, "queue", "retry", "mail", "1767322985000-11", "--admin", addr)
	if code != ExitFailed || out != "" || !strings.Contains(errs, "answers 404: queue mail, job 1767322985000-11: there is no failed job with this id") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, out, errs = run(Deps{}, "queue", "retry", "mail", "--all", "--error", "it <broke>", "--before", "1h0.0005s", "--admin", addr)
	if code != 0 || out != "10 failed jobs retried\n" || strings.Join(q.calls, "") != `retry all mail "it <broke>" 1h0m0.001s` || errs != "" || len(q.failed) != 0 {
		t.Errorf("%d %q %q %d", code, out, errs, len(q.failed))
	}
	if code, out, _ = run(Deps{}, "queue", "retry", "mail", "--all", "--json", "--admin", addr); code != 0 || out != `{"queue":"mail","count":0}`+"\n" {
		t.Errorf("%d %q", code, out)
	}
	addr, q = withFailed(t, 3, 1)
	code, out, errs = run(Deps{}, "queue", "retry", "mail", "--all", "--admin", addr)
	if code != ExitFailed || out != "" || !strings.Contains(errs, " answers 507: queue mail, after 1 failed jobs were retried: the queue is full") || len(q.failed) != 2 {
		t.Errorf("%d %q %q %d", code, out, errs, len(q.failed))
	}
	for args, want := range map[string]string{
		"mail":                    `takes a queue and the id of a failed job, as "pogod queue retry QUEUE ID"`,
		"mail 1-2 --all":          `takes a queue, as "pogod queue retry QUEUE --all"`,
		"--all":                   `takes a queue, as "pogod queue retry QUEUE --all"`,
		"mail --error x":          "--error and --before choose among all failed jobs: add --all, and no ID",
		"mail 1-2 --before 1h":    "--error and --before choose among all failed jobs: add --all, and no ID",
		"mail --all --before -1h": "--before must not be below 0",
	} {
		if code, _, errs := run(Deps{}, append([]string{"queue", "retry"}, strings.Fields(args)...)...); code != ExitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %q", args, code, errs)
		}
	}
	if code, _, errs := run(Deps{}, "queue", "retry", "mail", ""); code != ExitUsage || !strings.Contains(errs, "the id of a failed job must not be empty") {
		t.Errorf("%d %q", code, errs)
	}
}

func TestQueueForget(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 3, 0)
	code, out, errs := run(Deps{}, "queue", "forget", "mail", "1767322985000-2", "--admin", addr)
	if code != 0 || out != "1 failed job deleted\n" || errs != "" || len(q.failed) != 2 {
		t.Errorf("%d %q %q %d", code, out, errs, len(q.failed))
	}
	if code, out, errs = run(Deps{}, "queue", "forget", "mail", "1-2", "--admin", addr); code != ExitFailed || !strings.Contains(errs, "404") || len(q.failed) != 2 {
		t.Errorf("%d %q %q", code, out, errs)
	}
}

func TestQueuePurge(t *testing.T) {
	t.Parallel()
	const asked = "delete the failed jobs of queue mail, 3 now? [y/N] "
	for _, c := range []struct {
		on        screens
		flags     []string
		stdin     string
		code      int
		out, errs string
	}{
		{screens{}, nil, "", 0, "3 failed jobs deleted\n", ""},
		{screens{}, []string{"--json"}, "", 0, `{"queue":"mail","count":3}` + "\n", ""},
		{screens{stdout: true}, nil, "", 0, "3 failed jobs deleted\n", ""},
		{screens{stderr: true}, nil, "y\n", 0, "3 failed jobs deleted\n", asked},
		{screens{stderr: true}, nil, "Yes", 0, "3 failed jobs deleted\n", asked},
		{screens{true, true}, []string{"--yes"}, "", 0, "3 failed jobs deleted\n", ""},
		{screens{true, true}, nil, "", 1, "", asked + "pogod: nothing was deleted\n"},
		{screens{true, true}, nil, "n\ny\n", 1, "", asked + "pogod: nothing was deleted\n"},
		{screens{true, true}, nil, "yellow\n", 1, "", asked + "pogod: nothing was deleted\n"},
	} {
		addr, q := withFailed(t, 3, 0)
		code, out, errs := runOn(c.on, Deps{Stdin: strings.NewReader(c.stdin)}, append([]string{"queue", "purge", "mail", "--admin", addr}, c.flags...)...)
		if code != c.code || out != c.out || errs != c.errs || (len(q.failed) == 0) != (c.code == 0) {
			t.Errorf("%+v: %d %q %q %d", c, code, out, errs, len(q.failed))
		}
	}
	addr, _ := withFailed(t, 0, 0)
	if code, _, errs := runOn(screens{true, true}, Deps{}, "queue", "purge", "nowhere", "--admin", addr); code != ExitFailed || !strings.Contains(errs, "404") {
		t.Errorf("%d %q", code, errs)
	}
}

// seenBy tells when something was written.
type seenBy struct {
	bytes.Buffer
	once sync.Once
	seen chan struct{} // closed then
}

func (w *seenBy) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.seen) })
	return w.Buffer.Write(b)
}

// A terminal that says nothing does not keep the command from ending.
func TestQueueInputIsInterrupted(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 3, 0)
	for _, args := range [][]string{{"push", "mail", "-"}, {"purge", "mail"}} {
		r, w := io.Pipe()
		errs := &seenBy{seen: make(chan struct{})}
		p := newProgram(Deps{Stdin: r, Stdout: io.Discard, Stderr: errs})
		p.screen = func(io.Writer) bool { return true }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan int, 1)
		go func() { ended <- p.execute(ctx, append(append([]string{"queue"}, args...), "--admin", addr)) }() // ended by cancel
		if args[0] == "push" {                                                                               // it is read, and not at its end
			if _, err := w.Write([]byte("some")); err != nil {
				t.Error(err)
			}
		} else {
			<-errs.seen // the question
		}
		cancel()
		if code := <-ended; code != ExitFailed || !strings.HasSuffix(errs.String(), "pogod: interrupted: nothing was changed\n") {
			t.Errorf("%v: %d %q", args, code, errs.String())
		}
		_ = w.Close() // ends the reading
	}
	if len(q.failed) != 3 || q.calls != nil {
		t.Error(len(q.failed), q.calls)
	}
}

// A node that was asked for a change and did not answer may have done it; one that is not
// there has not.
func TestQueueUnanswered(t *testing.T) {
	t.Parallel()
	h := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer h.Close()
	const may = "was asked and did not answer (EOF): it may have done it, or do it yet; look before you ask again"
	for args, want := range map[string]string{
		"push mail a": may, "retry mail 1-2": may, "forget mail 1-2": may, "purge mail": may, "retry mail --all": may,
		"pause mail": may, "resume mail": may, "clear mail": may, "delete mail 1-2": may,
		"ls": "", "show mail": "", "peek mail": "", "failed mail": "", "drain mail": "", "clear mail --dry-run": "",
	} {
		full := append([]string{"queue"}, append(strings.Fields(args), "--admin", h.URL)...)
		code, out, errs := run(Deps{}, full...)
		if want != "" && (code != ExitFailed || !strings.Contains(errs, want)) || want == "" && (code != ExitUnreachable || !strings.Contains(errs, "no node answers")) || out != "" {
			t.Errorf("%s: %d %q %q", args, code, out, errs)
		}
		full[len(full)-1] = "127.0.0.1:1"
		if code, out, errs := run(Deps{}, full...); code != ExitUnreachable || out != "" || !strings.Contains(errs, "no node answers at http://127.0.0.1:1") {
			t.Errorf("%s: %d %q %q", args, code, out, errs)
		}
	}
	// Something else is there.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer other.Close()
	for _, args := range []string{"ls", "show mail", "peek mail", "failed mail", "push mail a", "retry mail 1-2", "retry mail --all", "forget mail 1-2", "purge mail", "pause mail", "resume mail", "clear mail", "delete mail 1-2", "drain mail", "clear mail --dry-run"} {
		code, out, errs := run(Deps{}, append([]string{"queue"}, append(strings.Fields(args), "--admin", other.URL)...)...)
		if code != ExitFailed || out != "" || !strings.Contains(errs, "cannot read (it is empty)") {
			t.Errorf("%s: %d %q %q", args, code, out, errs)
		}
	}
}

func TestQueueHelp(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "ls", "show", "peek", "failed", "push", "retry", "forget", "purge", "pause", "resume", "clear", "delete", "drain"} {
		code, out, errs := run(Deps{}, append(strings.Fields("queue "+name), "--help")...)
		if code != 0 || errs != "" || !strings.Contains(out, "Examples:\n") {
			t.Errorf("%s: %d %s%s", name, code, out, errs)
		}
		golden(t, strings.TrimSuffix("help_queue_"+name, "_")+".txt", out)
	}
	if code, _, errs := run(Deps{}, "queue", "lss"); code != ExitUsage || !strings.Contains(errs, `did you mean "queue ls"?`) {
		t.Errorf("%d %q", code, errs)
	}
}
