//go:build php

package phpext

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pogod/internal/link"
)

// startWebWorker starts a host whose pages are answered by a worker script of testdata.
func startWebWorker(t testing.TB, n *node, script string, threads int, jobs ...link.WorkerSpec) *hostProcess {
	t.Helper()
	root, err := filepath.Abs("testdata/site")
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	return startHost(t, n, link.HostSpec{Name: "web", Web: &link.WebSpec{Root: root, Index: "index.php", Worker: path, Threads: threads}, Jobs: jobs}, "1")
}

// One script serves pages and a queue in one host: in its job threads it is handed jobs by
// the node, in the others requests by FrankenPHP, and neither meets the other.
func TestWebWorkerBesideJobs(t *testing.T) {
	n := newNode(t)
	h := startWebWorker(t, n, "web-worker.php", 2, worker(t, "web-worker.php", 2).Jobs...)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for i := range 50 {
				if code, _, body := h.get(t, fmt.Sprint("/", i)); code != 200 || body != fmt.Sprintf("page /%d", i) {
					t.Errorf("%d %q", code, body)
				}
			}
		})
	}
	for i := range 50 {
		n.push("q", strconv.Itoa(i))
	}
	for range 50 {
		if e := n.event(t, "ack"); e.payload == "" {
			t.Errorf("%+v", e)
		}
	}
	all.Wait()
	n.awaitPages(t, link.PageFigures{Requests: 150, Ready: 2})
	n.drain()
	if err := h.wait(t); err != nil {
		t.Error(err)
	}
}

// What the pages are told of names with bytes that PHP would not take for the same.
func TestPassedHeaders(t *testing.T) {
	plain := map[string][]string{"Accept": {"a"}}
	if got := passed(plain); len(got) != 1 || &got["Accept"][0] != &plain["Accept"][0] {
		t.Errorf("%v", got)
	}
	mixed := map[string][]string{"Accept": {"a"}, "X_Real": {"evil"}, "Proxy": {"evil"}, "X-Real": {"b"}}
	if got := fmt.Sprint(passed(mixed)); strings.Contains(got, "evil") || got != "map[Accept:[a] X-Real:[b]]" {
		t.Error(got)
	}
	if len(mixed) != 4 {
		t.Errorf("the client's request was changed: %v", mixed)
	}
}
