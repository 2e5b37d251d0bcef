package node

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pogod/internal/systemd"
	"pogod/queue"
	"pogod/storage"
)

// A state machine that does not come back keeps the watchdog from hearing of the node.
func TestHangingStateMachineIsNotAlive(t *testing.T) { // not parallel: it changes the environment
	dir := short(t)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "n"))
	t.Setenv("WATCHDOG_USEC", "150000")
	heard := func(within time.Duration) bool {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return false
			}
			if string(b[:n]) == "WATCHDOG=1" {
				return true
			}
		}
	}
	n, _ := startNode(t, dir, "")
	n.manager = systemd.New()
	n.supervised(n.life)
	if !heard(20 * time.Second) {
		t.Fatal("no word of a node that is alive")
	}
	held, let := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(let) })
	t.Cleanup(release) // before the node is closed
	done := make(chan error, 1)
	go func() { // ended by release
		done <- n.group.FSM.Inspect(func(*queue.State, *storage.Tx) error {
			close(held)
			<-let
			return nil
		})
	}()
	<-held
	for end := time.Now().Add(20 * time.Second); heard(time.Second); { // one that was on its way may come
		if time.Now().After(end) {
			t.Fatal("a node whose state machine hangs says that it is alive")
		}
	}
	release()
	if err := <-done; err != nil || !heard(20*time.Second) {
		t.Error("no word of a node that is alive again", err)
	}
}
