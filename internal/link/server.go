package link

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MaxSocketPath is the longest path of a unix socket on Linux, in bytes.
const MaxSocketPath = 107

// Handler serves the connections of a Server. Its methods are called from the
// connection's own goroutine, one at a time for one connection.
type Handler interface {
	// Serve handles one frame after Hello. For an operation that has an answer
	// it calls c.Answer exactly once, before it returns or later from anywhere.
	// fields alias a buffer that is reused when Serve returns. An error closes
	// the connection and is logged.
	Serve(c *Conn, op Op, fields *Fields) error
	// Closed is called once when the connection has ended, after the last Serve.
	Closed(c *Conn)
}

// Greeter is a Handler that has something to tell each connection at its beginning.
type Greeter interface {
	// Greeting is the body of Hello's answer, see AppendGreeting.
	Greeting() []byte
}

// Peer is what a connection said of itself in Hello, and what the kernel says.
type Peer struct {
	Role Role
	Name string // the worker's, the host's or the tool's
	PID  int    // of the process that connected, from the kernel
}

// Conn is one accepted connection.
type Conn struct {
	Peer Peer
	// State belongs to the Handler.
	State any

	nc  *net.UnixConn
	wmu sync.Mutex // guards out and writes to nc
	out []byte
}

// Answer sends an answer. It is safe from any goroutine and returns an error when
// the peer is gone.
func (c *Conn) Answer(code int32, body []byte) error {
	if len(body)+4 > MaxFrame {
		return ErrTooLong
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out = appendAnswer(c.out[:0], code, body)
	return c.write(c.out)
}

// Send sends a frame without an answer: control connections only.
func (c *Conn) Send(f Builder) error {
	b, err := f.Frame()
	if err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.write(b)
}

func (c *Conn) write(b []byte) error {
	if cap(c.out) > 1<<20 {
		c.out = nil // do not keep the buffer of one large answer
	}
	_, err := c.nc.Write(b)
	return err
}

// Close ends the connection; Closed follows. It is idempotent.
func (c *Conn) Close() { _ = c.nc.Close() }

// Server accepts connections on a node's unix socket.
type Server struct {
	h   Handler
	log *slog.Logger
	ln  *net.UnixListener

	mu     sync.Mutex // guards conns and closed
	conns  map[*Conn]struct{}
	closed bool
	wg     sync.WaitGroup // the accept loop and one goroutine a connection
}

// Listen makes the socket at path with mode 0600 (an old one there is replaced:
// the caller holds the lock of the data directory) and serves it until Close.
func Listen(path string, h Handler, log *slog.Logger) (*Server, error) {
	if len(path) > MaxSocketPath {
		return nil, fmt.Errorf("the socket path %q has %d bytes and Linux allows %d: set [node] socket to a shorter one", path, len(path), MaxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the old socket: %w", err)
	}
	// A name that is not known until the mode is right: no moment at which
	// another user could connect.
	tmp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".s%d", os.Getpid()))
	_ = os.Remove(tmp)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	s := &Server{h: h, log: log, ln: ln, conns: map[*Conn]struct{}{}}
	s.wg.Add(1)
	go s.accept() // ended by Close, which closes the listener
	return s, nil
}

// Shutdown stops accepting and reading: calls that have come are served and answered, and
// each connection ends with its last one. It waits for that until ctx ends. Close comes
// after it.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.nc.CloseRead() // what has come is still read; a peer that is gone needs nothing
	}
	s.mu.Unlock()
	_ = s.ln.Close()
	over := make(chan struct{})
	go func() { // ended by the connections' ends, which Close brings about
		s.wg.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// Close stops accepting, ends every connection and waits for their goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	_ = s.ln.Close()
	s.wg.Wait()
}

func (s *Server) accept() {
	defer s.wg.Done()
	for {
		nc, err := s.ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Warn("link: accept failed", "error", err)
			time.Sleep(10 * time.Millisecond) // out of descriptors: leave the others time to close theirs
			continue
		}
		s.wg.Add(1)
		go s.serve(nc) // ended by the peer, or by Close
	}
}

func (s *Server) serve(nc *net.UnixConn) {
	defer s.wg.Done()
	defer func() { _ = nc.Close() }()
	c := &Conn{nc: nc}
	r := bufio.NewReaderSize(nc, 32<<10)
	if err := s.greet(c, r, nc); err != nil {
		s.log.Warn("link: refused a connection", "error", err)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.h.Closed(c)
	}()
	var buf []byte
	for {
		op, body, grown, err := readFrame(r, buf)
		if err != nil {
			if errors.Is(err, ErrFrame) || errors.Is(err, ErrTooLong) {
				s.log.Warn("link: closed a connection", "pid", c.Peer.PID, "error", err)
			}
			return
		}
		if buf = grown; cap(buf) > 1<<20 {
			buf = nil // body keeps it for this frame only
		}
		if err := s.h.Serve(c, op, NewFields(body)); err != nil {
			s.log.Warn("link: closed a connection", "pid", c.Peer.PID, "op", op, "error", err)
			return
		}
	}
}

// greet checks the peer's user and reads Hello.
func (s *Server) greet(c *Conn, r *bufio.Reader, nc *net.UnixConn) error {
	cred, err := peerCred(nc)
	if err != nil {
		return err
	}
	if uid := os.Getuid(); int(cred.Uid) != uid && cred.Uid != 0 {
		return fmt.Errorf("process %d runs as user %d, the node as %d", cred.Pid, cred.Uid, uid)
	}
	_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	op, body, _, err := readFrame(r, nil)
	if err != nil {
		return err
	}
	_ = nc.SetReadDeadline(time.Time{})
	f := NewFields(body)
	version, role, name := f.Int(), Role(f.Int()), f.String()
	switch {
	case op != Hello || f.Done() != nil:
		err = fmt.Errorf("%w: a connection begins with Hello", ErrFrame)
	case version != Version:
		err = fmt.Errorf("process %d speaks version %d of the link and this node %d: use the pogo.so that was built with this pogod", cred.Pid, version, Version)
	case role < RolePHP || role > RoleHost:
		err = fmt.Errorf("%w: role %d", ErrFrame, role)
	}
	if err != nil {
		_ = c.Answer(5, []byte(err.Error()))
		return err
	}
	c.Peer = Peer{Role: role, Name: name, PID: int(cred.Pid)}
	var greeting []byte
	if g, ok := s.h.(Greeter); ok {
		greeting = g.Greeting()
	}
	return c.Answer(1, greeting)
}

func peerCred(nc *net.UnixConn) (*unix.Ucred, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, inner
}
