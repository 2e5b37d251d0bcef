package queue_test

import (
	"strings"
	"testing"

	"pogod/queue"
)

// Peek shows the head of the line and takes nothing.
func TestPeek(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	peek := func(limit int, want string) {
		t.Helper()
		jobs, err := c.Peek(t.Context(), "q", limit)
		got := ""
		for _, j := range jobs {
			got += string(j.Payload[:1])
		}
		if got != want || err != nil {
			t.Errorf("%q, not %q: %v", got, want, err)
		}
	}
	peek(9, "")
	for _, payload := range []string{"a", "b", "c", "d"} {
		n.push("q", payload)
	}
	peek(9, "abcd")
	peek(2, "ab")
	peek(2, "ab")
	d := n.machine.reserve("q", session, 1)[0]
	peek(9, "bcd")
	want(t, "ack", c.Ack(t.Context(), "q", d.ID()), nil)
	for _, payload := range []string{"e", "f", "g"} {
		n.push("q", strings.Repeat(payload, 5<<20))
	}
	peek(9, "bcdef") // the next would be over 8 MiB
	_, err := c.Peek(t.Context(), "nowhere", 1)
	want(t, "a look into an unknown queue", err, queue.ErrUnknownQueue)
}
