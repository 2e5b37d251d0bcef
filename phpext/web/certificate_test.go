package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pemFiles names the files of a certificate in a directory.
func pemFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "web.crt"), filepath.Join(dir, "web.key")
}

// issue writes a certificate for 127.0.0.1 that is its own authority.
func issue(t *testing.T, serial int64, cert, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if name == "" {
			continue
		}
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return pool
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	t.Parallel()
	cert, key := pemFiles(t.TempDir())
	issue(t, 1, cert, key)
	c, err := LoadCertificate(cert, key, discard())
	if err != nil {
		t.Fatal(err)
	}
	if c.every != lookEvery {
		t.Error(c.every)
	}
	c.every = 0
	serial := func() int64 {
		t.Helper()
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.SerialNumber.Int64()
	}
	loaded, _ := c.get(nil)
	if again, _ := c.get(nil); again != loaded || serial() != 1 {
		t.Error("it was loaded again, though nothing has changed")
	}
	issue(t, 2, cert, key)
	if got := serial(); got != 2 {
		t.Error(got)
	}
	next := filepath.Join(t.TempDir(), "key") // a renewal writes one file after the other
	issue(t, 3, cert, next)
	if got := serial(); got != 2 {
		t.Error("a certificate whose key is another's:", got)
	}
	if err := os.Rename(next, key); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 3 {
		t.Error(got)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 3 {
		t.Error(got)
	}
	issue(t, 4, cert, key)
	if got := serial(); got != 4 {
		t.Error(got)
	}
	c.every = time.Hour
	issue(t, 5, cert, key)
	if got := serial(); got != 4 {
		t.Error("it looks more often than it should:", got)
	}
}

func TestLoadCertificateRefuses(t *testing.T) {
	t.Parallel()
	cert, key := pemFiles(t.TempDir())
	if _, err := LoadCertificate(cert, key, discard()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	issue(t, 1, cert, key)
	issue(t, 2, "", key)
	if _, err := LoadCertificate(cert, key, discard()); err == nil || !strings.Contains(err.Error(), cert) {
		t.Error(err)
	}
}

// Over HTTP/2, with and without TLS, a server that leaves answers what runs and what comes
// over connections that it has, and closes them.
func TestLeaveHTTP2(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			began, slow := make(chan struct{}), make(chan struct{})
			s := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					close(began)
					<-slow
				}
				_, _ = io.WriteString(w, r.Proto)
			}), discard())
			transport := &http.Transport{Protocols: new(http.Protocols)}
			ended := make(chan error, 1)
			if scheme == "https" {
				cert, key := pemFiles(t.TempDir())
				transport.TLSClientConfig = &tls.Config{RootCAs: issue(t, 1, cert, key)}
				transport.Protocols.SetHTTP2(true)
				c, err := LoadCertificate(cert, key, discard())
				if err != nil {
					t.Fatal(err)
				}
				go func() { ended <- s.ServeTLS(ln, c) }() // ended by Leave
			} else {
				transport.Protocols.SetUnencryptedHTTP2(true)
				go func() { ended <- s.Serve(ln) }() // ended by Leave
			}
			client := &http.Client{Transport: transport, Timeout: patience}
			defer client.CloseIdleConnections()
			get := func(path string) string {
				res, err := client.Get(scheme + "://" + ln.Addr().String() + path)
				if err != nil {
					t.Error(err)
					return ""
				}
				defer func() { _ = res.Body.Close() }()
				b, err := io.ReadAll(res.Body)
				if err != nil {
					t.Error(err)
				}
				return string(b)
			}
			answered := make(chan string, 1)
			go func() { answered <- get("/slow") }() // ended by slow
			select {
			case <-began:
			case <-time.After(patience):
				t.Fatal("the request does not arrive")
			}
			left := make(chan struct{})
			go func() { // ended by the last connection
				s.Leave(ln, nil, nil)
				close(left)
			}()
			if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
			if got := get("/"); got != "HTTP/2.0" { // over the connection that it has
				t.Errorf("while it leaves: %q", got)
			}
			select {
			case <-left:
				t.Error("it left before its request had ended")
			default:
			}
			close(slow)
			if got := <-answered; got != "HTTP/2.0" {
				t.Errorf("the slow one: %q", got)
			}
			select {
			case <-left:
			case <-time.After(patience):
				t.Fatal("it does not leave")
			}
		})
	}
}

// A connection that is idle over HTTP/2 is closed as one over HTTP/1.1.
func TestLeaveIdleHTTP2(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := pemFiles(t.TempDir())
	roots := issue(t, 1, cert, key)
	c, err := LoadCertificate(cert, key, discard())
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(http.NotFoundHandler(), discard())
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(ln, c) }() // ended by Leave
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	left := make(chan struct{})
	go func() { // ended by the last connection
		s.Leave(ln, nil, nil)
		close(left)
	}()
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("it does not leave")
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
