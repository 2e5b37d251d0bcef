package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"pogod/internal/admin"
)

// reconfiguring is a source that reads its configuration again.
type reconfiguring struct {
	source
	done admin.Reconfigured
	err  error
}

func (r reconfiguring) Reconfigure(context.Context) (admin.Reconfigured, error) { return r.done, r.err }

func TestConfigReload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		done       admin.Reconfigured
		err        error
		code       int
		out, errs  string
		json       string
		jsonStderr string
	}{
		{
			done: admin.Reconfigured{Applied: []string{"[node] log_level", `[[worker]] "mail" threads`}, Restart: []string{"[web] listen"}, Notes: []string{"a note"}},
			out:  "applied       [node] log_level\napplied       [[worker]] \"mail\" threads\nneeds restart [web] listen\n", errs: "pogod: a note\n",
			json: `{"applied":["[node] log_level","[[worker]] \"mail\" threads"],"restart":["[web] listen"],"notes":["a note"]}` + "\n",
		},
		{out: "nothing has changed; the PHP hosts were reloaded\n", json: `{"applied":[],"restart":[],"notes":[]}` + "\n"},
		{
			err: fmt.Errorf("%w: pogod.toml:2:1: unknown key", admin.ErrConfig), code: 1,
			errs: "answers 422: the configuration was not reloaded, the old one goes on: pogod.toml:2:1: unknown key\n",
		},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		a := admin.New(ln, reconfiguring{source{&admin.Status{}}, c.done, c.err}, nil, slog.New(slog.DiscardHandler))
		served := make(chan error, 1)
		go func() { served <- a.Serve() }() // ended by Shutdown
		code, out, errs := run(Deps{}, "config", "reload", "--admin", ln.Addr().String())
		if code != c.code || out != c.out || !strings.HasSuffix(errs, c.errs) || errs != "" && c.errs == "" {
			t.Errorf("%d\n%s%s", code, out, errs)
		}
		if code, out, _ := run(Deps{}, "config", "reload", "--json", "--admin", ln.Addr().String()); code != c.code || out != c.json {
			t.Errorf("%d %q", code, out)
		}
		if err := errors.Join(a.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	}
}
