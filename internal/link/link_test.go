package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers Push with its payload, Status when it is let, and Next never, until released.
type echo struct {
	closed  chan Peer
	waiting chan *Conn
	began   chan struct{} // a value for each Status
	let     chan struct{}
}

func (e *echo) Serve(c *Conn, op Op, f *Fields) error {
	switch op {
	case Push:
		_, p, delay := f.String(), f.Bytes(), f.Int()
		if err := f.Done(); err != nil {
			return err
		}
		return c.Answer(int32(delay), p)
	case Next:
		e.waiting <- c
		return nil
	case Status:
		e.began <- struct{}{}
		<-e.let
		return c.Answer(1, nil)
	}
	return ErrFrame
}
func (e *echo) Closed(c *Conn) { e.closed <- c.Peer }

func serve(t *testing.T) (*echo, string) {
	t.Helper()
	e, _, path := listen(t)
	return e, path
}

func listen(t *testing.T) (*echo, *Server, string) {
	t.Helper()
	e := &echo{make(chan Peer, 8), make(chan *Conn, 8), make(chan struct{}, 8), make(chan struct{})}
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(path, e, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return e, s, path
}

// A server that shuts down answers what has come, a call that waits its turn included, and
// takes no more.
func TestShutdownAnswersWhatHasCome(t *testing.T) {
	e, s, path := listen(t)
	idle, err := Dial(t.Context(), path, RoleTool, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), path, RoleTool, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var calls []byte
	for _, f := range []Builder{Request(nil, Status).String(""), Request(nil, Push).String("q").String("second").Int(1)} {
		b, err := f.Frame()
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, b...)
	}
	if _, err := c.nc.Write(calls); err != nil {
		t.Fatal(err)
	}
	<-e.began
	over, done := context.WithCancel(t.Context())
	done()
	s.Shutdown(over) // it does not wait for longer than it is told
	if _, _, err := idle.Call(Request(nil, Push).String("q").String("late").Int(1)); err == nil {
		t.Error("a call is taken")
	}
	idle.Close()
	if _, err := Dial(t.Context(), path, RoleTool, ""); !errors.Is(err, ErrNotSent) {
		t.Error(err)
	}
	close(e.let)
	if code, _, err := readAnswer(c.r); code != 1 || err != nil {
		t.Errorf("the call under way: %d, %v", code, err)
	}
	if code, body, err := readAnswer(c.r); code != 1 || string(body) != "second" || err != nil {
		t.Errorf("the one behind it: %d %q, %v", code, body, err)
	}
	s.Shutdown(t.Context()) // and now all have ended
	if len(e.closed) != 2 {
		t.Errorf("%d connections have ended, want 2", len(e.closed))
	}
}

func TestCallAndLateAnswer(t *testing.T) {
	e, path := serve(t)
	c, err := Dial(t.Context(), path, RoleWorker, "mail")
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("a\x00ü"), 1<<20)
	code, body, err := c.Call(Request(nil, Push).String("q").Bytes(big).Int(-7))
	if err != nil || code != -7 || !bytes.Equal(body, big) {
		t.Fatal(code, len(body), err)
	}
	go func() { // ended by this test's answer
		w := <-e.waiting
		_ = w.Answer(1, AppendDelivery(nil, 9, []byte("{}")))
	}()
	code, body, err = c.Call(Request(nil, Next).String("mail").Int(0))
	lease, msg, perr := ParseDelivery(body)
	if err != nil || perr != nil || code != 1 || lease != 9 || string(msg) != "{}" {
		t.Fatal(code, lease, msg, err, perr)
	}
	c.Close()
	if p := <-e.closed; p.Name != "mail" || p.Role != RoleWorker || p.PID == 0 {
		t.Fatal(p)
	}
}

func TestRefusals(t *testing.T) {
	_, path := serve(t)
	hello := func(version int64, role Role) Builder {
		return Request(nil, Hello).Int(version).Int(int64(role)).String("x")
	}
	for name, f := range map[string]Builder{
		"version": hello(Version+1, RolePHP),
		"role":    hello(Version, 99),
		"order":   Request(nil, Push).String("q").String("p").Int(0),
	} {
		c, err := Dial(t.Context(), path, RoleTool, "")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		raw, err := dialRaw(t, path)
		if err != nil {
			t.Fatal(err)
		}
		code, body, err := raw.Call(f)
		if err != nil || code != 5 || len(body) == 0 {
			t.Errorf("%s: %d %q %v", name, code, body, err)
		}
		if _, _, err := raw.Call(f); !errors.Is(err, ErrLost) && !errors.Is(err, ErrNotSent) {
			t.Errorf("%s: the connection lives on: %v", name, err)
		}
		raw.Close()
	}
	if _, err := Listen(strings.Repeat("p", MaxSocketPath+1), nil, nil); err == nil || !strings.Contains(err.Error(), "[node] socket") {
		t.Errorf("a long path: %v", err)
	}
	if _, err := Dial(t.Context(), path+"no", RoleTool, ""); !errors.Is(err, ErrNotSent) {
		t.Error(err)
	}
}

func TestMalformedFrameClosesConnection(t *testing.T) {
	e, path := serve(t)
	c, err := Dial(t.Context(), path, RolePHP, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.nc.Write([]byte{0xff, 0xff, 0xff, 0xff, 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	<-e.closed
}

func FuzzFrame(f *testing.F) {
	frame, _ := Request(nil, Push).String("q").String("payload").Int(3).Frame()
	f.Add(frame)
	f.Add([]byte{1, 0, 0, 0, 2})
	f.Add([]byte{255, 255, 0, 1, 2, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		op, body, _, err := readFrame(bytes.NewReader(b), nil)
		if err != nil {
			return
		}
		fs := NewFields(body)
		var all [][]byte
		for len(fs.b) > 0 && !fs.bad {
			all = append(all, fs.Bytes())
		}
		if fs.Done() != nil {
			return
		}
		again := Request(nil, op)
		for _, p := range all {
			again = again.Bytes(p)
		}
		out, err := again.Frame()
		if err != nil || !bytes.Equal(out, b[:len(out)]) {
			t.Fatalf("%x became %x (%v)", b, out, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(appendAnswer(nil, 5, []byte("no")))
	f.Add(appendAnswer(nil, 1, AppendDelivery(nil, 7, []byte("{}"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		code, body, err := readAnswer(bytes.NewReader(b))
		if err != nil {
			return
		}
		if out := appendAnswer(nil, code, body); !bytes.Equal(out, b[:len(out)]) {
			t.Fatalf("%x became %x", b, out)
		}
		_, _, _ = ParseDelivery(body)
	})
}

func BenchmarkCall(b *testing.B) {
	e := &echo{closed: make(chan Peer, 1)}
	path := filepath.Join(b.TempDir(), "s")
	s, err := Listen(path, e, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.Run("bytes=220", func(b *testing.B) {
		c, err := Dial(b.Context(), path, RoleTool, "")
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		p := make([]byte, 220)
		var buf []byte
		for b.Loop() {
			f := Request(buf, Push).String("q").Bytes(p).Int(1)
			buf = f.b
			if _, _, err := c.Call(f); err != nil {
				b.Fatal(err)
			}
		}
	})
}
