package workers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pogod/internal/clock"
	"pogod/internal/link"
)

// Host is one PHP host to run.
type Host struct {
	Spec     link.HostSpec
	Listener *os.File // of the web side, handed over at descriptor 3; nil for none
	OnDemand bool     // not started by Start but by Demand
}

// Exit is how a PHP host ended.
type Exit struct {
	How     string
	Planned bool // the node ended it, so its jobs were only interrupted
}

// HostsConfig configures Hosts.
type HostsConfig struct {
	Command []string // the program of a host and its arguments: this binary and "php-host"
	Hosts   []Host
	// Named tells which job runs, or ran lately, under a lease, for the output that a
	// host sends.
	Named func(lease uint64) (Named, bool)
	// Printed takes what the attempt with a lease printed, to be kept with its job; nil:
	// nobody does.
	Printed func(lease uint64, text string)
	Clock   clock.Clock
	Log     *slog.Logger
}

// Host states.
const (
	hostStarting = "starting"
	hostReady    = "ready"
	hostWaiting  = "waiting to restart"
	hostStopped  = "stopped"
)

// A host that lived shorter than steadyAfter is started again after a pause that
// doubles from firstPause to longestPause; another at once.
const (
	steadyAfter  = 5 * time.Second
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
)

// HostStatus is what status tells of a host.
type HostStatus struct {
	Name      string
	PID       int
	State     string
	StartedAt time.Time
	Restarts  uint64
	LastExit  string // how the process before this one ended, "" if there was none
	Version   string // of PHP, "" before the host is ready
}

// Hosts runs the PHP hosts, starts them again when they end, and ends with them.
type Hosts struct {
	cfg   HostsConfig
	hosts []*host
	wg    sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the fields of host
	byPID    map[int]*life
	stopping bool
	quit     chan struct{} // closed when stopping
	changed  chan struct{} // closed and made anew when a host's state changes
}

// host is one entry of the configuration, through its processes.
type host struct {
	Host
	state    string
	now      *life // the present process, nil between two
	before   *life // the last that ended, kept in byPID for those who ask how
	restarts uint64
	lastExit string
}

// life is one process of a host.
type life struct {
	host    *host
	pid     int
	process *os.Process
	started time.Time
	control *link.Conn    // nil until it said Ready
	ended   chan struct{} // closed with exit set
	exit    Exit
	killed  bool   // by Stop
	version string // of its PHP; "" until it is ready
	banner  string // what Go's runtime printed of a fatal signal
}

// NewHosts returns the hosts, not yet started.
func NewHosts(cfg HostsConfig) *Hosts {
	h := &Hosts{cfg: cfg, byPID: map[int]*life{}, quit: make(chan struct{}), changed: make(chan struct{})}
	for _, x := range cfg.Hosts {
		state := hostStarting
		if x.OnDemand {
			state = hostStopped
		}
		h.hosts = append(h.hosts, &host{Host: x, state: state})
	}
	return h
}

// Start starts the hosts, which connect to the node's link. Stop ends them. It is to be
// called once, before Stop.
func (h *Hosts) Start() {
	for _, x := range h.hosts {
		if !x.OnDemand {
			h.wg.Add(1)
			go h.keep(x) // ended by Stop
		}
	}
}

// Demand starts an on-demand host, if it does not run. It is ended by Stop.
func (h *Hosts) Demand(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.hosts {
		if x.Spec.Name == name && x.OnDemand && x.state == hostStopped && !h.stopping {
			x.state = hostStarting
			h.wg.Add(1)
			go h.keep(x) // ended by Stop
		}
	}
}

// keep runs a host's processes, one after the other.
func (h *Hosts) keep(x *host) {
	defer h.wg.Done()
	// The parent-death signal follows the thread that started the child, so this one
	// must live as long as the child.
	runtime.LockOSThread()
	pause := firstPause
	for {
		started := h.cfg.Clock.Now()
		how, err := h.runOnce(x)
		if err != nil {
			how = err.Error()
		}
		lived := h.cfg.Clock.Now().Sub(started)
		h.mu.Lock()
		stopping := h.stopping
		x.lastExit, x.now = how, nil
		x.state = hostWaiting
		if stopping {
			x.state = hostStopped
		} else {
			x.restarts++
		}
		h.announceLocked()
		h.mu.Unlock()
		if stopping {
			return
		}
		if lived >= steadyAfter {
			pause = firstPause
			h.cfg.Log.Error("a PHP host ended and is started again", "host", x.Spec.Name, "by", how)
			continue
		}
		h.cfg.Log.Error("a PHP host ended and is started again after a pause", "host", x.Spec.Name, "by", how, "pause", pause)
		if !h.sleep(pause) {
			h.mu.Lock()
			x.state = hostStopped
			h.announceLocked()
			h.mu.Unlock()
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// sleep waits for d; false when the hosts are stopping.
func (h *Hosts) sleep(d time.Duration) bool {
	over := make(chan struct{})
	t := h.cfg.Clock.AfterFunc(d, func() { close(over) })
	defer t.Stop()
	select {
	case <-over:
		return true
	case <-h.quit:
		return false
	}
}

// runOnce runs one process to its end and says how it ended.
func (h *Hosts) runOnce(x *host) (how string, err error) {
	spec, err := json.Marshal(x.Spec)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(h.cfg.Command[0], h.cfg.Command[1:]...)
	cmd.Env = append(environment(os.Environ()), "POGOD_SOCKET="+x.Spec.Socket, link.HostSpecEnv+"="+string(spec))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = endedWithin / 2 // a grandchild may keep the pipe open
	if x.Listener != nil {
		cmd.ExtraFiles = []*os.File{x.Listener}
	}
	l := &life{host: x, started: h.cfg.Clock.Now(), ended: make(chan struct{})}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var output sync.WaitGroup
	output.Add(1)
	go func() { // ended by closing w
		defer output.Done()
		h.copyOutput(x.Spec.Name, l, r)
	}()
	h.mu.Lock()
	if h.stopping {
		h.mu.Unlock()
		_ = w.Close()
		output.Wait()
		return "", errors.New("stopped")
	}
	if err := cmd.Start(); err != nil {
		h.mu.Unlock()
		_ = w.Close()
		output.Wait()
		return "", fmt.Errorf("start PHP host %s: %w", x.Spec.Name, err)
	}
	l.pid, l.process = cmd.Process.Pid, cmd.Process
	h.byPID[l.pid] = l
	x.now, x.state = l, hostStarting
	h.announceLocked()
	h.mu.Unlock()

	_ = cmd.Wait() // what it says is in ProcessState
	_ = w.Close()
	output.Wait()
	h.mu.Lock()
	l.exit.How = exitReason(cmd.ProcessState, l.banner)
	l.exit.Planned = l.killed || h.stopping && l.exit.How == "exit code 0"
	close(l.ended)
	if x.before != nil && h.byPID[x.before.pid] == x.before {
		delete(h.byPID, x.before.pid)
	}
	x.before = l
	h.mu.Unlock()
	return l.exit.How, nil
}

// environment passes all variables but pogod's own.
func environment(all []string) []string {
	kept := make([]string, 0, len(all))
	for _, kv := range all {
		if !strings.HasPrefix(kv, "POGOD_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

var fatalSignal = regexp.MustCompile(`^(SIG[A-Z]+)[: ]|^\[signal (SIG[A-Z]+)`)

// copyOutput logs what a host writes to its standard output and error, longer lines in
// pieces of 64 KiB.
func (h *Hosts) copyOutput(name string, l *life, r io.Reader) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		piece, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil
		}
		if line := strings.TrimRight(string(piece), "\r\n"); line != "" {
			if m := fatalSignal.FindStringSubmatch(line); m != nil && l.banner == "" {
				l.banner = m[1] + m[2]
			}
			h.cfg.Log.Info(line, "host", name)
		}
		if err != nil {
			return
		}
	}
}

// exitReason says how a process ended. A crash in C code of a Go process is caught by
// Go's runtime, which prints the signal and exits with 2.
func exitReason(st *os.ProcessState, banner string) string {
	if st == nil {
		return "an unknown cause"
	}
	ws, ok := st.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return signalName(ws.Signal())
	}
	if st.ExitCode() == 2 && banner != "" {
		return banner
	}
	return fmt.Sprintf("exit code %d", st.ExitCode())
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// Serve handles a frame of a control connection.
func (h *Hosts) Serve(c *link.Conn, op link.Op, f *link.Fields) error {
	switch op {
	case link.Ready:
		version := f.String()
		if err := f.Done(); err != nil {
			return err
		}
		h.mu.Lock()
		l := h.byPID[c.Peer.PID]
		if l != nil {
			l.control, l.version = c, version
			l.host.state = hostReady
			h.announceLocked()
		}
		stopping := h.stopping
		h.mu.Unlock()
		if stopping {
			return c.Send(link.Request(nil, link.Drain)) // it was not there to hear it
		}
		if l != nil {
			h.cfg.Log.Info("PHP host is ready", "host", l.host.Spec.Name, "pid", l.pid, "php", version)
		}
		return nil
	case link.Output:
		worker, _, lease, text := f.String(), f.Int(), f.Int(), f.String()
		if err := f.Done(); err != nil {
			return err
		}
		h.output(worker, uint64(lease), text)
		return nil
	case link.Sync:
		number := f.Int()
		if err := f.Done(); err != nil {
			return err
		}
		return c.Send(link.Request(nil, link.Synced).Int(number))
	case link.Access:
		lines := f.String()
		if err := f.Done(); err != nil {
			return err
		}
		return h.access(lines)
	}
	return fmt.Errorf("%w: operation %d on a control connection", link.ErrFrame, op)
}

// output logs what a worker printed, with the job that printed it.
func (h *Hosts) output(worker string, lease uint64, text string) {
	if h.cfg.Printed != nil && lease != 0 {
		h.cfg.Printed(lease, text)
	}
	attrs := []any{"worker", worker}
	if n, ok := h.cfg.Named(lease); ok {
		attrs = append(attrs, "queue", n.Queue, "job", n.Job, "attempt", n.Attempt)
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			h.cfg.Log.Info(strings.ToValidUTF8(line, "\uFFFD"), attrs...)
		}
	}
}

// Interrupt stops an attempt in the host with that process id, if it still runs there.
func (h *Hosts) Interrupt(pid int, slot int64, lease uint64) {
	h.mu.Lock()
	l := h.byPID[pid]
	var c *link.Conn
	if l != nil {
		c = l.control
	}
	h.mu.Unlock()
	if c != nil {
		_ = c.Send(link.Request(nil, link.Interrupt).Int(slot).Int(int64(lease))) // a host that is gone runs nothing
	}
}

// endedWithin is how long Ended waits for a process whose connection was lost.
const endedWithin = time.Second

// Ended waits a moment for the end of a host and says how it ended.
func (h *Hosts) Ended(pid int) (e Exit, ok bool) {
	h.mu.Lock()
	l := h.byPID[pid]
	h.mu.Unlock()
	if l == nil {
		return Exit{}, false
	}
	over := make(chan struct{})
	t := h.cfg.Clock.AfterFunc(endedWithin, func() { close(over) })
	defer t.Stop()
	select {
	case <-l.ended:
		return l.exit, true
	case <-over:
		return Exit{}, false
	}
}

// Status of all hosts.
func (h *Hosts) Status() []HostStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]HostStatus, 0, len(h.hosts))
	for _, x := range h.hosts {
		s := HostStatus{Name: x.Spec.Name, State: x.state, Restarts: x.restarts, LastExit: x.lastExit}
		if x.now != nil {
			s.PID, s.StartedAt, s.Version = x.now.pid, x.now.started, x.now.version
		}
		all = append(all, s)
	}
	return all
}

// NotReady names the hosts that do not serve now, "" when all do.
func (h *Hosts) NotReady() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, x := range h.hosts {
		if x.state != hostReady && !x.OnDemand {
			names = append(names, fmt.Sprintf("PHP host %s is %s", x.Spec.Name, x.state))
		}
	}
	return strings.Join(names, "; ")
}

// announceLocked wakes WaitReady. mu is held.
func (h *Hosts) announceLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// WaitReady waits until all hosts are ready or ctx ends.
func (h *Hosts) WaitReady(ctx context.Context) error {
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		missing := h.NotReady()
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", missing, ctx.Err())
		}
	}
}

// Drain tells all hosts to take no new requests and to end when they are idle. They are
// not started again.
func (h *Hosts) Drain() {
	h.mu.Lock()
	if !h.stopping {
		h.stopping = true
		close(h.quit)
	}
	var controls []*link.Conn
	for _, l := range h.byPID {
		if l.control != nil {
			controls = append(controls, l.control)
		}
	}
	h.mu.Unlock()
	for _, c := range controls {
		_ = c.Send(link.Request(nil, link.Drain)) // a host that is gone has drained
	}
}

// Stop drains, waits until the hosts have ended or ctx ends, and kills what is left.
func (h *Hosts) Stop(ctx context.Context) {
	h.Drain()
	over := make(chan struct{})
	go func() { // ended by the hosts' ends, which the kill below brings about
		h.wg.Wait()
		close(over)
	}()
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	h.mu.Lock()
	for _, l := range h.byPID {
		l.killed = true
		_ = l.process.Kill() // one that has ended meanwhile is what we want
	}
	h.mu.Unlock()
	<-over
}
