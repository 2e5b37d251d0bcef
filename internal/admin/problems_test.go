package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// apiPaths are all paths below /api/v1, with the methods that they take.
var apiPaths = map[string]string{
	QueuesPath:                            "GET, HEAD",
	QueuesPath + "/mail":                  "GET, HEAD",
	QueuesPath + "/mail/jobs":             "GET, HEAD, POST, DELETE",
	QueuesPath + "/mail/jobs/1-2":         "DELETE",
	QueuesPath + "/mail/pause":            "POST",
	QueuesPath + "/mail/resume":           "POST",
	QueuesPath + "/mail/failed":           "GET, HEAD, DELETE",
	QueuesPath + "/mail/failed/retry":     "POST",
	QueuesPath + "/mail/failed/1-2":       "DELETE",
	QueuesPath + "/mail/failed/1-2/retry": "POST",
	MembersPath:                           "GET, HEAD",
	TokensPath:                            "POST",
	TransferPath:                          "POST",
	LeavePath:                             "POST",
	ReloadPath:                            "POST",
	"/api/v1/nothing":                     "",
	"/api/v1":                             "",
}

// problemOf demands that an answer is a problem document, and returns its status.
func problemOf(t *testing.T, what string, r *http.Response, body string) int {
	t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	if r.Request.Method == http.MethodHead {
		if body != "" || r.Header.Get("Content-Type") != problemType {
			t.Errorf("%s: %q %v", what, body, r.Header)
		}
		return r.StatusCode
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil || r.Header.Get("Content-Type") != problemType ||
		p.Type != "about:blank" || p.Title == "" || p.Detail == "" || p.Status != r.StatusCode || r.StatusCode < 400 {
		t.Errorf("%s: %d %v %s", what, r.StatusCode, r.Header, body)
	}
	return p.Status
}

// Every path answers everything that it does not take with a problem document, and does
// nothing.
func TestEveryErrorIsAProblem(t *testing.T) {
	t.Parallel()
	open := &queued{fake: &fake{status: some}}
	s := serve(t, open)
	closed, src, _, _ := guarded(t)
	start(t, closed)
	big := strings.Repeat("x", maxBody+1)
	for path, allow := range apiPaths {
		takes := strings.Split(allow, ", ")
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "get"} {
			if allow == "" || !strings.Contains(", "+allow+",", ", "+method+",") {
				r, body := send(t, s, request(method, path, asJSON, ""))
				want := 405
				if allow == "" {
					want = 404
				}
				if got := problemOf(t, method+" "+path, r, body); got != want || r.Header.Get("Allow") != allow {
					t.Errorf("%s %s: %d, Allow %q", method, path, got, r.Header.Get("Allow"))
				}
			}
		}
		if allow == "" {
			continue
		}
		for _, method := range takes {
			changes := method == "POST" || method == "DELETE"
			for name, c := range map[string]struct {
				headers, body string
				host          string
				status        int
				changes       bool // only what changes something cares
			}{
				"no token, which is asked for": {"", "", "", 401, false},
				"wrong token":                  {"Authorization: Bearer x\r\n", "", "", 401, false},
				"other scheme":                 {"Authorization: Basic eDp5\r\n", "", "", 401, false},
				"other host":                   {"", "", "evil.example", 403, false},
				"no host":                      {"", "", " ", 400, false},
				"no JSON":                      {"Content-Type: text/plain\r\n", "{}", "", 415, true},
				"other origin":                 {asJSON + "Origin: https://evil.example\r\n", "{}", "", 403, true},
				"bad body":                     {asJSON, "{", "", 400, true},
				"a list":                       {asJSON, "[]", "", 400, true},
				"too large":                    {"Content-Type: text/plain\r\n", big, "", 413, false},
				"framed twice":                 {asJSON + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n", "", "", 400, false},
				"unknown coding":               {asJSON + "Transfer-Encoding: gzip\r\n", "", "", 400, false},
				"two lengths":                  {asJSON + "Content-Length: 5\r\nContent-Length: 6\r\n", "", "", 400, false},
				"negative length":              {asJSON + "Content-Length: -5\r\n", "", "", 400, false},
				"bad chunk":                    {asJSON + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "", "", 400, true},
				"large headers":                {"X: " + strings.Repeat("y", maxHeader) + "\r\n", "", "", 431, false},
				"bad header":                   {"no colon\r\n", "", "", 400, false},
			} {
				if c.changes && !changes {
					continue
				}
				to := s
				if strings.Contains(name, "token") || strings.Contains(name, "scheme") {
					to = closed
					closed.failures = failures{}
				}
				text := request(method, path, c.headers, c.body)
				if c.host != "" {
					text = strings.Replace(text, "Host: localhost", "Host: "+c.host, 1)
				}
				what := method + " " + path + ", " + name
				r, body := send(t, to, text)
				if got := problemOf(t, what, r, body); got != c.status {
					t.Errorf("%s: %d, not %d: %s", what, got, c.status, body)
				}
			}
		}
	}
	if open.calls != nil || src.calls != nil {
		t.Errorf("it did %q %q", open.calls, src.calls)
	}
}

// What is no request at all is answered likewise.
func TestNonsenseIsAProblem(t *testing.T) {
	t.Parallel()
	s := serve(t, &queued{fake: &fake{status: some}})
	for name, text := range map[string]string{
		"words": "hello\r\n\r\n", "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "no version": "GET /\r\n\r\n", "control": "GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"HTTP 2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "header name": "GET / HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n",
	} {
		r, body := send(t, s, text)
		if got := problemOf(t, name, r, body); got/100 != 4 {
			t.Error(name, got)
		}
	}
}

// A connection too many is told so, and closed; when one goes another may come.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	s := serve(t, &queued{fake: &fake{status: some}})
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	ask := func(c net.Conn) (int, string) {
		t.Helper()
		fmt.Fprint(c, get("/healthz"))
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, err.Error()
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	var all []net.Conn
	for range maxConnsPerIP {
		c := dial()
		if status, body := ask(c); status != 200 {
			t.Fatal(status, body)
		}
		all = append(all, c)
	}
	r, err := http.ReadResponse(bufio.NewReader(dial()), &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	if got := problemOf(t, "one too many", r, string(body)); got != 503 || r.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), "128 connections from this address are open") {
		t.Error(got, r.Header, string(body))
	}
	if status, body := ask(all[5]); status != 200 { // the others live
		t.Error(status, body)
	}
	_ = all[0].Close()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // until it was noticed
		if status, body := ask(dial()); status == 200 {
			break
		} else if time.Since(begin) > 20*time.Second {
			t.Fatal(status, body)
		}
	}
}
