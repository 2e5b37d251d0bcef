package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// files serves a public root with these files, through a real server. Links are names
// that begin with "->". It has an index script.
func files(t *testing.T, all map[string]string) (url, root string) {
	t.Helper()
	dir := t.TempDir()
	all["public/index.php"] = "<?php index"
	for name, content := range all {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(to, p)
		} else {
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root = filepath.Join(dir, "public")
	srv := httptest.NewServer(New(root, "index.php", told{}, discard()))
	t.Cleanup(srv.Close)
	return srv.URL, root
}

// got is an answer.
type got struct {
	*http.Response
	body string
}

// ask sends a request as it is, header pairs behind the address.
func ask(t *testing.T, method, url string, header ...string) got {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return got{res, string(b)}
}

const noAnswerOfPHP = "/index.php|"

func TestFileIsRevalidated(t *testing.T) {
	t.Parallel()
	url, root := files(t, map[string]string{"public/app.css": "a{}"})
	url += "/app.css"
	first := ask(t, "GET", url)
	etag, modified := first.Header.Get("Etag"), first.Header.Get("Last-Modified")
	if first.StatusCode != 200 || first.body != "a{}" || etag == "" || modified == "" || first.Header.Get("Cache-Control") != "" || first.Header.Get("Vary") != "" {
		t.Fatal(first.StatusCode, first.body, first.Header)
	}
	for _, tc := range []struct {
		method string
		header []string
		code   int
		body   string
	}{
		{"GET", []string{"If-None-Match", etag}, 304, ""},
		{"HEAD", []string{"If-None-Match", etag}, 304, ""},
		{"GET", []string{"If-None-Match", "W/" + etag}, 304, ""},
		{"GET", []string{"If-None-Match", `"other", ` + etag}, 304, ""},
		{"GET", []string{"If-None-Match", `"other"`}, 200, "a{}"},
		{"GET", []string{"If-None-Match", `"other"`, "If-Modified-Since", modified}, 200, "a{}"},
		{"GET", []string{"If-Modified-Since", modified}, 304, ""},
		{"GET", []string{"If-Match", `"other"`}, 412, ""},
		{"GET", []string{"Range", "bytes=1-"}, 206, "{}"},
		{"GET", []string{"Range", "bytes=-1"}, 206, "}"},
		{"GET", []string{"Range", "bytes=9-"}, 416, "invalid range: failed to overlap\n"},
		{"GET", []string{"Range", "bytes=1-", "If-Range", etag}, 206, "{}"},
		{"GET", []string{"Range", "bytes=1-", "If-Range", `"other"`}, 200, "a{}"},
	} {
		a := ask(t, tc.method, url, tc.header...)
		if a.StatusCode != tc.code || a.body != tc.body {
			t.Errorf("%s %q: %d %q, want %d %q", tc.method, tc.header, a.StatusCode, a.body, tc.code, tc.body)
		}
	}
	// Other content of the same length, a moment later.
	if err := os.WriteFile(filepath.Join(root, "app.css"), []byte("b{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Millisecond)
	if err := os.Chtimes(filepath.Join(root, "app.css"), later, later); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, "GET", url, "If-None-Match", etag); a.StatusCode != 200 || a.body != "b{}" || a.Header.Get("Etag") == etag {
		t.Error(a.StatusCode, a.body, a.Header)
	}
	// A build that erases times leaves nothing to compare.
	if err := os.Chtimes(filepath.Join(root, "app.css"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, "GET", url); a.StatusCode != 200 || a.Header.Get("Etag") != "" || a.Header.Get("Last-Modified") != "" {
		t.Error(a.StatusCode, a.Header)
	}
}

func TestCompressedSiblings(t *testing.T) {
	t.Parallel()
	url, root := files(t, map[string]string{
		"public/build/app.js":    "the script itself",
		"public/build/app.js.br": "brotli",
		"public/build/app.js.gz": "gzipped",
		"public/notes":           "<html>no ending</html>",
		"public/notes.gz":        "\x1f\x8bgz",
		"public/alone.css":       "alone",
		"public/only.css.gz":     "only",
		"public/dir.css":         "dir",
		"public/dir.css.gz/x":    "x",
		"public/secret.css":      "css",
		"public/secret.css.gz":   "->../.env",
		".env":                   "KEY=1",
	})
	const js, vary, html = "text/javascript; charset=utf-8", "Accept-Encoding", "text/html; charset=utf-8"
	for _, tc := range []struct {
		path, accept, body, encoding, kind, vary string
	}{
		{"/build/app.js", "", "the script itself", "", js, vary},
		{"/build/app.js", "gzip, deflate, br, zstd", "brotli", "br", js, vary},
		{"/build/app.js", "gzip", "gzipped", "gzip", js, vary},
		{"/build/app.js", "x-gzip", "gzipped", "gzip", js, vary},
		{"/build/app.js", "GZIP;Q=0.5", "gzipped", "gzip", js, vary},
		{"/build/app.js", "br;q=0.2, gzip;q=0.9", "gzipped", "gzip", js, vary},
		{"/build/app.js", "*", "brotli", "br", js, vary},
		{"/build/app.js", "br;q=0, *", "gzipped", "gzip", js, vary},
		{"/build/app.js", "*, br;q=0", "gzipped", "gzip", js, vary},
		{"/build/app.js", "gzip;q=0, br;q=0", "the script itself", "", js, vary},
		{"/build/app.js", "*;q=0", "the script itself", "", js, vary},
		{"/build/app.js", "br;q=nonsense", "the script itself", "", js, vary},
		{"/build/app.js", "br;q=NaN, gzip;q=7", "the script itself", "", js, vary},
		{"/build/app.js", "brr, gzippy", "the script itself", "", js, vary},
		{"/build/app.js.br", "br", "brotli", "", "", ""},
		{"/notes", "gzip", "\x1f\x8bgz", "gzip", html, vary},
		{"/notes", "br", "<html>no ending</html>", "", html, vary},
		{"/alone.css", "gzip, br", "alone", "", "text/css; charset=utf-8", ""},
		{"/only.css", "gzip", noAnswerOfPHP, "", "", ""},
		{"/dir.css", "gzip", "dir", "", "text/css; charset=utf-8", ""},
		{"/secret.css", "gzip", "css", "", "text/css; charset=utf-8", ""},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			var header []string
			if tc.accept != "" {
				header = []string{"Accept-Encoding", tc.accept}
			}
			a := ask(t, method, url+tc.path, header...)
			body := tc.body
			if method == "HEAD" {
				body = ""
			}
			if a.StatusCode != 200 || a.body != body || a.Header.Get("Content-Encoding") != tc.encoding || a.Header.Get("Vary") != tc.vary ||
				tc.kind != "" && a.Header.Get("Content-Type") != tc.kind || a.ContentLength != int64(len(tc.body)) {
				t.Errorf("%s %s, %q: %d %q %d %v", method, tc.path, tc.accept, a.StatusCode, a.body, a.ContentLength, a.Header)
			}
		}
	}
	if a := ask(t, "GET", url+"/build/app.js", "Accept-Encoding", "gzip", "Accept-Encoding", "br"); a.body != "brotli" {
		t.Error("two lines", a.body)
	}
	// Each encoding has its own tag, and is revalidated by it. Size and time do not tell
	// them apart here.
	then := time.Now().Add(-time.Hour)
	for suffix, content := range map[string]string{"": "same length", ".br": "brotli len.", ".gz": "gzip length"} {
		name := filepath.Join(root, "build", "app.js"+suffix)
		if err := errors.Join(os.WriteFile(name, []byte(content), 0o644), os.Chtimes(name, then, then)); err != nil {
			t.Fatal(err)
		}
	}
	tags := map[string]bool{}
	for _, accept := range []string{"identity", "gzip", "br"} {
		tag := ask(t, "GET", url+"/build/app.js", "Accept-Encoding", accept).Header.Get("Etag")
		tags[tag] = true
		a := ask(t, "GET", url+"/build/app.js", "Accept-Encoding", accept, "If-None-Match", tag)
		if a.StatusCode != 304 || a.Header.Get("Vary") != vary || a.Header.Get("Etag") != tag || a.Header.Get("Cache-Control") != forever {
			t.Error(accept, a.StatusCode, a.Header)
		}
	}
	if len(tags) != 3 {
		t.Error(tags)
	}
	// A range is one of the file itself, and never continues what was compressed.
	gz := ask(t, "GET", url+"/build/app.js", "Accept-Encoding", "gzip").Header.Get("Etag")
	for _, tc := range []struct {
		header []string
		code   int
		body   string
	}{
		{[]string{"Range", "bytes=0-3"}, 206, "same"},
		{[]string{"Range", "bytes=0-3", "If-Range", gz}, 200, "same length"},
		{[]string{"If-Match", gz}, 412, ""},
		{[]string{"If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT"}, 412, ""},
	} {
		a := ask(t, "GET", url+"/build/app.js", append(tc.header, "Accept-Encoding", "gzip")...)
		if a.StatusCode != tc.code || a.body != tc.body || a.Header.Get("Content-Encoding") != "" || a.Header.Get("Vary") != vary {
			t.Errorf("%q: %d %q %v", tc.header, a.StatusCode, a.body, a.Header)
		}
	}
}

// A sibling of megabytes arrives whole.
func TestLargeSibling(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("0123456789abcdef", 1<<18)
	url, _ := files(t, map[string]string{"public/a.json": "{}", "public/a.json.gz": large})
	if a := ask(t, "GET", url+"/a.json", "Accept-Encoding", "gzip"); a.body != large || a.ContentLength != int64(len(large)) {
		t.Error(len(a.body), a.Header)
	}
}

func TestBuiltFilesAreImmutable(t *testing.T) {
	t.Parallel()
	url, _ := files(t, map[string]string{
		"public/build/assets/app-4f3a.css": "a{}", "public/builder.css": "b{}", "public/sub/build/c.css": "c{}",
	})
	for path, want := range map[string]string{
		"/build/assets/app-4f3a.css": forever, "/sub/../build/assets/app-4f3a.css": forever,
		"/build/none.css": "", "/builder.css": "", "/sub/build/c.css": "", "/build/../builder.css": "",
	} {
		if a := ask(t, "GET", url+path); a.StatusCode != 200 || a.Header.Get("Cache-Control") != want {
			t.Error(path, a.StatusCode, a.Header)
		}
	}
	// An answer that is none of the file is not for ever.
	if a := ask(t, "GET", url+"/build/assets/app-4f3a.css", "Range", "bytes=99-"); a.StatusCode != 416 || a.Header.Get("Cache-Control") != "" {
		t.Error(a.StatusCode, a.Header)
	}
	if a := ask(t, "POST", url+"/build/assets/app-4f3a.css"); a.StatusCode != 405 || a.Header.Get("Cache-Control") != "" {
		t.Error(a.StatusCode, a.Header)
	}
}

// What is secret reaches no client, however it is spelled: the request line goes out as it
// stands here.
func TestSecretsAreNotServed(t *testing.T) {
	t.Parallel()
	url, root := files(t, map[string]string{
		"secret.txt":                  "SECRET",
		".env":                        "SECRET",
		"config/db.php":               "<?php SECRET",
		"storage/app/ok.txt":          "stored",
		"storage/app/env":             "->../../.env",
		"public/.env":                 "SECRET",
		"public/.env.gz":              "SECRET",
		"public/.htaccess":            "SECRET",
		"public/.git/config":          "SECRET",
		"public/index.php":            "<?php SECRET",
		"public/index.php.gz":         "SECRET",
		"public/index.php.br":         "SECRET",
		"public/index.php.GZ.br":      "SECRET",
		"public/tool.PHP":             "<?php SECRET",
		"public/tool.Php.Gz":          "SECRET",
		"public/lib.phtml":            "<?php SECRET",
		"public/lib.phtml.gz":         "SECRET",
		"public/lib.inc.php~":         "<?php SECRET",
		"public/pack.phar":            "SECRET",
		"public/storage":              "->../storage/app",
		"public/code.txt":             "->../config/db.php",
		"public/chain.txt":            "->code.txt",
		"public/env.txt":              "->../.env",
		"public/ok.css":               "->../storage/app/ok.txt",
		"public/loop.css":             "->loop.css",
		"public/sub/data.txt":         "data",
		"public/sub/.hidden/data.txt": "SECRET",
	})
	addr := strings.TrimPrefix(url, "http://")
	raw := func(target string) (code int, body string) {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br\r\nConnection: close\r\n\r\n", target); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(target, err)
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(target, err)
		}
		return res.StatusCode, string(b)
	}
	for _, target := range []string{
		"/.env", "/%2eenv", "/%2Eenv", "/.%65nv", "/./.env", "//.env", "/sub/../.env", "/.env.gz", "/.ENV", "/.htaccess", "/.git/config",
		"/.git/", "/sub/.hidden/data.txt", "/sub/%2ehidden/data.txt", "/..%2f.env",
		"/index.php.gz", "/index.php.br", "/index.php.GZ.br", "/index%2ephp%2egz", "/INDEX.PHP.GZ", "/tool.PHP", "/tool.PHP/x", "/tool%2EPHP",
		"/tool.Php.Gz", "/lib.phtml", "/lib.phtml/", "/lib.phtml.gz", "/lib.inc.php~", "/pack.phar", "/index.php%20", "/index.php.", "/index.php%5c",
		"/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/sub/..%2f..%2fsecret.txt", "/..%5csecret.txt",
		"/sub/../../secret.txt", "/storage/../../secret.txt", "/storage/../../../secret.txt", "/%252e%252e/secret.txt", "/....//secret.txt",
		"/%c0%ae%c0%ae/secret.txt", "/..;/secret.txt", filepath.Join("/", filepath.Dir(root), "secret.txt"), "/" + filepath.Dir(root) + "/secret.txt",
		"/code.txt", "/chain.txt", "/env.txt", "/storage/env", "/loop.css",
		"http://x/../secret.txt", "http://x/.env",
	} {
		if code, body := raw(target); strings.Contains(body, "SECRET") || code == 200 && !strings.HasPrefix(body, "/index.php|") && body != "/tool.PHP|/x" {
			t.Errorf("%s: %d %q", target, code, body)
		}
	}
	for target, want := range map[string]string{
		"/storage/ok.txt": "stored", "/ok.css": "stored", "/sub/data.txt": "data", "/sub/./data.txt": "data", "/%73ub%2fdata.txt": "data",
		"http://x/sub/data.txt": "data", "/index.php": "/index.php|",
	} {
		if code, body := raw(target); code != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", target, code, body, want)
		}
	}
	for _, target := range []string{"/sub/data.txt%00", "/sub/data.txt%00.css", "/%zz"} {
		if code, _ := raw(target); code != 400 {
			t.Error(target, code)
		}
	}
}

func BenchmarkFile(b *testing.B) {
	root := b.TempDir()
	for name, size := range map[string]int{"a.css": 10_000, "c.css": 10_000, "c.css.gz": 3_000} {
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, size), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	h := New(root, "index.php", told{}, discard())
	for _, name := range []string{"a.css", "c.css"} {
		b.Run("compressed="+strconv.FormatBool(name == "c.css"), func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/"+name, nil)
			r.Header.Set("Accept-Encoding", "gzip")
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				w.Body.Reset()
				h.ServeHTTP(w, r)
			}
		})
	}
}
