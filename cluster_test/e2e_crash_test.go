//go:build php

package cluster_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// document is what /status says.
func (s *site) document(t *testing.T) *document {
	t.Helper()
	body, err := s.get(t.Context(), "/status")
	if err != nil {
		t.Fatal(err)
	}
	return parseDocument(t, body)
}

// releases counts the log's lines about released jobs of a queue with this reason.
func (s *site) releases(t *testing.T, queue, reason string) int {
	t.Helper()
	line := regexp.MustCompile(`msg="a job was released" queue=` + queue + ` .*reason="` + regexp.QuoteMeta(reason) + `"`)
	return len(line.FindAllString(s.log(t), -1))
}

// visitor pushes from page after page until it is stopped.
type visitor struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex // guards the rest
	pushes int
	wrong  []string
}

func (s *site) visit(t *testing.T, queue string) *visitor {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	v := &visitor{stop: cancel}
	v.done.Go(func() { // ended by stop
		for ctx.Err() == nil {
			replies, err := s.tryCalls([]any{"pogo_queue_push", queue, "p"}, []any{"getmypid"})
			v.mu.Lock()
			v.pushes++
			if err != nil {
				v.wrong = append(v.wrong, err.Error())
			} else if !strings.Contains(string(replies[0].Result), `\"code\":1}`) {
				v.wrong = append(v.wrong, string(replies[0].Result))
			}
			v.mu.Unlock()
		}
	})
	t.Cleanup(func() { cancel(); v.done.Wait() })
	return v
}

func (v *visitor) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pushes
}

// end stops the visitor and requires that all its pages were answered.
func (v *visitor) end(t *testing.T) int {
	t.Helper()
	v.stop()
	v.done.Wait()
	if len(v.wrong) > 0 {
		t.Errorf("%d of %d pushes went wrong, the first: %s", len(v.wrong), v.pushes, v.wrong[0])
	}
	return v.pushes
}

// TestE2EHostDies kills the PHP hosts of a node, from within and from outside. The
// queue's jobs have one attempt, which nothing here may spend.
func TestE2EHostDies(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue]\nmax_attempts = 1\n[queue.side]\n"+worker(t, "crash", "plan.php", 3))
	pages := s.visit(t, "side")

	t.Run("SIGSEGV in a job", func(t *testing.T) {
		testJobsHostDies(t, s, pages, "SIGSEGV", 1, func() string {
			return s.push(t, "crash", plans{"1": {step{"segv"}, step{"sleep"}}, "2": {step{"ack"}}})
		})
	})
	t.Run("SIGKILL from outside", func(t *testing.T) {
		testJobsHostDies(t, s, pages, "SIGKILL", 2, func() string {
			job := s.push(t, "crash", plans{"1": {step{"sleep"}}, "2": {step{"ack"}}})
			s.await(t, "crash", job, "start", 1)
			if err := syscall.Kill(s.document(t).host(t, "jobs").PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return job
		})
	})
	pushes := pages.end(t)
	if got := s.queue(t, "side"); got.Enqueued != pushes || got.Pending != pushes {
		t.Errorf("%d pushes from pages made %+v", pushes, got)
	}
	if got := s.queue(t, "crash"); got.Acked != 4 || got.Failed != 0 || got.waiting() != 0 || got.ReservedTotal != 8 {
		t.Errorf("%+v", got)
	}
	t.Run("web host", func(t *testing.T) { testWebHostDies(t, s) })
}

// testJobsHostDies has a host die of a job, beside which another one runs.
func testJobsHostDies(t *testing.T, s *site, pages *visitor, signal string, restarts int, die func() string) {
	before := s.document(t)
	web, gate := before.host(t, "web"), "neighbour of "+signal
	neighbour := s.push(t, "crash", plans{"1": {step{"gate", gate}, step{"ack"}}, "2": {step{"ack"}}})
	s.await(t, "crash", neighbour, "start", 1)
	seen := pages.count()
	began := time.Now()
	job := die()
	for _, job := range []string{job, neighbour} {
		n := s.await(t, "crash", job, "ack", 1)
		if n.Attempts != 2 || n.code() != "1" {
			t.Errorf("%+v", n)
		}
	}
	t.Logf("redelivered and acked %s after the push; %d pages were answered meanwhile", time.Since(began).Round(time.Millisecond), pages.count()-seen)
	eventually(t, "a page is answered", func() bool { return pages.count() > seen })
	s.serving()
	now := s.document(t)
	jobs := now.host(t, "jobs")
	if jobs.Restarts != restarts || jobs.LastExit != signal || jobs.PID == before.host(t, "jobs").PID || jobs.State != "ready" {
		t.Errorf("%+v", jobs)
	}
	if now.host(t, "web") != web || now.Node.PID != s.cmd.Process.Pid {
		t.Errorf("the others did not live on: %+v, before %+v", now, before)
	}
	if got := s.releases(t, "crash", "PHP host ended by "+signal); got != 2 {
		t.Errorf("%d releases in the log say how the host ended, want those of the job and its neighbour", got)
	}
}

// testWebHostDies has the host of the pages die of a page, and by a kill from outside:
// connections that it had not accepted are answered by its successor.
func testWebHostDies(t *testing.T, s *site) {
	for i, signal := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGKILL} {
		before := s.document(t)
		web := before.host(t, "web")
		if _, pid := s.page(t, "/pid"); pid != fmt.Sprint(web.PID) {
			t.Errorf("the page is served by process %s, the web host is %+v", pid, web)
		}
		s.client.CloseIdleConnections()
		if signal == syscall.SIGKILL {
			if err := syscall.Kill(web.PID, signal); err != nil {
				t.Fatal(err)
			}
		} else if replies, err := s.tryCalls([]any{"posix_kill", web.PID, int(signal)}, []any{"sleep", 10}); err == nil {
			t.Errorf("a page that ends its process answers %+v", replies)
		}
		eventually(t, "the host is gone", func() bool { return s.document(t).host(t, "web").PID != web.PID })
		if code, pid := s.page(t, "/pid"); code != 200 || pid == fmt.Sprint(web.PID) {
			t.Errorf("%d by process %s", code, pid)
		}
		now := s.document(t)
		if web := now.host(t, "web"); web.Restarts != i+1 || web.LastExit != unix.SignalName(signal) {
			t.Errorf("%+v", web)
		}
		if now.host(t, "jobs") != before.host(t, "jobs") {
			t.Errorf("the jobs host did not live on: %+v", now.host(t, "jobs"))
		}
	}
}
