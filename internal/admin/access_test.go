package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/certificate"
	"pogod/internal/certificate/certtest"
)

// journal is a log that is read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// guarded serves queues to a bearer of each role, and returns their tokens by role.
func guarded(t *testing.T) (s *Server, src *queued, tokens map[Role]string, log *journal) {
	t.Helper()
	src, log, tokens = &queued{fake: &fake{status: some}}, &journal{}, map[Role]string{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = New(ln, src, joinable{}, slog.New(slog.NewTextHandler(log, nil)))
	var all []Bearer
	for role := RoleRead; role <= RoleAdmin; role++ {
		token, hash := NewToken()
		b, err := NewBearer("the "+role.String(), role.String(), hash)
		if err != nil {
			t.Fatal(err)
		}
		all, tokens[role] = append(all, b), token
	}
	s.SetBearers(all)
	return s, src, tokens, log
}

// joinable is a Cluster that makes tokens.
type joinable struct{}

func (joinable) NewToken(bool) (string, time.Time, error)  { return "pogod1_x", time.Time{}, nil }
func (joinable) Members(context.Context) ([]Member, error) { return nil, nil }
func (joinable) Leave(context.Context, string, bool) error { return nil }

func (joinable) Transfer(context.Context, string) (string, error) { return "a", nil }

func start(t *testing.T, s *Server) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- s.Serve() }() // ended by Shutdown
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// Each path takes a role, which others do not have; who has none gets nothing.
func TestRoles(t *testing.T) {
	t.Parallel()
	s, src, tokens, log := guarded(t)
	start(t, s)
	for _, c := range []struct {
		method, path, body string
		role               Role // 0: nobody is asked
	}{
		{"GET", "/healthz", "", 0},
		{"GET", "/readyz", "", 0},
		{"GET", "/status", "", RoleRead},
		{"GET", "/metrics", "", RoleRead},
		{"HEAD", QueuesPath, "", RoleRead},
		{"GET", QueuesPath + "/mail", "", RoleRead},
		{"GET", QueuesPath + "/mail/jobs", "", RoleRead},
		{"GET", QueuesPath + "/mail/failed", "", RoleRead},
		{"GET", MembersPath, "", RoleRead},
		{"POST", QueuesPath + "/mail/jobs", `{"payload":"a"}`, RoleOperate},
		{"DELETE", QueuesPath + "/mail/jobs", "", RoleOperate},
		{"DELETE", QueuesPath + "/mail/jobs/1-2", "", RoleOperate},
		{"POST", QueuesPath + "/mail/pause", "", RoleOperate},
		{"POST", QueuesPath + "/mail/resume", "", RoleOperate},
		{"DELETE", QueuesPath + "/mail/failed", "", RoleOperate},
		{"DELETE", QueuesPath + "/mail/failed/1-2", "", RoleOperate},
		{"POST", QueuesPath + "/mail/failed/1-2/retry", "", RoleOperate},
		{"POST", QueuesPath + "/mail/failed/retry", "", RoleOperate},
		{"POST", TokensPath, "", RoleAdmin},
		{"POST", TransferPath, "", RoleAdmin},
		{"POST", LeavePath, "", RoleAdmin},
	} {
		for role := Role(0); role <= RoleAdmin; role++ {
			headers := asJSON
			if role > 0 {
				headers += "authorization: bearer  " + tokens[role] + "\r\n"
			}
			src.calls = nil
			r, body := send(t, s, request(c.method, c.path, headers, c.body))
			want := 200
			switch {
			case role >= c.role:
			case role == 0:
				want = 401
			default:
				want = 403
			}
			if r.StatusCode != want || want != 200 && src.calls != nil {
				t.Errorf("%s %s as %d: %d %s, done: %q", c.method, c.path, role, r.StatusCode, body, src.calls)
			}
			if want == 401 && r.Header.Get("WWW-Authenticate") != `Bearer realm="pogod"` || want != 200 && r.Header.Get("Content-Type") != "application/problem+json" {
				t.Error(r.Header)
			}
		}
	}
	// Whoever has no token does not learn what there is.
	if r, _ := send(t, s, get("/nothing")); r.StatusCode != 401 {
		t.Error(r.StatusCode)
	}
	for _, line := range []string{
		`level=INFO msg="asked for a change" who="the operate" from=127.0.0.1:`,
		` method=POST path=/api/v1/queues/mail/pause status=200`,
		`who="the read" from=`, ` method=DELETE path=/api/v1/queues/mail/jobs/1-2 status=403`,
		`who="the admin" from=`, ` method=POST path=/api/v1/cluster/tokens status=200`,
	} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("no %q in the log", line)
		}
	}
	for _, token := range tokens {
		if strings.Contains(log.String(), token) {
			t.Error("a token is in the log")
		}
	}
	if strings.Contains(log.String(), "method=GET") {
		t.Error("what only looks is in the log")
	}
	// Nobody is asked when nobody has a token.
	s.SetBearers(nil)
	if r, _ := send(t, s, get("/status")); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
}

// A push without a token that may push is not read.
func TestLongBodyWantsAToken(t *testing.T) {
	t.Parallel()
	s, _, tokens, _ := guarded(t)
	start(t, s)
	long := `{"payload":"` + strings.Repeat("x", 2*maxBody) + `"}`
	for role, want := range map[Role]int{0: 413, RoleRead: 413, RoleOperate: 200} {
		headers := asJSON
		if role > 0 {
			headers += "Authorization: Bearer " + tokens[role] + "\r\n"
		}
		if r, body := send(t, s, request("POST", QueuesPath+"/mail/jobs", headers, long)); r.StatusCode != want {
			t.Errorf("as %d: %d %s", role, r.StatusCode, body)
		}
	}
}

// After ten wrong tokens within a minute an address is not listened to, whatever it says.
func TestWrongTokens(t *testing.T) {
	t.Parallel()
	s, _, tokens, log := guarded(t)
	start(t, s)
	with := func(token string) string {
		return request("GET", "/status", "Authorization: Bearer "+token+"\r\n", "")
	}
	for range 30 { // no token is no wrong one
		if r, _ := send(t, s, get("/status")); r.StatusCode != 401 {
			t.Fatal(r.StatusCode)
		}
	}
	for i := range maxFailures {
		wrong := tokens[RoleAdmin][:len(tokens[RoleAdmin])-i-1]
		if r, body := send(t, s, with(wrong)); r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") != `Bearer realm="pogod", error="invalid_token"` {
			t.Fatal(i, r.StatusCode, body, r.Header)
		}
	}
	for _, token := range []string{"wrong", tokens[RoleAdmin]} {
		r, body := send(t, s, with(token))
		if wait := r.Header.Get("Retry-After"); r.StatusCode != 429 || len(wait) < 1 || len(wait) > 2 || !strings.Contains(body, "10 wrong tokens came from this address") {
			t.Error(r.StatusCode, body, wait)
		}
	}
	if r, _ := send(t, s, get("/healthz")); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
	if n := strings.Count(log.String(), `level=WARN msg="a wrong token" from=127.0.0.1:`); n != maxFailures {
		t.Errorf("%d lines in the log", n)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	var f failures
	at := time.Unix(1000, 0)
	ip := net.ParseIP
	fail := func(from string, n int) {
		for range n {
			f.add(ip(from), at)
		}
	}
	waits := func(from string, want time.Duration) {
		t.Helper()
		if got := f.wait(ip(from), at); got != want {
			t.Errorf("%s waits %s, not %s", from, got, want)
		}
	}
	fail("192.0.2.1", maxFailures-1)
	waits("192.0.2.1", 0)
	at = at.Add(20 * time.Second)
	fail("192.0.2.1", 1)
	waits("192.0.2.1", 40*time.Second)
	waits("192.0.2.2", 0)
	at = at.Add(40 * time.Second) // nine of them are over
	waits("192.0.2.1", 0)
	fail("192.0.2.1", 8)
	waits("192.0.2.1", 0)
	fail("192.0.2.1", 1)
	waits("192.0.2.1", 20*time.Second)
	fail("2001:db8::1", maxFailures)
	waits("2001:db8::ffff:2", failureSpan) // the same network
	waits("2001:db8:0:1::1", 0)
	// What is remembered is bounded, and who fails most lately stays.
	for i := range maxAddresses + 100 {
		at = at.Add(time.Millisecond)
		f.add(net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)), at)
	}
	if len(f.from) != maxAddresses {
		t.Error(len(f.from))
	}
	fail("192.0.2.9", maxFailures)
	waits("192.0.2.9", failureSpan)
}

// Over TLS, from 1.2 on, with a certificate that may change.
func TestTLS(t *testing.T) {
	t.Parallel()
	s, _, tokens, _ := guarded(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	pool := certtest.Issue(t, 1, cert, key)
	c, err := certificate.Load("the test", cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Secure(c.Get)
	start(t, s)
	ask := func(conf *tls.Config) (string, error) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.Addr().String()+QueuesPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+tokens[RoleRead])
		r, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		return fmt.Sprint(r.StatusCode, r.TLS.Version, r.Proto, string(body)), err
	}
	if got, err := ask(&tls.Config{RootCAs: pool}); err != nil || !strings.HasPrefix(got, fmt.Sprint(200, tls.VersionTLS13, "HTTP/1.1", `{"queues":`)) {
		t.Error(got, err)
	}
	if got, err := ask(&tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12}); err != nil || !strings.HasPrefix(got, fmt.Sprint(200, tls.VersionTLS12)) {
		t.Error(got, err)
	}
	if got, err := ask(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1:", got)
	}
	if got, err := ask(&tls.Config{}); err == nil {
		t.Error("a certificate of nobody's:", got)
	}
	// What is not TLS is closed, and the rest goes on.
	plain, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	fmt.Fprint(plain, get("/healthz"))
	if answer, _ := io.ReadAll(plain); bytes.Contains(answer, []byte("200 OK")) {
		t.Errorf("%q", answer)
	}
	if got, err := ask(&tls.Config{RootCAs: pool}); err != nil {
		t.Error(got, err)
	}
}

func TestNewBearer(t *testing.T) {
	t.Parallel()
	_, hash := NewToken()
	for _, c := range [][2]string{{"root", hash}, {"read", hash[1:]}, {"read", hash[:70]}, {"read", hash + "0"}, {"read", strings.Replace(hash, ":", ":g", 1)}, {"read", ""}, {"", hash}} {
		if b, err := NewBearer("a", c[0], c[1]); err == nil {
			t.Errorf("%q: %+v", c, b)
		}
	}
	if b, err := NewBearer("a", "read", strings.ToUpper(hash[7:])); err == nil {
		t.Error(b)
	}
	if b, err := NewBearer("a", "read", "sha256:"+strings.ToUpper(hash[7:])); err != nil {
		t.Error(b, err)
	}
}
