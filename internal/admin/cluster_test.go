package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeCluster is a Cluster that answers what it is told.
type fakeCluster struct {
	tokens  atomic.Int32 // made
	members func(context.Context) ([]Member, error)
	full    error
	mu      sync.Mutex // guards left
	left    []string   // who was to leave, and whether by force
}

func (f *fakeCluster) NewToken(worker bool) (string, time.Time, error) {
	f.tokens.Add(1)
	if worker {
		return "pogod1_worker", time.Time{}, f.full
	}
	return "pogod1_abc", time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)), f.full
}

func (f *fakeCluster) Leave(_ context.Context, node string, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = append(f.left, fmt.Sprint(node, " ", force))
	return f.full
}

func (f *fakeCluster) Transfer(_ context.Context, node string) (string, error) {
	return "leads-" + node, f.full
}

func (f *fakeCluster) Members(ctx context.Context) ([]Member, error) { return f.members(ctx) }

// post is a request for a token; headers begin after the host's.
func post(headers, body string) string {
	length := ""
	if body != "" {
		length = "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return "POST " + TokensPath + " HTTP/1.1\r\nHost: localhost\r\n" + headers + length + "\r\n" + body
}

const asJSON = "Content-Type: application/json\r\n"

func TestNewToken(t *testing.T) {
	t.Parallel()
	const token = `{"token":"pogod1_abc","expires_at":"2026-01-02T02:04:05Z"}`
	for _, c := range []struct {
		name, request string
		code          int
		want          string
	}{
		{"bare", post(asJSON, ""), 200, token},
		{"empty object", post(asJSON, " {} "), 200, token},
		{"charset", post("content-type: Application/JSON; charset=utf-8\r\n", ""), 200, token},
		{"own page", post(asJSON+"Origin: http://localhost:8082\r\n", ""), 200, token},
		{"own page v6", post(asJSON+"Origin: https://[::1]\r\n", ""), 200, token},
		{"worker", toPath(TokensPath+"?worker=1", asJSON), 200, "pogod1_worker"},
		{"worker or not", toPath(TokensPath+"?worker=yes", asJSON), 400, "worker is 1 or 0"},
		{"pretty", strings.Replace(post(asJSON, ""), TokensPath, TokensPath+"?pretty", 1), 200, "{\n  \"token\": "},

		{"page of elsewhere", post(asJSON+"Origin: https://evil.example\r\n", ""), 403, "pages of elsewhere"},
		{"page with our name in it", post(asJSON+"Origin: http://localhost.evil.example\r\n", ""), 403, ""},
		{"page with our name as its user", post(asJSON+"Origin: http://localhost@evil.example\r\n", ""), 403, ""},
		{"page of a sandbox", post(asJSON+"Origin: null\r\n", ""), 403, ""},
		{"page of nowhere", post(asJSON+"Origin: \r\n", ""), 403, ""},
		{"page of two places", post(asJSON+"Origin: http://localhost\r\nOrigin: https://evil.example\r\n", ""), 403, ""},
		{"rebound host", strings.Replace(post(asJSON, ""), "Host: localhost", "Host: evil.example", 1), 403, ""},
		{"form", post("Content-Type: application/x-www-form-urlencoded\r\n", ""), 415, "must have Content-Type: application/json"},
		{"form with our type in it", post("Content-Type: text/plain; a=application/json\r\n", "{}"), 415, ""},
		{"no type", post("", ""), 415, ""},
		{"no type, with a body", post("", "{}"), 415, ""},
		{"list", post(asJSON, "[]"), 400, "must be empty or {}"},
		{"null", post(asJSON, "null"), 400, ""},
		{"wishes", post(asJSON, `{"n":1}`), 400, ""},
		{"two", post(asJSON, "{}{}"), 400, ""},
		{"not JSON", post(asJSON, "{"), 400, ""},
		{"read", get(TokensPath), 405, "no other method than POST"},
		{"head", "HEAD " + TokensPath + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, ""},
		{"asked by a browser", "OPTIONS " + TokensPath + " HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", 405, ""},
		{"path below", strings.Replace(post(asJSON, ""), TokensPath, TokensPath+"/1", 1), 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cl := &fakeCluster{}
			r, body := send(t, serveCluster(t, &fake{}, cl), c.request)
			if r.StatusCode != c.code || !strings.Contains(body, c.want) {
				t.Error(r.StatusCode, body)
			}
			if made := cl.tokens.Load(); (made == 1) != (c.code == 200) {
				t.Errorf("%d tokens", made)
			}
			if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error(r.Header)
			}
			if kind := r.Header.Get("Content-Type"); (kind == "application/problem+json") != (c.code != 200) {
				t.Error(kind)
			}
			if c.code == 405 && r.Header.Get("Allow") != "POST" {
				t.Error(r.Header)
			}
		})
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	cl := &fakeCluster{members: func(ctx context.Context) ([]Member, error) {
		st, err := some(ctx, StatusOptions{})
		return st.Raft.Members, err
	}}
	s := serveCluster(t, &fake{}, cl)
	r, body := send(t, s, get(MembersPath))
	var m Members
	if err := json.Unmarshal([]byte(body), &m); r.StatusCode != 200 || err != nil || len(m.Members) != 2 || m.Members[1].RoundTripMS != 0.25 {
		t.Error(r.StatusCode, body, err)
	}
	if r, body := send(t, s, "DELETE "+MembersPath+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD" {
		t.Error(r.StatusCode, body)
	}
	none := serveCluster(t, &fake{}, &fakeCluster{members: func(context.Context) ([]Member, error) { return nil, nil }})
	if _, body := send(t, none, get(MembersPath)); body != `{"members":[]}` {
		t.Error(body)
	}
}

// toPath is a request to change something at a path.
func toPath(path, headers string) string {
	return strings.Replace(post(headers, ""), TokensPath, path, 1)
}

func TestTransferAndLeave(t *testing.T) {
	t.Parallel()
	cl := &fakeCluster{}
	s := serveCluster(t, &fake{}, cl)
	for _, c := range []struct {
		path, want string
		code       int
	}{
		{TransferPath, `{"leader":"leads-"}`, 200},
		{TransferPath + "?node=a", `{"leader":"leads-a"}`, 200},
		{LeavePath, `{"left":""}`, 200},
		{LeavePath + "?node=a&force=1", `{"left":"a"}`, 200},
		{LeavePath + "?force=yes", "force is 1 or 0", 400},
	} {
		if r, body := send(t, s, toPath(c.path, asJSON)); r.StatusCode != c.code || !strings.Contains(body, c.want) {
			t.Error(c.path, r.StatusCode, body)
		}
		if r, body := send(t, s, toPath(c.path, asJSON+"Origin: https://evil.example\r\n")); r.StatusCode != 403 {
			t.Error(c.path, r.StatusCode, body)
		}
	}
	if want := []string{" false", "a true"}; !slices.Equal(cl.left, want) {
		t.Errorf("%q left, not %q", cl.left, want)
	}
	for want, err := range map[int]error{409: fmt.Errorf("%w: it is the last", ErrDeclined), 503: errors.New("no leader")} {
		s := serveCluster(t, &fake{}, &fakeCluster{full: err})
		for _, path := range []string{TransferPath, LeavePath} {
			if r, body := send(t, s, toPath(path, asJSON)); r.StatusCode != want || !strings.Contains(body, err.Error()) {
				t.Error(path, r.StatusCode, body)
			}
		}
	}
}

func TestClusterFails(t *testing.T) {
	t.Parallel()
	s := serveCluster(t, &fake{}, &fakeCluster{
		full:    errors.New("100 tokens are open"),
		members: func(context.Context) ([]Member, error) { return nil, errors.New("no configuration yet") },
	})
	if r, body := send(t, s, post(asJSON, "")); r.StatusCode != 503 || !strings.Contains(body, "100 tokens are open") || strings.Contains(body, "pogod1_") {
		t.Error(r.StatusCode, body)
	}
	if r, body := send(t, s, get(MembersPath)); r.StatusCode != 503 || !strings.Contains(body, "no configuration yet") {
		t.Error(r.StatusCode, body)
	}
}

func TestWithoutCluster(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{})
	for _, request := range []string{post(asJSON, ""), get(MembersPath), toPath(TransferPath, asJSON), toPath(LeavePath, asJSON)} {
		if r, body := send(t, s, request); r.StatusCode != 409 || !strings.Contains(body, `make one with \"pogod cluster init\"`) {
			t.Error(r.StatusCode, body)
		}
	}
	// A page of elsewhere does not learn even that.
	if r, body := send(t, s, post(asJSON+"Origin: https://evil.example\r\n", "")); r.StatusCode != 403 {
		t.Error(r.StatusCode, body)
	}
}
