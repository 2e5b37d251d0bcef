//go:build php

package phpext

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/dunglas/frankenphp"

	"pogod/internal/link"
)

// insidePerThread is how many requests are let in for each thread: one that it answers, and
// the rest so that it finds the next without waiting for anybody.
const insidePerThread = 4

// pages runs the scripts of pages: a web.Runner. It lets in a few requests for each thread;
// those that wait to be let in leave when their clients do. Beside job threads it lets in
// as many as there are threads: FrankenPHP would give more those of a job's script that is
// just starting again.
type pages struct {
	root   string
	index  string
	worker *webWorker             // nil: each request runs the script that it names
	env    frankenphp.PreparedEnv // of the worker's requests for index; never written to
	log    *slog.Logger

	messages *slog.Logger // PHP's

	threads  int
	inside   chan struct{} // holds one for each request that was let in
	waiting  atomic.Int64  // requests that wait to be
	requests atomic.Uint64
}

func newPages(spec *link.WebSpec, worker *webWorker, besideJobs bool, log *slog.Logger) *pages {
	places := insidePerThread * spec.Threads
	if besideJobs {
		places = spec.Threads
	}
	p := &pages{
		root: spec.Root, index: path.Clean("/" + spec.Index), worker: worker, log: log, messages: slog.New(pageMessages),
		threads: spec.Threads, inside: make(chan struct{}, places),
	}
	p.env = p.named(p.index, "")
	return p
}

// figures is what the pages do now.
func (p *pages) figures() link.PageFigures {
	inside := len(p.inside)
	busy := min(inside, p.threads)
	f := link.PageFigures{Requests: p.requests.Load(), Busy: busy, Waiting: int(p.waiting.Load()) + inside - busy, Ready: p.threads}
	if p.worker != nil {
		p.worker.figures(&f)
	}
	return f
}

// Run answers the request with a script, or with the worker as if it were that script.
func (p *pages) Run(w http.ResponseWriter, r *http.Request, script, pathInfo string) {
	if !p.enter(w, r) {
		return
	}
	defer func() { <-p.inside }()
	p.requests.Add(1)
	opts, err := p.options(script, pathInfo)
	if err != nil { // a name with bytes over 127, in which .php is not at the end alone
		http.Error(w, "404 not found", http.StatusNotFound)
		return
	}
	run := *r
	run.URL = &url.URL{Path: script + pathInfo, RawQuery: r.URL.RawQuery}
	run.Header = passed(r.Header)
	w.Header()["Server"] = nobody // else FrankenPHP names itself
	fr, err := frankenphp.NewRequestWithContext(&run, append(opts,
		frankenphp.WithRequestResolvedDocumentRoot(p.root),
		frankenphp.WithOriginalRequest(r),
		frankenphp.WithRequestLogger(p.messages),
	)...)
	if err == nil {
		err = frankenphp.ServeHTTP(w, fr)
	}
	var answered frankenphp.ErrRejected
	switch {
	case errors.As(err, &answered):
		p.log.Warn("a request was refused", "path", r.URL.Path, "error", err)
	case err != nil:
		p.log.Warn("a page could not be run", "script", script, "error", err)
		http.Error(w, "500 internal server error", http.StatusInternalServerError)
	}
}

// pageMessages writes what PHP logs for pages (warnings, error_log) as it is to the
// process's standard error, which is the node's log.
var pageMessages = &lines{to: os.Stderr, least: slog.LevelInfo}

// nobody is the Server header of an answer: there is none.
var nobody = []string{}

// enter waits to be let in as long as the client does. Without a thread that could ever
// answer it says 503; false: there is nothing more to do.
func (p *pages) enter(w http.ResponseWriter, r *http.Request) bool {
	var down <-chan struct{}
	if p.worker != nil {
		down = p.worker.isDown()
		select {
		case <-down:
			unavailable(w)
			return false
		default:
		}
	}
	select {
	case p.inside <- struct{}{}:
		return true
	default:
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	select {
	case p.inside <- struct{}{}:
		return true
	case <-down:
		unavailable(w)
	case <-r.Context().Done():
	}
	return false
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "503 the application does not start; the server's log says why", http.StatusServiceUnavailable)
}

// options are those of a request for FrankenPHP that depend on the script.
func (p *pages) options(script, pathInfo string) ([]frankenphp.RequestOption, error) {
	opts := make([]frankenphp.RequestOption, 0, 6)
	if p.worker != nil {
		env := p.env
		if script != p.index || pathInfo != "" {
			env = p.named(script, pathInfo)
		}
		return append(opts, frankenphp.WithWorkerName(webWorkerName), frankenphp.WithRequestPreparedEnv(env)), nil
	}
	split := ".php"
	if !strings.HasSuffix(script, split) || strings.Index(strings.ToLower(script), split)+len(split) != len(script) {
		split = script // FrankenPHP looks for the first occurrence
	}
	opt, err := frankenphp.WithRequestSplitPath([]string{split})
	return append(opts, opt), err
}

// named is what $_SERVER says of the script in classic mode. In worker mode FrankenPHP
// would name the worker's file, or nothing.
func (p *pages) named(script, pathInfo string) frankenphp.PreparedEnv {
	env := map[string]string{
		"SCRIPT_NAME": script, "SCRIPT_FILENAME": filepath.Join(p.root, script), "DOCUMENT_URI": script, "PHP_SELF": script + pathInfo,
	}
	if pathInfo != "" {
		env["PATH_INFO"], env["PATH_TRANSLATED"] = pathInfo, filepath.Join(p.root, filepath.Clean("/"+pathInfo))
		if strings.HasSuffix(pathInfo, "/") && len(pathInfo) > 1 {
			env["PATH_TRANSLATED"] += "/"
		}
	}
	return frankenphp.PrepareEnv(env)
}

// passed are the headers that a page is told of. Foo_Bar would become the variable of
// Foo-Bar, and Proxy the proxy of HTTP clients.
func passed(h http.Header) http.Header {
	for name := range h {
		if !passes(name) {
			kept := make(http.Header, len(h))
			for name, values := range h {
				if passes(name) {
					kept[name] = values
				}
			}
			return kept
		}
	}
	return h
}

func passes(name string) bool { return !strings.ContainsRune(name, '_') && name != "Proxy" }
