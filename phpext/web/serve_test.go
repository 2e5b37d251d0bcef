package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds a wait in a test that fails.
const patience = 20 * time.Second

// running is a server that answers "hello", and at /slow when it is let.
type running struct {
	*Server
	ln    net.Listener
	slow  chan struct{} // a value lets one request to /slow end
	began chan struct{} // a value for each request to /slow
	ended chan error    // what Serve returned
	last  chan struct{}
	hurry chan struct{}
	left  chan struct{} // closed when Leave has returned
}

func serve(t *testing.T) *running {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as the node listens
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{
		ln: ln, slow: make(chan struct{}), began: make(chan struct{}, 1), ended: make(chan error, 1),
		last: make(chan struct{}), hurry: make(chan struct{}), left: make(chan struct{}),
	}
	r.Server = NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			r.began <- struct{}{}
			<-r.slow
		}
		_, _ = io.WriteString(w, "hello") // a client that is gone needs none
	}), slog.New(slog.DiscardHandler))
	go func() { r.ended <- r.Serve(ln) }() // ended by Leave
	return r
}

func (r *running) leave() {
	go func() { // ended by the last connection
		r.Leave(r.ln, r.last, r.hurry)
		close(r.left)
	}()
}

func (r *running) gone(t *testing.T) {
	t.Helper()
	select {
	case <-r.left:
	case <-time.After(patience):
		t.Fatal("it does not leave")
	}
	if err := <-r.ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// client is one connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (r *running) dial(t *testing.T) *client {
	t.Helper()
	c, err := net.Dial("tcp", r.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &client{c, bufio.NewReader(c)}
}

func (c *client) ask(t *testing.T, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Error(err)
	}
}

// answer reads an answer and says whether the connection ends with it.
func (c *client) answer(t *testing.T) (last bool) {
	t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); string(body) != "hello" || err != nil {
		t.Error(string(body), err)
	}
	return res.Close
}

// A kept connection is not closed under its client: its next request is answered, with
// the word that it was the last.
func TestKeptConnectionIsAnsweredOnceMore(t *testing.T) {
	t.Parallel()
	r := serve(t)
	kept, running, idle := r.dial(t), r.dial(t), r.dial(t)
	for _, c := range []*client{kept, idle} {
		c.ask(t, "/")
		if c.answer(t) {
			t.Error("closed before it leaves")
		}
	}
	running.ask(t, "/slow")
	<-r.began
	begin := time.Now()
	r.leave()
	if err := <-r.ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	r.ended <- net.ErrClosed // for gone
	kept.ask(t, "/")
	if !kept.answer(t) {
		t.Error("the client is not told that the connection ends")
	}
	if _, err := kept.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	r.slow <- struct{}{}
	running.answer(t) // it began before: its connection is kept, and one more request answered
	running.ask(t, "/")
	if !running.answer(t) {
		t.Error("the client is not told that the connection ends")
	}
	// The idle one has a while.
	if _, err := idle.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if waited := time.Since(begin); waited < leaveIdle {
		t.Errorf("closed after %s", waited)
	}
	r.gone(t)
}

func TestHurryClosesIdleConnectionsAlone(t *testing.T) {
	t.Parallel()
	r := serve(t)
	idle, running := r.dial(t), r.dial(t)
	idle.ask(t, "/")
	idle.answer(t)
	running.ask(t, "/slow")
	<-r.began
	begin := time.Now()
	r.leave()
	close(r.hurry)
	if _, err := idle.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if waited := time.Since(begin); waited >= leaveIdle {
		t.Errorf("closed after %s", waited)
	}
	select {
	case <-r.left:
		t.Error("it did not wait for the request")
	default:
	}
	r.slow <- struct{}{}
	running.answer(t)
	r.gone(t)
}

// Two servers on one socket, one after the other, as two processes have them: what the
// first does not take, the next does.
func TestNextServerTakesOver(t *testing.T) {
	t.Parallel()
	r := serve(t)
	file, err := r.ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	r.leave()
	r.gone(t)
	waits := r.dial(t) // nobody accepts now
	waits.ask(t, "/")
	ln, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	next := NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.URL.Path, "/") {
			_, _ = io.WriteString(w, "hello") // the client checks it
		}
	}), slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- next.Serve(ln) }() // ended by Leave
	if waits.answer(t) {
		t.Error("closed")
	}
	hurry := make(chan struct{})
	close(hurry)
	next.Leave(ln, nil, hurry)
	if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// The last server answers who is in the queue, and lets nobody in behind: no client is reset.
func TestLastServerResetsNobody(t *testing.T) {
	t.Parallel()
	for range 20 {
		r := serve(t)
		var clients sync.WaitGroup
		stop := make(chan struct{})
		for range 8 {
			clients.Go(func() { // ended by stop, or by the first refusal
				dialer := net.Dialer{Timeout: 100 * time.Millisecond} // a client that is not let in tries again after a second
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := dialer.Dial("tcp", r.ln.Addr().String())
					if err != nil {
						return
					}
					_ = c.SetDeadline(time.Now().Add(patience))
					_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
					var answer []byte
					if err == nil {
						answer, err = io.ReadAll(c)
					}
					if err != nil || !strings.HasSuffix(string(answer), "hello") {
						t.Errorf("%q, %v", answer, err)
					}
					_ = c.Close()
				}
			})
		}
		close(r.last)
		r.leave()
		r.gone(t)
		close(stop)
		clients.Wait()
	}
}

// The last server's kept connections are told too, and do not hold it up for long.
func TestLastServerWaitsLessForIdleOnes(t *testing.T) {
	t.Parallel()
	r := serve(t)
	kept, idle := r.dial(t), r.dial(t)
	for _, c := range []*client{kept, idle} {
		c.ask(t, "/")
		c.answer(t)
	}
	begin := time.Now()
	r.leave()
	if err := <-r.ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	close(r.last) // it comes to leaving ones, too
	r.ended <- net.ErrClosed
	kept.ask(t, "/")
	if !kept.answer(t) {
		t.Error("the client is not told that the connection ends")
	}
	if _, err := idle.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if waited := time.Since(begin); waited < lastIdle || waited >= leaveIdle {
		t.Errorf("closed after %s", waited)
	}
	r.gone(t)
}
