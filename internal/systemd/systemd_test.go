package systemd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// manager is a service manager's socket.
func manager(t *testing.T, name string) func() string {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestMessages(t *testing.T) { // not parallel: it changes the environment
	dir, err := os.MkdirTemp("", "p") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{filepath.Join(dir, "s"), fmt.Sprintf("@pogod-test-%d", os.Getpid())} {
		read := manager(t, name)
		t.Setenv("NOTIFY_SOCKET", name)
		t.Setenv("WATCHDOG_USEC", "3000000")
		t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
		n := New()
		if !n.Enabled() || n.Watchdog() != 3*time.Second || os.Getenv("NOTIFY_SOCKET")+os.Getenv("WATCHDOG_USEC")+os.Getenv("WATCHDOG_PID") != "" {
			t.Errorf("%+v, %q", n, os.Getenv("NOTIFY_SOCKET"))
		}
		if got := fmt.Sprint(n.Environment()); got != fmt.Sprintf("[NOTIFY_SOCKET=%s WATCHDOG_USEC=3000000 WATCHDOG_PID=%d]", name, os.Getpid()) {
			t.Error(got)
		}
		for want, send := range map[string]func() error{
			"^READY=1\nSTATUS=serving now$":                             func() error { return n.Ready("serving\nnow") },
			"^RELOADING=1\nMONOTONIC_USEC=[0-9]+\nSTATUS=r$":            func() error { return n.Reloading("r") },
			"^STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\nSTATUS=leaving$": func() error { return n.Stopping("leaving", 2*time.Second) },
			"^EXTEND_TIMEOUT_USEC=5000000\nSTATUS=no leader$":           func() error { return n.Waiting("no leader", 5*time.Second) },
			"^STATUS=s$":   func() error { return n.Status("s") },
			"^WATCHDOG=1$": n.Ping,
		} {
			if err := send(); err != nil {
				t.Error(err)
				continue
			}
			if got := read(); !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%q, want %s", got, want)
			}
		}
	}
}

func TestWithoutAManager(t *testing.T) { // not parallel: it changes the environment
	for _, env := range []map[string]string{
		{"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1"},
		{"NOTIFY_SOCKET": "/nowhere/s", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
		{"NOTIFY_SOCKET": "/nowhere/s", "WATCHDOG_USEC": "-1"},
		{"NOTIFY_SOCKET": "/nowhere/s", "WATCHDOG_USEC": "x"},
	} {
		for name, value := range env {
			t.Setenv(name, value)
		}
		n := New()
		if n.Watchdog() != 0 || n.Enabled() == (env["NOTIFY_SOCKET"] == "") || (n.Ping() == nil) == n.Enabled() {
			t.Errorf("%v: %+v", env, n)
		}
	}
}
