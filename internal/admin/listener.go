package admin

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// listener keeps the connections that it accepted, so that Shutdown can cut them
// off and wait for their end, which fasthttp cannot; and it lives through a
// shortage of descriptors, which would end fasthttp's Serve.
type listener struct {
	net.Listener
	closing chan struct{} // closed by Close

	mu    sync.Mutex // guards the following
	shut  bool       // Close was called
	muted bool       // who is one too many is not told: he speaks TLS
	conns map[*conn]struct{}
	from  map[network]int // of conns
	empty chan struct{}   // closed when shut and no connection is left
}

func newListener(ln net.Listener) *listener {
	return &listener{Listener: ln, closing: make(chan struct{}), conns: map[*conn]struct{}{}, from: map[network]int{}, empty: make(chan struct{})}
}

// shortages of the machine pass; the next connection may be accepted.
var shortages = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR}

// Accept waits for a connection, as long as there are only shortages.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			k, full, err := l.keep(c)
			if full == "" {
				return k, err
			}
			l.refuse(c, full)
			continue
		}
		if !short(err) {
			return nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-l.closing:
			return nil, net.ErrClosed
		}
	}
}

func short(err error) bool {
	for _, s := range shortages {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// keep keeps a connection, unless it is one too many: full says so.
func (l *listener) keep(c net.Conn) (kept net.Conn, full string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		_ = c.Close() // nobody has written to it
		return nil, "", net.ErrClosed
	}
	k := &conn{Conn: c, of: l}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		k.from = networkOf(a.IP)
	}
	switch {
	case len(l.conns) >= maxConns:
		return nil, fmt.Sprintf("%d connections are open: close some, and ask again", maxConns), nil
	case l.from[k.from] >= maxConnsPerIP:
		return nil, fmt.Sprintf("%d connections from this address are open: close some, and ask again", maxConnsPerIP), nil
	}
	l.conns[k] = struct{}{}
	l.from[k.from]++
	return k, "", nil
}

// mute has refused connections closed without a word.
func (l *listener) mute() {
	l.mu.Lock()
	l.muted = true
	l.mu.Unlock()
}

// refuse answers a connection before it has asked. What is so short waits for nobody.
func (l *listener) refuse(c net.Conn, why string) {
	l.mu.Lock()
	muted := l.muted
	l.mu.Unlock()
	if !muted {
		body := document(fasthttp.StatusServiceUnavailable, why, nil)
		_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // an error shows at the next
		_, _ = fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: %s\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", problemType, len(body), body)
	}
	_ = c.Close() // it is not needed
}

// Close ends Accept; the connections stay. Only the first call does something.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		return nil
	}
	l.shut = true
	close(l.closing)
	if len(l.conns) == 0 {
		close(l.empty)
	}
	return l.Listener.Close()
}

// cut closes the connections under whoever serves them, who then closes his.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Conn.Close() // who serves it sees the error
	}
}

// conn is a connection that is kept until the one who serves it closes it.
type conn struct {
	net.Conn
	of   *listener
	from network
	once sync.Once
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		delete(c.of.conns, c)
		if c.of.from[c.from]--; c.of.from[c.from] == 0 {
			delete(c.of.from, c.from)
		}
		if c.of.shut && len(c.of.conns) == 0 {
			close(c.of.empty)
		}
	})
	return err
}
