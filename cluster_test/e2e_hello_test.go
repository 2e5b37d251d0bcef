//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hello starts the example application as make run does, without a configuration file, and
// with more variables of the environment.
func hello(t *testing.T, env ...string) *site {
	t.Helper()
	app, err := filepath.Abs("../examples/hello")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, app, "")
	s.args = []string{"serve", "--app", app} // and its data in the working directory
	s.env = append(env, "POGOD_WEB_LISTEN=127.0.0.1:0", "POGOD_ADMIN_LISTEN=127.0.0.1:0")
	if err := os.Remove(s.config()); err != nil {
		t.Fatal(err)
	}
	s.serve(t)
	return s
}

// post does what a button of the page does.
func (s *site) post(t *testing.T, header, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.web, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != "" {
		req.Header.Set("X-Requested-With", header)
	}
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

// shown is what the page draws itself from.
type shown struct {
	Queue  phpStatus
	Failed []failedEntry
}

func (s *site) state(t *testing.T) shown {
	t.Helper()
	_, body := s.page(t, "/?state")
	var doc struct {
		Status struct{ Queues []phpStatus }
		Failed struct{ Failed []failedEntry }
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || len(doc.Status.Queues) != 1 {
		t.Fatal(err, body)
	}
	return shown{doc.Status.Queues[0], doc.Failed.Failed}
}

// TestE2EHello pushes each kind of job of the example, and sees them move: in the page's
// JSON, in pogod status, and in a browser. The page runs in both modes.
func TestE2EHello(t *testing.T) {
	t.Parallel()
	t.Run("classic", func(t *testing.T) {
		t.Parallel()
		testHello(t, hello(t), "classic")
	})
	t.Run("worker", func(t *testing.T) {
		t.Parallel()
		testHello(t, hello(t, "POGOD_WEB_WORKER=worker.php"), "worker")
	})
}

func testHello(t *testing.T, s *site, mode string) {
	if code, body := s.page(t, "/"); code != 200 || !strings.HasPrefix(body, "<!doctype html>") {
		t.Errorf("%d %.200s", code, body)
	}
	if code, body := s.post(t, "", `{"do":"push"}`); code != http.StatusForbidden {
		t.Errorf("a push from another site's form: %d %s", code, body)
	}
	push := func(kind string) string {
		t.Helper()
		code, body := s.post(t, "hello", `{"do":"push","kind":"`+kind+`","name":"a test"}`)
		a := parseAnswer(t, body)
		if code != 200 || !a.OK {
			t.Fatalf("%d %s", code, body)
		}
		return a.ID
	}
	failing := push("failing")
	push("slow")
	eventually(t, "the slow one runs", func() bool { return s.state(t).Queue.Reserved > 0 })
	push("later")
	if got := s.state(t).Queue; got.Delayed == 0 {
		t.Errorf("%+v", got)
	}
	push("now")
	eventually(t, "three are done", func() bool { return s.state(t).Queue.Acked == 3 })
	eventually(t, "one failed", func() bool { return len(s.state(t).Failed) == 1 })
	if f := s.state(t).Failed[0]; f.ID != failing || f.Attempts != 3 || !strings.Contains(f.Reason, "attempt 3 failed, as it was asked to") {
		t.Errorf("%+v", f)
	}
	if web := s.document(t).Web; web.Mode != mode {
		t.Errorf("%+v, want mode %s", web, mode)
	}
	t.Run("status", func(t *testing.T) { testStatusCommand(t, s) })
	t.Run("command line", func(t *testing.T) { testDefaultSocket(t, s) })
	t.Run("browser", func(t *testing.T) { testHelloBrowser(t, s) })
}

func testStatusCommand(t *testing.T, s *site) {
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		out, err := exec.CommandContext(t.Context(), s.bin, append(args, "--admin", "http://"+s.admin)...).Output()
		if err != nil {
			t.Errorf("pogod %q: %v\n%s", args, err, out)
		}
		for _, want := range []string{"default", "queue-worker.php", "web", "jobs", "ready"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("pogod %q does not show %s:\n%s", args, want, out)
			}
		}
		if len(args) == 1 {
			continue
		}
		var doc struct{ Queues []phpStatus }
		if err := json.Unmarshal(out, &doc); err != nil || doc.Queues[0] != s.state(t).Queue {
			t.Errorf("%v: %+v, and the page says %+v", err, doc.Queues, s.state(t).Queue)
		}
	}
}

// testDefaultSocket pushes from the php command line without saying where the node is:
// it is found from the working directory that both have.
func testDefaultSocket(t *testing.T, s *site) {
	acked := s.state(t).Queue.Acked
	cmd := s.php(t, "", "-r", `echo pogo_queue_push('default', '{"kind":"now","name":"the command line"}');`)
	cmd.Dir = s.home
	var a answer
	if output(t, cmd, &a); !a.OK {
		t.Errorf("%+v", a)
	}
	eventually(t, "it is done", func() bool { return s.state(t).Queue.Acked == acked+1 })
}

// testHelloBrowser does with the mouse what a visitor does.
func testHelloBrowser(t *testing.T, s *site) {
	b := newBrowser(t, s.web, 1100, 900)
	acked := s.state(t).Queue.Acked
	done := func(n int) { b.see("#g-acked", fmt.Sprint(acked+n)) }
	done(0)
	b.see("#g-failed", "1")
	b.see("#failed", "attempt 3 failed")
	b.screenshot("hello")
	b.click("[data-kind=now]")
	done(1)
	b.click("[data-kind=slow]")
	b.see("#g-reserved", "1")
	b.click("[data-kind=later]")
	b.see("#g-delayed", "1")
	b.screenshot("hello-busy")
	b.click("#failed [data-do=forget]")
	b.see("#g-failed", "0")
	done(3)

	s.env = append(s.env, "POGOD_WEB_LISTEN="+strings.TrimPrefix(s.web, "http://")) // where the browser looks
	s.kill()
	b.see("#said", "does not answer")
	s.serve(t)
	b.see("#said", "is back")
	done(3)
	b.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": true}, nil)
	b.screenshot("hello-narrow")
	if len(b.errors) > 0 {
		t.Errorf("the page's script threw %s", b.errors)
	}
}
