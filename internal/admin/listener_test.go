package admin

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// scarce is a listener whose first calls fail.
type scarce struct {
	net.Listener
	errs []error
}

func (s *scarce) Accept() (net.Conn, error) {
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	}
	return s.Listener.Accept()
}

func TestAcceptLivesThroughShortage(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(&scarce{tcp, []error{syscall.EMFILE, syscall.ECONNABORTED}})
	defer l.Close()
	peer, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	select {
	case <-l.empty:
		t.Error("empty with a connection")
	default:
	}
	l.cut()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	c.Close()
	c.Close()
	<-l.empty
}

func TestAcceptEndsInShortage(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	many := make([]error, 1000)
	for i := range many {
		many[i] = syscall.EMFILE
	}
	l := newListener(&scarce{tcp, many})
	ended := make(chan error, 1)
	go func() { _, err := l.Accept(); ended <- err }() // ended by Close
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	broken := newListener(&scarce{tcp, []error{syscall.EBADF}})
	if _, err := broken.Accept(); !errors.Is(err, syscall.EBADF) {
		t.Error(err)
	}
}
