//go:build php

package cluster_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// workerTests are about worker scripts as applications have them: they run unchanged.
func workerTests() []sharedTest {
	return []sharedTest{
		{"acks in callback", func(t *testing.T) string { return worker(t, "incallback", "acks-in-callback.php", 2) }, testAcksInCallback},
		{"acks after callback", func(t *testing.T) string { return worker(t, "aftercallback", "acks-after-callback.php", 4) }, testAcksAfterCallback},
		{"counts requests", func(t *testing.T) string {
			return worker(t, "counts", "counts-requests.php", 1) + "env = { MAX_REQUESTS = \"3\" }\n"
		}, testCountsRequests},
		{"does not boot", func(t *testing.T) string { return worker(t, "boot", "boot-fails.php", 1) }, testDoesNotBoot},
		{"many pages at once", func(t *testing.T) string { return worker(t, "crowd", "plan.php", 4) }, testManyPages},
		{"queues in their order", func(t *testing.T) string {
			return fmt.Sprintf("\n[[worker]]\nname = \"orderly\"\nqueues = [\"high\", \"low\"]\nscript = %q\nthreads = 1\n", inApp(t, "workers/plan.php"))
		}, testQueueOrder},
		{"no such script", func(t *testing.T) string { return worker(t, "missing", "missing.php", 1) }, testMissing},
	}
}

// pushMany pushes n jobs from one page.
func (s *site) pushMany(t *testing.T, queue string, n int, payload func(i int) string) (jobs []string) {
	t.Helper()
	calls := make([][]any, n)
	for i := range calls {
		calls[i] = []any{"pogo_queue_push", queue, payload(i)}
	}
	for _, r := range s.calls(t, calls...) {
		a := r.answer(t)
		if !a.OK {
			t.Fatalf("a push was refused: %+v", a)
		}
		jobs = append(jobs, a.ID)
	}
	return jobs
}

func testAcksInCallback(t *testing.T, s *site) {
	s.pushMany(t, "incallback", 10, func(int) string { return "good" })
	bad := s.push(t, "incallback", "bad") // released twice with a delay of a second, then failed
	eventually(t, "all is settled", func() bool { return s.queue(t, "incallback").Failed == 1 })
	list := s.failedList(t, "incallback")
	if list[0].ID != bad || list[0].Reason != "cannot do this one" || list[0].Attempts != 3 {
		t.Errorf("%+v", list)
	}
	if got := s.queue(t, "incallback"); got.Acked != 10 || got.Released != 2 || got.ReservedTotal != 13 || got.waiting() != 0 {
		t.Errorf("%+v", got)
	}
}

// testAcksAfterCallback has a script that settles after its callback returned: the
// attempt is not over then.
func testAcksAfterCallback(t *testing.T, s *site) {
	const jobs = 200
	s.pushMany(t, "aftercallback", jobs, func(i int) string { return fmt.Sprint(i) })
	eventually(t, "all is acked", func() bool { return s.queue(t, "aftercallback").Acked >= jobs })
	got := s.queue(t, "aftercallback")
	if got.Acked != jobs || got.ReservedTotal != jobs || got.Released != 0 || got.Failed != 0 || got.waiting() != 0 {
		t.Errorf("%+v", got)
	}
	log := s.log(t)
	if at := strings.Index(log, "late ack answered"); at >= 0 {
		t.Errorf("an ack did not answer 1: %.200s", log[at:])
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "a job was released") && strings.Contains(line, "queue=aftercallback") {
			t.Error(line)
		}
	}
}

// testCountsRequests has a script that ends by itself after three jobs, and prints.
func testCountsRequests(t *testing.T, s *site) {
	jobs := s.pushMany(t, "counts", 10, func(i int) string { return fmt.Sprint(i) })
	eventually(t, "all is acked", func() bool { return s.queue(t, "counts").Acked == 10 })
	eventually(t, "the script has ended by itself three times", func() bool { return s.document(t).worker(t, "counts").Restarts >= 3 })
	w := s.document(t).worker(t, "counts")
	if w.Restarts != 3 || w.LastError != "" {
		t.Errorf("%+v", w)
	}
	if got := s.queue(t, "counts"); got.ReservedTotal != 10 || got.Released != 0 {
		t.Errorf("%+v", got)
	}
	// What is printed comes to the log on its own way, perhaps after the ack.
	working := regexp.MustCompile(`msg="working on ([\d-]+):\d+" worker=counts(?: queue=counts job=([\d-]+) attempt=1)?\n`)
	var lines [][]string
	eventually(t, "all is in the log that was printed", func() bool {
		lines = working.FindAllStringSubmatch(s.log(t), -1)
		return len(lines) == len(jobs)
	})
	var printed []string
	for _, m := range lines {
		if m[1] != m[2] {
			t.Errorf("logged without its job, or with another one: %s", m[0])
		}
		printed = append(printed, m[1])
	}
	if !slices.Equal(printed, jobs) {
		t.Errorf("printed were %q, of jobs %q", printed, jobs)
	}
}

// testManyPages pushes from many pages at once: each job is a job of its own, and is
// delivered once.
func testManyPages(t *testing.T, s *site) {
	const visitors, pages, pushes = 8, 10, 5
	call := []any{"pogo_queue_push", "crowd", `{"*":[["ack"]]}`}
	calls := slices.Repeat([][]any{call}, pushes)
	got := make(chan reply, visitors*pages*pushes) // all of them
	errs := make(chan error, visitors)             // one each
	for range visitors {
		go func() { // ended by its last page
			var err error
			for range pages {
				var replies []reply
				if replies, err = s.tryCalls(calls...); err != nil {
					break
				}
				for _, r := range replies {
					got <- r
				}
			}
			errs <- err
		}()
	}
	for range visitors {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	close(got)
	ids := map[string]bool{}
	for r := range got {
		ids[r.answer(t).ID] = true
	}
	const want = visitors * pages * pushes
	eventually(t, "all is acked", func() bool { return s.queue(t, "crowd").Acked >= want })
	if q := s.queue(t, "crowd"); len(ids) != want || q.Acked != want || q.ReservedTotal != want || q.Enqueued != want || q.waiting() != 0 {
		t.Errorf("%d ids, %+v", len(ids), q)
	}
	acked := map[string]bool{}
	for _, n := range s.notes(t, "crowd", "", "ack") {
		if n.code() != "1" || acked[n.Job] || !ids[n.Job] {
			t.Errorf("%+v", n)
		}
		acked[n.Job] = true
	}
}

// testQueueOrder has one thread take from the more urgent queue first.
func testQueueOrder(t *testing.T, s *site) {
	gate := s.push(t, "low", always(step{"gate", "orderly"}, step{"ack"}))
	s.await(t, "low", gate, "start", 1)
	ack := func(int) string { return `{"*":[["ack"]]}` }
	low := s.pushMany(t, "low", 5, ack)
	high := s.pushMany(t, "high", 5, ack)
	s.open(t, "orderly")
	last := s.await(t, "low", low[4], "ack", 1)
	first := s.await(t, "low", low[0], "start", 1)
	for _, job := range high {
		if n := s.await(t, "high", job, "start", 1); n.At > first.At || n.At > last.At {
			t.Errorf("a job of the urgent queue began %d ms after one of the other", n.At-first.At)
		}
	}
}

// testDoesNotBoot has a script that fails before it asks for a job. The others of its
// host, all the tests' beside this one, go on.
func testDoesNotBoot(t *testing.T, s *site) {
	job := s.push(t, "boot", "waits")
	eventually(t, "it was tried again", func() bool { return s.document(t).worker(t, "boot").Restarts >= 2 })
	w := s.document(t).worker(t, "boot")
	if !strings.HasPrefix(w.LastError, "LogicException: the configuration is missing in ") || w.Waiting != 0 {
		t.Errorf("%+v", w)
	}
	if got := s.queue(t, "boot"); got.Pending != 1 || got.ReservedTotal != 0 {
		t.Errorf("job %s was handed to a script that does not boot: %+v", job, got)
	}
}

func testMissing(t *testing.T, s *site) {
	eventually(t, "the error shows", func() bool { return s.document(t).worker(t, "missing").LastError != "" })
	if w := s.document(t).worker(t, "missing"); !strings.Contains(w.LastError, "missing.php") {
		t.Errorf("%+v", w)
	}
}

// document is /status, as far as it is not about queues.
type document struct {
	Node struct{ PID int }
	Raft struct {
		AppliedIndex int `json:"applied_index"`
		Term         int
		Leader       string
		State        string
	}
	Workers []workerStatus
	PHP     struct{ Hosts []hostStatus }
	Web     webStatus
}

type workerStatus struct {
	Name      string
	Host      string
	Threads   int
	Waiting   int
	Running   int
	Restarts  int
	LastError string `json:"last_error"`
}

type hostStatus struct {
	Name     string
	PID      int
	State    string
	Restarts int
	LastExit string `json:"last_exit"`
}

func (d *document) worker(t *testing.T, name string) workerStatus {
	t.Helper()
	i := slices.IndexFunc(d.Workers, func(w workerStatus) bool { return w.Name == name })
	if i < 0 {
		t.Fatalf("no worker %s in %+v", name, d.Workers)
	}
	return d.Workers[i]
}

func (d *document) host(t *testing.T, name string) hostStatus {
	t.Helper()
	i := slices.IndexFunc(d.PHP.Hosts, func(h hostStatus) bool { return h.Name == name })
	if i < 0 {
		t.Fatalf("no host %s in %+v", name, d.PHP.Hosts)
	}
	return d.PHP.Hosts[i]
}
