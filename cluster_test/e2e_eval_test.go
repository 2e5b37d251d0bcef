//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pogod/internal/admin"
)

// pool is the configuration of one.
func pool(t *testing.T, name string, threads int, more string) string {
	t.Helper()
	return fmt.Sprintf("\n[[pool]]\nname = %q\nscript = %q\nthreads = %d\n%s\n", name, inApp(t, "workers/dispatch.php"), threads, more)
}

// eval runs PHP in a page and reads what it returns.
func (s *site) eval(t *testing.T, into any, code string) {
	t.Helper()
	if err := s.tryEval(into, code); err != nil {
		t.Fatal(err)
	}
}

func (s *site) tryEval(into any, code string) error {
	res, err := s.client.Post(s.web+"/eval.php", "text/plain", strings.NewReader(code))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%w: %.500s", err, body)
	}
	return nil
}

// evals runs PHP in a page that must return this JSON.
func (s *site) evals(t *testing.T, code, want string) {
	t.Helper()
	var got json.RawMessage
	s.eval(t, &got, code)
	if string(got) != want {
		t.Errorf("%s\ngot  %.2000s\nwant %.2000s", code, got, want)
	}
}

// thrown is what an expression throws.
func (s *site) thrown(t *testing.T, expression string) string {
	t.Helper()
	var got string
	s.eval(t, &got, `return thrown(fn () => `+expression+`);`)
	return got
}

func (s *site) pool(t *testing.T, name string) admin.Pool {
	t.Helper()
	body, err := s.get(t.Context(), "/status")
	if err != nil {
		t.Fatal(err)
	}
	var doc admin.Status
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(doc.Pools, func(p admin.Pool) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("no pool %s: %s", name, body)
	}
	return doc.Pools[i]
}

// recorded waits until a task has touched a file.
func (s *site) recorded(t *testing.T, name string) {
	t.Helper()
	eventually(t, "a task began: "+name, func() bool {
		_, err := os.Stat(filepath.Join(s.record, name))
		return err == nil
	})
}

// settled waits until no task runs or waits in the pools.
func (s *site) settled(t *testing.T, pools ...string) {
	t.Helper()
	for _, name := range pools {
		eventually(t, "all tasks of "+name+" have ended, and its threads wait", func() bool {
			p := s.pool(t, name)
			return p.Running == 0 && p.Queued == 0 && p.Waiting == p.Threads
		})
	}
}
