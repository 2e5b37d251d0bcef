package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pogod/internal/link"
)

// Bounds of waits. They are generous: what is waited for is signalled, or asked for
// again after pollPause.
const (
	readyWithin = 60 * time.Second
	drainWithin = 90 * time.Second
	endWithin   = 60 * time.Second
	pollPause   = 5 * time.Millisecond
)

// builds are the binaries that this process has built, by build tags.
var builds struct {
	mu   sync.Mutex // held while one is built
	dir  string
	path map[string]string
}

// build returns the path of a node without PHP, built with tags.
func build(t *testing.T, tags string) string {
	t.Helper()
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if path := builds.path[tags]; path != "" {
		return path
	}
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "pogod-build") // outlives the test: the next one uses it
		if err != nil {
			t.Fatal(err)
		}
		builds.dir, builds.path = dir, map[string]string{}
	}
	path := filepath.Join(builds.dir, "pogod"+tags)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", path, "pogod")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the node: %v\n%s", err, out)
	}
	builds.path[tags] = path
	return path
}

// node is a data directory and the process that serves it, if one runs.
type node struct {
	t        *testing.T
	bin      string
	dir      string // data directory
	home     string // configuration, socket, log; short, for the socket's sake
	env      []string
	php      string    // the rest of the configuration, for a node with PHP
	settings string    // more of [node] in the configuration
	admin    string    // address of the admin endpoint
	space    *netspace // where it runs; nil: where the test does
	addr     string    // of the cluster port, in space
	http     *http.Client
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the process has ended
	err      error         // of its end; read after exited

	wrong     []string // what status said that cannot be
	snapshot  uint64   // index of the last one that status showed
	snapshots int      // how often there was a new one
}

// newNode makes a home for a node whose data is in dir; "" puts it there too.
func newNode(t *testing.T, bin, dir string) *node {
	t.Helper()
	home, err := os.MkdirTemp("", "pogod") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, bin: bin, dir: dir, home: home, http: http.DefaultClient}
	if dir == "" {
		n.dir = filepath.Join(home, "data")
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			n.showLog()
		}
		keep(t, n.logPath(), filepath.Base(home)+".log")
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) socket() string  { return filepath.Join(n.home, "s") }
func (n *node) logPath() string { return filepath.Join(n.home, "log") }

// enter makes the node one of a network.
func (n *node) enter(l *lan, host int) {
	n.space, n.addr, n.admin = l.hosts[host], l.addrs[host]+":8083", "127.0.0.1:8082"
	n.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = n.space.do(func() error {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}}}
}

// keep copies a test's file to where "go test -artifacts" keeps it.
func keep(t *testing.T, path, name string) {
	if f := flag.Lookup("test.artifacts"); f == nil || f.Value.String() != "true" {
		return
	}
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(t.ArtifactDir(), name), b, 0o600)
	}
	if err != nil {
		t.Log(err)
	}
}

func (n *node) config() string { return filepath.Join(n.home, "pogod.toml") }

// configure writes the configuration, with a free port for the admin endpoint of a node
// that has no network of its own.
func (n *node) configure() error {
	if n.space == nil {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		n.admin = ln.Addr().String()
		if err := ln.Close(); err != nil {
			return err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[node]\ndata_dir = %q\nsocket = %q\n%s\n[admin]\nlisten = %q\n", n.dir, n.socket(), n.settings, n.admin)
	if n.space != nil {
		fmt.Fprintf(&b, "\n[cluster]\nlisten = %q\n", n.addr)
	}
	names := make([]string, 0, len(queueRules))
	for name, r := range queueRules {
		names = append(names, fmt.Sprintf("\n[queue.%s]\nmax_attempts = %d\nvisibility_timeout = %q\n%s\n", name, r.maxAttempts, r.timeout, r.settings))
	}
	slices.Sort(names)
	b.WriteString(strings.Join(names, ""))
	fmt.Fprintf(&b, "\n[[worker]]\nname = %q\nqueues = [%q, %q, %q]\n", workerExt, queueNow, queueLater, queueTight)
	fmt.Fprintf(&b, "\n[[worker]]\nname = %q\nqueues = [%q]\n", workerLate, queueLate)
	b.WriteString(n.php)
	return os.WriteFile(n.config(), []byte(b.String()), 0o600)
}

// start starts the process and does not wait for it.
func (n *node) start() {
	n.t.Helper()
	if err := n.configure(); err != nil {
		n.t.Fatal(err)
	}
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintln(log, "--- start")
	n.cmd = n.command("serve")
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.within(n.cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	exited := make(chan struct{})
	n.exited = exited
	go func(cmd *exec.Cmd) { // ended by the end of the process
		n.err = cmd.Wait()
		close(exited)
	}(n.cmd)
}

// command is pogod with the node's configuration and environment.
func (n *node) command(args ...string) *exec.Cmd {
	cmd := exec.Command(n.bin, append(args, "--config", n.config())...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "POGOD_") }), n.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	return cmd
}

// within calls f in the node's network.
func (n *node) within(f func() error) error {
	if n.space == nil {
		return f()
	}
	return n.space.do(f)
}

// kill ends the process with SIGKILL and waits for its end.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // one that has ended by itself is dead too
	<-n.exited
	n.cmd = nil
}

// freeze stops the process with SIGSTOP, and waits until each of its threads has come out
// of the system call that it was in.
func (n *node) freeze() error {
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	for {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", n.cmd.Process.Pid))
		if err != nil {
			return err
		}
		running := slices.ContainsFunc(stats, func(path string) bool {
			b, err := os.ReadFile(path)
			_, state, _ := strings.Cut(string(b), ") ") // behind the name: T stopped, Z ended
			return err == nil && !strings.HasPrefix(state, "T") && !strings.HasPrefix(state, "Z")
		})
		if !running {
			return nil
		}
		if !pause(ctx, pollPause) {
			return fmt.Errorf("the node was not stopped within %s", endWithin)
		}
	}
}

// stop ends the process with SIGTERM; it must leave well.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Error(err)
	}
	select {
	case <-n.exited:
		if n.err != nil {
			n.t.Errorf("the node did not leave well after SIGTERM: %v", n.err)
		}
		n.cmd = nil
	case <-time.After(endWithin):
		n.t.Errorf("the node did not end %s after SIGTERM", endWithin)
		n.kill()
	}
}

// errExited is returned when the node ended by itself.
var errExited = errors.New("the node ended by itself")

// ready waits until the node serves.
func (n *node) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	last := errors.New("it was never asked")
	for {
		select {
		case <-n.exited:
			return fmt.Errorf("%w: %w: %s", errExited, n.err, n.lastLine())
		default:
		}
		if _, err := n.get(ctx, "/readyz"); err == nil {
			return nil
		} else if ctx.Err() == nil {
			last = err
		}
		if !pause(ctx, pollPause) {
			return fmt.Errorf("the node was not ready within %s: %w", readyWithin, last)
		}
	}
}

// get asks the admin endpoint.
func (n *node) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+path, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true // the process at the other end is killed again and again
	res, err := n.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s: %s", path, res.Status, body)
	}
	return body, err
}

// queueStatus is one queue in /status.
type queueStatus struct {
	Queue                      string
	Pending, Delayed, Reserved int
	Failed, Enqueued, Acked    int
	FailedTotal                int `json:"failed_total"`
	Deleted, Purged, Retried   int
	ReservedTotal              int `json:"reserved_total"`
	DroppedFull                int `json:"dropped_full"`
}

// waiting is how many jobs are not at their end.
func (q *queueStatus) waiting() int { return q.Pending + q.Delayed + q.Reserved }

// statusDoc is what these tests read of /status.
type statusDoc struct {
	Node struct {
		ID                   string
		PID                  int
		StartedAt            time.Time `json:"started_at"`
		CertificateExpiresAt time.Time `json:"certificate_expires_at"`
	}
	Read struct {
		Node       string
		Consistent bool
		AgeMS      *int64 `json:"age_ms"`
	}
	Raft struct {
		State     string
		Term      uint64
		Applied   uint64 `json:"applied_index"`
		Committed uint64 `json:"committed_index"`
		Level     int    `json:"feature_level"`
		Members   []member
	}
	Storage struct {
		Snapshot uint64 `json:"snapshot_index"`
		LogFirst uint64 `json:"log_first_index"`
		LogLast  uint64 `json:"log_last_index"`
		File     int64  `json:"file_bytes"`
		Damage   string
		Failure  string
		Low      bool `json:"low_space"`
		Streams  []struct {
			Node         string
			Sending      bool
			Bytes, Total int64
		}
		Received  uint64 `json:"streams_received"`
		Hash      string `json:"state_hash"`
		HashIndex uint64 `json:"state_hash_index"`
	}
	Notes  []string
	Queues []queueStatus
}

// member of a cluster, as a node sees it.
type member struct {
	ID, Address                     string
	Voter, Worker, Leader, Self, Up bool
}

// queue returns what is said of one.
func (d *statusDoc) queue(name string) queueStatus {
	i := slices.IndexFunc(d.Queues, func(q queueStatus) bool { return q.Queue == name })
	if i < 0 {
		return queueStatus{}
	}
	return d.Queues[i]
}

// document asks for /status, with options such as "?hash=1".
func (n *node) document(ctx context.Context, options string) (*statusDoc, error) {
	body, err := n.get(ctx, "/status"+options)
	if err != nil {
		return nil, err
	}
	doc := &statusDoc{}
	if err := json.Unmarshal(body, doc); err != nil {
		return nil, fmt.Errorf("%w: %s", err, body)
	}
	return doc, nil
}

// status asks for the queues, and checks that the document agrees with itself.
func (n *node) status() (map[string]queueStatus, error) {
	doc, err := n.document(context.Background(), "")
	if err != nil {
		return nil, err
	}
	if doc.Node.PID != n.cmd.Process.Pid {
		n.disagree("it is of process %d, not of %d", doc.Node.PID, n.cmd.Process.Pid)
	}
	if doc.Raft.Committed > doc.Raft.Applied {
		n.disagree("the file holds entry %d, and %d is applied", doc.Raft.Committed, doc.Raft.Applied)
	}
	if doc.Storage.Snapshot < n.snapshot {
		n.disagree("the snapshot went back from entry %d to %d", n.snapshot, doc.Storage.Snapshot)
	}
	if doc.Storage.Snapshot > n.snapshot {
		n.snapshot = doc.Storage.Snapshot
		n.snapshots++
	}
	all := map[string]queueStatus{}
	for _, q := range doc.Queues {
		all[q.Queue] = q
		// A job is in one place and was counted once.
		if q.Enqueued != q.Acked+q.FailedTotal+q.Deleted+q.waiting() {
			n.disagree("queue %s has taken %d jobs, and acked %d, failed %d, deleted %d, waiting %d do not make that", q.Queue, q.Enqueued, q.Acked, q.FailedTotal, q.Deleted, q.waiting())
		}
		if q.FailedTotal != q.Failed+q.Purged+q.Retried {
			n.disagree("in queue %s %d jobs have failed, and %d that are there, %d purged, %d retried do not make that", q.Queue, q.FailedTotal, q.Failed, q.Purged, q.Retried)
		}
		if min(q.Pending, q.Delayed, q.Reserved, q.Failed) < 0 {
			n.disagree("a gauge of queue %s is negative: %+v", q.Queue, q)
		}
	}
	for name := range queueRules {
		if _, ok := all[name]; !ok {
			n.disagree("queue %s is missing", name)
		}
	}
	return all, nil
}

// disagree notes something that status said and that cannot be.
func (n *node) disagree(format string, args ...any) {
	n.wrong = append(n.wrong, fmt.Sprintf(format, args...))
}

// drained waits until no job waits and none runs.
func (n *node) drained() (map[string]queueStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	for {
		all, err := n.status()
		if err != nil {
			return nil, err
		}
		left := 0
		for _, q := range all {
			left += q.waiting()
		}
		if left == 0 {
			return all, nil
		}
		if !pause(ctx, 4*pollPause) {
			return nil, fmt.Errorf("%d jobs are left after %s: %+v", left, drainWithin, all)
		}
	}
}

// takeFailed lists and forgets all failed jobs.
func (n *node) takeFailed() ([]failedJob, error) {
	c, err := link.Dial(context.Background(), n.socket(), link.RoleTool, "checker")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []failedJob
	for name := range queueRules {
		for {
			page, err := failedPage(c, name)
			if err != nil {
				return nil, err
			}
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
			if err := n.forget(page); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func failedPage(c *link.Client, name string) ([]failedJob, error) {
	code, body, err := c.Call(link.Request(nil, link.Failed).String(name).Int(1000))
	if err != nil {
		return nil, err
	}
	var page struct{ Failed []failedJob }
	if err := json.Unmarshal(body, &page); err != nil || code != 1 {
		return nil, fmt.Errorf("the failed jobs of %s: code %d: %s", name, code, body)
	}
	return page.Failed, nil
}

// forget deletes failed jobs, over many connections, so that they share the log's fsync.
func (n *node) forget(page []failedJob) error {
	const connections = 32
	work := make(chan failedJob, len(page)) // all of them, so that none waits
	for _, f := range page {
		work <- f
	}
	close(work)
	errs := make(chan error, connections) // one each
	for range connections {
		go func() { // ended by the end of work
			errs <- func() error {
				c, err := link.Dial(context.Background(), n.socket(), link.RoleTool, "checker")
				if err != nil {
					return err
				}
				defer c.Close()
				for f := range work {
					code, body, err := c.Call(link.Request(nil, link.ForgetFailed).String(f.Queue).String(f.ID))
					if err != nil {
						return err
					}
					var answer struct{ Count int }
					if json.Unmarshal(body, &answer) != nil || code != 1 || answer.Count != 1 {
						return fmt.Errorf("forget failed job %s: code %d: %s", f.ID, code, body)
					}
				}
				return nil
			}()
		}()
	}
	var err error
	for range connections {
		err = errors.Join(err, <-errs)
	}
	return err
}

// lastLine is that of the node's log.
func (n *node) lastLine() string {
	b, err := os.ReadFile(n.logPath())
	if err != nil {
		return err.Error()
	}
	s := strings.TrimRight(string(b), "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// showLog shows the end of the node's log.
func (n *node) showLog() {
	b, err := os.ReadFile(n.logPath())
	if err != nil {
		n.t.Log(err)
		return
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimRight(string(b), "\n"), "\n"), func(line string) bool {
		return strings.Contains(line, "a job was released") || strings.Contains(line, "an attempt timed out") // as the load wants it
	})
	const show = 60
	n.t.Logf("the last lines of the node's log:\n%s", strings.Join(lines[max(0, len(lines)-show):], "\n"))
}
