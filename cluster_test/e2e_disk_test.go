//go:build php

package cluster_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestE2EDiskFails has the disk of a node with PHP refuse every sync: pages go on and their
// pushes are refused, and when the disk is well again the node is, as the same process with
// new PHP hosts, at the same address, with all that it had accepted.
func TestE2EDiskFails(t *testing.T) {
	t.Parallel()
	d := newFaultyDisk(t)
	s := newSite(t, inApp(t, ""), worker(t, "first", "plan.php", 2))
	text, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	conf := strings.Replace(string(text), s.dir, d.data(), 1)
	for range 2 { // of the pages and of the admin endpoint: the new process has to find them free
		conf = strings.Replace(conf, `"127.0.0.1:0"`, `"`+freeAddress(t)+`"`, 1)
	}
	s.dir = d.data()
	if err := os.WriteFile(s.config(), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.serve(t)
	waits := s.push(t, "first", always(step{"ack"}), 5)
	runs := s.push(t, "first", always(step{"gate", "never"}, step{"ack"}))
	s.await(t, "first", runs, "start", 1)
	before := s.document(t)

	d.strike(diskFault{files: "data/log/", sync: syscall.EIO})
	eventually(t, "a push is refused with the reason", func() bool {
		r, err := s.tryCalls([]any{"pogo_queue_push", "first", "x"})
		if err != nil {
			t.Fatalf("a page failed: %v", err)
		}
		a := r[0].answer(t)
		return *a.Code == 5 && strings.Contains(a.Message, "the disk failed")
	})
	for _, h := range before.PHP.Hosts {
		if syscall.Kill(h.PID, 0) != nil {
			t.Errorf("host %s ended when the disk failed", h.Name)
		}
	}
	d.heal()
	s.serving()
	eventually(t, "the node is another process", func() bool {
		doc, err := s.node.document(t.Context(), "")
		return err == nil && doc.Node.PID == s.cmd.Process.Pid && doc.Storage.Failure == "" && s.document(t).host(t, "jobs").State == "ready"
	})
	for _, h := range before.PHP.Hosts {
		if err := syscall.Kill(h.PID, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("host %s of the old process is still there: %v", h.Name, err)
		}
	}
	s.open(t, "never")
	s.await(t, "first", runs, "ack", 1)
	s.await(t, "first", waits, "ack", 1)
	s.await(t, "first", s.push(t, "first", always(step{"ack"})), "ack", 1)
}
