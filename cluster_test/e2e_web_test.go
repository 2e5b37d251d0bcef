//go:build php

package cluster_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// webSite makes a site of testdata/web, with more keys of [php] and [web], and waits until
// it serves.
func webSite(t *testing.T, phpKeys, webKeys string) *site {
	t.Helper()
	app, err := filepath.Abs("testdata/web")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, app, "")
	conf, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(conf), "[web]\n", phpKeys+"\n[web]\n"+webKeys+"\n", 1)
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.serve(t)
	return s
}

// server asks testdata/web/public/server.php; header pairs follow.
func (s *site) server(t *testing.T, header ...string) map[string]string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.web+"/server.php", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var all map[string]string
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestE2ETrustedProxies is a node behind a proxy, and the same node when the proxy is not
// trusted.
func TestE2ETrustedProxies(t *testing.T) {
	t.Parallel()
	headers := []string{
		"X-Forwarded-For", "198.51.100.1, 203.0.113.9, 127.0.0.9", "X-Forwarded-Proto", "https",
		"X-Forwarded-Host", "shop.example", "X-Forwarded-Port", "8443",
	}
	sent := map[string]string{
		"HTTP_X_FORWARDED_FOR": "198.51.100.1, 203.0.113.9, 127.0.0.9", "HTTP_X_FORWARDED_PROTO": "https",
		"HTTP_X_FORWARDED_HOST": "shop.example", "HTTP_X_FORWARDED_PORT": "8443", "SERVER_PROTOCOL": "HTTP/1.1",
	}
	for _, tc := range []struct {
		name, trusted, client string
		want                  map[string]string
	}{
		{"trusted", `["127.0.0.0/8"]`, "203.0.113.9", map[string]string{
			"REMOTE_ADDR": "203.0.113.9", "REMOTE_PORT": "", "HTTPS": "on", "REQUEST_SCHEME": "https",
			"SERVER_NAME": "shop.example", "HTTP_HOST": "shop.example:8443", "SERVER_PORT": "8443",
		}},
		{"not trusted", `["10.0.0.0/8"]`, "127.0.0.1", map[string]string{
			"REMOTE_ADDR": "127.0.0.1", "HTTPS": "", "REQUEST_SCHEME": "http", "SERVER_NAME": "127.0.0.1",
		}},
		{"nobody", `[]`, "127.0.0.1", map[string]string{
			"REMOTE_ADDR": "127.0.0.1", "HTTPS": "", "REQUEST_SCHEME": "http", "SERVER_NAME": "127.0.0.1",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := webSite(t, "", "access_log = \"access.jsonl\"\ntrusted_proxies = "+tc.trusted)
			got := s.server(t, headers...)
			want := maps.Clone(sent)
			maps.Copy(want, tc.want)
			if tc.name != "trusted" {
				want["HTTP_HOST"] = strings.TrimPrefix(s.web, "http://")
				want["SERVER_PORT"] = want["HTTP_HOST"][strings.LastIndexByte(want["HTTP_HOST"], ':')+1:]
				want["REMOTE_PORT"] = got["REMOTE_PORT"]
			}
			if !maps.Equal(got, want) {
				t.Errorf("PHP sees\n%v\nwant\n%v", got, want)
			}
			plain := s.server(t)
			if plain["REMOTE_ADDR"] != "127.0.0.1" || plain["HTTPS"] != "" || plain["HTTP_X_FORWARDED_FOR"] != "(none)" {
				t.Errorf("without headers PHP sees %v", plain)
			}
			s.stop()
			log, err := os.ReadFile(filepath.Join(s.home, "access.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			if line, _, _ := strings.Cut(string(log), "\n"); !strings.Contains(line, `"client":"`+tc.client+`"`) {
				t.Errorf("the access log has %s, want client %s", line, tc.client)
			}
		})
	}
}

// upload sends a file of size bytes to testdata/web/public/upload.php, and returns the
// file's hash and what the page says.
func (s *site) upload(t *testing.T, size int) (sum string, told map[string]any) {
	t.Helper()
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	sums := make(chan string, 1)
	go func() { // ended when the form is sent, or by the reader's end
		hash := sha256.New()
		err := form.WriteField("title", "größer")
		if err == nil {
			var part io.Writer
			if part, err = form.CreateFormFile("file", "a video.mp4"); err == nil {
				block := []byte(strings.Repeat("0123456789\x00\r\n--", 4096))
				for left := size; left > 0 && err == nil; left -= len(block) {
					block = block[:min(left, len(block))]
					block[0]++
					_, err = io.MultiWriter(part, hash).Write(block)
				}
			}
		}
		if err == nil {
			err = form.Close()
		}
		_ = w.CloseWithError(err)
		sums <- hex.EncodeToString(hash.Sum(nil))
	}()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.web+"/upload.php", r)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", form.FormDataContentType())
	res, err := s.client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&told); err != nil {
		t.Fatal(err)
	}
	return <-sums, told
}

// TestE2EUpload sends a form with 50 MB to a script that may use 64 MB, and to one whose
// files may have 32 MB.
func TestE2EUpload(t *testing.T) {
	t.Parallel()
	const size = 50_000_000
	t.Run("taken", func(t *testing.T) {
		t.Parallel()
		s := webSite(t, `ini = { upload_max_filesize = "60M" }`, "")
		sum, told := s.upload(t, size)
		if told["error"] != 0.0 || told["size"] != float64(size) || told["sha256"] != sum || told["title"] != "größer" || told["name"] != "a video.mp4" {
			t.Errorf("%v, want %d bytes with the hash %s", told, size, sum)
		}
		if file, _ := told["temporary"].(string); file != "" {
			eventually(t, "the temporary file is removed", func() bool { _, err := os.Stat(file); return os.IsNotExist(err) })
		}
	})
	t.Run("too large", func(t *testing.T) {
		t.Parallel()
		s := webSite(t, "", "")
		const uploadErrIniSize = 1.0
		if _, told := s.upload(t, size); told["error"] != uploadErrIniSize || told["title"] != "größer" || told["sha256"] != "" {
			t.Errorf("%v", told)
		}
	})
}

// TestE2EStreaming has a page send events, each of which is awaited before the next is
// made, and pages whose clients go away.
func TestE2EStreaming(t *testing.T) {
	t.Parallel()
	s := webSite(t, "", "")
	t.Run("events", func(t *testing.T) {
		t.Parallel()
		res, err := s.client.Get(s.web + "/events.php")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if kind := res.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
			t.Error(kind)
		}
		in := bufio.NewReader(res.Body)
		for i := 1; i <= 3; i++ {
			if i > 1 {
				if err := os.WriteFile(filepath.Join(s.record, fmt.Sprint("event", i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			line, err := in.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("event %d: %q %v", i, line, err)
			}
			if line, err = in.ReadString('\n'); err != nil || line != "\n" {
				t.Fatalf("after event %d: %q %v", i, line, err)
			}
		}
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
	})
	for ignore, want := range map[string]string{"0": "ended", "1": "saw it"} {
		t.Run("aborted, ignored="+ignore, func(t *testing.T) {
			t.Parallel()
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.web+"/aborted.php?name=aborted"+ignore+"&ignore="+ignore, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := s.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			note := filepath.Join(s.record, "aborted"+ignore)
			if _, err := os.Stat(note); err == nil {
				t.Fatal("it noted something while its client was there")
			}
			leave()
			eventually(t, "the script has noticed", func() bool {
				b, err := os.ReadFile(note)
				if err == nil && len(b) > 0 && string(b) != want {
					t.Fatalf("it %s, want %s", b, want)
				}
				return string(b) == want
			})
		})
	}
}

// TestE2ESessions has two clients ask for pages at once: each counts its own, and loses
// none.
func TestE2ESessions(t *testing.T) {
	t.Parallel()
	s := webSite(t, "", "threads = 6")
	const lanes, pages = 3, 10
	var all sync.WaitGroup
	for _, name := range []string{"alice", "bob"} {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Jar: jar, Timeout: readyWithin, Transport: &http.Transport{}}
		t.Cleanup(client.CloseIdleConnections)
		page := func() string {
			res, err := client.Get(s.web + "/session.php?name=" + name)
			if err != nil {
				t.Error(err)
				return ""
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}
		if first := page(); first != name+" 1" { // it has its cookie now
			t.Fatalf("%s: %q", name, first)
		}
		var own sync.WaitGroup
		for range lanes {
			own.Go(func() {
				for range pages {
					if got := page(); !strings.HasPrefix(got, name+" ") {
						t.Errorf("%s got the page %q", name, got)
					}
				}
			})
		}
		all.Go(func() {
			own.Wait()
			if last, want := page(), fmt.Sprint(name, " ", 2+lanes*pages); last != want {
				t.Errorf("the last page is %q, want %q", last, want)
			}
		})
	}
	all.Wait()
}
