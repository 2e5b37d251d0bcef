package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pogod/internal/admin"
)

// reloading is a source with PHP hosts.
type reloading struct {
	source
	err error
}

func (r reloading) Reload(context.Context) error { return r.err }

func TestPHPReload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		code int
		out  string
		errs string
	}{
		{nil, 0, "reloaded in 0s\n", ""},
		{errors.New("the new process of PHP host web ended before it was ready (exit code 1)"), 1, "", "answers 503: the new process of PHP host web ended before it was ready (exit code 1)\n"},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		a := admin.New(ln, reloading{source{&admin.Status{}}, c.err}, nil, slog.New(slog.DiscardHandler))
		served := make(chan error, 1)
		go func() { served <- a.Serve() }() // ended by Shutdown
		code, out, errs := run(Deps{}, "php", "reload", "--admin", ln.Addr().String())
		if code != c.code || out != c.out || !strings.HasSuffix(errs, c.errs) {
			t.Errorf("%d %q %q", code, out, errs)
		}
		code, out, _ = run(Deps{}, "php", "reload", "--json", "--admin", ln.Addr().String())
		if want := map[int]string{0: "{\"reloaded\":true}\n", 1: ""}[c.code]; code != c.code || out != want {
			t.Errorf("%d %q", code, out)
		}
		if err := errors.Join(a.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	}
	// No node is there.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if code, _, errs := run(Deps{}, "php", "reload", "--admin", ln.Addr().String()); code != ExitUnreachable || !strings.Contains(errs, "no node answers") {
		t.Errorf("%d %q", code, errs)
	}
	// Something else is there.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer other.Close()
	if code, _, errs := run(Deps{}, "php", "reload", "--admin", other.URL); code != ExitFailed || !strings.Contains(errs, "cannot read") {
		t.Errorf("%d %q", code, errs)
	}
}

func TestPHPStatus(t *testing.T) {
	t.Parallel()
	addr, s := endpointOf(t, "full.json", false)
	code, out, errs := run(Deps{}, "php", "status", "--admin", addr)
	if code != 0 || errs != "" {
		t.Errorf("%d %q", code, errs)
	}
	golden(t, "php_status.txt", out)
	code, out, errs = run(Deps{}, "php", "status", "--json", "--admin", addr)
	var got struct {
		PHP     admin.PHP
		Workers []admin.Worker
		Queues  []admin.Queue
	}
	if err := json.Unmarshal([]byte(out), &got); code != 0 || errs != "" || err != nil || len(got.PHP.Hosts) != len(s.PHP.Hosts) || len(got.Workers) != len(s.Workers) || got.Queues != nil {
		t.Errorf("%d %q %q %v", code, out, errs, err)
	}
}
