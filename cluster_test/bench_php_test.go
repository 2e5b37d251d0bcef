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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pogod/internal/admin"
)

// benchSite is a node with the pages and the worker of testdata/bench.
type benchSite struct {
	web, admin string
	pid        int
}

func startBench(b *testing.B, settings ...string) *benchSite {
	b.Helper()
	bin := os.Getenv("POGOD_BIN")
	if bin == "" {
		b.Skip("POGOD_BIN is not set: use make bench-php")
	}
	app, err := filepath.Abs("testdata/bench")
	if err != nil {
		b.Fatal(err)
	}
	home, err := os.MkdirTemp("", "pogod")
	if err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(home, "pogod.toml")
	text := fmt.Sprintf("[node]\ndata_dir = \"data\"\n[php]\napp = %q\n[web]\nlisten = \"127.0.0.1:0\"\nthreads = 16\n[admin]\nlisten = \"127.0.0.1:0\"\n"+
		"[queue.push]\n[[worker]]\nqueues = [\"cycle\"]\nthreads = 4\n", app) + strings.Join(settings, "")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", "--config", config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.RemoveAll(home)
	})
	s := &benchSite{pid: cmd.Process.Pid}
	var banner []byte
	address := regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`)
	for found := [][][]byte(nil); len(found) < 2; found = address.FindAllSubmatch(banner, -1) {
		buf := make([]byte, 512)
		n, err := out.Read(buf)
		if err != nil {
			b.Fatalf("the node ended: %s", banner)
		}
		banner = append(banner, buf[:n]...)
		if f := address.FindAllSubmatch(banner, -1); len(f) >= 2 {
			s.web, s.admin = string(f[0][1]), string(f[1][1])
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ended by the node's end
	for range 600 {
		r, err := http.Get("http://" + s.admin + "/readyz")
		if err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return s
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatal("the node did not get ready")
	return nil
}

// push has the pages push n jobs on each of threads threads and returns what each took.
func (s *benchSite) push(b *testing.B, threads, n int, queue string) []int {
	b.Helper()
	return onThreads(b, threads, func() (took []int, err error) {
		r, err := http.Get(fmt.Sprintf("http://%s/?n=%d&q=%s", s.web, n, queue))
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Body.Close() }()
		return took, json.NewDecoder(r.Body).Decode(&took)
	})
}

// onThreads asks for a page on each of threads threads and returns what all of them took.
func onThreads(b *testing.B, threads int, page func() ([]int, error)) []int {
	b.Helper()
	all := make(chan []int, threads)
	for range threads {
		go func() { // ended by the page
			took, err := page()
			if err != nil {
				b.Error(err)
			}
			all <- took
		}()
	}
	var took []int
	for range threads {
		took = append(took, <-all...)
	}
	return took
}

func (s *benchSite) status(b *testing.B) *admin.Status {
	b.Helper()
	r, err := http.Get("http://" + s.admin + "/status")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	st := &admin.Status{}
	if err := json.NewDecoder(r.Body).Decode(st); err != nil {
		b.Fatal(err)
	}
	return st
}

// cpu returns the seconds of processor time of the node and of its PHP hosts.
func (s *benchSite) cpu(b *testing.B) (node, php float64) {
	b.Helper()
	for _, h := range s.status(b).PHP.Hosts {
		php += seconds(b, h.PID)
	}
	return seconds(b, s.pid), php
}

func seconds(b *testing.B, pid int) float64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100 // the kernel's ticks
}

func (s *benchSite) report(b *testing.B, jobs int, elapsed time.Duration, before, after *admin.Status, node, php float64) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(jobs)/elapsed.Seconds(), "jobs/s")
	b.ReportMetric(float64(jobs)/float64(after.Raft.AppliedIndex-before.Raft.AppliedIndex), "jobs/entry")
	b.ReportMetric(node*1e6/float64(jobs), "node-cpu-us/job")
	b.ReportMetric(php*1e6/float64(jobs), "php-cpu-us/job")
}

// BenchmarkPHPPush is durable pushes from PHP pages, one after the other on each thread.
func BenchmarkPHPPush(b *testing.B) {
	s := startBench(b)
	for _, threads := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			before := s.status(b)
			node0, php0 := s.cpu(b)
			begin := time.Now()
			took := s.push(b, threads, max(b.N/threads, 1), "push")
			elapsed := time.Since(begin)
			node1, php1 := s.cpu(b)
			s.report(b, len(took), elapsed, before, s.status(b), node1-node0, php1-php0)
			slices.Sort(took)
			for name, q := range map[string]float64{"p50-us": .5, "p99-us": .99, "p999-us": .999} {
				b.ReportMetric(float64(took[int(float64(len(took)-1)*q)]), name)
			}
		})
	}
}

// BenchmarkPHPCycle is the whole life of a job: pushed by 4 pages, worked on and acked by
// 4 worker threads at the same time. It ends when the last job is acked.
func BenchmarkPHPCycle(b *testing.B) {
	s := startBench(b)
	b.Run("pages=4/workers=4", func(b *testing.B) {
		acked := func() uint64 {
			for _, q := range s.status(b).Queues {
				if q.Queue == "cycle" {
					return q.Acked
				}
			}
			return 0
		}
		before, already := s.status(b), acked()
		node0, php0 := s.cpu(b)
		begin := time.Now()
		jobs := len(s.push(b, 4, max(b.N/4, 1), "cycle"))
		for acked()-already < uint64(jobs) {
			time.Sleep(2 * time.Millisecond)
		}
		elapsed := time.Since(begin)
		node1, php1 := s.cpu(b)
		s.report(b, jobs, elapsed, before, s.status(b), node1-node0, php1-php0)
	})
}

// BenchmarkDisk is what the disk gives: 4 KiB appended and synced, one after the other.
func BenchmarkDisk(b *testing.B) {
	f, err := os.CreateTemp(b.TempDir(), "disk")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 4096)
	took := make([]int, 0, b.N)
	for b.Loop() {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		took = append(took, int(time.Since(begin).Microseconds()))
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2]), "p50-us")
	b.ReportMetric(float64(took[(len(took)-1)*99/100]), "p99-us")
}
