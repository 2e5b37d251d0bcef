package admin

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// reloading is a Source with PHP hosts.
type reloading struct {
	*fake
	calls chan struct{} // a value for each reload
	err   error
}

func (r reloading) Reload(ctx context.Context) error {
	r.calls <- struct{}{}
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("nothing bounds it")
	}
	return r.err
}

func postReload(headers, body string) string {
	return strings.Replace(post(headers, body), TokensPath, ReloadPath, 1)
}

func TestReload(t *testing.T) {
	t.Parallel()
	src := reloading{&fake{}, make(chan struct{}, 100), nil}
	s := serve(t, src)
	r, body := send(t, s, postReload(asJSON, ""))
	if r.StatusCode != 200 || body != `{"reloaded":true}` || len(src.calls) != 1 {
		t.Error(r.StatusCode, body, len(src.calls))
	}
	for request, code := range map[string]int{
		postReload("", ""): 415,
		postReload(asJSON+"Origin: https://evil.example\r\n", ""):       403,
		postReload(asJSON, `{"hosts":["web"]}`):                         400,
		strings.Replace(postReload(asJSON, ""), "localhost", "evil", 1): 403,
		"GET " + ReloadPath + " HTTP/1.1\r\nHost: localhost\r\n\r\n":    405,
		"POST " + ReloadPath + "/ HTTP/1.1\r\nHost: localhost\r\n\r\n":  404,
		strings.Replace(postReload(asJSON, ""), "POST", "DELETE", 1):    405,
	} {
		if r, body := send(t, s, request); r.StatusCode != code || len(src.calls) != 1 {
			t.Error(r.StatusCode, body, request)
		}
	}
	for err, code := range map[error]int{ErrNoPHP: 409, errors.New("the new process ended"): 503} {
		src.err = err
		if r, body := send(t, serve(t, src), postReload(asJSON, "")); r.StatusCode != code || !strings.Contains(body, err.Error()) {
			t.Error(r.StatusCode, body)
		}
	}
	// A node without PHP.
	if r, body := send(t, serve(t, &fake{}), postReload(asJSON, "")); r.StatusCode != 409 || !strings.Contains(body, "built without PHP") {
		t.Error(r.StatusCode, body)
	}
}
