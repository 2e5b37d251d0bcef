package admin

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// listener keeps the connections that it accepted, so that Shutdown can cut them
// off and wait for their end, which fasthttp cannot; and it lives through a
// shortage of descriptors, which would end fasthttp's Serve.
type listener struct {
	net.Listener
	closing chan struct{} // closed by Close

	mu    sync.Mutex // guards the following
	shut  bool       // Close was called
	conns map[*conn]struct{}
	empty chan struct{} // closed when shut and no connection is left
}

func newListener(ln net.Listener) *listener {
	return &listener{Listener: ln, closing: make(chan struct{}), conns: map[*conn]struct{}{}, empty: make(chan struct{})}
}

// shortages of the machine pass; the next connection may be accepted.
var shortages = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR}

// Accept waits for a connection, as long as there are only shortages.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			return l.keep(c)
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

func (l *listener) keep(c net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		_ = c.Close() // nobody has written to it
		return nil, net.ErrClosed
	}
	k := &conn{Conn: c, of: l}
	l.conns[k] = struct{}{}
	return k, nil
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
	once sync.Once
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		delete(c.of.conns, c)
		if c.of.shut && len(c.of.conns) == 0 {
			close(c.of.empty)
		}
	})
	return err
}
