package web

import (
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Runner runs a PHP script for a request.
type Runner interface {
	// Run answers r with the script, a path under the root that begins with a
	// slash. It exists, but for the index script of NewWorker. pathInfo is what followed
	// it in the request's path, or "". r is the client's own: its path is that of the
	// request, not the script's.
	Run(w http.ResponseWriter, r *http.Request, script, pathInfo string)
}

// Handler serves an application's public root.
type Handler struct {
	root   string
	index  string
	worker bool
	php    Runner
	log    *slog.Logger
	seen   atomic.Bool  // the index script was there, once: it is not looked for again
	warned atomic.Int64 // when its absence was logged last, in nanoseconds of Unix time
}

// missingEvery is how often it is logged that there is no index script.
const missingEvery = time.Minute

// New makes a handler for root, an absolute path. index is the script, relative to
// root, that answers every path that is no file.
func New(root, index string, php Runner, log *slog.Logger) *Handler {
	return &Handler{root: root, index: path.Clean("/" + index), php: php, log: log}
}

// NewWorker makes a handler for root whose scripts are all one, which runs already: php
// answers every path that is no file, as if it were index. Neither need exist.
func NewWorker(root, index string, php Runner) *Handler {
	h := New(root, index, php, nil)
	h.worker = true
	return h
}

// ServeHTTP serves the file that the path names, or runs the script that it names,
// or else the index script. A part of the path that begins with a dot names
// nothing, and the source of a script is never served. Without an index script a path
// that names nothing is not found.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	if strings.ContainsRune(p, 0) {
		http.Error(w, "400 bad path", http.StatusBadRequest)
		return
	}
	switch kind, script, info := h.find(p); kind {
	case isFile:
		h.file(w, r, script)
	case isScript:
		h.php.Run(w, r, script, info)
	default:
		if !h.worker && !h.hasIndex() {
			http.Error(w, "404 this path is no file, and the application has no index script", http.StatusNotFound)
			return
		}
		h.php.Run(w, r, h.index, "")
	}
}

// hasIndex tells whether there is an index script, and logs what to do when there is none.
func (h *Handler) hasIndex() bool {
	if h.seen.Load() {
		return true
	}
	if h.regular(h.index) {
		h.seen.Store(true)
		return true
	}
	now, last := time.Now().UnixNano(), h.warned.Load()
	if now-last >= int64(missingEvery) && h.warned.CompareAndSwap(last, now) {
		h.log.Error("paths that are no file are answered with 404: there is no index script; write it, or name another in [web] root and index", "index", h.path(h.index))
	}
	return false
}

type kind int

const (
	isNothing kind = iota
	isFile
	isScript
)

// find resolves a request's path to a file or a script under the root, and what
// follows the script.
func (h *Handler) find(p string) (k kind, name, info string) {
	name = path.Clean("/" + p)
	for rest := name; rest != ""; { // from the left: /app.php/img/a.png is app.php's
		end := strings.IndexByte(rest[1:], '/') + 1
		if end == 0 {
			end = len(rest)
		}
		part := rest[1:end]
		rest = rest[end:]
		if strings.HasPrefix(part, ".") {
			return isNothing, "", ""
		}
		if strings.HasSuffix(part, ".php") {
			// What follows is the script's own, as the client sent it.
			script := name[:len(name)-len(rest)]
			if h.isScript(script) {
				return isScript, script, pathInfo(p, script)
			}
		}
	}
	if strings.HasSuffix(p, "/") || isSource(name) || !h.shown(name) {
		return isNothing, "", ""
	}
	return isFile, name, ""
}

// pathInfo returns what follows script in the path p. Where p had to be cleaned
// before it named the script, its cleaned rest.
func pathInfo(p, script string) string {
	if rest, ok := strings.CutPrefix(p, script); ok {
		return rest
	}
	return strings.TrimPrefix(path.Clean("/"+p), script)
}

// isScript tells whether name is run when a path names it.
func (h *Handler) isScript(name string) bool {
	switch {
	case name != h.index:
		return !h.worker && h.regular(name)
	case h.worker || h.seen.Load():
		return true
	}
	h.seen.Store(h.regular(name))
	return h.seen.Load()
}

// regular tells whether name is a regular file, or leads to one by symbolic links.
func (h *Handler) regular(name string) bool {
	fi, err := os.Stat(filepath.Join(h.root, filepath.FromSlash(name)))
	return err == nil && fi.Mode().IsRegular()
}
