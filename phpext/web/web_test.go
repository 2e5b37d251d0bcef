package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// told answers with what it was asked to run.
type told struct{}

func (told) Run(w http.ResponseWriter, r *http.Request, script, pathInfo string) {
	fmt.Fprintf(w, "%s|%s", script, pathInfo)
}

func site(t *testing.T) http.Handler {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "public")
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
	return New(root, "index.php", told{})
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
		r := httptest.NewRequest(tc.method, "http://x/", nil)
		var err error
		if r.URL, err = r.URL.Parse("http://x" + tc.path); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tc.code || w.Body.String() != tc.body {
			t.Errorf("%s %s: %d %q, want %d %q", tc.method, tc.path, w.Code, w.Body, tc.code, tc.body)
		}
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
