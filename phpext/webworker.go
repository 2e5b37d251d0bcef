//go:build php

package phpext

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/dunglas/frankenphp"

	"pogod/internal/link"
)

// webWorkerName is what FrankenPHP calls the worker of pages. Names that begin with "m#"
// take no request by the path of its script: that could be a job thread's.
const webWorkerName = "m#pages"

// startWithin is how long a request waits for a script that starts again while no other
// thread is free, before it is answered with 503. A start has as long as a request.
const startWithin = 30 * time.Second

// maxWhy bounds the text of why a worker failed, in bytes.
const maxWhy = 1000

// webWorker is the script that answers pages in worker mode: each thread runs it for many
// requests. FrankenPHP tells it of their lives, as its Metrics.
type webWorker struct {
	script  string
	changed chan struct{} // holds one signal: it failed, or works again

	mu       sync.Mutex // guards the rest
	ready    int        // threads whose script has asked for a request
	restarts uint64
	crashes  uint64
	failed   uint64
	why      string // it failed last
	whyAt    time.Time
	said     string        // the last error that PHP logged outside of requests
	printed  string        // the last that a script printed there
	down     chan struct{} // closed while no thread is ready and the last start failed
}

func newWebWorker(script string) *webWorker {
	return &webWorker{script: script, changed: make(chan struct{}, 1), down: make(chan struct{})}
}

// options start the worker with PHP. A script that does not come to ask for a request is
// an error of frankenphp.Init then, at its first attempt: whoever started the host starts
// it again. Later it is FrankenPHP that does, after a pause of up to a second.
func (w *webWorker) options(app string, threads int, log *slog.Logger) []frankenphp.Option {
	outside := slog.New(&outsideLog{Handler: newSeldom(pageMessages), worker: w})
	return []frankenphp.Option{
		frankenphp.WithLogger(slog.New(newSeldom(log.Handler()))),
		frankenphp.WithMetrics(w),
		frankenphp.WithMaxWaitTime(startWithin),
		frankenphp.WithWorkers(webWorkerName, w.script, threads,
			frankenphp.WithWorkerEnv(map[string]string{"APP_BASE_PATH": app}),
			frankenphp.WithWorkerMaxFailures(0),
			frankenphp.WithWorkerRequestOptions(frankenphp.WithRequestLogger(outside)),
		),
	}
}

// exists returns nil when there is a script.
func (w *webWorker) exists() error {
	info, err := os.Stat(w.script)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no worker script %s: write it, or name another in [web] worker", w.script)
	case err != nil:
		return fmt.Errorf("the worker script: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("the worker script %s is no file: name another in [web] worker", w.script)
	}
	return nil
}

func (w *webWorker) hasFailed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed > 0
}

// failure is why the worker does not start, one line.
func (w *webWorker) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Errorf("the worker script %s ended before it called frankenphp_handle_request: %s", w.script, w.why)
}

// figures adds what is known of the worker.
func (w *webWorker) figures(f *link.PageFigures) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.Ready, f.Restarts, f.Crashes, f.Failed, f.Error = w.ready, w.restarts, w.crashes, w.failed, w.why
	if !w.whyAt.IsZero() {
		f.ErrorAt = w.whyAt.UnixMilli()
	}
}

// isDown is closed while no thread can answer and none is about to: the last start failed.
func (w *webWorker) isDown() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

func (w *webWorker) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// tags are those of HTML, in which PHP displays its errors.
var tags = regexp.MustCompile(`<[^>]*>`)

// hear keeps what was said outside of requests: it is why a script that ends does so.
func (w *webWorker) hear(printed bool, level slog.Level, text string) {
	if printed {
		text = tags.ReplaceAllString(text, "")
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.ToValidUTF8(text[:min(len(text), maxWhy)], "")
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case text == "":
	case printed:
		w.printed = text
	case level >= slog.LevelError:
		w.said = text
	}
}

// ReadyWorker implements frankenphp.Metrics: a script has asked for its first request.
func (w *webWorker) ReadyWorker(string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready++
	w.said, w.printed = "", "" // it was no reason
	select {
	case <-w.down:
		w.down = make(chan struct{})
		w.signal()
	default:
	}
}

// StopWorker implements frankenphp.Metrics: a script has ended.
func (w *webWorker) StopWorker(_ string, reason frankenphp.StopReason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch reason {
	case frankenphp.StopReasonRestart:
		w.ready--
		w.restarts++
	case frankenphp.StopReasonCrash:
		w.ready--
		w.crashes++
	case frankenphp.StopReasonBootFailure:
		w.failed++
		switch {
		case w.said != "":
			w.why = w.said
		case w.printed != "":
			w.why = "it printed: " + w.printed
		default:
			w.why = "it has said nothing"
		}
		w.whyAt = time.Now()
		if w.ready == 0 {
			select {
			case <-w.down:
			default:
				close(w.down)
			}
		}
		w.signal()
	}
}

// The rest of frankenphp.Metrics is not needed.

// StartWorker implements frankenphp.Metrics.
func (*webWorker) StartWorker(string) {}

// TotalWorkers implements frankenphp.Metrics.
func (*webWorker) TotalWorkers(string, int) {}

// TotalThreads implements frankenphp.Metrics.
func (*webWorker) TotalThreads(int) {}

// StartRequest implements frankenphp.Metrics.
func (*webWorker) StartRequest() {}

// StopRequest implements frankenphp.Metrics.
func (*webWorker) StopRequest() {}

// StopWorkerRequest implements frankenphp.Metrics.
func (*webWorker) StopWorkerRequest(string, time.Duration) {}

// StartWorkerRequest implements frankenphp.Metrics.
func (*webWorker) StartWorkerRequest(string) {}

// Shutdown implements frankenphp.Metrics.
func (*webWorker) Shutdown() {}

// QueuedWorkerRequest implements frankenphp.Metrics.
func (*webWorker) QueuedWorkerRequest(string) {}

// DequeuedWorkerRequest implements frankenphp.Metrics.
func (*webWorker) DequeuedWorkerRequest(string) {}

// QueuedRequest implements frankenphp.Metrics.
func (*webWorker) QueuedRequest() {}

// DequeuedRequest implements frankenphp.Metrics.
func (*webWorker) DequeuedRequest() {}

// outsideLog takes what a worker script says outside of requests. PHP's messages are
// logged as those of pages are; the worker listens to them, and to what is printed.
type outsideLog struct {
	slog.Handler
	worker *webWorker
}

// Handle implements slog.Handler.
func (o *outsideLog) Handle(ctx context.Context, r slog.Record) error {
	printed := r.Level < slog.LevelWarn
	r.Attrs(func(a slog.Attr) bool {
		printed = printed && a.Key != syslogLevel
		return true
	})
	o.worker.hear(printed, r.Level, r.Message)
	if printed {
		return nil
	}
	return o.Handler.Handle(ctx, r)
}
