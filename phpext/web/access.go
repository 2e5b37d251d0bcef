package web

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"pogod/internal/link"
)

// Bounds of an access log's buffer.
const (
	accessEvery = time.Second // how long a line waits at most
	accessFull  = 64 << 10    // bytes at which the lines are written at once
	accessMost  = 4 << 20     // bytes that wait for a slow writer; further lines are dropped and counted
)

// AccessLog writes a line of JSON (link.AccessLine) for each request, up to a second
// later: a process that is killed loses that second.
type AccessLog struct {
	next  http.Handler
	write func(lines []byte) error
	log   *slog.Logger
	full  chan struct{} // holds one signal: write now
	quit  chan struct{} // closed by Close
	ended chan struct{} // closed by run

	mu      sync.Mutex // guards the rest
	lines   bytes.Buffer
	encoder *json.Encoder
	dropped int
}

// NewAccessLog notes the requests that next answers. write takes whole lines; its
// errors are logged, and the lines are lost. Close ends it.
func NewAccessLog(next http.Handler, write func(lines []byte) error, log *slog.Logger) *AccessLog {
	a := &AccessLog{next: next, write: write, log: log, full: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
	a.encoder = json.NewEncoder(&a.lines)
	a.encoder.SetEscapeHTML(false)
	go a.run() // ended by Close
	return a
}

// Close writes what waits. No request may be under way.
func (a *AccessLog) Close() {
	close(a.quit)
	<-a.ended
}

func (a *AccessLog) run() {
	defer close(a.ended)
	t := time.NewTicker(accessEvery)
	defer t.Stop()
	for {
		select {
		case <-a.quit:
			a.flush()
			return
		case <-t.C:
		case <-a.full:
		}
		a.flush()
	}
}

func (a *AccessLog) flush() {
	a.mu.Lock()
	lines := bytes.Clone(a.lines.Bytes())
	dropped := a.dropped
	a.lines.Reset()
	if a.lines.Cap() > 2*accessFull {
		a.lines = bytes.Buffer{}
	}
	a.dropped = 0
	a.mu.Unlock()
	if dropped > 0 {
		a.log.Warn("the access log is not written fast enough: some requests are not in it", "requests", dropped)
	}
	if len(lines) == 0 {
		return
	}
	if err := a.write(lines); err != nil {
		a.log.Error("the access log is not written", "error", err)
	}
}

// ServeHTTP implements http.Handler.
func (a *AccessLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	m := &measured{ResponseWriter: w}
	path, method := r.RequestURI, r.Method // the handler may change what is in r
	defer func() {                         // a handler that panics ends its connection, and is noted
		a.note(link.AccessLine{
			Time: began.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Client: host(r.RemoteAddr), Method: method, Path: path,
			Status: m.code(), Bytes: m.bytes, Seconds: float64(time.Since(began).Microseconds()) / 1e6,
			Agent: r.UserAgent(), Referer: r.Referer(),
		})
	}()
	a.next.ServeHTTP(m, r)
}

func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

func (a *AccessLog) note(r link.AccessLine) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lines.Len() >= accessMost {
		a.dropped++
		return
	}
	if err := a.encoder.Encode(r); err != nil { // strings and numbers: never
		a.dropped++
	}
	if a.lines.Len() >= accessFull {
		select {
		case a.full <- struct{}{}:
		default:
		}
	}
}

// measured counts what is answered. It lets the handler reach all that the server's own
// writer can do.
type measured struct {
	http.ResponseWriter
	status int // 0: not said
	bytes  int64
}

func (m *measured) code() int {
	if m.status == 0 {
		return http.StatusOK
	}
	return m.status
}

// Unwrap is for http.ResponseController.
func (m *measured) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// WriteHeader implements http.ResponseWriter. Of 103 and then 200 the second counts.
func (m *measured) WriteHeader(status int) {
	if m.status < http.StatusOK {
		m.status = status
	}
	m.ResponseWriter.WriteHeader(status)
}

func (m *measured) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	m.sent(int64(n))
	return n, err
}

// ReadFrom lets files go by sendfile.
func (m *measured) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(m.ResponseWriter, r)
	m.sent(n)
	return n, err
}

func (m *measured) sent(n int64) {
	m.bytes += n
	if m.status < http.StatusOK {
		m.status = http.StatusOK
	}
}

// Flush implements http.Flusher.
func (m *measured) Flush() { _ = http.NewResponseController(m.ResponseWriter).Flush() }

// LogFile appends lines to a file. One that was moved away or removed is made anew at the
// next write, so a program that rotates logs tells nobody.
type LogFile struct {
	path string
	f    *os.File // nil: not open
}

// OpenLogFile returns the file at path, which it makes if there is none.
func OpenLogFile(path string) (*LogFile, error) {
	l := &LogFile{path: path}
	return l, l.open()
}

func (l *LogFile) open() (err error) {
	l.f, err = os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	return err
}

// Append writes whole lines. It is not safe for concurrent use.
func (l *LogFile) Append(lines []byte) error {
	if l.f != nil && !l.same() {
		_ = l.f.Close() // all that was written to it is
		l.f = nil
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			l.f = nil
			return err
		}
	}
	_, err := l.f.Write(lines)
	return err
}

func (l *LogFile) same() bool {
	open, err := l.f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(l.path)
	return err == nil && os.SameFile(open, named)
}

// Close closes the file.
func (l *LogFile) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}
