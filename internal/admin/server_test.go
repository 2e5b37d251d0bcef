package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp keeps one ticking clock for the whole process, for the Date header.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// fake is a Source that answers what it is told.
type fake struct {
	ready  error
	status func(context.Context, StatusOptions) (*Status, error)
}

func (f *fake) Ready() error { return f.ready }
func (f *fake) Status(ctx context.Context, o StatusOptions) (*Status, error) {
	return f.status(ctx, o)
}

// onPort makes a server on a free port.
func onPort(t *testing.T, src Source, cl Cluster) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return New(ln, src, cl, slog.New(slog.DiscardHandler))
}

func serve(t *testing.T, src Source) *Server { t.Helper(); return serveCluster(t, src, nil) }

func serveCluster(t *testing.T, src Source, cl Cluster) *Server {
	t.Helper()
	s := onPort(t, src, cl)
	start(t, s)
	return s
}

// send writes a raw request and reads its answer.
func send(t *testing.T, s *Server, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n" }

var some = func(_ context.Context, o StatusOptions) (*Status, error) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	age, offset := int64(12), 600_000.5
	st := &Status{
		Read: Read{Node: "n1", Consistent: o.Consistent, AppliedIndex: 9, AgeMS: &age},
		Node: Node{ID: "n1", Role: "leader", Mode: "development", Version: "0.1.0", StartedAt: at, PID: 7, DataDir: "/srv/.pogod", CertificateExpiresAt: &at},
		Raft: Raft{
			State: "Leader", Leader: "n1", Term: 2, CommitIndex: 9, AppliedIndex: 9, CommittedIndex: 8, FeatureLevel: 1, KnownLevel: 2,
			Members: []Member{
				{ID: "n1", Address: "10.0.0.1:8083", Voter: true, Leader: true, Self: true, Up: true, AppliedIndex: 9},
				{ID: "n2", Address: "10.0.0.2:8083", Up: true, LastHeardAt: &at, AppliedIndex: 7, Lag: 2, RoundTripMS: 0.25},
			},
		},
		Clock: Clock{Time: &at, Median: &at, AheadMS: 1500, Nodes: []NodeClock{
			{Node: "n1", Self: true, Voter: true, OffsetMS: &offset, AgeMS: new(int64)}, {Node: "n2"},
		}},
		Defined: Definitions{Hash: "ab", Own: "cd", Differ: true},
		Queues:  []Queue{{Queue: "mail", Ready: true, Pending: 1, MaxPayloadBytes: 1 << 20, OldestPendingAt: &at}, {Queue: "default"}},
		Workers: []Worker{{Name: "default", Script: "/srv/queue-worker.php", Host: "jobs", Threads: 2, Waiting: 1, Running: 1}},
		Pools: []Pool{{
			Name: "default", Script: "/srv/dispatch-worker.php", Host: "jobs", Threads: 2, Waiting: 1, Running: 1, Queued: 3,
			Done: 4, Failed: 5, TimedOut: 6, Cancelled: 7, WaitMS: 0.5, RunMS: 1.5,
		}},
		Web: Web{
			Mode: "worker", Script: "/srv/worker.php", Threads: 4, Ready: 3, Busy: 2, Waiting: 1, Requests: 100, Restarts: 5, Crashes: 6, FailedStarts: 7,
			LastError: "PHP Parse error", LastErrorAt: &at,
		},
		Hub: &Hub{Listen: "127.0.0.1:8081", Connections: 3, Channels: 2, Messages: 9, SlowClosed: 1},
		PHP: PHP{Version: "8.4.16", Hosts: []Host{{Name: "jobs", PID: 8, State: "ready", StartedAt: &at}}},
		Storage: Storage{
			FileBytes: 1, LogFirstIndex: 1, LogLastIndex: 9, StreamsSent: 3, StreamsReceived: 1,
			Streams: []Stream{{Node: "c", Sending: true, Bytes: 5, Total: 9}},
			Scrub:   Scrub{Runs: 2, Bytes: 77, LastEndAt: &at},
		},
		Build: Build{Version: "0.1.0", Go: "go1.26.0", PHP: true, Revision: "abc"},
	}
	if o.Hash {
		st.Storage.StateHash, st.Storage.StateHashIndex = "abcd", 9
	}
	return st, nil
}

func TestPaths(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{status: some})
	big := strings.Repeat("x", 9000)
	for _, c := range []struct {
		name, request, kind, body string // body: a part of it; "" means none
		code                      int
	}{
		{"health", get("/healthz"), "text/plain; charset=utf-8", "ok", 200},
		{"head", "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "text/plain; charset=utf-8", "", 200},
		{"ready", get("/readyz"), "application/json", `{"ready":true}`, 200},
		{"status", get("/status"), "application/json", `"queues":[{"queue":"mail"`, 200},
		{"own", get("/status"), "application/json", `"read":{"node":"n1","consistent":false,`, 200},
		{"consistent", get("/status?consistent=1"), "application/json", `"consistent":true`, 200},
		{"not consistent", get("/status?consistent=0"), "application/json", `"consistent":false`, 200},
		{"hash", get("/status?hash=1&consistent=1"), "application/json", `"state_hash":"abcd","state_hash_index":9}`, 200},
		{"consistent?", get("/status?consistent=yes"), "application/problem+json", "consistent is 1 or 0", 400},
		{"consistent bare", get("/status?consistent"), "application/problem+json", "consistent is 1 or 0", 400},
		{"consistent twice", get("/status?consistent=1&consistent=0"), "application/problem+json", "consistent is 1 or 0", 400},
		{"hash?", get("/status?hash=sha512"), "application/problem+json", "hash is 1 or 0", 400},
		{"pretty", get("/status?pretty"), "application/json", "\n  \"node\": {\n    \"id\": \"n1\"", 200},
		{"unknown", get("/nothing"), "application/problem+json", "ask for /healthz, /readyz, /status, /metrics, /api/v1/queues or /api/v1/cluster/members", 404},
		{"root", get("/"), "application/problem+json", `"title":"Not Found"`, 404},
		{"post", "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", "application/problem+json", `"status":405`, 405},
		{"delete", "DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "application/problem+json", `"status":405`, 405},
		{"host 127", "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:8082\r\n\r\n", "text/plain; charset=utf-8", "ok", 200},
		{"host v6", "GET /healthz HTTP/1.1\r\nHost: [::1]:99\r\n\r\n", "text/plain; charset=utf-8", "ok", 200},
		{"host v6 bare", "GET /healthz HTTP/1.1\r\nHost: [::1]\r\n\r\n", "text/plain; charset=utf-8", "ok", 200},
		{"host case", "GET /healthz HTTP/1.1\r\nHost: LOCALHOST:1\r\n\r\n", "text/plain; charset=utf-8", "ok", 200},
		{"host rebound", "GET /status HTTP/1.1\r\nHost: evil.example:8082\r\n\r\n", "application/problem+json", `"title":"Forbidden"`, 403},
		{"host prefix", "GET /status HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", "application/problem+json", `"status":403`, 403},
		{"host prefix ip", "GET /status HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", "application/problem+json", `"status":403`, 403},
		{"host other ip", "GET /status HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", "application/problem+json", `"status":403`, 403},
		{"host in the path", "GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n", "application/problem+json", `"status":403`, 403},
		{"host none", "GET /status HTTP/1.0\r\n\r\n", "application/problem+json", `"status":403`, 403},
		{"host before path", "GET /x HTTP/1.1\r\nHost: evil\r\n\r\n", "application/problem+json", `"status":403`, 403},
		{"framed twice", "GET /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "application/problem+json", "send one of them", 400},
		{"framed twice, turned", "POST /status HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: identity\r\ncontent-length: 0\r\n\r\n", "application/problem+json", "send one of them", 400},
		{"headers", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + big + "\r\n\r\n", "application/problem+json", `"status":431`, 431},
		{"body", "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n" + big, "application/problem+json", `"status":413`, 413},
		{"nonsense", "hello\r\n\r\n", "application/problem+json", `"status":400`, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, body := send(t, s, c.request)
			if r.StatusCode != c.code || r.Header.Get("Content-Type") != c.kind || !strings.Contains(body, c.body) || c.body == "" && body != "" {
				t.Errorf("%d %s\n%s", r.StatusCode, r.Header.Get("Content-Type"), body)
			}
			if c.code == 405 && r.Header.Get("Allow") != "GET, HEAD" {
				t.Error(r.Header)
			}
			if strings.HasPrefix(c.name, "framed") && !r.Close {
				t.Error("the connection stays open")
			}
			if c.kind == "application/problem+json" {
				var p struct {
					Type, Title, Detail string
					Status              int
				}
				if err := json.Unmarshal([]byte(body), &p); err != nil || p.Type != "about:blank" || p.Status != c.code || p.Title == "" || p.Detail == "" {
					t.Error(p, err)
				}
			} else if r.Header.Get("Cache-Control") != "no-store" {
				t.Error(r.Header)
			}
		})
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{ready: errors.New("no leader since 4s"), status: func(context.Context, StatusOptions) (*Status, error) {
		return nil, errors.New("the file is closed")
	}})
	r, body := send(t, s, get("/readyz"))
	want := `{"detail":"no leader since 4s","ready":false,"reason":"no leader since 4s","status":503,"title":"Service Unavailable","type":"about:blank"}`
	if r.StatusCode != 503 || body != want {
		t.Error(r.StatusCode, body)
	}
	if r, body := send(t, s, get("/status")); r.StatusCode != 503 || !strings.Contains(body, `"detail":"the file is closed"`) {
		t.Error(r.StatusCode, body)
	}
	if r, body := send(t, s, get("/status?consistent=1")); r.StatusCode != 503 || !strings.Contains(body, "cannot be had now (the file is closed): ask again") {
		t.Error(r.StatusCode, body)
	}
	if r, _ := send(t, s, get("/healthz")); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
}

func TestPanicEndsOneRequest(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{status: func(context.Context, StatusOptions) (*Status, error) { panic("oh") }})
	if r, body := send(t, s, get("/status")); r.StatusCode != 500 || strings.Contains(body, "oh") {
		t.Error(r.StatusCode, body)
	}
	if r, _ := send(t, s, get("/healthz")); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
}

// TestDocument holds every key of the document.
func TestDocument(t *testing.T) {
	t.Parallel()
	st, err := some(t.Context(), StatusOptions{Hash: true})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/status.json"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if st.Workers[0].Queues != nil {
		t.Error("the caller's document was changed")
	}
	empty, err := json.Marshal(Status{})
	if err != nil || strings.Contains(strings.NewReplacer(`_at":null`, "", `"age_ms":null`, "", `"time":null,"median":null`, "", `"hub":null`, "").Replace(string(empty)), "null") {
		t.Errorf("%s %v", empty, err)
	}
	if strings.Contains(string(empty), "state_hash") {
		t.Errorf("a hash that was not asked for: %s", empty)
	}
	var back Status
	if err := json.Unmarshal(got, &back); err != nil || back.Queues[0].OldestPendingAt.Year() != 2026 {
		t.Error(err)
	}
}

func TestShutdownWaitsForRequest(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	s := serve(t, &fake{status: func(ctx context.Context, o StatusOptions) (*Status, error) {
		close(entered)
		<-release
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return some(ctx, o)
	}})
	answer := make(chan string, 1)
	go func() { // ends with the answer
		r, err := http.Get("http://" + s.Addr().String() + "/status")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer r.Body.Close()
		answer <- r.Status
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	<-s.ln.closing
	select {
	case err := <-ended:
		t.Fatal("shut down under a running request:", err)
	default:
	}
	close(release)
	if a := <-answer; a != "200 OK" {
		t.Error(a)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestShutdownCutsOff(t *testing.T) {
	t.Parallel()
	entered, why := make(chan struct{}), make(chan error, 1)
	s := serve(t, &fake{status: func(ctx context.Context, o StatusOptions) (*Status, error) {
		close(entered)
		<-ctx.Done()
		why <- ctx.Err()
		return nil, ctx.Err()
	}})
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	idle, err := net.Dial("tcp", s.Addr().String()) // says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	fmt.Fprint(c, get("/status"))
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-why; !errors.Is(err, context.Canceled) { // rather than its own time-out
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestShutdownBeforeServe(t *testing.T) {
	t.Parallel()
	s := onPort(t, &fake{}, nil)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestShutdownBesideServe(t *testing.T) {
	t.Parallel()
	for range 200 {
		s := onPort(t, &fake{}, nil)
		served := make(chan error, 1)
		go func() { served <- s.Serve() }()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
	}
}

func TestHostOffLoopback(t *testing.T) {
	t.Parallel()
	if !onLoopback(&net.TCPAddr{IP: net.IPv6loopback}) || onLoopback(&net.TCPAddr{IP: net.IPv4zero}) || onLoopback(&net.TCPAddr{}) {
		t.Error("loopback is misjudged")
	}
	s := serve(t, &fake{})
	s.loopback = false
	if r, _ := send(t, s, "GET /healthz HTTP/1.1\r\nHost: pogo.example\r\n\r\n"); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
}
