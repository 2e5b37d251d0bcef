//go:build php

package cluster_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// endings are the ways in which an attempt ends without being settled, and the reason
// that the failed job then has.
var endings = []struct {
	name   string
	step   step
	reason string // regular expression
}{
	{"throw", step{"throw", "out of order"}, `^RuntimeException: out of order in .*plan\.php:\d+$`},
	{"exit", step{"exit", 1}, `^exit\(1\)$`},
	{"exit0", step{"exit", 0}, `exit\(0\)|the script ended before the job was settled`},
	{"memory", step{"memory"}, `^Allowed memory size of 67108864 bytes exhausted .* in .*plan\.php:\d+$`},
	{"forget", nil, `^the handler in .*plan\.php ended without ack, release or fail$`},
	{"spin", step{"spin"}, `^timed out after 400ms$`},
	{"sleep", step{"sleep"}, `^timed out after 400ms$`},
}

// attemptTests are about how an attempt ends, and what becomes of its job.
func attemptTests() []sharedTest {
	var all []sharedTest
	for _, e := range endings {
		queue := "ends-" + e.name
		settings := func(t *testing.T) string {
			return fmt.Sprintf("[queue.%s]\nvisibility_timeout = \"400ms\"\n", queue) + worker(t, queue, "plan.php", 1)
		}
		all = append(all, sharedTest{"ends by " + e.name, settings, func(t *testing.T, s *site) {
			testEnding(t, s, queue, e.step, e.reason)
		}})
	}
	one := func(queue string) func(*testing.T) string {
		return func(t *testing.T) string { return worker(t, queue, "plan.php", 1) }
	}
	return append(all, []sharedTest{
		{"ends after ack", func(t *testing.T) string {
			return "[queue.after]\nvisibility_timeout = \"400ms\"\n" + worker(t, "after", "plan.php", 1)
		}, testEndsAfterAck},
		{"release", one("release"), testRelease},
		{"release past max_attempts", one("exhaust"), testExhaust},
		{"fail", one("fail"), testFail},
		{"settled twice", one("twice"), testTwice},
		{"delay", one("delay"), testDelay},
		{"order", one("order"), testOrder},
		{"payload", one("payload"), testPayload},
	}...)
}

// testEnding has three attempts end in the same way.
func testEnding(t *testing.T, s *site, queue string, ending step, reason string) {
	steps := []step{ending}
	if ending == nil {
		steps = nil
	}
	job := s.push(t, queue, plans{"*": steps})
	behind := s.push(t, queue, always(step{"ack"})) // is served while the other one waits
	eventually(t, "the job failed", func() bool { return s.queue(t, queue).Failed == 1 })
	f := s.failedList(t, queue)[0]
	if f.ID != job || f.Attempts != 3 || !regexp.MustCompile(reason).MatchString(f.Reason) {
		t.Errorf("got %+v, want job %s and reason %s", f, job, reason)
	}
	starts := s.notes(t, queue, job, "start")
	if len(starts) != 3 {
		t.Fatalf("%d attempts", len(starts))
	}
	for i, n := range starts {
		if n.Attempts != i+1 {
			t.Errorf("attempt %d counts %d", i+1, n.Attempts)
		}
		if i > 0 && n.At-starts[i-1].At < int64(50*i) {
			t.Errorf("attempt %d began %d ms after the one before: no back-off", i+1, n.At-starts[i-1].At)
		}
	}
	after := s.push(t, queue, always(step{"ack"}))
	for _, job := range []string{behind, after} {
		if got := s.await(t, queue, job, "ack", 1).code(); got != "1" {
			t.Errorf("the worker goes on: ack answered %s", got)
		}
	}
	if pids := s.notes(t, queue, "", "start"); slices.ContainsFunc(pids, func(n noted) bool { return n.PID != pids[0].PID }) {
		t.Error("the host was restarted")
	}
	eventually(t, "the last ack is counted", func() bool { return s.queue(t, queue).Acked == 2 })
	if got := s.queue(t, queue); got.Released != 3 || got.FailedTotal != 1 || got.ReservedTotal != 5 || got.waiting() != 0 {
		t.Errorf("%+v", got)
	}
}

// testEndsAfterAck has attempts end badly whose job is settled: it is done.
func testEndsAfterAck(t *testing.T, s *site) {
	n := 0
	for _, e := range endings {
		if e.step == nil {
			continue
		}
		job := s.push(t, "after", always(step{"ack"}, e.step))
		if got := s.await(t, "after", job, "ack", 1).code(); got != "1" {
			t.Errorf("ack before %s answered %s", e.name, got)
		}
		n++
	}
	job := s.push(t, "after", always(step{"ack"}))
	s.await(t, "after", job, "ack", 1)
	eventually(t, "the last ack is counted", func() bool { return s.queue(t, "after").Acked == n+1 })
	if got := s.queue(t, "after"); got.ReservedTotal != n+1 || got.Released != 0 || got.Failed != 0 || got.waiting() != 0 {
		t.Errorf("%+v", got)
	}
}

func testRelease(t *testing.T, s *site) {
	job := s.push(t, "release", plans{"1": {step{"release", 1}}, "2": {step{"release"}}, "3": {step{"ack"}}})
	s.await(t, "release", job, "ack", 1)
	starts, released := s.notes(t, "release", job, "start"), s.notes(t, "release", job, "release")
	if len(starts) != 3 || len(released) != 2 || released[0].code() != "1" || released[1].code() != "1" {
		t.Fatalf("%+v %+v", starts, released)
	}
	if waited := starts[1].At - starts[0].At; waited < 1000 {
		t.Errorf("delivered %d ms after a release with a delay of a second", waited)
	}
	for i, n := range starts {
		if n.Attempts != i+1 {
			t.Errorf("attempt %d counts %d", i+1, n.Attempts)
		}
	}
	eventually(t, "the ack is counted", func() bool { return s.queue(t, "release").Acked == 1 })
	if got := s.queue(t, "release"); got.Released != 2 || got.Failed != 0 {
		t.Errorf("%+v", got)
	}
}

func testExhaust(t *testing.T, s *site) {
	job := s.push(t, "exhaust", always(step{"release"}))
	for i := range 3 {
		if got := s.await(t, "exhaust", job, "release", i+1).code(); got != "1" {
			t.Errorf("release %d answered %s", i+1, got)
		}
	}
	list := s.failedList(t, "exhaust")
	if len(list) != 1 || list[0].ID != job || list[0].Attempts != 3 || list[0].Reason != "max attempts exceeded" {
		t.Errorf("%+v", list)
	}
}

func testFail(t *testing.T, s *site) {
	long := strings.Repeat("é", 6<<10)
	for reason, want := range map[string]string{
		"":         "",
		"nül\x00":  "nül\x00",
		long:       long[:8<<10],
		"x" + long: ("x" + long)[:8<<10-1], // no rune is cut
	} {
		job := s.push(t, "fail", always(step{"fail", reason}))
		if got := s.await(t, "fail", job, "fail", 1).code(); got != "1" {
			t.Errorf("fail answered %s", got)
		}
		if f := s.failedList(t, "fail")[0]; f.ID != job || f.Reason != want || f.Attempts != 1 {
			t.Errorf("a reason of %d bytes became one of %d: %.20q", len(reason), len(f.Reason), f.Reason)
		}
	}
}

func testTwice(t *testing.T, s *site) {
	for _, c := range []struct {
		steps []step
		codes string
	}{
		{[]step{{"ack"}, {"ack"}, {"fail"}, {"release"}}, "1155"},
		{[]step{{"fail", "a"}, {"fail", "b"}, {"ack"}, {"release"}}, "1155"},
		{[]step{{"release", 3600}, {"release", 3600}, {"ack"}, {"fail"}}, "1155"},
	} {
		job := s.push(t, "twice", always(append(c.steps, step{"call", "time"})...))
		s.await(t, "twice", job, "call", 1)
		codes := ""
		for _, do := range c.steps {
			seen := s.notes(t, "twice", job, do[0].(string))
			codes += seen[0].code()
			if c.steps[0][0] == do[0] && (len(seen) != 2 || seen[1].code() != "1") {
				t.Errorf("%v: %+v", do, seen)
			}
		}
		if codes != c.codes {
			t.Errorf("%v answered %s, want %s", c.steps, codes, c.codes)
		}
	}
	eventually(t, "all is counted", func() bool { return s.queue(t, "twice").Reserved == 0 })
	if got := s.queue(t, "twice"); got.Acked != 1 || got.Failed != 1 || got.Delayed != 1 || got.Released != 1 || got.ReservedTotal != 3 {
		t.Errorf("%+v", got)
	}
	if list := s.failedList(t, "twice"); len(list) != 1 || list[0].Reason != "a" {
		t.Errorf("%+v", list)
	}
}

// testDelay compares with the time in the job's id, which is the cluster's.
func testDelay(t *testing.T, s *site) {
	for _, delay := range []int{1, 2} {
		job := s.push(t, "delay", always(step{"ack"}), delay)
		millis, err := strconv.ParseInt(job[:strings.IndexByte(job, '-')], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n := s.await(t, "delay", job, "start", 1)
		if n.At < millis+int64(delay)*1000 || n.Attempts != 1 {
			t.Errorf("a delay of %d s: attempt %d began %d ms after the push", delay, n.Attempts, n.At-millis)
		}
		t.Logf("a delay of %d s: %d ms too late", delay, n.At-millis-int64(delay)*1000)
	}
}

func testOrder(t *testing.T, s *site) {
	jobs := s.pushMany(t, "order", 50, func(i int) string { return fmt.Sprint("job ", i) })
	s.await(t, "order", "", "ack", len(jobs))
	var got []string
	for _, n := range s.notes(t, "order", "", "start") {
		got = append(got, n.Job)
	}
	if !slices.Equal(got, jobs) {
		t.Errorf("handled in the order %q, pushed in %q", got, jobs)
	}
}

// testPayload sends what is easily mangled to a handler and to the failed list.
func testPayload(t *testing.T, s *site) {
	for _, payload := range []string{"", "a\x00b", "\x00", "\u2028</script>&'\"\\\n", "😀 é \ufeff", strings.Repeat("é\x00", 100_000)} {
		job := s.push(t, "payload", payload)
		if n := s.await(t, "payload", job, "start", 1); n.Payload != payload {
			t.Errorf("%.40q arrived as %.40q", payload, n.Payload)
		}
	}
	eventually(t, "all is acked", func() bool { return s.queue(t, "payload").Acked == 6 })
	if w := s.document(t).worker(t, "payload"); w.Restarts != 0 || w.LastError != "" {
		t.Errorf("%+v", w)
	}
}
