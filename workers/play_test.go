package workers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pogod/internal/clock"
	"pogod/internal/link"
)

// playArg as the first argument makes the test binary play what the second names: a PHP
// host that speaks the link, or a node that runs such a host.
const playArg = "play"

func playing(t testing.TB, part string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, playArg, part}
}

// The leases whose interrupt tells a played host to die.
const (
	dieOfSegv = 1_000_000 + iota
	dieOfKill
	exit3
	panicOnNil
	panicPlainly
)

// tellPages is the slot whose interrupt makes a played host tell figures of pages: the
// lease is the number of requests.
const tellPages = 77

// broken is a file in the application with which no host gets ready.
const broken = "broken"

// play ends the process with a panic or by returning. A part may be several, joined by +.
func play(parts string) {
	if parts == "node" {
		playNode()
		return
	}
	plays := func(part string) bool { return slices.Contains(strings.Split(parts, "+"), part) }
	var spec link.HostSpec
	check(json.Unmarshal([]byte(os.Getenv(link.HostSpecEnv)), &spec))
	node, err := link.Dial(context.Background(), spec.Socket, link.RoleHost, spec.Name)
	check(err)
	say := func(lease int64, text string) {
		check(node.Send(link.Request(nil, link.Output).String("mail").Int(0).Int(lease).String(text)))
	}
	var ln net.Listener
	if spec.Web != nil {
		ln, err = net.FileListener(os.NewFile(3, "web"))
		check(err)
	}
	if _, err := os.Stat(filepath.Join(spec.App, broken)); err == nil && spec.App != "" {
		fmt.Fprintln(os.Stderr, "a warning\npogod: the worker is broken")
		os.Exit(3)
	}
	if plays("slow") { // it is ready when somebody has asked for a page
		say(0, "booting")
		c, err := ln.Accept()
		check(err)
		check(c.Close())
	}
	var own []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "POGOD_") {
			own = append(own, strings.SplitN(kv, "=", 2)[0])
		}
	}
	if spec.App != "" {
		say(0, fmt.Sprintf("paths %s %s %s", spec.App, spec.Web.Root, spec.Jobs[0].Script))
	}
	say(0, "environment "+strings.Join(own, ",")+" socket "+os.Getenv("POGOD_SOCKET"))
	fmt.Println("a line on standard output")
	check(node.Send(link.Request(nil, link.Ready).String("8.4.1")))
	for plays("deaf") {
		_ = syscall.Pause()
	}
	if plays("pages") {
		go func() { // ended with the process
			for {
				c, err := ln.Accept()
				check(err)
				_, err = c.Write([]byte("page\n"))
				check(err)
				check(c.Close())
			}
		}()
	}
	for {
		op, f, err := node.Receive()
		check(err)
		switch op {
		case link.Interrupt:
			slot, lease := f.Int(), f.Int()
			check(f.Done())
			die(lease)
			if slot == tellPages {
				text, err := json.Marshal(link.PageFigures{Requests: uint64(lease), Busy: 2, Waiting: 1, Ready: 3, Restarts: 1, Crashes: 2, Failed: 3, Error: "why", ErrorAt: lease})
				check(err)
				check(node.Send(link.Request(nil, link.Pages).Bytes(text)))
			}
			say(lease, fmt.Sprintf("interrupted in slot %d\nand a second line\n", slot))
		case link.Drain, link.Retire:
			if !plays("stubborn") {
				return
			}
			say(0, fmt.Sprintf("no to %d", op))
		case link.Hurry:
			say(0, "hurries")
		}
	}
}

func die(lease int64) {
	switch lease {
	case dieOfSegv: // Go's runtime would catch it
		check(syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -SEGV $$"}, os.Environ()))
	case dieOfKill:
		check(syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	case exit3:
		os.Exit(3)
	case panicOnNil:
		var p *link.HostSpec
		p.Name = "x"
	case panicPlainly:
		panic("no signal")
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// playNode runs a deaf host and tells its process id.
func playNode() {
	dir, err := os.MkdirTemp("", "p")
	check(err)
	b := &hostBench{}
	self, err := os.Executable()
	check(err)
	b.hosts = NewHosts(HostsConfig{
		Command: []string{self, playArg, "deaf"}, Hosts: []Host{{Spec: link.HostSpec{Name: "jobs", Socket: filepath.Join(dir, "s")}}},
		Named: func(uint64) (Named, bool) { return Named{}, false }, Clock: clock.System(), Log: slog.New(slog.DiscardHandler),
	})
	_, err = link.Listen(filepath.Join(dir, "s"), b, slog.New(slog.DiscardHandler))
	check(err)
	b.hosts.Start()
	check(b.hosts.WaitReady(context.Background()))
	check(b.hosts.Reload(context.Background())) // the deaf one before lives on
	check(os.RemoveAll(dir))
	for _, s := range b.hosts.Status() {
		fmt.Print(s.PID, " ")
	}
	fmt.Println()
	select {}
}

// hostBench is Hosts with one host, on a real link.
type hostBench struct {
	t     *testing.T
	hosts *Hosts
	clock *spyClock
	log   *sink
}

func (b *hostBench) Serve(c *link.Conn, op link.Op, f *link.Fields) error {
	return b.hosts.Serve(c, op, f)
}
func (b *hostBench) Closed(*link.Conn) {}

// newHostBench starts a host that plays a part; web is its listener or nil.
func newHostBench(t *testing.T, program []string, web *os.File, change ...func(*HostsConfig)) *hostBench {
	t.Helper()
	b := &hostBench{t: t, clock: newSpyClock(), log: newSink()}
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	spec := link.HostSpec{Name: "jobs", Socket: filepath.Join(dir, "s")}
	if web != nil {
		spec.Web = &link.WebSpec{}
	}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	cfg := HostsConfig{
		Command: program, Hosts: []Host{{Spec: spec, Listener: web}}, Clock: b.clock, Log: log,
		Named: func(lease uint64) (Named, bool) {
			return Named{"q", "1763849472123-57", 2}, lease == 58
		},
		Printed: func(lease uint64, text string) { fmt.Fprintf(b.log, "printed %d %q\n", lease, text) },
	}
	for _, f := range change {
		f(&cfg)
	}
	b.hosts = NewHosts(cfg)
	server, err := link.Listen(spec.Socket, b, log)
	if err != nil {
		t.Fatal(err)
	}
	b.hosts.Start()
	t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		b.hosts.Stop(over)
		server.Close()
		_ = os.RemoveAll(dir)
	})
	return b
}

// await waits until the host's status is as ok wants.
func (b *hostBench) await(what string, ok func(s HostStatus) bool) HostStatus {
	b.t.Helper()
	late := time.After(patience)
	for {
		b.hosts.mu.Lock()
		changed := b.hosts.changed
		b.hosts.mu.Unlock()
		s := b.hosts.Status()[0] // that new work goes to
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-late:
			b.t.Fatalf("waited in vain: %s; it is %+v", what, b.hosts.Status())
		}
	}
}

// ready waits for a process other than the one before.
func (b *hostBench) ready(before int) HostStatus {
	b.t.Helper()
	return b.await("ready", func(s HostStatus) bool { return s.State == hostReady && s.PID != before })
}

// sink keeps what is logged.
type sink struct {
	mu      sync.Mutex // guards the rest
	text    bytes.Buffer
	changed chan struct{} // closed and made anew at every line
}

func newSink() *sink { return &sink{changed: make(chan struct{})} }

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return s.text.Write(p)
}

// await waits for a line that holds all parts, and returns it.
func (s *sink) await(t *testing.T, parts ...string) string {
	t.Helper()
	late := time.After(patience)
	for {
		s.mu.Lock()
		text, changed := s.text.String(), s.changed
		s.mu.Unlock()
	lines:
		for line := range strings.Lines(text) {
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue lines
				}
			}
			return line
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("no line with %q in\n%s", parts, text)
		}
	}
}
