//go:build php

package phpext

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pogod/internal/link"
)

// hostProcess is a PHP host, a child of the test.
type hostProcess struct {
	cmd  *exec.Cmd
	done chan error
	url  string
}

// startHost starts a host and waits until it is ready. Pages are served with
// web != "".
func startHost(t testing.TB, n *node, spec link.HostSpec, times string) *hostProcess {
	t.Helper()
	if spec.Name == "" {
		spec.Name = "jobs"
	}
	if spec.App == "" {
		spec.App = t.TempDir()
	}
	spec.Socket = n.path
	h := &hostProcess{cmd: exec.Command(os.Args[0]), done: make(chan error, 1)}
	if spec.Web != nil {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		defer func() { _ = f.Close() }()
		h.cmd.ExtraFiles = []*os.File{f}
		h.url = "http://" + ln.Addr().String()
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	h.cmd.Env = append(os.Environ(), hostEnv+"="+times, link.HostSpecEnv+"="+string(b), "PHPRC=/nonexistent", "PHP_INI_SCAN_DIR=")
	h.cmd.Stderr = os.Stderr
	h.cmd.Stdout = os.Stderr
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { h.done <- h.cmd.Wait() }() // ended with the child
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		if err := <-h.done; err != nil {
			t.Log("the host:", err)
		}
		close(h.done)
	})
	receive(t, "the host to be ready", n.ready)
	return h
}

// wait waits for the host's end.
func (h *hostProcess) wait(t testing.TB) error {
	t.Helper()
	err := receive(t, "the host's end", h.done)
	h.done <- err
	return err
}

// worker is a spec of one worker whose script is in testdata.
func worker(t testing.TB, script string, threads int, env ...string) link.HostSpec {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	w := link.WorkerSpec{Name: "w", Script: path, Threads: threads, Env: map[string]string{}}
	for i := 0; i+1 < len(env); i += 2 {
		w.Env[env[i]] = env[i+1]
	}
	return link.HostSpec{Jobs: []link.WorkerSpec{w}}
}

func ExampleErrNodeGone() {
	fmt.Println(ErrNodeGone)
	// Output: phpext: the node has gone
}
