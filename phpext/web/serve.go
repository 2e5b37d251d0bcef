package web

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"pogod/internal/certificate"
)

// Bounds of a client's connection.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// leaveIdle is how long a kept connection may stay idle once its server leaves, and
	// lastIdle once nobody takes over. Until then a request that is on its way is answered,
	// and told that the connection ends.
	leaveIdle = 5 * time.Second
	lastIdle  = time.Second
)

// Server serves a handler on a listener that it may share with another process, which
// takes over when it leaves.
type Server struct {
	http    *http.Server
	leaving atomic.Bool

	mu      sync.Mutex // guards the rest
	idle    map[net.Conn]time.Time
	ended   bool          // Serve has returned: no connection is added
	changed chan struct{} // closed and made anew when idle or ended change while it leaves
}

// NewServer makes a server, of HTTP/1.1 and HTTP/2, the latter also without TLS, to clients
// that begin with it.
func NewServer(h http.Handler, log *slog.Logger) *Server {
	s := &Server{idle: map[net.Conn]time.Time{}, changed: make(chan struct{})}
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.leaving.Load() {
				w.Header().Set("Connection", "close")
			}
			h.ServeHTTP(w, r)
		}),
		ConnState:         s.state,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// state keeps since when each connection is idle: zero while a request runs.
func (s *Server) state(c net.Conn, now http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch now {
	case http.StateNew, http.StateIdle:
		s.idle[c] = time.Now()
	case http.StateActive:
		s.idle[c] = time.Time{}
	case http.StateClosed, http.StateHijacked:
		delete(s.idle, c)
	}
	s.announceLocked()
}

// announceLocked wakes Leave. mu is held.
func (s *Server) announceLocked() {
	if s.leaving.Load() {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// Serve answers requests until the listener is closed or fails, and says which. It is to
// be called once.
func (s *Server) Serve(ln net.Listener) error { return s.serve(s.http.Serve(ln)) }

// ServeTLS is Serve, with TLS.
func (s *Server) ServeTLS(ln net.Listener, c *certificate.Certificate) error {
	s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Get}
	return s.serve(s.http.ServeTLS(ln, "", ""))
}

// serve notes that no connection is added any more.
func (s *Server) serve(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.announceLocked()
	return err
}

// Leave closes the listener and returns when no connection is left: when each request has
// been answered, and each client that kept its connection has noticed, or was idle for
// leaveIdle. When last is closed, nobody takes over: clients that wait in the listener's
// queue are answered, and idle ones have lastIdle. When hurry is closed, it does not wait
// for idle ones. How long requests may take is the caller's to say.
func (s *Server) Leave(ln net.Listener, last, hurry <-chan struct{}) {
	s.leaving.Store(true)
	patience := leaveIdle
	select {
	case <-last:
		lastCall(ln, hurry)
		patience, last = lastIdle, nil
	default: // what waits in the queue is the next server's
	}
	_ = ln.Close()
	begin := time.Now()
	for {
		s.mu.Lock()
		var next time.Duration // until a connection was idle for long enough; 0: none is idle
		for c, since := range s.idle {
			if since.IsZero() {
				continue
			}
			if since.Before(begin) {
				since = begin
			}
			left := patience - time.Since(since)
			if left <= 0 {
				if over, ok := c.(*tls.Conn); ok {
					c = over.NetConn() // TLS would say goodbye, and wait for that
				}
				_ = c.Close() // its goroutine sees it, and says so
				left = patience
			}
			if next == 0 || left < next {
				next = left
			}
		}
		done, changed := s.ended && len(s.idle) == 0, s.changed
		s.mu.Unlock()
		if done {
			return
		}
		var over <-chan time.Time
		if next > 0 {
			over = time.After(next)
		}
		select {
		case <-changed:
		case <-over:
		case <-last:
			patience, last = lastIdle, nil
		case <-hurry:
			_ = s.http.Shutdown(context.Background()) // its only error is that of the context
			return
		}
	}
}
