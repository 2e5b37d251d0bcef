//go:build php

package phpext

import (
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/frankenphp"

	"pogod/internal/link"
	"pogod/phpext/ext"
)

// Back-off of a script that ends without asking for a delivery: it does not boot.
const (
	minRestart = 100 * time.Millisecond
	maxRestart = 30 * time.Second
)

// job runs a worker's script in a slot, again and again until Drain. A script that
// had a delivery starts again at once: it has recycled itself, or its job ended it.
func (h *host) job(w link.WorkerSpec, slot int) {
	var wait time.Duration // of the last start in vain
	for {
		entries, deliveries := ext.Counts(slot)
		h.script(w, slot)
		e, d := ext.Counts(slot)
		pause := minRestart
		switch {
		case d != deliveries:
			pause, wait = 0, 0
		case e != entries:
			wait = 0
		default:
			wait = min(max(2*wait, minRestart), maxRestart)
			pause = wait
			h.log.Warn("a worker's script ended before it asked for a job", "worker", w.Name, "slot", slot, "again_in", wait)
		}
		select {
		case <-h.drain:
			return
		case <-h.gone:
			return
		default:
		}
		if pause == 0 {
			continue
		}
		select {
		case <-h.drain:
			return
		case <-h.gone:
			return
		case <-time.After(pause):
		}
	}
}

// script runs a worker's script once: one long request for many jobs.
func (h *host) script(w link.WorkerSpec, slot int) {
	env := map[string]string{"FRANKENPHP_WORKER": "1", "APP_BASE_PATH": h.spec.App}
	maps.Copy(env, w.Env)
	names := slices.Collect(maps.Keys(env))
	out := &output{sender: h.out, worker: w.Name, slot: slot}
	if w.Dispatch {
		env["POGO_POOL"] = w.Name
		out.worker = "pool " + w.Name
	} else {
		env["POGO_WORKER"] = w.Name
	}
	env["POGO_SLOT"] = strconv.Itoa(slot)
	env["POGO_ENV"] = strings.Join(names, "\n")
	settings := make([]string, 0, len(w.Ini))
	for _, name := range slices.Sorted(maps.Keys(w.Ini)) {
		settings = append(settings, name+"="+w.Ini[name])
	}
	env["POGO_INI"] = strings.Join(settings, "\n")

	dir, base := filepath.Split(filepath.Clean(w.Script))
	defer out.Flush()
	opts := []frankenphp.RequestOption{
		frankenphp.WithRequestResolvedDocumentRoot(filepath.Clean(dir)),
		frankenphp.WithRequestEnv(env),
		frankenphp.WithRequestLogger(out.logger()),
	}
	if split, err := frankenphp.WithRequestSplitPath([]string{base}); err == nil { // a name like my.php.worker is one name
		opts = append(opts, split)
	}
	r := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/" + base}, Host: "localhost", RemoteAddr: "127.0.0.1:0",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: http.NoBody, ContentLength: ext.JobRequest,
	}
	fr, err := frankenphp.NewRequestWithContext(r, opts...)
	if err == nil {
		err = frankenphp.ServeHTTP(out, fr)
	}
	if err != nil {
		h.log.Error("a worker's script could not be run", "worker", w.Name, "script", w.Script, "error", err)
	}
}
