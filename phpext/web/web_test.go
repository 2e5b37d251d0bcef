package web

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// told answers with what it was asked to run.
type told struct{}

func (told) Run(w http.ResponseWriter, r *http.Request, script, pathInfo string) {
	fmt.Fprintf(w, "%s|%s", script, pathInfo)
}

func site(t *testing.T) http.Handler {
	t.Helper()
	return New(siteRoot(t), "index.php", told{}, discard())
}

func siteRoot(t *testing.T) (root string) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "public")
	for name, content := range map[string]string{
		"secret.txt":               "secret",
		"storage/a.txt":            "stored",
		"public/index.php":         "<?php index",
		"public/app.css":           "css",
		"public/empty":             "",
		"public/x.php.txt":         "text",
		"public/admin/tool.php":    "<?php tool",
		"public/admin/index.html":  "admin",
		"public/dir.php/inner.css": "inner",
		"public/old.PHP":           "<?php old",
		"public/old.phtml":         "<?php old",
		"public/lib.php8":          "<?php lib",
		"public/.env":              "KEY=1",
		"public/.git/config":       "git",
		"public/.hidden/x.php":     "<?php hidden",
		"public/sp ace/ü.txt":      "space",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../storage", filepath.Join(root, "storage")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "dangling")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestServe(t *testing.T) {
	h := site(t)
	const index = "/index.php|"
	for _, tc := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/", 200, index},
		{"GET", "/posts/1", 200, index},
		{"POST", "/posts", 200, index},
		{"GET", "/app.css", 200, "css"},
		{"HEAD", "/app.css", 200, ""},
		{"POST", "/app.css", 405, "405 this is a file\n"},
		{"GET", "/empty", 200, ""},
		{"GET", "/app.css/", 200, index},
		{"GET", "/app.css/more", 200, index},
		{"GET", "//app.css", 200, "css"},
		{"GET", "/x.php.txt", 200, "text"},
		{"GET", "/sp%20ace/%C3%BC.txt", 200, "space"},
		{"GET", "/storage/a.txt", 200, "stored"},
		{"GET", "/dangling", 200, index},
		{"GET", "/admin", 200, index}, // no listing
		{"GET", "/admin/", 200, index},
		{"GET", "/admin/index.html", 200, "admin"},
		{"GET", "/admin/tool.php", 200, "/admin/tool.php|"},
		{"GET", "/admin/tool.php/a/b", 200, "/admin/tool.php|/a/b"},
		{"GET", "/admin/tool.php/", 200, "/admin/tool.php|/"},
		{"GET", "/admin/none.php", 200, index},
		{"GET", "/index.php", 200, index},
		{"GET", "/index.php/posts/1", 200, "/index.php|/posts/1"},
		{"GET", "/index.php/../app.css", 200, "css"},
		{"GET", "/dir.php/inner.css", 200, "inner"},
		{"GET", "/old.PHP", 200, index}, // sources, but not ours to run
		{"GET", "/old.phtml", 200, index},
		{"GET", "/lib.php8", 200, index},
		{"GET", "/.env", 200, index},
		{"GET", "/.git/config", 200, index},
		{"GET", "/.hidden/x.php", 200, index},
		{"GET", "/../secret.txt", 200, index},
		{"GET", "/admin/../../secret.txt", 200, index},
		{"GET", "/%2e%2e/secret.txt", 200, index},
		{"GET", "/app.css%00.php", 400, "400 bad path\n"},
	} {
		if code, body := served(t, h, tc.method, tc.path); code != tc.code || body != tc.body {
			t.Errorf("%s %s: %d %q, want %d %q", tc.method, tc.path, code, body, tc.code, tc.body)
		}
	}
}

// served is what h answers.
func served(t *testing.T, h http.Handler, method, path string) (code int, body string) {
	t.Helper()
	r := httptest.NewRequest(method, "http://x/", nil)
	var err error
	if r.URL, err = r.URL.Parse("http://x" + path); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// In worker mode the index stands for all scripts, and need not be there.
func TestServeWorker(t *testing.T) {
	root := siteRoot(t)
	h := NewWorker(root, "app.php", told{})
	const worker = "/app.php|"
	for _, tc := range []struct{ path, body string }{
		{"/", worker},
		{"/posts/1", worker},
		{"/app.css", "css"},
		{"/storage/a.txt", "stored"},
		{"/app.php", worker},
		{"/app.php/posts/1", "/app.php|/posts/1"},
		{"/index.php", worker}, // other scripts are not run
		{"/index.php/a", worker},
		{"/admin/tool.php", worker},
		{"/admin/tool.php/a", worker},
		{"/admin/app.php/a", worker},
		{"/dir.php/inner.css", "inner"},
		{"/old.phtml", worker},
		{"/.env", worker},
		{"/.hidden/app.php/x", worker},
		{"/../secret.txt", worker},
	} {
		if code, body := served(t, h, "GET", tc.path); code != 200 || body != tc.body {
			t.Errorf("%s: %d %q, want %q", tc.path, code, body, tc.body)
		}
	}
}

// Without an index script there are files, scripts by their names, and 404, which is logged
// once a minute. One that comes to be there is found; one that was there is not looked for
// again, for PHP may have it in its cache.
func TestServeWithoutIndex(t *testing.T) {
	root := siteRoot(t)
	index := filepath.Join(root, "index.php")
	if err := os.Rename(index, index+".away"); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	h := New(root, "index.php", told{}, slog.New(slog.NewTextHandler(&log, nil)))
	const missing = "404 this path is no file, and the application has no index script\n"
	for _, tc := range []struct {
		path string
		code int
		body string
	}{
		{"/", 404, missing},
		{"/index.php/a", 404, missing},
		{"/app.css", 200, "css"},
		{"/admin/tool.php", 200, "/admin/tool.php|"},
	} {
		if code, body := served(t, h, "GET", tc.path); code != tc.code || body != tc.body {
			t.Errorf("%s: %d %q, want %d %q", tc.path, code, body, tc.code, tc.body)
		}
	}
	if n := strings.Count(log.String(), "there is no index script; write it"); n != 1 || !strings.Contains(log.String(), index) {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	for _, there := range []bool{true, false} {
		from, to := index+".away", index
		if !there {
			from, to = to, from
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if code, body := served(t, h, "GET", "/"); code != 200 || body != "/index.php|" {
			t.Errorf("there %v: %d %q", there, code, body)
		}
	}
	if code, body := served(t, New(root+"/nowhere", "index.php", told{}, discard()), "GET", "/"); code != 404 || body != missing {
		t.Errorf("without a root: %d %q", code, body)
	}
}

// The path reaches the handler as the client sent it, dots and all.
func TestRawPaths(t *testing.T) {
	h := site(t)
	for _, p := range []string{"/../secret.txt", "/..", "..", "", "/admin/../../secret.txt", "/storage/../../secret.txt"} {
		r := httptest.NewRequest("GET", "http://x/", nil)
		r.URL.Path = p
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Body.String() != "/index.php|" {
			t.Errorf("%q: %q", p, w.Body)
		}
	}
}

func TestRangeAndModified(t *testing.T) {
	h := site(t)
	r := httptest.NewRequest("GET", "/app.css", nil)
	r.Header.Set("Range", "bytes=1-")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 206 || w.Body.String() != "ss" {
		t.Error(w.Code, w.Body)
	}
	r = httptest.NewRequest("GET", "/app.css", nil)
	r.Header.Set("If-Modified-Since", w.Header().Get("Last-Modified"))
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 304 {
		t.Error(w.Code)
	}
}
