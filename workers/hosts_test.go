package workers

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pogod/internal/link"
)

func TestHostIsStartedAgainAndSaysHowItEnded(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "host"), nil)
	pause := firstPause
	before := 0
	for i, c := range []struct {
		lease uint64
		how   string
	}{
		{dieOfSegv, "SIGSEGV"},
		{dieOfKill, "SIGKILL"},
		{exit3, "exit code 3"},
		{panicOnNil, "SIGSEGV"},
		{panicPlainly, "exit code 2"},
	} {
		s := b.ready(before)
		if s.Name != "jobs" || s.Restarts != uint64(i) || !s.StartedAt.Equal(b.clock.Now()) {
			t.Errorf("%+v", s)
		}
		if missing := b.hosts.NotReady(); missing != "" {
			t.Error(missing)
		}
		b.hosts.Interrupt(s.PID, 0, c.lease)
		down := b.await("its end", func(now HostStatus) bool { return now.State == hostWaiting })
		if down.LastExit != c.how || down.PID != 0 {
			t.Errorf("%+v, want %s", down, c.how)
		}
		if missing := b.hosts.NotReady(); missing != "PHP host jobs is waiting to restart (last exit: "+c.how+")" {
			t.Error(missing)
		}
		// A connection that was lost asks late.
		if e, ok := b.hosts.Ended(s.PID); e != (Exit{How: c.how}) || !ok {
			t.Errorf("Ended says %+v %v, not %s", e, ok, c.how)
		}
		b.clock.await(t, pause)
		b.clock.Advance(pause)
		pause = min(2*pause, readyPause) // or it would not be back within a second
		before = s.PID
	}
	// One that lived is started again at once, and the pauses begin anew.
	s := b.ready(before)
	b.clock.Advance(steadyAfter)
	b.hosts.Interrupt(s.PID, 0, dieOfKill)
	s = b.ready(s.PID)
	b.hosts.Interrupt(s.PID, 0, dieOfKill)
	b.clock.await(t, firstPause)
}

func TestEndedOfWhatLives(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "host"), nil)
	s := b.ready(0)
	if e, ok := b.hosts.Ended(os.Getpid()); ok {
		t.Error("no host of ours:", e)
	}
	answer := make(chan bool)
	go func() { // ended by the clock
		_, ok := b.hosts.Ended(s.PID)
		answer <- ok
	}()
	b.clock.await(t, endedWithin)
	b.clock.Advance(endedWithin)
	if <-answer {
		t.Error("it lives")
	}
	// Asked before the end is seen.
	go func() { // ended by the host's end
		e, ok := b.hosts.Ended(s.PID)
		answer <- ok && e == Exit{How: "SIGKILL"}
	}()
	b.clock.await(t, endedWithin)
	b.hosts.Interrupt(s.PID, 0, dieOfKill)
	if !<-answer {
		t.Error("how it ended")
	}
}

func TestPausesGrowToTheLongest(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, []string{"/nonexistent"}, nil)
	for _, pause := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000} {
		b.clock.await(t, pause*time.Millisecond)
		b.clock.Advance(pause * time.Millisecond)
	}
	s := b.await("a ninth restart", func(s HostStatus) bool { return s.Restarts >= 9 })
	if !strings.Contains(s.LastExit, "start PHP host jobs") {
		t.Errorf("%+v", s)
	}
}

func TestInterruptsArriveAndOutputIsLogged(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "host"), nil)
	s := b.ready(0)
	b.hosts.Interrupt(s.PID, 4, 58)
	for _, text := range []string{`msg="interrupted in slot 4"`, `msg="and a second line"`} {
		line := b.log.await(t, text)
		if !strings.Contains(line, "worker=mail queue=q job=1763849472123-57 attempt=2") {
			t.Error(line)
		}
	}
	b.log.await(t, `msg="a line on standard output" host=jobs`)
	b.log.await(t, `PHP host is ready`, "pid="+strconv.Itoa(s.PID))
	b.hosts.Interrupt(os.Getpid(), 4, 58) // no host: nothing happens
}

func TestEnvironmentHoldsNothingOfTheNode(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "host"), nil)
	line := b.log.await(t, "environment ")
	if !strings.Contains(line, "environment POGOD_SOCKET,POGOD_HOST_SPEC socket /") {
		t.Error(line)
	}
	if os.Getenv("POGOD_TEST_SECRET") == "" {
		t.Error("there was nothing to keep")
	}
}

func listen(t *testing.T) (addr string, file *os.File) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if file, err = ln.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	_ = ln.Close() // the file is a handle of its own
	t.Cleanup(func() { _ = file.Close() })
	return addr, file
}

// A connection made while no host is there waits for the next one.
func TestListenerIsHandedOverAcrossRestarts(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	b := newHostBench(t, playing(t, "pages"), file)
	page := func() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		if text, err := io.ReadAll(c); string(text) != "page\n" || err != nil {
			t.Error(string(text), err)
		}
	}
	s := b.ready(0)
	page()
	b.hosts.Interrupt(s.PID, 0, dieOfKill)
	b.clock.await(t, firstPause)
	done := make(chan struct{})
	go func() { // ended by the page
		page()
		close(done)
	}()
	b.clock.Advance(firstPause)
	<-done
}

func TestStopLetsHostsDrain(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "host"), nil)
	b.ready(0)
	if s := b.hosts.Status()[0]; s.Version != "8.4.1" {
		t.Errorf("PHP %q", s.Version)
	}
	b.hosts.Stop(t.Context())
	s := b.hosts.Status()[0]
	if s.State != hostStopped || s.LastExit != "exit code 0" || s.Restarts != 0 || s.PID != 0 {
		t.Errorf("%+v", s)
	}
	if err := b.hosts.WaitReady(over(t)); err == nil || !strings.Contains(err.Error(), "PHP host jobs is stopped") {
		t.Error(err)
	}
}

func over(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestStopKillsWhatDoesNotDrain(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "stubborn"), nil)
	b.ready(0)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { // ended by the kill
		b.hosts.Stop(ctx)
		close(stopped)
	}()
	b.log.await(t, `msg="no to 33"`)
	b.hosts.Hurry()
	b.log.await(t, "msg=hurries")
	select {
	case <-stopped:
		t.Fatal("it did not wait")
	default:
	}
	cancel()
	<-stopped
	if s := b.hosts.Status()[0]; s.State != hostStopped || s.LastExit != "SIGKILL" {
		t.Errorf("%+v", s)
	}
}

func TestHostThatGetsReadyWhileStoppingIsDrained(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	b := newHostBench(t, playing(t, "slow"), file)
	b.log.await(t, "msg=booting")
	b.hosts.Drain()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b.hosts.Stop(ctx)
	if s := b.hosts.Status()[0]; s.LastExit != "exit code 0" {
		t.Errorf("%+v", s)
	}
}

func TestStopDuringPause(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, []string{"/nonexistent"}, nil)
	b.clock.await(t, firstPause)
	b.hosts.Stop(t.Context())
	if s := b.hosts.Status()[0]; s.State != hostStopped {
		t.Errorf("%+v", s)
	}
}

// The node is killed and its host, two lives of it, which do not look at the control
// connection, die with it.
func TestHostDiesWithItsNode(t *testing.T) {
	t.Parallel()
	program := playing(t, "node")
	cmd := exec.Command(program[0], program[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	var watch []unix.PollFd
	for _, word := range strings.Fields(line) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		pids = append(pids, pid)
		watch = append(watch, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if n, _ := unix.Poll(watch, 0); n != 0 || len(pids) != 2 {
		t.Fatal("dead already, or not two lives:", line)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for i, pid := range pids {
		if n, err := unix.Poll(watch[i:i+1], int(patience.Milliseconds())); n != 1 {
			t.Error("it lives on", err)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func TestForeignFramesAreRefused(t *testing.T) {
	t.Parallel()
	h := NewHosts(HostsConfig{Clock: newSpyClock(), Log: nil})
	for name, f := range map[string]struct {
		op     link.Op
		fields []byte
	}{
		"a push":            {link.Push, nil},
		"bytes after Ready": {link.Ready, []byte{0, 0, 0, 0, 1}},
		"half an Output":    {link.Output, []byte{4, 0, 0, 0}},
	} {
		if err := h.Serve(&link.Conn{}, f.op, link.NewFields(f.fields)); err == nil {
			t.Error(name)
		}
	}
}
