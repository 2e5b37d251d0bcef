//go:build php

package phpext

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/link"
)

// startSite starts a host that serves testdata/site.
func startSite(t testing.TB, n *node, threads int, jobs ...link.WorkerSpec) *hostProcess {
	t.Helper()
	root, err := filepath.Abs("testdata/site")
	if err != nil {
		t.Fatal(err)
	}
	return startHost(t, n, link.HostSpec{Name: "web", Web: &link.WebSpec{Root: root, Index: "index.php", Threads: threads}, Jobs: jobs}, "1")
}

// get asks a page; header pairs follow the path.
func (h *hostProcess) get(t testing.TB, path string, header ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[header[i]] = []string{header[i+1]}
	}
	return answer(t, r)
}

func answer(t testing.TB, r *http.Request) (int, http.Header, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func TestPages(t *testing.T) {
	n := newNode(t)
	h := startSite(t, n, 2)
	for _, tc := range []struct{ path, body string }{
		{"/", `{"PATH_INFO":"","SCRIPT_NAME":"/index.php","REQUEST_URI":"/","QUERY_STRING":"","REQUEST_METHOD":"GET"}`},
		{"/a%20b/c?d=e", `{"PATH_INFO":"","SCRIPT_NAME":"/index.php","REQUEST_URI":"/a%20b/c?d=e","QUERY_STRING":"d=e","REQUEST_METHOD":"GET"}`},
		{"/index.php/a%20b?d=e", `{"PATH_INFO":"/a b","SCRIPT_NAME":"/index.php","REQUEST_URI":"/index.php/a%20b?d=e","QUERY_STRING":"d=e","REQUEST_METHOD":"GET"}`},
		{"/sub/tool.php", "tool /sub/tool.php  sub"},
		{"/sub/tool.php/x/y", "tool /sub/tool.php /x/y sub"},
		{"/app.css", "body {}\n"},
		{"/?do=streams", "not defined"},
		{"/?do=handle", "frankenphp_handle_request() called while not in worker mode"},
		{"/?do=fake", "frankenphp_handle_request() called while not in worker mode"},
	} {
		if code, _, body := h.get(t, tc.path); code != 200 || body != tc.body {
			t.Errorf("%s: %d %s\nwant %s", tc.path, code, body, tc.body)
		}
	}
	code, header, body := h.get(t, "/x?code=418", "Foo_Bar", "spoofed", "Proxy", "spoofed", "X-Real", "real")
	if code != 418 || header.Get("X-Made-By") != "index" || len(header["Server"]) != 0 || strings.Contains(body, "spoofed") || !strings.Contains(body, `"HTTP_X_REAL":"real"`) {
		t.Error(code, header, body)
	}
	payload := strings.Repeat("größer\x00", 100_000)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/?do=push", strings.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	if code, _, body := answer(t, r); code != 200 || body != payload {
		t.Error(code, len(body))
	}
}

// The time limit of a page ends a call that waits for the node, and the answer
// that comes too late is nobody's.
func TestTimeLimitEndsACall(t *testing.T) {
	n := newNode(t)
	pushes := make(chan *link.Conn, 1)
	n.onFrame(func(c *link.Conn, op link.Op, f *link.Fields) (bool, error) {
		if op != link.Push {
			return false, nil
		}
		if f.String() == "default" {
			pushes <- c
			return true, nil
		}
		return true, c.Answer(1, f.Bytes())
	})
	h := startSite(t, n, 1)
	_, _, body := h.get(t, "/?do=limit")
	if !strings.Contains(body, "Maximum execution time of 1 second exceeded") {
		t.Error(body)
	}
	late := receive(t, "the push", pushes)
	_ = late.Answer(1, []byte("late"))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/?do=push", strings.NewReader("mine"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, body := answer(t, r); body != "mine" {
		t.Error(body)
	}
}

// Pages and job threads of one host keep to their own threads.
func TestPagesBesideJobs(t *testing.T) {
	n := newNode(t)
	h := startSite(t, n, 1, worker(t, "counts-requests.php", 1, "MAX_REQUESTS", "1").Jobs...)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if code, _, body := h.get(t, "/"); code != 200 || strings.Contains(body, "POGO_WORKER") {
					t.Error(code, body)
				}
			}
		})
	}
	for i := range 50 {
		n.push("q", strconv.Itoa(i))
		n.event(t, "ack")
		n.event(t, "ended")
	}
	wg.Wait()
}

// Drain lets a page that runs come to its end.
func TestDrainWaitsForPages(t *testing.T) {
	n := newNode(t)
	asked := make(chan *link.Conn, 1)
	n.onFrame(func(c *link.Conn, op link.Op, _ *link.Fields) (bool, error) {
		if op == link.Push {
			asked <- c
			return true, nil
		}
		return false, nil
	})
	h := startSite(t, n, 1)
	got := make(chan string, 1)
	go func() { // ended by the answer
		_, _, body := h.get(t, "/?do=push")
		got <- body
	}()
	c := receive(t, "the push", asked)
	n.drain()
	_ = c.Answer(1, []byte("in the end"))
	if body := receive(t, "the page", got); body != "in the end" {
		t.Error(body)
	}
	if err := h.wait(t); err != nil {
		t.Error(err)
	}
}

// A request that waits leaves with its client: no script runs for it.
func TestPageWaitsAsLongAsItsClient(t *testing.T) {
	n := newNode(t)
	asked := make(chan *link.Conn, insidePerThread+1)
	n.onFrame(func(c *link.Conn, op link.Op, _ *link.Fields) (bool, error) {
		if op == link.Push {
			asked <- c
			return true, nil
		}
		return false, nil
	})
	h := startSite(t, n, 1)
	answered := make(chan string, insidePerThread+1)
	ask := func(ctx context.Context) {
		go func() { // ended by the answer, or by ctx
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/?do=push", nil)
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				answered <- "left"
				return
			}
			defer func() { _ = res.Body.Close() }()
			b, _ := io.ReadAll(res.Body)
			answered <- string(b)
		}()
	}
	ask(t.Context())
	first := receive(t, "the first push", asked)
	for range insidePerThread - 1 {
		ask(t.Context())
	}
	in := link.PageFigures{Requests: insidePerThread, Busy: 1, Waiting: insidePerThread - 1, Ready: 1}
	n.awaitPages(t, in)
	ctx, leave := context.WithCancel(t.Context())
	ask(ctx)
	one := in
	one.Waiting++
	n.awaitPages(t, one)
	leave()
	if got := receive(t, "the client's end", answered); got != "left" {
		t.Error(got)
	}
	n.awaitPages(t, in)
	_ = first.Answer(1, []byte("a page"))
	for range insidePerThread - 1 {
		_ = receive(t, "another push", asked).Answer(1, []byte("a page"))
	}
	for range insidePerThread {
		if got := receive(t, "an answer", answered); got != "a page" {
			t.Error(got)
		}
	}
	n.awaitPages(t, link.PageFigures{Requests: insidePerThread, Ready: 1})
}

// awaitPages waits until the node knows that of the pages.
func (n *node) awaitPages(t testing.TB, want link.PageFigures) {
	t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		n.mu.Lock()
		now := n.pages
		n.mu.Unlock()
		if now == want {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("the node knows %+v, not %+v", now, want)
		}
	}
}

// BenchmarkPush is the time of a push from PHP to a node in memory and back.
func BenchmarkPush(b *testing.B) {
	for _, threads := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			n := newNode(b)
			n.onFrame(func(c *link.Conn, op link.Op, _ *link.Fields) (bool, error) {
				if op != link.Push {
					return false, nil
				}
				return true, c.Answer(1, []byte(`{"ok":true,"id":"1763849472123-57","code":1}`))
			})
			h := startSite(b, n, threads)
			b.ResetTimer()
			var wg sync.WaitGroup
			var sum [16]float64
			for i := range threads {
				wg.Go(func() {
					_, _, body := h.get(b, fmt.Sprintf("/?do=bench&n=%d", max(b.N/threads, 1)))
					sum[i], _ = strconv.ParseFloat(body, 64)
				})
			}
			wg.Wait()
			var each float64
			for _, s := range sum[:threads] {
				each += s / float64(threads)
			}
			b.ReportMetric(each/1e3, "us/call")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
