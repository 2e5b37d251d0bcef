package queue_test

import (
	"strconv"
	"testing"

	"pogod/queue"
)

// failing fails n jobs of the queue q, whose payloads are their numbers from 0.
func failing(t *testing.T, c *queue.Client, n *fakeNode, session uint64, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		n.push("q", strconv.Itoa(i))
		d := n.machine.reserve("q", session, 1)[0]
		want(t, "fail", c.Fail(t.Context(), "q", d.ID(), ""), nil)
	}
}

// page takes a page and returns its payloads.
func page(t *testing.T, c *queue.Client, before uint64, limit int) (payloads string, jobs []*queue.Job, next uint64) {
	t.Helper()
	jobs, next, err := c.FailedPage(t.Context(), "q", before, limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		payloads += string(j.Payload)
	}
	return payloads, jobs, next
}

// Pages go on where the last one ended, whatever fails or goes meanwhile.
func TestFailedPages(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	if got, _, next := page(t, c, 0, 3); got != "" || next != 0 {
		t.Errorf("of no job: %q, %d", got, next)
	}
	failing(t, c, n, session, 0, 7)
	got, jobs, next := page(t, c, 0, 3)
	if got != "654" || next == 0 {
		t.Errorf("the first page: %q, %d", got, next)
	}
	failing(t, c, n, session, 7, 9)                                         // newer than all
	for _, id := range []string{jobs[0].ID.String(), jobs[2].ID.String()} { // the last of the page too
		if count, err := c.ForgetFailed(t.Context(), "q", id); count != 1 || err != nil {
			t.Error(count, err)
		}
	}
	got, jobs, second := page(t, c, next, 3)
	if got != "321" || second == 0 || second >= next {
		t.Errorf("the second page: %q, %d", got, second)
	}
	if got, _, last := page(t, c, second, 3); got != "0" || last != 0 {
		t.Errorf("the last page: %q, %d", got, last)
	}
	// A page that takes just the rest says that there is no more.
	if got, _, last := page(t, c, second, 1); got != "0" || last != 0 {
		t.Errorf("the rest: %q, %d", got, last)
	}
	if got, _, _ := page(t, c, 1<<63, 2); got != "87" {
		t.Errorf("from behind the newest: %q", got)
	}
	if got, _, next := page(t, c, 1, 2); got != "" || next != 0 {
		t.Errorf("from before the oldest: %q, %d", got, next)
	}
	if count, err := c.PurgeFailed(t.Context(), "q"); count != 7 || err != nil {
		t.Error(count, err)
	}
	if got, _, next := page(t, c, second, 2); got != "" || next != 0 || len(jobs) != 3 {
		t.Errorf("of a purged queue: %q, %d", got, next)
	}
	_, _, err := c.FailedPage(t.Context(), "nowhere", 0, 1)
	want(t, "a page of an unknown queue", err, queue.ErrUnknownQueue)
}
