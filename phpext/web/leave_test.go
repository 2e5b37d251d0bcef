package web

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"pogod/internal/certificate"
	"pogod/internal/certificate/certtest"
)

// pemFiles names the files of a certificate in a directory.
func pemFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "web.crt"), filepath.Join(dir, "web.key")
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
				transport.TLSClientConfig = &tls.Config{RootCAs: certtest.Issue(t, 1, cert, key)}
				transport.Protocols.SetHTTP2(true)
				c, err := certificate.Load("the web server", cert, key, discard())
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
	roots := certtest.Issue(t, 1, cert, key)
	c, err := certificate.Load("the web server", cert, key, discard())
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
