package queue_test

import (
	"strings"
	"testing"

	"pogod/internal/command"
	"pogod/queue"
)

// lister lists payloads by their first letters.
type lister struct {
	t *testing.T
	c *queue.Client
}

func (l lister) list(state queue.JobState, after queue.Position, limit int, want string) (jobs []*queue.Job, next queue.Position) {
	l.t.Helper()
	jobs, next, err := l.c.List(l.t.Context(), "q", state, after, limit)
	got := ""
	for _, j := range jobs {
		got += string(j.Payload[:1])
	}
	if got != want || err != nil {
		l.t.Errorf("%s: %q, not %q: %v", state, got, want, err)
	}
	return jobs, next
}

// all lists page by page.
func (l lister) all(state queue.JobState, limit int, want string) {
	l.t.Helper()
	got := ""
	for after := (queue.Position{}); len(got) <= len(want); {
		jobs, next, err := l.c.List(l.t.Context(), "q", state, after, limit)
		if err != nil || len(jobs) > limit {
			l.t.Fatal(len(jobs), err)
		}
		for _, j := range jobs {
			got += string(j.Payload[:1])
		}
		if after = next; next == (queue.Position{}) {
			break
		}
	}
	if got != want {
		l.t.Errorf("%s by %d: %q, not %q", state, limit, got, want)
	}
}

// Each state has its list, which takes nothing, and goes on where a page ended.
func TestList(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	l := lister{t, c}
	begin := queue.Position{}
	for _, state := range []queue.JobState{queue.IsReady, queue.IsSuspect, queue.IsDelayed, queue.IsReserved} {
		if _, next := l.list(state, begin, 9, ""); next != begin {
			t.Error(next)
		}
	}
	for _, payload := range []string{"a", "b", "c", "d", "e", "f"} {
		n.push("q", payload)
	}
	for i, payload := range []string{"z", "y", "x"} {
		n.apply(&command.Command{Op: command.Push, Queue: "q", Payload: []byte(payload), Delay: uint64(3000 - 1000*i)})
	}
	l.list(queue.IsReady, begin, 9, "abcdef")
	_, next := l.list(queue.IsReady, begin, 2, "ab")
	l.list(queue.IsReady, begin, 2, "ab")
	for limit := range 4 {
		l.all(queue.IsReady, limit+1, "abcdef")
		l.all(queue.IsDelayed, limit+1, "xyz")
	}
	if jobs, _ := l.list(queue.IsDelayed, begin, 1, "x"); jobs[0].DueAt != n.now+1000 {
		t.Errorf("due at %d, now %d", jobs[0].DueAt, n.now)
	}

	held := n.machine.reserve("q", session, 4)
	l.list(queue.IsReady, next, 9, "ef") // behind one that is gone
	for i := range held[:2] {
		crash := settle(command.Release, &held[i])
		crash.Cause = command.Crashed
		n.apply(crash)
	}
	for limit := range 3 {
		l.all(queue.IsSuspect, limit+1, "ab")
		l.all(queue.IsReserved, limit+1, "cd")
		l.all(queue.IsReady, limit+1, "ef")
	}
	jobs, _ := l.list(queue.IsReserved, begin, 1, "c")
	if j := jobs[0]; j.Lease != held[2].Lease || j.Pool != "jobs" || j.ReservedAt != n.now || j.Attempts != 1 {
		t.Errorf("%+v", j)
	}
	jobs[0].Attempts = 99 // the caller's own
	if jobs, _ := l.list(queue.IsReserved, begin, 1, "c"); jobs[0].Attempts != 1 {
		t.Error("the state was changed")
	}

	for _, payload := range []string{"g", "h", "i"} {
		n.push("q", strings.Repeat(payload, 5<<20))
	}
	_, next = l.list(queue.IsReady, begin, 9, "efgh") // the next would be over 8 MiB
	l.list(queue.IsReady, next, 9, "i")
	_, _, err := c.List(t.Context(), "nowhere", queue.IsReady, begin, 1)
	want(t, "a look into an unknown queue", err, queue.ErrUnknownQueue)
}
