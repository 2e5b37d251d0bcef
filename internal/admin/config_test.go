package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// reconfiguring is a Source that can read its configuration again.
type reconfiguring struct {
	*fake
	calls chan struct{} // a value for each call
	done  Reconfigured
	err   error
}

func (r reconfiguring) Reconfigure(ctx context.Context) (Reconfigured, error) {
	r.calls <- struct{}{}
	if _, bounded := ctx.Deadline(); !bounded {
		return r.done, errors.New("nothing bounds it")
	}
	return r.done, r.err
}

func TestConfigReload(t *testing.T) {
	t.Parallel()
	request := func(headers, body string) string {
		return strings.Replace(post(headers, body), TokensPath, ConfigReloadPath, 1)
	}
	src := reconfiguring{&fake{}, make(chan struct{}, 100), Reconfigured{Applied: []string{"[web] threads"}, Restart: []string{"[web] listen"}}, nil}
	s := serve(t, src)
	if r, body := send(t, s, request(asJSON, "")); r.StatusCode != 200 || body != `{"applied":["[web] threads"],"restart":["[web] listen"],"notes":[]}` || len(src.calls) != 1 {
		t.Error(r.StatusCode, body, len(src.calls))
	}
	for text, code := range map[string]int{
		request("", ""): 415,
		request(asJSON+"Origin: https://evil.example\r\n", ""):             403,
		request(asJSON, `{"a":1}`):                                         400,
		"GET " + ConfigReloadPath + " HTTP/1.1\r\nHost: localhost\r\n\r\n": 405,
	} {
		if r, body := send(t, s, text); r.StatusCode != code || len(src.calls) != 1 {
			t.Error(r.StatusCode, body, text)
		}
	}
	for err, code := range map[error]int{
		fmt.Errorf("%w: pogod.toml:2:1: unknown key", ErrConfig):      422,
		fmt.Errorf("%w yet: %w", ErrConfig, context.DeadlineExceeded): 503,
	} {
		src.err = err
		if r, body := send(t, serve(t, src), request(asJSON, "")); r.StatusCode != code || !strings.Contains(body, err.Error()) {
			t.Error(r.StatusCode, body)
		}
	}
	if r, body := send(t, serve(t, &fake{}), request(asJSON, "")); r.StatusCode != 409 {
		t.Error(r.StatusCode, body)
	}
}
