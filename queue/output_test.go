package queue_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pogod/internal/command"
	"pogod/queue"
)

// printed returns the output that a command of the client carried last.
func (n *fakeNode) printed() string { return n.proposed[len(n.proposed)-1].Output }

func TestOutputIsThatOfTheAttempt(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	one, two, three, four := n.deliver(session), n.deliver(session), n.deliver(session), n.deliver(session)
	for _, d := range []*queue.Delivery{one, two, three, four} {
		c.Begin(d, nil)
	}
	c.Printed(one.Lease, "one\n")
	c.Printed(two.Lease, "two\n")
	c.Printed(one.Lease, "more of one\n")
	c.Printed(three.Lease, "three\n")
	c.Printed(four.Lease, "four\n")
	c.Printed(four.Lease+100, "nobody's\n")

	want(t, "fail", c.Fail(t.Context(), "q", one.ID(), "no"), nil)
	if got := n.printed(); got != "one\nmore of one\n" {
		t.Errorf("fail carries %q", got)
	}
	want(t, "release", c.Release(t.Context(), "q", two.ID(), 0), nil)
	if got := n.printed(); got != "two\n" {
		t.Errorf("release carries %q", got)
	}
	if _, err := c.End(t.Context(), three, command.Broke, "it threw"); err != nil || n.printed() != "three\n" {
		t.Errorf("the attempt's end carries %q, %v", n.printed(), err)
	}
	want(t, "ack", c.Ack(t.Context(), "q", four.ID()), nil)
	if got := n.printed(); got != "" {
		t.Errorf("ack carries %q", got)
	}
	jobs, err := c.Failed(t.Context(), "q", 10)
	if err != nil || len(jobs) != 1 || jobs[0].Output != "one\nmore of one\n" {
		t.Errorf("%v %v", jobs, err)
	}
}

func TestOutputOfWhatNeverStarted(t *testing.T) {
	t.Parallel()
	c, n, session := fakeClient(t, queue.Definition{})
	d := n.deliver(session)
	c.Begin(d, nil)
	c.Printed(d.Lease, "it cannot be")
	if released, err := c.End(t.Context(), d, command.Unstarted, ""); !released || err != nil || n.printed() != "" {
		t.Error(released, err, n.printed())
	}
	again := n.machine.reserve("q", session, 1)
	if err := c.GiveBack(t.Context(), &again[0]); err != nil || n.printed() != "" {
		t.Error(err, n.printed())
	}
}

// Of much output the last is kept, as UTF-8, however it comes in pieces.
func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789é\xff\n", 5000)
	for name, text := range map[string]string{
		"short": "é", "a rune cut at the front": strings.Repeat("é", queue.MaxOutput/2) + "x", "long": long,
		"no UTF-8": strings.Repeat("\xff", queue.MaxOutput), "exact": strings.Repeat("x", queue.MaxOutput), "one more": "y" + strings.Repeat("x", queue.MaxOutput),
	} {
		for _, piece := range []int{1, 7, 100, queue.MaxOutput - 1, queue.MaxOutput, queue.MaxOutput + 1, len(text)} {
			c, n, session := fakeClient(t, queue.Definition{})
			d := n.deliver(session)
			c.Begin(d, nil)
			for rest := text; rest != ""; {
				k := min(piece, len(rest))
				c.Printed(d.Lease, rest[:k])
				rest = rest[k:]
			}
			want(t, "fail", c.Fail(t.Context(), "q", d.ID(), ""), nil)
			got, valid := n.printed(), strings.ToValidUTF8(text, "\uFFFD")
			if !utf8.ValidString(got) || len(got) > queue.MaxOutput || len(got) < min(len(valid), queue.MaxOutput-utf8.UTFMax) {
				t.Errorf("%s in pieces of %d: %d bytes are kept", name, piece, len(got))
			}
			// The first rune may be what is left of one.
			if _, first := utf8.DecodeRuneInString(got); !strings.HasSuffix(valid, got[first:]) {
				t.Errorf("%s in pieces of %d: %q... is kept", name, piece, got[:20])
			}
		}
	}
}
