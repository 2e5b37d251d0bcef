//go:build php

package cluster_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
