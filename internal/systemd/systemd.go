// Package systemd tells the service manager that started this process how it is, by the
// protocol of sd_notify(3): datagrams of NAME=VALUE lines to the socket that NOTIFY_SOCKET
// names. Without that variable all of it does nothing, so a node says the same anywhere.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier speaks to the service manager. The zero Notifier has none.
type Notifier struct {
	socket   string
	watchdog time.Duration
	taken    []string
}

// New takes what the service manager has put into the environment, and removes it: a child
// process is not to speak for this one.
func New() *Notifier {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && n.socket != "" && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if value, ok := os.LookupEnv(name); ok {
			n.taken = append(n.taken, name+"="+value)
		}
		_ = os.Unsetenv(name) // fails for no name like these
	}
	return n
}

// Environment is what New took out of the environment, as NAME=VALUE, for a program that
// takes this one's place under the same process id.
func (n *Notifier) Environment() []string { return n.taken }

// Watchdog is how long the service manager waits for a Ping before it ends the process; 0
// when it does not.
func (n *Notifier) Watchdog() time.Duration { return n.watchdog }

// Enabled reports whether somebody listens.
func (n *Notifier) Enabled() bool { return n.socket != "" }

// Ready says that the start, or a reload, is over, and what the process does now.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", state(status)) }

// Reloading says that a reload begins, which Ready ends.
func (n *Notifier) Reloading(status string) error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return err
	}
	return n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000), state(status))
}

// Stopping says that the process ends, which may take so long.
func (n *Notifier) Stopping(status string, within time.Duration) error {
	return n.send("STOPPING=1", extend(within), state(status))
}

// Waiting says why the start, or a reload, goes on, and that it may take so long from now.
func (n *Notifier) Waiting(status string, within time.Duration) error {
	return n.send(extend(within), state(status))
}

// Status says what the process does.
func (n *Notifier) Status(status string) error { return n.send(state(status)) }

// Ping says that the process is alive.
func (n *Notifier) Ping() error { return n.send("WATCHDOG=1") }

func state(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

func extend(d time.Duration) string { return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()) }

func (n *Notifier) send(lines ...string) error {
	if n.socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"}) // a leading @ is an abstract socket
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer func() { _ = c.Close() }() // everything was sent, or failed
	// A manager that does not read is not waited for.
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}
