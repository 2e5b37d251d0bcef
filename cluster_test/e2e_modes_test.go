//go:build php

package cluster_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http/httputil"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// modeSite starts testdata/modes, in worker mode or in classic mode, with more keys of
// [web] and more settings.
func modeSite(t *testing.T, worker bool, webKeys, settings string, nodeKeys ...string) *site {
	t.Helper()
	s := newModeSite(t, worker, webKeys, settings, nodeKeys...)
	s.serve(t)
	return s
}

func newModeSite(t *testing.T, worker bool, webKeys, settings string, nodeKeys ...string) *site {
	t.Helper()
	app, err := filepath.Abs("testdata/modes")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, app, settings, nodeKeys...)
	if worker {
		webKeys += "\nworker = \"worker.php\""
	}
	s.rewrite(t, "[web]\n", "[web]\n"+webKeys+"\n")
	return s
}

// raw sends a request as it is, over a connection of its own, and returns all that came
// back, without what differs from one time or node to the next.
func (s *site) raw(t *testing.T, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.web, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(readyWithin)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%.60q: %v, after %q", request, err, answer)
	}
	head, body, _ := strings.Cut(date.ReplaceAllString(string(answer), ""), "\r\n\r\n")
	if strings.HasPrefix(head, "HTTP/1.1 1") {
		next, rest, _ := strings.Cut(body, "\r\n\r\n")
		head, body = head+"\r\n\r\n"+next, rest
	}
	if strings.Contains(head, "Transfer-Encoding: chunked") { // its pieces depend on the length of paths
		all, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(body)))
		if err != nil {
			t.Fatalf("%.60q: %v in the pieces of %q", request, err, body)
		}
		body = string(all)
	}
	return strings.ReplaceAll(head+"\r\n\r\n"+body, s.home, "HOME")
}

var date = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// ask writes a request whose connection ends with it. head is its line without the
// version, and headers; a body gets its length.
func ask(head, body string) string {
	line, headers, _ := strings.Cut(head, "\n")
	if body != "" {
		headers += fmt.Sprintf("\nContent-Length: %d", len(body))
	}
	text := line + " HTTP/1.1\nHost: shop.example\nConnection: close\n" + strings.Trim(headers, "\n")
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\r\n") + "\r\n\r\n" + body
}

// form is a request with two fields and three files.
func form(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.SetBoundary("boundary"); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"title", "list[]", "list[]"} {
		if err := w.WriteField(field, "größer & "+field); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"one", "many[]", "many[]"} {
		part, err := w.CreateFormFile(file, file+".txt")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte("content of " + file + "\x00\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return ask("POST /in?a=1\nContent-Type: multipart/form-data; boundary=boundary", b.String())
}

// TestE2EModes sends the same requests, byte by byte, to a site in classic mode and one in
// worker mode: the answers are the same to the byte, and as they should be. All requests
// of worker mode meet one thread, in this order, twice.
func TestE2EModes(t *testing.T) {
	t.Parallel()
	const keys = "threads = 1\ntrusted_proxies = [\"127.0.0.1\"]"
	classic, worker := newModeSite(t, false, keys, ""), newModeSite(t, true, keys, "")
	for _, s := range []*site{classic, worker} {
		s.env = append(s.env, "SHOP_NAME=größer")
		s.serve(t)
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	for range 2 {
		for _, c := range []struct {
			request string
			wants   []string // parts of the answer; the first is its beginning
		}{
			{ask("GET /", ""), []string{ok, "page /"}},
			{ask("GET /a%20b/c?x=1", ""), []string{ok, "page /a%20b/c"}},
			{ask("GET /server?a=b&c[]=d+e", ""), []string{
				ok, `"SCRIPT_NAME": "/index.php"`, `"PATH_INFO": ""`, `"REQUEST_URI": "/server?a=b&c[]=d+e"`, `"SHOP_NAME": "größer"`, `"PHP_SELF": "/index.php"`,
				`"SCRIPT_FILENAME": "` + worker.app(t) + `/public/index.php"`, `"DOCUMENT_ROOT": "` + worker.app(t) + `/public"`, `"DOCUMENT_URI": "/index.php"`,
				`"SERVER_PROTOCOL": "HTTP/1.1"`, `"REMOTE_ADDR": "127.0.0.1"`, `"QUERY_STRING": "a=b&c[]=d+e"`,
			}},
			{ask("GET /index.php/server/?q\nX-Forwarded-For: 192.0.2.7\nX-Forwarded-Proto: https\nX-Forwarded-Host: shop.test\nProxy: evil\nFoo_Bar: evil\nFoo-Baz: good", ""), []string{
				ok, `"PATH_INFO": "/server/"`, `"PHP_SELF": "/index.php/server/"`, `"PATH_TRANSLATED": "` + worker.app(t) + `/public/server/"`, `"HTTPS": "on"`,
				`"REMOTE_ADDR": "192.0.2.7"`, `"HTTP_HOST": "shop.test"`, `"HTTP_FOO_BAZ": "good"`,
			}},
			{ask("POST /server\nContent-Type: text/plain\nAuthorization: Basic YWRhOnNlY3JldA==", "body"), []string{ok, `"CONTENT_TYPE": "text/plain"`, `"CONTENT_LENGTH": "4"`, `"PHP_AUTH_USER": "ada"`}},
			{ask("GET /in?a=1&b[x]=2&b[y]=3&a.b=4", ""), []string{ok, `"method": "GET"`, `"a_b": "4"`, `"filter": "1"`, `"user": null`}},
			{ask("POST /in?a=1\nContent-Type: application/x-www-form-urlencoded", "a=2&b%5B%5D=x+y&b%5B%5D=%C3%BC"), []string{ok, `"ü"`, `"body": "a=2&b%5B%5D=x+y&b%5B%5D=%C3%BC"`, `"length": "30"`}},
			{form(t), []string{ok, `"title": "größer & title"`, `"full_path": "one.txt"`}},
			{ask("PUT /in\nContent-Type: application/json", `{"put":1}`), []string{ok, `"method": "PUT"`, `"body": "{\"put\":1}"`, `"post": []`}},
			{ask("PATCH /in\nTransfer-Encoding: chunked", "") + "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", []string{ok, `"body": "hello world"`}},
			{ask("DELETE /in", ""), []string{ok, `"method": "DELETE"`, `"body": ""`}},
			{ask("PURGE /in", ""), []string{ok, `"method": "PURGE"`}},
			{ask("OPTIONS /in", ""), []string{ok, `"method": "OPTIONS"`}},
			{ask("GET /in\nCookie: a=1; b=x%20y\nCookie: c[]=2\nX-Twice: one\nX-Twice: two\nX-Odd: ü", ""), []string{ok, `"b": "x y"`, `"X-Twice": "one, two"`}},
			{ask("GET /in\nAuthorization: Basic YWRhOnNlY3JldA==", ""), []string{ok, `"user": "ada"`, `"password": "secret"`}},
			{ask("GET /in", ""), []string{ok, `"user": null`, `"cookie": []`}},
			{ask("HEAD /long", ""), []string{ok}},
			{ask("HEAD /headers", ""), []string{ok, "X-Two: 1\r\nX-Two: 2\r\n"}},
			{ask("GET /status?code=404", ""), []string{"HTTP/1.1 404 Not Found\r\n", "status 404"}},
			{ask("GET /status?code=304", ""), []string{"HTTP/1.1 304 Not Modified\r\n"}},
			{ask("GET /status?code=299", ""), []string{"HTTP/1.1 299 "}},
			{ask("GET /line", ""), []string{"HTTP/1.1 451 Unavailable For Legal Reasons\r\n", "line"}},
			{ask("GET /headers", ""), []string{
				ok, "Content-Type: text/plain; charset=iso-8859-1\r\n", "Server: mine\r\n", "Set-Cookie: a=1\r\nSet-Cookie: b=2; path=/; HttpOnly; SameSite=Lax\r\n", "X-One: 2\r\n", "X-Two: 1\r\nX-Two: 2\r\n",
			}},
			{ask("GET /redirect", ""), []string{"HTTP/1.1 302 Found\r\n", "Location: /elsewhere?x=1\r\n"}},
			{ask("GET /see", ""), []string{"HTTP/1.1 303 See Other\r\n", "Location: /elsewhere\r\n"}},
			{ask("GET /empty", ""), []string{"HTTP/1.1 204 No Content\r\n"}},
			{ask("GET /buffered", ""), []string{ok, "UPPER  RENNI"}},
			{ask("GET /flushed", ""), []string{ok, "X-Before: 1\r\n", "one ", "sent two"}},
			{ask("GET /gzip\nAccept-Encoding: gzip", ""), []string{ok, "Content-Encoding: gzip\r\n", "\x1f\x8b"}},
			{ask("GET /gzip", ""), []string{ok, "compressed compressed"}},
			{ask("GET /long", ""), []string{ok, "0123456789abcdef0"}},
			{ask("GET /early", ""), []string{"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n", "\r\n\r\n" + ok, "early"}},
			{ask("GET /finish", ""), []string{ok, "finished"}},
			{ask("GET /throws", ""), []string{"HTTP/1.1 500 Internal Server Error\r\n"}},
			{ask("GET /caught", ""), []string{"HTTP/1.1 500 Internal Server Error\r\n", "thrown"}},
			{ask("GET /exit", ""), []string{ok, "exited"}},
			{ask("GET /exit?code=201", ""), []string{"HTTP/1.1 201 Created\r\n", "exited"}},
			{ask("GET /exits", ""), []string{ok, "with a status"}},
			{ask("GET /memory", ""), []string{"HTTP/1.1 200 OK\r\n", "X-Before: 1\r\n", "begun"}}, // echo has sent the head: no buffer
			{ask("GET /sent", ""), []string{ok, "sent "}},
			{ask("GET /busy", ""), []string{"HTTP/1.1 500 Internal Server Error\r\n"}},
			{ask("GET /warns", ""), []string{ok, "warned"}},
			{ask("GET /session?name=a", ""), []string{ok, "Set-Cookie: PHPSESSID=sa; path=/\r\n", "a "}},
			{ask("GET /session?name=b", ""), []string{ok, "Set-Cookie: PHPSESSID=sb; path=/\r\n", "b "}},
			{ask("GET /file.txt", ""), []string{ok, "Etag: ", "a file\n"}},
			{ask("GET /none.txt", ""), []string{ok, "page /none.txt"}},
			{ask("GET /.env", ""), []string{ok, "page /.env"}},
			{ask("POST /file.txt", ""), []string{"HTTP/1.1 405 Method Not Allowed\r\n"}},
			{"GET /in?old HTTP/1.0\r\n\r\n", []string{"HTTP/1.0 200 OK\r\n", `"method": "GET"`}},
			{"GET /flushed HTTP/1.0\r\nHost: shop.example\r\n\r\n", []string{"HTTP/1.0 200 OK\r\n", "one sent two"}},
			{"POST /in HTTP/1.0\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\na=1", []string{"HTTP/1.0 200 OK\r\n", `"body": "a=1"`}},
		} {
			name, _, _ := strings.Cut(c.request, "\r\n")
			want, got := classic.raw(t, c.request), worker.raw(t, c.request)
			if got != want {
				t.Errorf("%s\nworker mode answers\n%s\nclassic mode\n%s", name, got, want)
			}
			for i, part := range c.wants {
				if i == 0 && !strings.HasPrefix(want, part) || !strings.Contains(want, part) {
					t.Errorf("%s: no %q in\n%s", name, part, want)
				}
			}
			if strings.Contains(want, "evil") {
				t.Errorf("%s:\n%s", name, want)
			}
		}
	}
}

// TestE2ECompression has PHP compress and buffer by its settings: for the clients that take
// it, and in the same thread, not for those that do not.
func TestE2ECompression(t *testing.T) {
	t.Parallel()
	classic, worker := newModeSite(t, false, "threads = 1", ""), newModeSite(t, true, "threads = 1", "")
	for _, s := range []*site{classic, worker} {
		s.rewrite(t, "[php]\n", "[php]\nini = { \"zlib.output_compression\" = \"1\", output_buffering = 4096 }\n")
		s.serve(t)
	}
	for i := range 3 {
		for accepts, want := range map[string]string{"": "page /x", "\nAccept-Encoding: gzip": "\r\nContent-Encoding: gzip\r\n"} {
			for _, path := range []string{"/x", "/long", "/flushed"} {
				request := ask("GET "+path+accepts, "")
				a, b := classic.raw(t, request), worker.raw(t, request)
				if a != b || path == "/x" && !strings.Contains(a, want) {
					t.Errorf("%d, %s, %q: worker mode answers\n%.300q\nclassic mode\n%.300q", i, path, accepts, b, a)
				}
			}
		}
	}
}

// app is the application's directory.
func (s *site) app(t *testing.T) string {
	t.Helper()
	app, err := filepath.Abs("testdata/modes")
	if err == nil {
		app, err = filepath.EvalSymlinks(app)
	}
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// TestE2EOtherScripts has what differs between the modes: a script that is named is run in
// classic mode, and is the worker's in worker mode.
func TestE2EOtherScripts(t *testing.T) {
	t.Parallel()
	for worker, want := range map[bool]string{false: "other script", true: "page /other.php"} {
		s := modeSite(t, worker, "", "")
		if code, body := s.page(t, "/other.php"); code != 200 || body != want {
			t.Errorf("worker %v: %d %q, want %q", worker, code, body, want)
		}
		if code, body := s.page(t, "/worker.php"); code != 200 || body != "page /worker.php" {
			t.Errorf("worker %v: %d %q", worker, code, body)
		}
	}
}

// TestE2EFatalErrors has a fatal error answer 500 whether or not it is displayed: in
// production it is not, in development it is.
func TestE2EFatalErrors(t *testing.T) {
	t.Parallel()
	for _, worker := range []bool{false, true} {
		for mode, shown := range map[string]bool{"production": false, "development": true} {
			t.Run(fmt.Sprintf("%s, worker=%v", mode, worker), func(t *testing.T) {
				t.Parallel()
				s := modeSite(t, worker, "threads = 1", "", fmt.Sprintf("mode = %q", mode))
				for path, text := range map[string]string{"/throws": "thrown", "/busy": "Maximum execution time of 1 second exceeded"} {
					code, body := s.page(t, path)
					if code != 500 || strings.Contains(body, text) != shown {
						t.Errorf("%s: %d %q", path, code, body)
					}
					eventually(t, text+" is in the log", func() bool { return strings.Contains(s.log(t), text) })
				}
				if code, body := s.page(t, "/warns"); code != 200 || strings.Contains(body, "Undefined variable") != shown || !strings.Contains(body, "warned") {
					t.Errorf("a warning: %d %q", code, body)
				}
			})
		}
	}
}

// TestE2ENothingToServe starts nodes without a root and without an index: they say so in a
// line, and a path answers 404.
func TestE2ENothingToServe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ dir, want string }{
		"no root":  {"", "no page can be answered: [web] root must be a directory, but there is no "},
		"no index": {"public", "paths that are no file are answered with 404: [web] index must be a PHP file, but there is no "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := t.TempDir()
			if err := os.MkdirAll(filepath.Join(app, c.dir), 0o700); err != nil {
				t.Fatal(err)
			}
			s := newSite(t, app, "")
			s.serve(t)
			if n := strings.Count(s.log(t), c.want+app); n != 1 {
				t.Errorf("it is said %d times:\n%s", n, s.log(t))
			}
			for _, path := range []string{"/", "/x", "/index.php", "/index.php/x"} {
				if code, body := s.page(t, path); code != 404 || !strings.Contains(body, "no index script") {
					t.Errorf("%s: %d %q", path, code, body)
				}
			}
			eventually(t, "the log says what to do", func() bool {
				return strings.Contains(s.log(t), "there is no index script; write it, or name another in [web] root and index")
			})
		})
	}
}
