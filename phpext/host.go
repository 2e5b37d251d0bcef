//go:build php

package phpext

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/dunglas/frankenphp"

	"pogod/internal/certificate"
	"pogod/internal/link"
	"pogod/phpext/ext"
	"pogod/phpext/web"
)

// ErrNodeGone is returned by RunHost when the control connection has ended. PHP
// may still run: the process is to end at once.
var ErrNodeGone = errors.New("phpext: the node has gone")

// Timings of a host.
const (
	shutdownWait = 5 * time.Second // for PHP's own shutdown, after everything has ended
	firstNudge   = 5 * time.Millisecond
	lastNudge    = time.Second
)

// RunHost runs the PHP host that spec describes until its node lets it go. ln is
// the listener of its pages and nil without spec.Web. It changes the process's
// working directory and environment, so one process runs one host at a time.
//
// It returns nil when the node has said Drain or Retire and everything has ended;
// ErrNodeGone when the control connection ended; ctx's error when ctx ended; or
// what went wrong at the start.
func RunHost(ctx context.Context, spec link.HostSpec, ln net.Listener, log *slog.Logger) error {
	if err := check(spec, ln); err != nil {
		return err
	}
	if err := prepare(spec); err != nil {
		return err
	}
	var cert *certificate.Certificate
	if spec.Web != nil && spec.Web.Cert != "" {
		var err error
		if cert, err = certificate.Load("the web server", spec.Web.Cert, spec.Web.Key, log); err != nil {
			return err
		}
	}
	node, err := link.Dial(ctx, spec.Socket, link.RoleHost, spec.Name)
	if err != nil {
		return err
	}
	defer node.Close()
	if err := ext.Install(spec.Socket); err != nil {
		return err
	}
	worker, err := startPHP(spec, log)
	if err != nil {
		if worker != nil {
			var f link.PageFigures
			worker.figures(&f)
			_ = node.Send(figuresFrame(f)) // the end of the process tells it, too
		}
		return err
	}

	h := &host{
		spec:  spec,
		log:   log,
		out:   newSender(node, log),
		drain: make(chan struct{}),
		last:  make(chan struct{}),
		hurry: make(chan struct{}),
		gone:  make(chan struct{}),
	}
	go h.receive(node) // ended by node.Close
	var running sync.WaitGroup
	running.Go(func() { h.out.run(h.gone) }) // ended by its close below, or with the node
	var work sync.WaitGroup
	for _, w := range spec.Jobs {
		for i := range w.Threads {
			work.Go(func() { h.job(w, w.FirstSlot+i) }) // ended by Drain; else it ends with the process
		}
	}
	if spec.Web != nil {
		work.Go(func() { h.pages(ln, cert, worker) }) // ended by Drain; else it ends with the process
	}
	h.out.send(link.Request(nil, link.Ready).String(frankenphp.Version().Version))

	ended := make(chan struct{})
	go func() { // ended by Drain, when everything has ended; else it ends with the process
		work.Wait()
		<-h.drain // a host without work waits too
		h.out.close()
		running.Wait()
		close(ended)
	}()
	select {
	case <-h.gone:
		return ErrNodeGone
	case <-ctx.Done():
		return ctx.Err()
	case <-ended:
	}
	stopPHP(log)
	return nil
}

// startPHP starts PHP with the threads of spec. worker is that of its pages, nil for none;
// with an error, the worker that is to blame.
func startPHP(spec link.HostSpec, log *slog.Logger) (worker *webWorker, err error) {
	threads := 0 // that run whatever they are given
	for _, w := range spec.Jobs {
		threads += w.Threads
	}
	opts := []frankenphp.Option{frankenphp.WithPhpIni(iniValues(spec.Ini)), frankenphp.WithLogger(log)}
	total := 0
	switch {
	case spec.Web == nil:
	case spec.Web.Worker == "":
		threads += spec.Web.Threads
	default:
		worker = newWebWorker(spec.Web.Worker)
		if err := worker.exists(); err != nil {
			return nil, err
		}
		opts = append(opts, worker.options(spec.App, spec.Web.Threads, log)...)
		total = spec.Web.Threads
	}
	total += max(threads, 1) // FrankenPHP wants one, even if it has nothing to do
	err = frankenphp.Init(append(opts, frankenphp.WithNumThreads(total))...)
	if err != nil && worker != nil && worker.hasFailed() {
		return worker, worker.failure()
	}
	if err != nil {
		return nil, fmt.Errorf("start PHP: %w", err)
	}
	return worker, nil
}

// host is a running PHP host.
type host struct {
	spec  link.HostSpec
	log   *slog.Logger
	out   *sender
	drain chan struct{} // closed by receive: take no new work
	last  chan struct{} // closed by receive before drain or later: nobody takes over
	hurry chan struct{} // closed by receive: idle clients are not waited for
	gone  chan struct{} // closed by receive: the node has gone
}

// check refuses a spec that the node should never send.
func check(spec link.HostSpec, ln net.Listener) error {
	if (spec.Web != nil) != (ln != nil) {
		return fmt.Errorf("host %q: pages and their listener go together", spec.Name)
	}
	if spec.Web != nil && spec.Web.Threads < 1 {
		return fmt.Errorf("host %q: pages need a thread", spec.Name)
	}
	if spec.Web != nil && spec.Web.Worker != "" && !filepath.IsAbs(spec.Web.Worker) {
		return fmt.Errorf("host %q: the worker %q must be an absolute path", spec.Name, spec.Web.Worker)
	}
	taken := map[int]string{}
	for _, w := range spec.Jobs {
		if w.Name == "" {
			return fmt.Errorf("host %q: a worker without a name", spec.Name)
		}
		for slot := w.FirstSlot; slot < w.FirstSlot+w.Threads; slot++ {
			if slot < 0 || slot >= ext.Slots {
				return fmt.Errorf("host %q: worker %q has slot %d and a host has 0 to %d: give it fewer threads", spec.Name, w.Name, slot, ext.Slots-1)
			}
			if other, ok := taken[slot]; ok {
				return fmt.Errorf("host %q: workers %q and %q share slot %d", spec.Name, other, w.Name, slot)
			}
			taken[slot] = w.Name
		}
	}
	return nil
}

// prepare gives the process what PHP copies at its start: working directory and
// environment. What programs that PHP starts need of the node is its socket; what
// makes a request a worker script must not come from outside.
func prepare(spec link.HostSpec) error {
	if err := os.Chdir(spec.App); err != nil {
		return fmt.Errorf("the application's directory: %w", err)
	}
	for _, name := range []string{link.HostSpecEnv, "POGO_WORKER", "POGO_POOL", "POGO_SLOT", "POGO_ENV", "POGO_INI"} {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	return os.Setenv("POGOD_SOCKET", spec.Socket)
}

// plainIni is what php.ini takes without quotes, expressions of constants included.
var plainIni = regexp.MustCompile(`^[\w .,:/+\-&|~!^%@]*$`)

// iniValues quotes what php.ini would read as something else than it says.
func iniValues(ini map[string]string) map[string]string {
	out := make(map[string]string, len(ini))
	for name, v := range ini {
		switch {
		case plainIni.MatchString(v):
		case !strings.Contains(v, "'"):
			v = "'" + v + "'"
		default:
			v = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
		}
		out[name] = v
	}
	return out
}

// receive does what the node says over the control connection until it ends.
func (h *host) receive(node *link.Client) {
	defer close(h.gone)
	var drained, last, hurried bool
	for {
		op, f, err := node.Receive()
		if err != nil {
			h.log.Debug("the control connection ended", "error", err)
			return
		}
		switch op {
		case link.Interrupt:
			slot, lease := f.Int(), f.Int()
			if err = f.Done(); err == nil && ext.Interrupt(int(slot), uint64(lease)) {
				go h.nudge(int(slot), uint64(lease)) // ended by the attempt's end, or with the node
			}
		case link.Synced:
			number := f.Int()
			if err = f.Done(); err == nil {
				h.out.synced(number)
			}
		case link.Drain, link.Retire:
			if err = f.Done(); err == nil && op == link.Drain && !last {
				last = true
				close(h.last)
			}
			if err == nil && !drained {
				drained = true
				close(h.drain)
			}
		case link.Hurry:
			if err = f.Done(); err == nil && !hurried {
				hurried = true
				close(h.hurry)
			}
		default:
			err = fmt.Errorf("%w: operation %d to a host", link.ErrFrame, op)
		}
		if err != nil {
			h.log.Error("the node's control connection makes no sense: ending", "error", err)
			return
		}
	}
}

// nudge wakes an interrupted attempt until it has noticed. One that never does is
// stuck in C; the node gives it some time and then replaces the host.
func (h *host) nudge(slot int, lease uint64) {
	for wait := firstNudge; ; wait = min(2*wait, lastNudge) {
		select {
		case <-h.gone:
			return
		case <-time.After(wait):
		}
		if !ext.Nudge(slot, lease) {
			return
		}
	}
}

// pages serves the web until Drain or Retire, and then until its last request has ended.
// cert is nil without TLS, worker in classic mode.
func (h *host) pages(ln net.Listener, cert *certificate.Certificate, worker *webWorker) {
	run := newPages(h.spec.Web, worker, len(h.spec.Jobs) > 0, h.log)
	var telling sync.WaitGroup
	gone := make(chan struct{})
	telling.Go(func() { h.tellFigures(run, gone) }) // ended below
	defer telling.Wait()
	defer close(gone)
	var handler http.Handler
	if worker != nil {
		handler = web.NewWorker(h.spec.Web.Root, h.spec.Web.Index, run)
	} else {
		handler = web.New(h.spec.Web.Root, h.spec.Web.Index, run, h.log)
	}
	logged, end, err := h.logged(handler)
	if err != nil {
		h.log.Error("pages are served without their access log", "error", err)
	} else {
		handler = logged
		defer end()
	}
	if trusted := h.spec.Web.TrustedProxies; len(trusted) > 0 {
		handler = web.NewProxies(handler, trusted)
	}
	srv := web.NewServer(handler, h.log)
	stopped := make(chan struct{})
	go func() { // ended by Drain or Retire; else it ends with the process
		<-h.drain
		srv.Leave(ln, h.last, h.hurry) // how long requests may take is the node's to say
		close(stopped)
	}()
	serve := func() error { return srv.Serve(ln) }
	if cert != nil {
		serve = func() error { return srv.ServeTLS(ln, cert) }
	}
	if err := serve(); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		h.log.Error("pages are no longer served", "error", err)
	}
	<-stopped
}

// stopPHP ends PHP when no script runs any more; one that does not end is left
// behind for the process's end.
func stopPHP(log *slog.Logger) {
	done := make(chan struct{})
	go func() { // ended by Shutdown, or with the process
		frankenphp.Shutdown()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(shutdownWait):
		log.Warn("PHP did not shut down in time", "waited", shutdownWait)
	}
}
