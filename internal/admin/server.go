package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Source is what the endpoint tells about. Its methods are called from many
// goroutines at once.
type Source interface {
	// Ready returns nil when the node takes pushes and its PHP is up, otherwise
	// an error whose text is the reason. It does not block.
	Ready() error
	// Status returns the state of the node, which the caller does not change. It
	// ends with an error when its context does, and when the state cannot be as o
	// wants it; the error's text is the reason.
	Status(ctx context.Context, o StatusOptions) (*Status, error)
}

// StatusOptions says what is wanted of a Status.
type StatusOptions struct {
	// Consistent wants a state that has all that was answered before the call, by
	// whichever node. Otherwise it is the node's own, which may be old.
	Consistent bool
	// Hash wants the hash of the replicated state, for which all of it is read.
	Hash bool
}

// The bounds of doc.go.
const (
	readTimeout   = 10 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 60 * time.Second
	statusTimeout = 5 * time.Second
	maxHeader     = 8 << 10
	maxBody       = 4 << 10
	maxConns      = 256
	maxConnsPerIP = 128
	idleWorker    = 250 * time.Millisecond // fasthttp's sweeper of goroutines sleeps so long, after Shutdown too
)

// Server serves the endpoint on one listener.
type Server struct {
	ln       *listener
	src      Source
	cluster  Cluster  // nil: there is none
	reloader Reloader // nil: there is none
	queues   Queues   // nil: there are none
	clocks   Clocks   // nil: there are none
	backups  Backups  // nil: there are none
	log      *slog.Logger
	loopback bool        // Host is checked
	tls      *tls.Config // nil: none
	http     *fasthttp.Server

	bearers  atomic.Pointer[[]Bearer] // who has a token; none: nobody needs one
	failures failures
	budget   budget
	reading  atomic.Int32 // backups that are under way

	ctx    context.Context // of every Status; ends when Shutdown stops waiting
	cancel context.CancelFunc

	mu      sync.Mutex // guards the following
	started bool       // Serve runs or has run, or never will
	closed  bool       // Shutdown was called
	err     error      // of serving

	done chan struct{} // closed when the listener is not served any more
}

// New makes the server of a listener, which belongs to it from here on. cl is nil
// for a node that is part of no cluster.
func New(ln net.Listener, src Source, cl Cluster, log *slog.Logger) *Server {
	s := &Server{ln: newListener(ln), src: src, cluster: cl, log: log, loopback: onLoopback(ln.Addr()), done: make(chan struct{})}
	s.SetBearers(nil)
	s.reloader, _ = src.(Reloader)
	s.queues, _ = src.(Queues)
	s.clocks, _ = src.(Clocks)
	s.backups, _ = src.(Backups)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.http = &fasthttp.Server{
		Name:         "pogod",
		Handler:      s.handle,
		ErrorHandler: s.unreadable,
		HeaderReceived: func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
			return fasthttp.RequestConfig{MaxRequestBodySize: s.bodyAllowed(h)}
		},
		Logger:                       logger{log},
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		ReadBufferSize:               maxHeader,
		MaxRequestBodySize:           maxBody,
		Concurrency:                  2 * maxConns, // listener holds the bounds
		MaxIdleWorkerDuration:        idleWorker,
		DisablePreParseMultipartForm: true,
		SecureErrorLogMessage:        true,
		CloseOnShutdown:              true,
	}
	return s
}

// Secure has the endpoint serve over TLS, with the certificates that get returns. It is
// called before Serve.
func (s *Server) Secure(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) {
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, NextProtos: []string{"http/1.1"}}
	s.ln.mute()
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve answers requests until Shutdown, and then returns nil. A second call
// waits with the first.
func (s *Server) Serve() error {
	if s.start() {
		var ln net.Listener = s.ln
		if s.tls != nil {
			ln = tls.NewListener(ln, s.tls)
		}
		err := s.http.Serve(ln)
		s.mu.Lock()
		if err != nil && !s.closed {
			s.err = fmt.Errorf("the admin endpoint ended: %w", err)
		}
		s.mu.Unlock()
		close(s.done)
	}
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// start says whether the caller is the first, who has to close done.
func (s *Server) start() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.started
	s.started = true
	return first
}

// Shutdown takes no new connection, lets running requests finish until the
// context ends, then cuts off what is left, and returns when no request runs any
// more. It returns the context's error when it cut something off. It may be
// called before Serve, which then returns at once, and again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	// Closed here, not only by fasthttp: that overlooks a listener whose Serve
	// has not come so far as to register it.
	if err := s.ln.Close(); err != nil {
		s.log.Warn("closing the admin listener", "error", err)
	}
	if s.start() {
		close(s.done)
	}
	err := s.http.ShutdownWithContext(ctx) // closes idle connections
	if err != nil {
		s.ln.cut()
	}
	s.cancel() // no Status waits any longer
	<-s.done
	<-s.ln.empty
	return err
}

func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer func() {
		if p := recover(); p != nil { // fasthttp would let it end the node
			s.log.Error("a request to the admin endpoint panicked", "path", string(ctx.Path()), "panic", p, "stack", string(debug.Stack()))
			ctx.Response.Reset()
			problem(ctx, fasthttp.StatusInternalServerError, "this is a fault in pogod: its log has the details", nil)
		}
	}()
	s.budget.work(&ctx.Request.Header)
	defer s.budget.release(&ctx.Request.Header)
	defer forget(ctx)
	private(ctx)
	switch {
	case framedTwice(&ctx.Request.Header):
		ctx.SetConnectionClose()
		problem(ctx, fasthttp.StatusBadRequest, "the request has both Content-Length and Transfer-Encoding: send one of them", nil)
		return
	case s.loopback && !(local(string(ctx.Request.Header.Host())) && local(string(ctx.URI().Host()))):
		problem(ctx, fasthttp.StatusForbidden, "this endpoint is on loopback and answers only to the hosts localhost, 127.0.0.1 and [::1]: ask with one of these as Host", nil)
		return
	}
	answer, allow := s.route(ctx)
	if path := string(ctx.Path()); path == "/healthz" || path == "/readyz" {
		reply(ctx, answer, allow)
		return
	}
	who, ok := s.admitted(ctx)
	if !ok {
		return
	}
	if answer != nil {
		defer s.audit(ctx, who)
		if role := needed(ctx); who.Role < role {
			problem(ctx, fasthttp.StatusForbidden, fmt.Sprintf("the token %s has the role %s, and this takes %s", who.Name, who.Role, role), nil)
			return
		}
	}
	reply(ctx, answer, allow)
}

// reply answers a request to what is at its path, nil: nothing.
func reply(ctx *fasthttp.RequestCtx, answer func(*fasthttp.RequestCtx), allow string) {
	switch {
	case answer == nil && allow == "":
		problem(ctx, fasthttp.StatusNotFound, "there is nothing at this path: ask for /healthz, /readyz, /status, /metrics, "+QueuesPath+" or "+MembersPath, nil)
	case !slices.Contains(strings.Split(allow, ", "), string(ctx.Method())):
		ctx.Response.Header.Set("Allow", allow)
		problem(ctx, fasthttp.StatusMethodNotAllowed, "this path takes no other method than "+allow, nil)
	default:
		answer(ctx)
	}
}

// route returns what answers a request, and the methods that its path takes.
func (s *Server) route(ctx *fasthttp.RequestCtx) (answer func(*fasthttp.RequestCtx), allow string) {
	allow = "GET, HEAD"
	switch string(ctx.Path()) {
	case "/healthz":
		answer = s.healthz
	case "/readyz":
		answer = s.readyz
	case "/status":
		answer = s.status
	case "/metrics":
		answer = s.metrics
	case MembersPath:
		answer = s.members
	case ClockPath:
		if s.clocks == nil {
			return nil, ""
		}
		answer = s.clock
	case ClockResetPath:
		if s.clocks == nil {
			return nil, ""
		}
		answer, allow = s.resetClock, "POST"
	case BackupPath:
		if s.backups == nil {
			return nil, ""
		}
		answer, allow = s.backup, "POST"
	case TokensPath:
		answer, allow = s.newToken, "POST"
	case LeavePath:
		answer, allow = s.leave, "POST"
	case TransferPath:
		answer, allow = s.transfer, "POST"
	case ReloadPath:
		answer, allow = s.reload, "POST"
	case ConfigReloadPath:
		answer, allow = s.reconfigure, "POST"
	default:
		return s.ofQueues(ctx)
	}
	return answer, allow
}

// private keeps an answer from being kept by a proxy or guessed into a page by a browser.
func private(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set("Cache-Control", "no-store")
	ctx.Response.Header.Set("X-Content-Type-Options", "nosniff")
}

func (s *Server) healthz(ctx *fasthttp.RequestCtx) {
	ctx.SetContentType("text/plain; charset=utf-8")
	ctx.SetBodyString("ok")
}

func (s *Server) readyz(ctx *fasthttp.RequestCtx) {
	if err := s.src.Ready(); err != nil {
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), map[string]any{"ready": false, "reason": err.Error()})
		return
	}
	doc := map[string]any{"ready": true}
	if notes := s.notes(); len(notes) > 0 {
		doc["notes"] = notes
	}
	write(ctx, doc)
}

func (s *Server) status(ctx *fasthttp.RequestCtx) {
	var o StatusOptions
	if !option(ctx, "consistent", &o.Consistent) || !option(ctx, "hash", &o.Hash) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, statusTimeout)
	defer cancel()
	st, err := s.src.Status(bounded, o)
	switch {
	case err != nil && o.Consistent:
		problem(ctx, fasthttp.StatusServiceUnavailable, fmt.Sprintf("a consistent status cannot be had now (%v): ask again, or without consistent for what this node has", err), nil)
	case err != nil:
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), nil)
	default:
		write(ctx, st)
	}
}

// option reads a parameter of the query that is 1 or 0; absent is 0. It says
// whether there is more to do, and has answered otherwise.
func option(ctx *fasthttp.RequestCtx, name string, to *bool) bool {
	values := ctx.QueryArgs().PeekMulti(name)
	switch {
	case len(values) == 0 || len(values) == 1 && string(values[0]) == "0":
	case len(values) == 1 && string(values[0]) == "1":
		*to = true
	default:
		problem(ctx, fasthttp.StatusBadRequest, name+" is 1 or 0, and stands once: as in /status?"+name+"=1", nil)
		return false
	}
	return true
}

// unreadable answers what is no request.
func (s *Server) unreadable(ctx *fasthttp.RequestCtx, err error) {
	refused := s.budget.release(&ctx.Request.Header)
	forget(ctx)
	private(ctx)
	var small *fasthttp.ErrSmallBuffer
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &small):
		problem(ctx, fasthttp.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("the request's headers are over %d bytes", maxHeader), nil)
	case errors.Is(err, fasthttp.ErrBodyTooLarge) && refused:
		ctx.Response.Header.Set("Retry-After", "1")
		problem(ctx, fasthttp.StatusServiceUnavailable, fmt.Sprintf("not now: bodies of %d MiB are under way already, and nothing of this one was read; ask again", maxBodies>>20), nil)
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		problem(ctx, fasthttp.StatusRequestEntityTooLarge, fmt.Sprintf("the request's body is over %d bytes", s.bodyBound(&ctx.Request.Header)), nil)
	case errors.As(err, &timeout) && timeout.Timeout():
		problem(ctx, fasthttp.StatusRequestTimeout, fmt.Sprintf("the request did not come whole within %s", readTimeout), nil)
	default:
		problem(ctx, fasthttp.StatusBadRequest, "this is not an HTTP request that can be read", nil)
	}
}

// write answers a document.
func write(ctx *fasthttp.RequestCtx, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		problem(ctx, fasthttp.StatusInternalServerError, err.Error(), nil)
		return
	}
	if ctx.QueryArgs().Has("pretty") {
		var b bytes.Buffer
		if json.Indent(&b, body, "", "  ") == nil {
			body = append(b.Bytes(), '\n')
		}
	}
	ctx.SetContentType("application/json")
	ctx.SetBody(body)
}

const problemType = "application/problem+json"

// problem answers an error as a document of RFC 9457. more are members beyond
// type, title, status and detail.
func problem(ctx *fasthttp.RequestCtx, status int, detail string, more map[string]any) {
	ctx.SetStatusCode(status)
	ctx.SetContentType(problemType)
	ctx.SetBody(document(status, detail, more))
}

func document(status int, detail string, more map[string]any) []byte {
	doc := map[string]any{"type": "about:blank", "title": fasthttp.StatusMessage(status), "status": status, "detail": detail}
	for k, v := range more {
		doc[k] = v
	}
	body, err := json.Marshal(doc)
	if err != nil { // no member of ours
		return nil
	}
	return body
}

// local says whether a Host header names this machine, with any port.
func local(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback() && ip.Zone() == ""
}

// onLoopback says whether only this machine can reach an address.
func onLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return !ok || t.IP.IsLoopback()
}

// framedTwice says whether a request carries both Content-Length and
// Transfer-Encoding, which two servers in a row may read differently. fasthttp
// takes the second and forgets the first, so the bytes are asked.
func framedTwice(h *fasthttp.RequestHeader) bool {
	var length, encoding bool
	for line := range bytes.Lines(h.RawHeaders()) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		name = bytes.TrimSpace(name)
		length = length || bytes.EqualFold(name, []byte("Content-Length"))
		encoding = encoding || bytes.EqualFold(name, []byte("Transfer-Encoding"))
	}
	return length && encoding
}

// logger takes fasthttp's complaints about connections.
type logger struct{ log *slog.Logger }

func (l logger) Printf(format string, args ...any) {
	l.log.Debug("admin endpoint", "message", fmt.Sprintf(format, args...))
}
