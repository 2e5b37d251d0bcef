package admin

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// saved is a Source with backups.
type saved struct {
	*fake
	text   func() io.Reader
	err    error
	closed *atomic.Int32
}

func (s saved) Backup() (io.ReadCloser, int64, error) {
	if s.err != nil {
		return nil, 0, s.err
	}
	return struct {
		io.Reader
		io.Closer
	}{s.text(), closer{s.closed}}, 6, nil
}

type closer struct{ n *atomic.Int32 }

func (c closer) Close() error { c.n.Add(1); return nil }

func TestBackup(t *testing.T) {
	t.Parallel()
	closed := &atomic.Int32{}
	src := saved{&fake{status: some}, func() io.Reader { return strings.NewReader("backup") }, nil, closed}
	s := serve(t, src)
	ask := func(s *Server, headers string) (int, string) {
		t.Helper()
		r, body := send(t, s, request("POST", BackupPath, headers, ""))
		return r.StatusCode, body
	}
	if code, body := ask(s, asJSON); code != 200 || body != "backup" || closed.Load() != 1 {
		t.Error(code, body, closed.Load())
	}
	if code, body := ask(s, ""); code != 415 {
		t.Error(code, body)
	}
	if r, body := send(t, s, get(BackupPath)); r.StatusCode != 405 {
		t.Error(r.StatusCode, body)
	}
	src.err = errors.New("the disk is gone")
	failing := serve(t, src)
	for range maxBackups + 1 { // none of them counts as under way
		if code, body := ask(failing, asJSON); code != 503 || !strings.Contains(body, "the disk is gone") {
			t.Error(code, body)
		}
	}
	if code, body := ask(serve(t, src.fake), asJSON); code != 404 {
		t.Error(code, body)
	}
	token, hash := NewToken()
	bearer, err := NewBearer("ada", "operate", hash)
	if err != nil {
		t.Fatal(err)
	}
	s.SetBearers([]Bearer{bearer})
	if code, body := ask(s, asJSON+"Authorization: Bearer "+token+"\r\n"); code != 403 || !strings.Contains(body, "this takes admin") {
		t.Error(code, body)
	}
}

// Only so many are read at once, and whoever gives one up makes room.
func TestBackupsAreBounded(t *testing.T) {
	t.Parallel()
	closed := &atomic.Int32{}
	hold := make(chan struct{})
	s := serve(t, saved{&fake{status: some}, func() io.Reader { return io.MultiReader(strings.NewReader("b"), waits{hold}) }, nil, closed})
	end := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(end)
	var under []net.Conn
	for range maxBackups {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, request("POST", BackupPath, asJSON, "")); err != nil {
			t.Fatal(err)
		}
		under = append(under, c)
	}
	for s.reading.Load() < maxBackups {
		runtime.Gosched()
	}
	if r, body := send(t, s, request("POST", BackupPath, asJSON, "")); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
		t.Error(r.StatusCode, body)
	}
	end()
	for _, c := range under { // cut off by the reader's end, which is too soon
		if r, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			if _, err := io.ReadAll(r.Body); err == nil {
				t.Error("a backup that ends too soon looks whole")
			}
			r.Body.Close()
		}
	}
	for s.reading.Load() > 0 {
		runtime.Gosched()
	}
	if closed.Load() != maxBackups {
		t.Error(closed.Load())
	}
}

type waits struct{ c chan struct{} }

func (w waits) Read([]byte) (int, error) { <-w.c; return 0, io.ErrUnexpectedEOF }
