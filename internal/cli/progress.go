package cli

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"pogod/internal/admin"
	"pogod/raftfsm/disk"
)

// line is one line of a terminal that is written again and again. Where nobody looks
// nothing is written.
type line struct {
	p       *program
	shown   bool
	written bool
}

func (p *program) newLine() *line { return &line{p: p, shown: p.screen(p.Stderr)} }

func (l *line) write(format string, args ...any) {
	if l.shown {
		l.written = true
		fmt.Fprintf(l.p.Stderr, "\r"+format+clearLine, args...)
	}
}

// end takes the line away. A second call does nothing.
func (l *line) end() {
	if l.written {
		l.written = false
		fmt.Fprint(l.p.Stderr, "\r"+clearLine)
	}
}

// while does something, and each second calls show, on a terminal.
func (p *program) while(do func() error, show func(l *line)) error {
	l := p.newLine()
	if !l.shown {
		return do()
	}
	done := make(chan error, 1)
	go func() { done <- do() }() // ended with what is done
	ticks, stop := p.tick()
	defer stop()
	defer l.end()
	for {
		select {
		case err := <-done:
			return err
		case <-ticks:
			show(l)
		}
	}
}

// progress does something to a queue, and each second shows on a terminal how much of it
// is left.
func (q *question) progress(ctx context.Context, name, what string, left func(*admin.Queue) uint64, do func() ([]byte, error)) (body []byte, err error) {
	err = q.while(func() (err error) {
		body, err = do()
		return err
	}, func(l *line) {
		if doc, err := q.look(ctx, name); err == nil {
			l.write("%s: %d %s", clean(name), left(doc), what)
		}
	})
	return body, err
}

// meter is how far something is.
type meter struct{ done, total atomic.Int64 }

func (m *meter) set(done, total int64) {
	m.done.Store(done)
	m.total.Store(total)
}

// measured does something with many bytes, and each second shows on a terminal how far it
// is.
func (p *program) measured(what string, do func(m *meter) error) error {
	m := &meter{}
	return p.while(func() error { return do(m) }, func(l *line) {
		done, total := m.done.Load(), max(m.total.Load(), 1)
		const width = 30
		full := int(min(done*width/total, width))
		l.write("%s  [%s%s] %3d%%  %s", what, strings.Repeat("#", full), strings.Repeat(".", width-full), min(done*100/total, 100), disk.Size(done))
	})
}
