//go:build php

package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pogod/internal/certificate/certtest"
)

// issue writes web.crt and web.key, for 127.0.0.1, into a site's directory, and has the
// site's client trust that certificate alone, over new connections.
func (s *site) issue(t *testing.T, serial int64) {
	t.Helper()
	pool := certtest.Issue(t, serial, filepath.Join(s.home, "web.crt"), filepath.Join(s.home, "web.key"))
	s.client.CloseIdleConnections()
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
}

// tlsSite is a site of testdata/web with TLS, not started yet and without its certificate.
func tlsSite(t *testing.T) *site {
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
	conf = bytes.Replace(conf, []byte("[web]\n"), []byte("[web]\ntls = { cert = \"web.crt\", key = \"web.key\" }\n"), 1)
	if err := os.WriteFile(s.config(), conf, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestE2ETLS serves pages over TLS, with a certificate that is replaced.
func TestE2ETLS(t *testing.T) {
	t.Parallel()
	s := tlsSite(t)
	s.issue(t, 1)
	s.serve(t)
	if !strings.HasPrefix(s.web, "https://") {
		t.Fatalf("the banner says %s", s.web)
	}
	want := map[string]string{
		"HTTPS": "on", "REQUEST_SCHEME": "https", "SERVER_NAME": "127.0.0.1", "HTTP_HOST": strings.TrimPrefix(s.web, "https://"), "REMOTE_ADDR": "127.0.0.1",
	}
	check := func(protocol string) {
		t.Helper()
		got := s.server(t)
		want["SERVER_PROTOCOL"] = protocol
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s is %q, want %q", name, got[name], value)
			}
		}
	}
	check("HTTP/2.0")
	roots := s.client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true} // HTTP/1.1 alone
	check("HTTP/1.1")

	s.issue(t, 2) // the client takes no other any more
	eventually(t, "the new certificate is used", func() bool {
		res, err := s.client.Get(s.web + "/server.php")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.TLS.PeerCertificates[0].SerialNumber.Int64() == 2
	})
	if err := os.WriteFile(filepath.Join(s.home, "web.crt"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node says that the certificate is of no use", func() bool {
		check("HTTP/2.0")
		return strings.Contains(s.log(t), "cannot be used: the one from before stays")
	})
	check("HTTP/2.0")
}

// TestE2ETLSWithoutCertificate starts a node whose certificate is not there.
func TestE2ETLSWithoutCertificate(t *testing.T) {
	t.Parallel()
	s := tlsSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.bin, "serve", "--config", s.config()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "[web] tls: ") || !strings.Contains(string(out), filepath.Join(s.home, "web.crt")) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestE2EHTTP2WithoutTLS is a node behind a proxy that speaks HTTP/2 to it.
func TestE2EHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	s := webSite(t, "", `trusted_proxies = ["127.0.0.1"]`)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	s.client.Transport = transport
	got := s.server(t, "X-Forwarded-Proto", "https", "X-Forwarded-For", "203.0.113.9")
	if got["SERVER_PROTOCOL"] != "HTTP/2.0" || got["HTTPS"] != "on" || got["REMOTE_ADDR"] != "203.0.113.9" || got["HTTP_HOST"] != strings.TrimPrefix(s.web, "http://") {
		t.Errorf("%v", got)
	}
	if sum, told := s.upload(t, 5_000_000); told["sha256"] != sum || told["title"] != "größer" {
		t.Errorf("%v, want the hash %s", told, sum)
	}
}
