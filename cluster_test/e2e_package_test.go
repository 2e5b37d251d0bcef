//go:build php

package cluster_test

import (
	"regexp"
	"strings"
	"testing"
)

// TestE2EPackage runs jobs by the Composer package's Pogod\Worker.
func TestE2EPackage(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue.package]\nmax_attempts = 2\nbackoff = []\n"+worker(t, "package", "package.php", 1)+
		worker(t, "bounded", "package.php", 1)+"max_jobs = 2\n")

	payload := "größe \x00 {\"a\":1}"
	job := s.push(t, "package", payload)
	n := s.await(t, "package", job, "start", 1)
	if n.Job != job || !strings.HasPrefix(n.ID, job+":") || n.Payload != payload || n.Attempts != 1 {
		t.Errorf("the handler was given %+v", n)
	}
	eventually(t, "the job is acked", func() bool { return s.queue(t, "package").Acked == 1 })

	thrower := s.push(t, "package", "throw")
	eventually(t, "the job that throws failed", func() bool { return s.queue(t, "package").Failed == 1 })
	f := s.failedList(t, "package")[0]
	if f.ID != thrower || f.Attempts != 2 || !regexp.MustCompile(`^RuntimeException: out of order in .*package\.php:\d+$`).MatchString(f.Reason) {
		t.Errorf("got %+v", f)
	}
	if second := s.await(t, "package", thrower, "start", 2); second.Attempts != 2 {
		t.Errorf("its second attempt was given %+v", second)
	}

	own := s.push(t, "package", "fail")
	eventually(t, "the job that its handler fails failed", func() bool { return s.queue(t, "package").Failed == 2 })
	if f := s.failedList(t, "package")[0]; f.ID != own || f.Attempts != 1 || f.Reason != "of its own" {
		t.Errorf("got %+v", f)
	}
	last := s.push(t, "package", "after all")
	s.await(t, "package", last, "start", 1)
	eventually(t, "the last job is acked", func() bool { return s.queue(t, "package").Acked == 2 })

	for range 4 {
		s.push(t, "bounded", "x")
	}
	eventually(t, "four jobs are acked", func() bool { return s.queue(t, "bounded").Acked == 4 })
	eventually(t, "run returned after each two jobs", func() bool { return len(s.notes(t, "bounded", "", "left")) == 2 })
	if strings.Contains(s.log(t), "its ack was answered") {
		t.Error("an ack was not taken")
	}
}
