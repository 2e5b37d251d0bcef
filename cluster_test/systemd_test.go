package cluster_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the socket of a service manager.
type manager struct {
	t    *testing.T
	said chan string // datagrams; many more than a test reads
}

// newManager makes one, and has n speak to it.
func newManager(t *testing.T, n *node, more ...string) *manager {
	t.Helper()
	name := filepath.Join(n.home, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	m := &manager{t, make(chan string, 1<<16)}
	go func() { // ended by closing c
		for b := make([]byte, 8192); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.said <- string(b[:n])
		}
	}()
	n.env = append(append(n.env, "NOTIFY_SOCKET="+name), more...)
	return m
}

// await waits for a message with all lines, which are regular expressions, and returns those
// before it.
func (m *manager) await(lines ...string) (before []string) {
	m.t.Helper()
	whole := regexp.MustCompile("^" + strings.Join(lines, "\n") + "$")
	late := time.After(readyWithin)
	for {
		select {
		case said := <-m.said:
			if whole.MatchString(said) {
				return before
			}
			before = append(before, said)
		case <-late:
			m.t.Fatalf("%q was not said, but %q", lines, before)
		}
	}
}

// TestSystemd has a node tell a service manager of its start, its reloads and its end.
func TestSystemd(t *testing.T) {
	t.Parallel()
	notTwice(t)
	n := newNode(t, build(t, ""), "")
	m := newManager(t, n)
	n.start()
	for _, early := range m.await("READY=1", "STATUS=serving") {
		if !strings.HasPrefix(early, "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=not ready: ") {
			t.Errorf("before it is ready it says %q", early)
		}
	}
	if _, err := n.get(t.Context(), "/readyz"); err != nil {
		t.Error("it is not ready when it says so:", err)
	}
	hangup := func() {
		t.Helper()
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		m.await("RELOADING=1", "MONOTONIC_USEC=[0-9]+", "STATUS=reading the configuration again")
	}
	hangup()
	m.await("READY=1", "STATUS=serving")
	good, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config(), append([]byte("[nodes]\n"), good...), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup()
	m.await("READY=1", "STATUS=serving; the configuration was not reloaded, the old one goes on: .*unknown section \"nodes\".*")
	n.stop()
	m.await("STOPPING=1", "EXTEND_TIMEOUT_USEC=67000000", "STATUS=leaving: .*")
}

// Of <linux/fs.h>.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// freeze has every write to the disk wait until thaw.
func (d *disk) freeze() (thaw func()) {
	d.t.Helper()
	dir, err := os.Open(d.mount)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
		d.t.Fatal("freeze:", err)
	}
	thawed := false
	thaw = func() {
		if thawed {
			return
		}
		thawed = true
		if err := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); err != nil {
			d.t.Error("thaw:", err)
		}
		_ = dir.Close() // it was only open for this
	}
	d.t.Cleanup(thaw)
	return thaw
}

// TestWatchdog has the node's disk hang: while the log cannot be written the watchdog hears
// nothing, and the node is alive again with its disk.
func TestWatchdog(t *testing.T) {
	notTwice(t)
	d := newDisk(t)
	n := newNode(t, build(t, ""), d.data())
	d.users = n.kill
	m := newManager(t, n, "WATCHDOG_USEC=300000") // pings every 100 ms
	n.start()
	m.await("READY=1", "STATUS=serving")
	for range 3 {
		m.await("WATCHDOG=1")
	}
	thaw := d.freeze()
	ctx, cancel := context.WithCancel(t.Context())
	push := make(chan struct{})
	go func() { // ended by cancel, or the answer
		defer close(push)
		cmd := n.command("queue", "push", queueNow, "x", "--admin", n.admin)
		cmd.Args = cmd.Args[:len(cmd.Args)-2] // without --config, which --admin goes over
		_ = exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...).Run()
	}()
	silence := time.After(readyWithin)
	for quiet := false; !quiet; { // a message that was on its way may come
		select {
		case said := <-m.said:
			if strings.HasPrefix(said, "STOPPING") {
				t.Fatal(said)
			}
		case <-time.After(3 * time.Second): // thirty pings
			quiet = true
		case <-silence:
			t.Fatal("a node whose log cannot be written says that it is alive")
		}
	}
	thaw()
	for range 3 {
		m.await("WATCHDOG=1")
	}
	cancel()
	<-push
	n.stop()
}

// TestUnitFile has systemd read the example.
func TestUnitFile(t *testing.T) {
	t.Parallel()
	notTwice(t)
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (Debian: systemd): ", err)
	}
	text, err := os.ReadFile("../examples/systemd/pogod.service")
	if err != nil {
		t.Fatal(err)
	}
	bin := build(t, "")
	for from, to := range map[string]string{"/usr/local/bin/pogod": bin, "User=pogod": "User=root", "Group=pogod": "Group=root"} { // what is on this machine
		if !strings.Contains(string(text), from) {
			t.Fatalf("it has no %s", from)
		}
		text = []byte(strings.ReplaceAll(string(text), from, to))
	}
	path := filepath.Join(t.TempDir(), "pogod.service")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tool, "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
