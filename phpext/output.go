//go:build php

package phpext

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"pogod/internal/link"
	"pogod/phpext/ext"
)

const (
	maxFrame    = 32 << 10 // bytes of output in one frame
	maxFrames   = 256      // frames that wait for the control connection
	partialLine = 50 * time.Millisecond
	syncWithin  = time.Second // how long an attempt waits for the node to have its output
)

// sender writes frames to the control connection. A node that does not read holds
// up no job: past maxFrames frames that wait, output is dropped and counted.
type sender struct {
	node    *link.Client
	log     *slog.Logger
	frames  chan link.Builder // at most maxFrames; full: the frame is dropped
	closed  chan struct{}     // closed by close: send what waits, then end
	once    sync.Once
	dropped atomic.Int64

	mu    sync.Mutex              // guards what follows
	last  int64                   // number of the last Sync
	syncs map[int64]chan struct{} // those that wait for their Synced
}

func newSender(node *link.Client, log *slog.Logger) *sender {
	return &sender{node: node, log: log, frames: make(chan link.Builder, maxFrames), closed: make(chan struct{}), syncs: map[int64]chan struct{}{}}
}

func (s *sender) send(f link.Builder) (kept bool) {
	select {
	case s.frames <- f:
		return true
	default:
		s.dropped.Add(1)
		return false
	}
}

// sync waits a moment until the node has taken all that was sent. The order of two
// sockets is not given otherwise: what an attempt printed is to be there before the
// word that it failed, with which it is kept.
func (s *sender) sync() {
	taken := make(chan struct{})
	s.mu.Lock()
	s.last++
	number := s.last
	s.syncs[number] = taken
	s.mu.Unlock()
	if s.send(link.Request(nil, link.Sync).Int(number)) {
		select {
		case <-taken:
			return
		case <-time.After(syncWithin):
		}
	}
	s.mu.Lock()
	delete(s.syncs, number)
	s.mu.Unlock()
}

func (s *sender) synced(number int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if taken := s.syncs[number]; taken != nil {
		close(taken)
		delete(s.syncs, number)
	}
}

func (s *sender) close() { s.once.Do(func() { close(s.closed) }) }

// run sends until close, and then what still waits, or until gone.
func (s *sender) run(gone <-chan struct{}) {
	write := func(f link.Builder) {
		if err := s.node.Send(f); err != nil {
			s.log.Debug("a frame to the node was lost", "error", err)
		}
		if n := s.dropped.Swap(0); n > 0 {
			s.log.Warn("the node did not take the output of jobs fast enough: some is lost", "frames", n)
		}
	}
	for {
		select {
		case f := <-s.frames:
			write(f)
		case <-gone:
			return
		case <-s.closed:
			for {
				select {
				case f := <-s.frames:
					write(f)
				default:
					return
				}
			}
		}
	}
}

// output is where the script of a job thread prints: FrankenPHP's ResponseWriter
// and logger for its request. Whole lines go to the node at once, the rest of one
// after partialLine or with the attempt that printed it.
type output struct {
	*sender
	worker string
	slot   int

	mu    sync.Mutex // guards the rest; PHP writes on one thread, the timer on another
	lease uint64     // of the bytes in buf
	buf   []byte     // a partial line, at most maxFrame
	timer *time.Timer
	sent  bool // since the last Flush
}

// Header belongs to http.ResponseWriter: a job has none.
func (o *output) Header() http.Header { return http.Header{"Server": {}} }

// WriteHeader belongs to http.ResponseWriter.
func (o *output) WriteHeader(int) {}

// Write takes what the script prints, in the attempt that runs.
func (o *output) Write(p []byte) (int, error) {
	lease := ext.Lease(o.slot)
	o.mu.Lock()
	defer o.mu.Unlock()
	if lease != o.lease {
		o.flush()
		o.lease = lease
	}
	n := len(p)
	if i := bytes.LastIndexByte(p, '\n'); i >= 0 || len(o.buf)+n >= maxFrame {
		o.buf = append(o.buf, p[:i+1]...)
		p = p[i+1:]
		o.flush()
	}
	for o.buf = append(o.buf, p...); len(o.buf) >= maxFrame; {
		o.flush()
	}
	if len(o.buf) > 0 && o.timer == nil {
		o.timer = time.AfterFunc(partialLine, o.flushLine) // ended by itself
	}
	return n, nil
}

// Flush sends what is there, and sees that the node has it unless the attempt was acked:
// then nobody keeps it. The extension asks for it at the end of an attempt, and before
// its handler says release or fail.
func (o *output) Flush() {
	o.mu.Lock()
	o.flush()
	sent := o.sent
	o.sent = false
	o.mu.Unlock()
	if sent && !ext.Acked(o.slot) {
		o.sync()
	}
}

func (o *output) flushLine() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flush()
}

func (o *output) flush() {
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
	for b := o.buf; len(b) > 0; {
		n := min(len(b), maxFrame)
		o.sent = true
		o.send(link.Request(nil, link.Output).String(o.worker).Int(int64(o.slot)).Int(int64(o.lease)).Bytes(b[:n]))
		b = b[n:]
	}
	o.buf = o.buf[:0]
	if cap(o.buf) > 2*maxFrame {
		o.buf = nil
	}
}

// logger returns a logger for PHP's own messages (warnings, error_log): lines of
// the script's output.
func (o *output) logger() *slog.Logger { return slog.New(&lines{to: o, least: slog.LevelDebug}) }

// lines is a slog.Handler that writes PHP's messages as PHP wrote them.
type lines struct {
	to    io.Writer
	least slog.Level
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.least }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *lines) WithGroup(string) slog.Handler                    { return l }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != syslogLevel { // the message says it
			line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
		return true
	})
	_, err := l.to.Write([]byte(line + "\n"))
	return err
}

// syslogLevel is the attribute that PHP's own messages have, and what is printed has not.
const syslogLevel = "syslog_level"
