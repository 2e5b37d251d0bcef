package cluster_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// netspace is a network namespace without a name: it is gone when nothing holds it open
// and no process runs in it, so whatever ends this process leaves none behind.
type netspace struct{ file *os.File }

// newNetspace makes one whose loopback device is up.
func newNetspace() (*netspace, error) {
	s := &netspace{}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			s.file, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if err == nil {
		err = s.ip("link set lo up")
	}
	return s, err
}

// do calls f on a thread that is in the namespace: sockets that f opens and processes
// that it starts are in it too.
func (s *netspace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own, and brings the thread back to this process's
// network. A thread that ended instead would end the processes that f has started, whose
// parent it is.
func onThread(f func() error) error {
	errs := make(chan error, 1) // the one result
	go func() {                 // ended by f
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			errs <- err
			return
		}
		defer home.Close()
		err = f()
		back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		}
		errs <- errors.Join(err, back)
	}()
	return <-errs
}

// ip runs ip(8) in the namespace.
func (s *netspace) ip(args string) error {
	return s.do(func() error {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	})
}

// lan is a namespace for each host, and one for the bridge that joins them. Each host
// knows the others' hardware addresses for good, so cutting is a matter of these entries:
// what is sent to an address that nobody has is gone without a word.
type lan struct {
	t     *testing.T
	hub   *netspace
	hosts []*netspace
	addrs []string // IP addresses of the hosts
}

// nowhere is a hardware address that no host has.
const nowhere = "02:00:00:00:00:fe"

func hardware(host int) string { return fmt.Sprintf("02:00:00:00:00:%02x", host+1) }

// newLAN makes a network of so many hosts, whose addresses nobody outside sees. The test
// is skipped when that needs more rights or tools than there are.
func newLAN(t *testing.T, hosts int) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("needs ip (Debian: iproute2): %v", err)
	}
	l := &lan{t: t}
	space := func() *netspace {
		s, err := newNetspace()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			t.Skipf("needs the right to make network namespaces: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.file.Close() }) // nothing was written to it
		return s
	}
	l.hub = space()
	if err := l.hub.ip("link add br0 type bridge"); err != nil {
		t.Skipf("needs bridges: %v", err)
	}
	l.must(l.hub.ip("link set br0 up"))
	for i := range hosts {
		h := space()
		l.hosts, l.addrs = append(l.hosts, h), append(l.addrs, "")
		l.must(h.ip(fmt.Sprintf("link add eth0 address %s type veth peer name v%d netns /proc/%d/fd/%d", hardware(i), i, os.Getpid(), l.hub.file.Fd())))
		l.must(l.hub.ip(fmt.Sprintf("link set v%d master br0 up", i)))
		l.must(h.ip("link set eth0 up"))
		l.move(i, fmt.Sprintf("10.83.0.%d", i+1))
	}
	return l
}

func (l *lan) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// move gives a host another address.
func (l *lan) move(host int, addr string) {
	l.t.Helper()
	l.must(l.hosts[host].ip("addr flush dev eth0"))
	l.must(l.hosts[host].ip("addr add " + addr + "/24 dev eth0"))
	l.addrs[host] = addr
	for i := range l.hosts {
		if i != host {
			l.heal(way{host, i})
			l.heal(way{i, host})
		}
	}
}

// way is the way from one host to another; the way back is another one.
type way struct{ from, to int }

// cut lets all that is sent this way be lost.
func (l *lan) cut(w way) { l.t.Helper(); l.send(w, nowhere) }

// heal is the reverse of cut.
func (l *lan) heal(w way) { l.t.Helper(); l.send(w, hardware(w.to)) }

func (l *lan) send(w way, to string) {
	l.t.Helper()
	if addr := l.addrs[w.to]; addr != "" && l.addrs[w.from] != "" {
		l.must(l.hosts[w.from].ip(fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev eth0", addr, to)))
	}
}

// TestCutIsOneWayAndSilent shows what the partitions of these tests are made of.
func TestCutIsOneWayAndSilent(t *testing.T) {
	l := newLAN(t, 2)
	var udp [2]net.PacketConn
	for i, h := range l.hosts {
		l.must(h.do(func() (err error) {
			udp[i], err = net.ListenPacket("udp", l.addrs[i]+":9")
			return err
		}))
		defer udp[i].Close()
	}
	send := func(from int, text string) {
		t.Helper()
		if _, err := udp[from].WriteTo([]byte(text), udp[1-from].LocalAddr()); err != nil {
			t.Errorf("the sender of %q is told: %v", text, err)
		}
	}
	want := func(at int, text string) {
		t.Helper()
		b := make([]byte, 100)
		n, _, err := udp[at].ReadFrom(b)
		if err != nil || string(b[:n]) != text {
			t.Errorf("host %d got %q (%v), want %q", at, b[:n], err, text)
		}
	}
	l.cut(way{0, 1})
	send(0, "lost")
	send(1, "the other way")
	want(0, "the other way")
	l.heal(way{0, 1})
	send(0, "healed") // packets do not overtake each other here
	want(1, "healed")

	var dialed net.Conn
	var ln net.Listener
	l.must(l.hosts[0].do(func() (err error) { ln, err = net.Listen("tcp", l.addrs[0]+":9"); return err }))
	defer ln.Close()
	l.must(l.hosts[1].do(func() (err error) { dialed, err = net.Dial("tcp", ln.Addr().String()); return err }))
	defer dialed.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	echo := func(from, to net.Conn, text string) {
		t.Helper()
		b := make([]byte, 100)
		_, err := from.Write([]byte(text))
		n, err2 := to.Read(b)
		if err := errors.Join(err, err2); err != nil || string(b[:n]) != text {
			t.Errorf("got %q (%v), want %q", b[:n], err, text)
		}
	}
	echo(dialed, accepted, "before")
	l.cut(way{0, 1})
	echo(dialed, accepted, "one way")
	if _, err := accepted.Write([]byte("kept")); err != nil {
		t.Errorf("the sender is told: %v", err)
	}
	l.heal(way{0, 1})
	b := make([]byte, 100)
	if n, err := dialed.Read(b); err != nil || string(b[:n]) != "kept" {
		t.Errorf("after healing it got %q (%v)", b[:n], err)
	}
}
