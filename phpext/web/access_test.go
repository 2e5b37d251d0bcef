package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/link"
)

// lines collects what an access log writes.
type lines struct {
	mu  sync.Mutex // guards b
	b   bytes.Buffer
	err error
}

func (l *lines) write(p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	return l.err
}

func (l *lines) all(t *testing.T) (all []link.AccessLine) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.b.Bytes()) {
		var r link.AccessLine
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestAccessLog(t *testing.T) {
	t.Parallel()
	var seen lines
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a.txt"), []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	php := runner(func(w http.ResponseWriter, r *http.Request, _, _ string) {
		switch r.URL.Path {
		case "/hints":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusTeapot)
		case "/flushes":
			_, _ = io.WriteString(w, "one")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, "two")
		case "/panics":
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		}
	})
	a := NewAccessLog(NewWorker(root, "index.php", php), seen.write, discard())
	srv := httptest.NewServer(a)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // which would ask again
	get := func(path string) {
		req, _ := http.NewRequest(http.MethodGet, srv.URL+path, nil)
		req.Header.Set("User-Agent", `a "browser" é`)
		req.Header.Set("Referer", "http://x/?<y>")
		res, err := client.Do(req)
		if err != nil {
			return // it panics
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	for _, path := range []string{"/a.txt", "/page?b=1&c=%20", "/hints", "/flushes", "/panics"} {
		get(path)
	}
	srv.Close()
	a.Close()
	all := seen.all(t)
	if len(all) != 5 {
		t.Fatalf("%+v", all)
	}
	for i, want := range []struct {
		path   string
		status int
		bytes  int64
	}{{"/a.txt", 200, 6}, {"/page?b=1&c=%20", 200, 0}, {"/hints", 418, 0}, {"/flushes", 200, 6}, {"/panics", 200, 4}} {
		got := all[i]
		if got.Path != want.path || got.Status != want.status || got.Bytes != want.bytes || got.Client != "127.0.0.1" || got.Method != "GET" ||
			got.Agent != `a "browser" é` || got.Referer != "http://x/?<y>" || got.Seconds < 0 {
			t.Errorf("%+v, want %+v", got, want)
		}
		if at, err := time.Parse(time.RFC3339, got.Time); err != nil || time.Since(at) > time.Hour {
			t.Error(got.Time, err)
		}
	}
}

// runner is a Runner.
type runner func(w http.ResponseWriter, r *http.Request, script, pathInfo string)

func (f runner) Run(w http.ResponseWriter, r *http.Request, script, pathInfo string) {
	f(w, r, script, pathInfo)
}

// A writer that hangs costs lines, not memory.
func TestAccessLogIsBounded(t *testing.T) {
	t.Parallel()
	hold, held := make(chan struct{}), make(chan struct{}, 16)
	a := NewAccessLog(http.NotFoundHandler(), func([]byte) error {
		held <- struct{}{}
		<-hold
		return errors.New("no room")
	}, discard())
	r := httptest.NewRequest(http.MethodGet, "/"+strings.Repeat("x", 100_000), nil)
	a.ServeHTTP(httptest.NewRecorder(), r) // over accessFull: it is written at once
	<-held
	for range 2 * accessMost / 100_000 {
		a.ServeHTTP(httptest.NewRecorder(), r)
	}
	a.mu.Lock()
	if a.dropped == 0 || a.lines.Len() > accessMost+200_000 {
		t.Errorf("%d dropped, %d bytes wait", a.dropped, a.lines.Len())
	}
	a.mu.Unlock()
	close(hold)
	a.Close()
}

// The lines of a quiet hour do not wait for more.
func TestAccessLogIsWrittenSoon(t *testing.T) {
	t.Parallel()
	written := make(chan []byte, 1)
	a := NewAccessLog(http.NotFoundHandler(), func(p []byte) error { written <- p; return nil }, discard())
	defer a.Close()
	a.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	select {
	case p := <-written:
		if !bytes.Contains(p, []byte(`"status":404`)) {
			t.Errorf("%s", p)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it is not written")
	}
}

func TestLogFileFollowsItsName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access")
	f, err := OpenLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func(line string) {
		t.Helper()
		if err := f.Append([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	write("two\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("three\n")
	if read(path+".1") != "one\ntwo\n" || read(path) != "three\n" {
		t.Errorf("%q %q", read(path+".1"), read(path))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write("four\n")
	if read(path) != "four\n" {
		t.Errorf("%q", read(path))
	}
	if err := errors.Join(f.Close(), os.RemoveAll(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	if err := f.Append([]byte("five\n")); err == nil {
		t.Error("its directory is gone")
	}
	if _, err := OpenLogFile(path); err == nil {
		t.Error("its directory is gone")
	}
}

func BenchmarkPage(b *testing.B) {
	page := runner(func(w http.ResponseWriter, _ *http.Request, _, _ string) { _, _ = io.WriteString(w, "page") })
	root := b.TempDir()
	if err := os.WriteFile(filepath.Join(root, "index.php"), nil, 0o600); err != nil {
		b.Fatal(err)
	}
	handler := New(root, "index.php", page, discard())
	for _, log := range []bool{false, true} {
		b.Run(map[bool]string{false: "log=off", true: "log=on"}[log], func(b *testing.B) {
			var h http.Handler = handler
			if log {
				a := NewAccessLog(handler, func([]byte) error { return nil }, discard())
				defer a.Close()
				h = a
			}
			r := httptest.NewRequest(http.MethodGet, "/a/page?x=1", nil)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				w.Body.Reset()
				h.ServeHTTP(w, r)
			}
		})
	}
}
