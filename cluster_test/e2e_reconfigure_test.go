//go:build php

package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reload of the configuration with another text in the place of one.
func (s *site) reconfigure(t *testing.T, from, to string) (string, error) {
	t.Helper()
	text, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	if from != "" && !strings.Contains(string(text), from) {
		t.Fatalf("%s\nhas no %q", text, from)
	}
	if err := os.WriteFile(s.config(), []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.cli(t, "config", "reload")
}

// TestE2EReconfigure changes workers, pools and the settings of PHP while pages are asked
// for and jobs run: no request fails, no job is lost, and each change is seen from PHP.
func TestE2EReconfigure(t *testing.T) {
	t.Parallel()
	first, second := worker(t, "first", "plan.php", 1), worker(t, "second", "plan.php", 1)
	s := startSite(t, first+pool(t, "default", 1, ""))
	ctx, stop := context.WithTimeout(t.Context(), readyWithin)
	defer stop()
	v := &visitors{}
	v.visit(ctx, s, "GET, kept", true, "", time.Millisecond)
	v.visit(ctx, s, "GET, new", false, "", time.Millisecond)
	long := s.push(t, "first", always(step{"gate", "long"}, step{"ack"}))
	s.await(t, "first", long, "start", 1)

	// A worker with a queue and a host of its own, another memory limit for all.
	out, err := s.reconfigure(t, "memory_limit = \"64M\"\n", "memory_limit = \"66M\"\n")
	if want := "applied       [php] memory_limit\n"; err != nil || out != want {
		t.Fatalf("%v\n%swant %s", err, out, want)
	}
	out, err = s.reconfigure(t, first, first+second+"host = \"tasks\"\nenv = { FLAVOUR = \"salt\" }\n")
	if want := "applied       [queue.second]\napplied       [[worker]] \"second\"\n"; err != nil || out != want {
		t.Fatalf("%v\n%swant %s", err, out, want)
	}
	job := s.push(t, "second", always(step{"ini", "memory_limit"}, step{"ack"}))
	if n := s.await(t, "second", job, "ack", 1); n.Attempts != 1 || n.PID != s.document(t).host(t, "tasks").PID {
		t.Errorf("%+v", n)
	}
	if n := s.notes(t, "second", job, "ini"); len(n) != 1 || n[0].code() != `"66M"` {
		t.Errorf("%+v", n)
	}
	// Its queues.
	if out, err := s.reconfigure(t, `queues = ["second"]`, `queues = ["third", "second"]`); err != nil || out != "applied       [queue.third]\napplied       [[worker]] \"second\" queues\n" {
		t.Error(out, err)
	}
	job = s.push(t, "third", always(step{"ack"}))
	s.await(t, "third", job, "ack", 1)
	// A pool comes, and the first one's thread is told of its new size.
	if out, err := s.reconfigure(t, "\n[[pool]]\n", pool(t, "extra", 2, "")+"\n[[pool]]\n"); err != nil || out != "applied       [[pool]] \"extra\"\n" {
		t.Error(out, err)
	}
	s.client.CloseIdleConnections() // an old host may answer once more on one that is kept
	s.evals(t, `return [pogo_pool_size('extra'), pogo_await(pogo_dispatch('Echo', ['x'], 'extra')), pogo_await(pogo_dispatch('Echo', ['y']))];`, `[2,["x"],["y"]]`)
	// A host that cannot start leaves everything as it was.
	before := s.document(t)
	out, err = s.reconfigure(t, "threads = 2\n", "threads = 1024\n")
	if err == nil || !strings.Contains(out, "the configuration was not reloaded, the old one goes on") || !strings.Contains(out, "PHP host jobs ended before it was ready") {
		t.Errorf("%v %s", err, out)
	}
	if p := s.pool(t, "extra"); p.Threads != 2 {
		t.Errorf("%+v", p)
	}
	eventually(t, "hosts of the old configuration serve", func() bool {
		d := s.document(t)
		return d.host(t, "jobs").State == "ready" && d.host(t, "web").State == "ready" && d.host(t, "tasks").State == "ready"
	})
	s.client.CloseIdleConnections()
	s.evals(t, `return pogo_await(pogo_dispatch('Echo', ['x'], 'extra'));`, `["x"]`)
	if h := s.document(t).host(t, "jobs"); h.Restarts != before.host(t, "jobs").Restarts {
		t.Errorf("%+v", h)
	}
	// A script that is not there is refused before anything happens.
	if out, err := s.reconfigure(t, "threads = 1024\n", "threads = 2\nmax_wait = \"7s\"\n[[worker]]\nscript = \"nowhere.php\"\n"); err == nil || !strings.Contains(out, "[[worker]] script must be a PHP file, but there is no") {
		t.Errorf("%v %s", err, out)
	}
	// A worker goes, with its host; its queue takes no more pushes.
	if out, err = s.reconfigure(t, "\n[[worker]]\nscript = \"nowhere.php\"\n", "\n"); err != nil || out != "applied       [[pool]] \"extra\" max_wait\n" {
		t.Error(out, err)
	}
	text, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(text), "\n[[worker]]\nname = \"second\"")
	j := strings.Index(string(text), "\n[[pool]]")
	if out, err = s.reconfigure(t, string(text)[i:j], ""); err != nil || out != "applied       [[worker]] \"second\"\napplied       [queue.second]\napplied       [queue.third]\n" && out != "applied       [queue.second]\napplied       [queue.third]\napplied       [[worker]] \"second\"\n" {
		t.Error(out, err)
	}
	if a := s.call(t, "pogo_queue_push", "second", "x").answer(t); *a.Code != 6 {
		t.Errorf("%+v", a)
	}
	// What began before all of it has run to its end, once.
	s.open(t, "long")
	if n := s.await(t, "first", long, "ack", 1); n.Attempts != 1 || n.code() != "1" {
		t.Errorf("%+v", n)
	}
	eventually(t, "the hosts of today are left", func() bool { return len(s.document(t).PHP.Hosts) == 2 })
	stop()
	v.done.Wait()
	for i, wrong := range v.wrong {
		if i < 5 {
			t.Error(wrong)
		}
	}
	t.Logf("%d requests, %d wrong", v.asked.Load(), len(v.wrong))
}

// TestE2EReconfigureLive has what counts without a new host: whether files are watched, and
// how long a stuck job is left alone.
func TestE2EReconfigureLive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deploy(t, dir, "dev")
	s := newSite(t, filepath.Join(dir, "dev"), stuckQueue(t, "hang", 1, ""), `mode = "development"`)
	s.rewrite(t, "[php]\n", "[php]\nwatch = false\nkill_grace = \"1h\"\n")
	s.serve(t)
	if out, err := s.reconfigure(t, "watch = false\nkill_grace = \"1h\"\n", "kill_grace = \"3s\"\n"); err != nil || out != "applied       [php] kill_grace\napplied       [php] watch\n" {
		t.Fatal(out, err)
	}
	eventually(t, "files are watched", func() bool {
		deploy(t, dir, "dev")
		pause(t.Context(), time.Second) // a change counts when no other has come behind it for a moment
		return strings.Contains(s.log(t), "a PHP file has changed")
	})
	job := s.pushByCommand(t, "hang", fmt.Sprintf(`{"*":[["curl", %d]]}`, silent(t)))
	old := s.await(t, "hang", job, "start", 1).PID
	eventually(t, "the stuck host is killed", func() bool { return !runs(old) })
	eventually(t, "its end is known", func() bool {
		return strings.Contains(s.document(t).host(t, "jobs").LastExit, "by the node: an attempt was stuck")
	})
}

// pushByCommand pushes a plan by the command line, for a site whose pages are its own.
func (s *site) pushByCommand(t *testing.T, queue, plan string) string {
	t.Helper()
	out, err := s.cli(t, "queue", "push", queue, plan)
	if err != nil {
		t.Fatal(out, err)
	}
	fields := strings.Fields(out)
	return fields[len(fields)-1]
}
