package cli

import (
	"context"
	"fmt"

	"pogod/internal/admin"
)

// line is one line of a terminal that is written again and again. Where nobody looks
// nothing is written.
type line struct {
	q       *question
	shown   bool
	written bool
}

func (q *question) newLine() *line { return &line{q: q, shown: q.screen(q.Stderr)} }

func (l *line) write(format string, args ...any) {
	if l.shown {
		l.written = true
		fmt.Fprintf(l.q.Stderr, "\r"+format+clearLine, args...)
	}
}

// end takes the line away. A second call does nothing.
func (l *line) end() {
	if l.written {
		l.written = false
		fmt.Fprint(l.q.Stderr, "\r"+clearLine)
	}
}

// progress does something to a queue, and each second shows on a terminal how much of it
// is left.
func (q *question) progress(ctx context.Context, name, what string, left func(*admin.Queue) uint64, do func() ([]byte, error)) ([]byte, error) {
	l := q.newLine()
	if !l.shown {
		return do()
	}
	type answer struct {
		body []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() { // ended by the answer, or the end of ctx
		body, err := do()
		done <- answer{body, err}
	}()
	ticks, stop := q.tick()
	defer stop()
	defer l.end()
	for {
		select {
		case a := <-done:
			return a.body, a.err
		case <-ticks:
			if doc, err := q.look(ctx, name); err == nil {
				l.write("%s: %d %s", clean(name), left(doc), what)
			}
		}
	}
}
