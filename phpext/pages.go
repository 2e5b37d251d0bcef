//go:build php

package phpext

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/dunglas/frankenphp"
)

// pages runs the scripts of pages: a web.Runner. It keeps pages to their own
// number of threads, for in one host with job threads FrankenPHP would give them
// those of a script that is just starting again.
type pages struct {
	root string
	free chan struct{} // a place for each thread
	log  *slog.Logger
}

func newPages(root string, threads int, log *slog.Logger) *pages {
	return &pages{root: root, free: make(chan struct{}, threads), log: log}
}

// Run answers the request with a script. It waits for a thread as long as the
// client does.
func (p *pages) Run(w http.ResponseWriter, r *http.Request, script, pathInfo string) {
	select {
	case p.free <- struct{}{}:
		defer func() { <-p.free }()
	case <-r.Context().Done():
		return
	}
	split := ".php"
	if !strings.HasSuffix(script, split) || strings.Index(strings.ToLower(script), split)+len(split) != len(script) {
		split = script // FrankenPHP looks for the first occurrence
	}
	opt, err := frankenphp.WithRequestSplitPath([]string{split})
	if err != nil { // a name with bytes over 127, in which .php is not at the end alone
		http.Error(w, "404 not found", http.StatusNotFound)
		return
	}
	run := r.Clone(r.Context())
	run.URL = &url.URL{Path: script + pathInfo, RawQuery: r.URL.RawQuery}
	for name := range run.Header {
		// Foo_Bar would become the variable of Foo-Bar, and Proxy the proxy of
		// HTTP clients.
		if strings.ContainsRune(name, '_') || name == "Proxy" {
			delete(run.Header, name)
		}
	}
	w.Header()["Server"] = []string{} // else FrankenPHP names itself
	fr, err := frankenphp.NewRequestWithContext(run, opt,
		frankenphp.WithRequestResolvedDocumentRoot(p.root),
		frankenphp.WithOriginalRequest(r),
		frankenphp.WithRequestLogger(p.log),
	)
	if err == nil {
		err = frankenphp.ServeHTTP(w, fr)
	}
	if err != nil {
		p.log.Warn("a page could not be run", "script", script, "error", err)
		http.Error(w, "500 internal server error", http.StatusInternalServerError)
	}
}
