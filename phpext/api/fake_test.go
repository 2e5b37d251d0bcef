package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp keeps one ticking clock for the whole process, for the Date header.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// fakeQueue answers every call with what the test set, and notes it.
type fakeQueue struct {
	mu    sync.Mutex // guards the rest
	calls []string
	err   error
	id    command.JobID
	count uint64
	jobs  []*queue.Job
	stats []queue.Stats
	big   []byte // the last payload
}

func (q *fakeQueue) note(format string, args ...any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, fmt.Sprintf(format, args...))
	return q.err
}

func (q *fakeQueue) Push(_ context.Context, name string, payload []byte, delay time.Duration) (command.JobID, error) {
	q.mu.Lock()
	q.big = append([]byte(nil), payload...)
	q.mu.Unlock()
	return q.id, q.note("push %s %d %s", name, len(payload), delay)
}

func (q *fakeQueue) Ack(_ context.Context, name, delivery string) error {
	return q.note("ack %s %s", name, delivery)
}

func (q *fakeQueue) Release(_ context.Context, name, delivery string, delay time.Duration) error {
	return q.note("release %s %s %s", name, delivery, delay)
}

func (q *fakeQueue) Fail(_ context.Context, name, delivery, reason string) error {
	return q.note("fail %s %s %s", name, delivery, reason)
}

func (q *fakeQueue) RetryFailed(_ context.Context, name, id string) (command.JobID, error) {
	return q.id, q.note("retry %s %s", name, id)
}

func (q *fakeQueue) ForgetFailed(_ context.Context, name, id string) (uint64, error) {
	return q.count, q.note("forget %s %s", name, id)
}

func (q *fakeQueue) PurgeFailed(_ context.Context, name string) (uint64, error) {
	return q.count, q.note("purge %s", name)
}

func (q *fakeQueue) Failed(_ context.Context, name string, limit int) ([]*queue.Job, error) {
	return q.jobs, q.note("failed %s %d", name, limit)
}

func (q *fakeQueue) Stats(_ context.Context, name string) ([]queue.Stats, error) {
	return q.stats, q.note("stats %s", name)
}

// last returns the last call.
func (q *fakeQueue) last() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.calls) == 0 {
		return ""
	}
	return q.calls[len(q.calls)-1]
}

// fakeThreads answers at once and notes what it was told; it is the hosts too.
type fakeThreads struct {
	mu     sync.Mutex // guards calls
	calls  []string
	closed chan struct{}
	host   chan link.Op
}

func (f *fakeThreads) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fakeThreads) Next(c *link.Conn, worker string, slot int64) error {
	f.note("next %s %d", worker, slot)
	return c.Answer(0, nil)
}

func (f *fakeThreads) Ended(c *link.Conn, worker string, lease uint64, status int64, text string) error {
	f.note("ended %s %d %d %s", worker, lease, status, text)
	return c.Answer(1, nil)
}

func (f *fakeThreads) Closed(*link.Conn) { f.closed <- struct{}{} }

func (f *fakeThreads) Serve(_ *link.Conn, op link.Op, _ *link.Fields) error {
	f.host <- op
	return nil
}

// bench is a Server on a real link.
type bench struct {
	t       *testing.T
	queue   *fakeQueue
	threads *fakeThreads
	path    string
	client  *link.Client
	server  *Server
}

func newBench(t *testing.T, ready bool) *bench {
	t.Helper()
	b := &bench{
		t: t, queue: &fakeQueue{id: command.JobID{Millis: 1763849472123, Seq: 57}},
		threads: &fakeThreads{closed: make(chan struct{}, 100), host: make(chan link.Op, 100)},
	}
	dir, err := os.MkdirTemp("", "p") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	b.path = filepath.Join(dir, "s")
	s := New(context.Background(), b.queue, b.threads, b.threads, func() bool { return ready })
	b.server = s
	server, err := link.Listen(b.path, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		_ = os.RemoveAll(dir)
	})
	b.client = b.dial(link.RolePHP)
	return b
}

func (b *bench) dial(role link.Role) *link.Client {
	b.t.Helper()
	c, err := link.Dial(b.t.Context(), b.path, role, "x")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

// call returns the answer to a request.
func (b *bench) call(f link.Builder) (code int32, body string) {
	b.t.Helper()
	code, p, err := b.client.Call(f)
	if err != nil {
		b.t.Fatal(err)
	}
	return code, string(p)
}

// object parses a JSON object.
func object(t *testing.T, body string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return m
}
