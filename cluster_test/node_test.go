package cluster_test

import (
	"context"
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

// serving waits until the node serves, or fails the test.
func (n *node) serving() {
	n.t.Helper()
	if err := n.ready(); err != nil {
		n.t.Fatal(err)
	}
}

// up starts the node and waits until it serves.
func (n *node) up() {
	n.t.Helper()
	n.start()
	n.serving()
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
