//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// failedOutput is what the failed list shows of what a job's last attempt printed.
func (s *site) failedOutput(t *testing.T, queue, job string) string {
	t.Helper()
	var doc struct {
		Failed []struct {
			ID     string
			Output *string
		}
	}
	text := s.call(t, "pogo_queue_failed", queue).text(t)
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for _, f := range doc.Failed {
		if f.ID == job && f.Output != nil {
			return *f.Output
		}
	}
	t.Fatalf("job %s of %s is not there with its output: %s", job, queue, text)
	return ""
}

// TestE2EOutput prints in jobs that go wrong, several at once.
func TestE2EOutput(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue]\nmax_attempts = 2\nbackoff = [\"0s\"]\n[queue.prints]\n"+worker(t, "prints", "plan.php", 3))
	over := func() bool {
		q := s.queue(t, "prints")
		return q.waiting() == 0
	}
	say := func(text string) step { return step{"call", "printf", "%s", text} }
	jobs := map[string]string{} // by id: what its last attempt printed
	for i := range 20 {
		line := fmt.Sprintf("job %d: é\nand a part", i)
		first := []step{say(fmt.Sprintf("the first attempt of job %d\n", i)), {"release"}}
		for _, last := range [][]step{
			{say(line), {"fail", "no"}},
			{say(line), {"release"}},
			{say(line), {"throw", "broke"}},
			{say(line), {"exit", 3}},
			{say(line)},
		} {
			jobs[s.push(t, "prints", plans{"1": first, "2": last})] = line
		}
		acked := s.push(t, "prints", plans{"1": first, "2": {say(line), {"ack"}}})
		jobs[acked] = ""
	}
	eventually(t, "all are settled", over)
	if got := s.queue(t, "prints"); got.Failed != 100 || got.Acked != 20 {
		t.Fatalf("%+v", got)
	}
	for job, want := range jobs {
		if want == "" {
			continue
		}
		got := s.failedOutput(t, "prints", job)
		if !strings.HasPrefix(got, want) || strings.Count(got, "job ") != 1 {
			t.Errorf("job %s printed %q, want %q", job, got, want)
		}
	}

	long := s.push(t, "prints", plans{"1": {step{"fail", "x"}, say("after it was settled\n")}})
	s.await(t, "prints", long, "call", 1)
	if got := s.failedOutput(t, "prints", long); got != "" {
		t.Errorf("what is printed after the end is not of the record: %q", got)
	}
	long = s.push(t, "prints", always(step{"call", "fwrite", nil}, step{"fail", "x"}))
	eventually(t, "it failed", over)
	if got := s.failedOutput(t, "prints", long); !strings.Contains(got, "Uncaught ArgumentCountError: fwrite()") {
		t.Errorf("PHP's own message is missing: %q", got)
	}
	much := strings.Repeat("0123456789 é \n", 10_000)
	long = s.push(t, "prints", always(say(much), step{"fail", "x"}))
	eventually(t, "it failed", over)
	if got := s.failedOutput(t, "prints", long); len(got) > 8192 || len(got) < 8192-utf8.UTFMax || !utf8.ValidString(got) || !strings.HasSuffix(much, got) {
		t.Errorf("%d bytes are kept: %q...", len(got), got[:20])
	}
}
