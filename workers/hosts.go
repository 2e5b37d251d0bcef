package workers

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"pogod/internal/clock"
	"pogod/internal/link"
)

// Host is one PHP host to run.
type Host struct {
	Spec     link.HostSpec // its paths are resolved, symlinks too, at each start of a process
	Listener *os.File      // of the web side, handed over at descriptor 3; nil for none
	OnDemand bool          // runs only while Demand asks for it
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
	// Leave is told the process id of a host that gets no new jobs from now on, and Left
	// that it has ended. nil: nobody is told.
	Leave, Left func(pid int)
	Clock       clock.Clock
	Log         *slog.Logger
}

// Timings of hosts.
const (
	// A host that ended before it was ready, or sooner than steadyAfter behind it, is
	// started again after a pause that doubles from firstPause to longestPause, or to
	// readyPause when it was ready: jobs that crash may come one after the other, and it is
	// to be back within a second. Another is started again at once.
	steadyAfter  = 500 * time.Millisecond
	firstPause   = 100 * time.Millisecond
	readyPause   = 400 * time.Millisecond
	longestPause = 10 * time.Second

	demandedFor = time.Minute // how long a host on demand is kept after the last Demand
	readyWithin = time.Minute // what a replacement has to get ready, before it is given up
	keptEnded   = 8           // lives of a host whose end is remembered
)

// Hosts runs the PHP hosts, starts them again when they end, replaces them, and ends with
// them. Each process of a host is a life of it. A host has one life that new work goes
// to, perhaps its replacement, which is not ready yet, and any number that only finish
// what they run.
type Hosts struct {
	cfg   HostsConfig
	hosts []*host
	wg    sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the fields of host and life
	byPID    map[int]*life
	stopping bool
	changed  chan struct{} // closed and made anew when a host's state changes
}

// host is one entry of the configuration, through its lives.
type host struct {
	Host               // guarded by mu too; Spec.Name stays
	wake chan struct{} // holds one signal: keep is to look again
	gone bool          // no longer configured: it ends with its last life

	now      *life   // that new work goes to, starting or ready; nil between two
	next     *life   // its replacement, which starts; nil: none
	lives    []*life // all that run
	ended    []*life // the last keptEnded that do not
	wanted   uint64  // generation: the number of reloads asked for
	started  uint64  // generation of the life that was started last
	failed   uint64  // the newest generation of which a life ended before it was ready
	failure  string  // how that ended
	until    time.Time
	pause    time.Duration // the next one
	resume   time.Time     // end of the present pause
	restarts uint64
	lastExit string
	pages    PageStatus // counters of all its lives, and the last error
}

// NewHosts returns the hosts, not yet started.
func NewHosts(cfg HostsConfig) *Hosts {
	nobody := func(int) {}
	if cfg.Leave == nil {
		cfg.Leave = nobody
	}
	if cfg.Left == nil {
		cfg.Left = nobody
	}
	h := &Hosts{cfg: cfg, byPID: map[int]*life{}, changed: make(chan struct{})}
	for _, x := range cfg.Hosts {
		h.hosts = append(h.hosts, newHost(x))
	}
	return h
}

func newHost(x Host) *host {
	return &host{Host: x, wake: make(chan struct{}, 1), wanted: 1, pause: firstPause}
}

// Start starts the hosts, which connect to the node's link. Stop ends them. It is to be
// called once, before Stop.
func (h *Hosts) Start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.hosts {
		h.wg.Add(1)
		go h.keep(x) // ended by Stop
	}
}

func (x *host) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// keep starts a host's lives when they are due, until the hosts stop, or this one is gone,
// and the last has ended.
func (h *Hosts) keep(x *host) {
	defer h.wg.Done()
	for {
		h.mu.Lock()
		now := h.cfg.Clock.Now()
		due, leaving, wait := h.steerLocked(x, now)
		done := (h.stopping || x.gone) && len(x.lives) == 0
		if done && x.gone {
			h.forgetLocked(x)
		}
		h.mu.Unlock()
		if done {
			return
		}
		h.dismiss(link.Retire, leaving)
		if due != nil {
			h.wg.Add(1)
			go h.live(due) // ended with its process
			continue
		}
		if wait == 0 {
			<-x.wake
			continue
		}
		t := h.cfg.Clock.AfterFunc(wait, x.signal)
		if h.cfg.Clock.Now().Sub(now) >= wait { // it passed before the timer was set
			x.signal()
		}
		<-x.wake
		t.Stop()
	}
}

// steerLocked decides what a host needs now: a life to be started, lives to be let go, or
// to look again after a while (0: when something happens). mu is held.
func (h *Hosts) steerLocked(x *host, now time.Time) (due *life, leaving []*life, wait time.Duration) {
	if h.stopping || x.gone {
		return nil, nil, 0
	}
	if x.OnDemand {
		if wait = x.until.Sub(now); wait <= 0 {
			leaving = x.letGoLocked(x.now, x.next)
			x.now, x.next = nil, nil
			if len(leaving) > 0 {
				h.announceLocked()
			}
			return nil, leaving, 0
		}
	}
	switch pause := x.resume.Sub(now); {
	case x.now == nil && pause > 0:
		if wait == 0 || pause < wait {
			wait = pause
		}
	case x.now == nil:
		x.now = h.newLifeLocked(x)
		due = x.now
	case x.next == nil && x.now.ready && x.started < x.wanted:
		x.next = h.newLifeLocked(x)
		due = x.next
	}
	return due, nil, wait
}

func (h *Hosts) newLifeLocked(x *host) *life {
	l := &life{host: x, spec: x.Spec, listener: x.Listener, generation: x.wanted, started: h.cfg.Clock.Now(), ended: make(chan struct{})}
	x.started = x.wanted
	x.lives = append(x.lives, l)
	h.announceLocked()
	return l
}

// letGoLocked marks lives as leaving and returns those that were not; nil ones are
// skipped.
func (x *host) letGoLocked(lives ...*life) (leaving []*life) {
	for _, l := range lives {
		if l != nil && !l.leaving {
			l.leaving = true
			leaving = append(leaving, l)
		}
	}
	return leaving
}

// dismiss tells lives to end when they are idle: op is Retire or Drain. One that is not
// ready yet is told when it is. Who gives them work is told of those that retire: in a
// drain of all he knows himself, and when. mu is not held.
func (h *Hosts) dismiss(op link.Op, lives []*life) {
	for _, l := range lives {
		h.mu.Lock()
		c, pid := l.control, l.pid
		h.mu.Unlock()
		if c != nil {
			_ = c.Send(link.Request(nil, op)) // a host that is gone has drained
		}
		if pid != 0 && op == link.Retire {
			h.cfg.Leave(pid)
		}
	}
}

// Serve handles a frame of a control connection.
func (h *Hosts) Serve(c *link.Conn, op link.Op, f *link.Fields) error {
	switch op {
	case link.Ready:
		version := f.String()
		if err := f.Done(); err != nil {
			return err
		}
		return h.isReady(c, version)
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
	case link.Pages:
		figures := f.Bytes()
		if err := f.Done(); err != nil {
			return err
		}
		return h.pages(c, figures)
	}
	return fmt.Errorf("%w: operation %d on a control connection", link.ErrFrame, op)
}

// isReady takes the word of a life that it serves. A replacement takes over.
func (h *Hosts) isReady(c *link.Conn, version string) error {
	h.mu.Lock()
	l := h.byPID[c.Peer.PID]
	if l == nil {
		stopping := h.stopping
		h.mu.Unlock()
		if stopping {
			return c.Send(link.Request(nil, link.Drain))
		}
		return nil
	}
	x := l.host
	l.control, l.version, l.ready, l.readyAt = c, version, true, h.cfg.Clock.Now()
	var leaving []*life
	if x.next == l {
		leaving = x.letGoLocked(x.now)
		x.now, x.next = l, nil
	}
	unheard := l.leaving // it was not there to hear it
	op := link.Retire
	if h.stopping {
		op = link.Drain
	}
	h.announceLocked()
	x.signal()
	h.mu.Unlock()
	if unheard {
		return c.Send(link.Request(nil, op))
	}
	h.cfg.Log.Info("PHP host is ready", "host", l.spec.Name, "pid", l.pid, "php", version)
	h.dismiss(link.Retire, leaving)
	return nil
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

// Ended waits a moment for the end of a host and says how it ended; ok is false when it
// lives on or is no host.
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

// Replace lets the process with that id finish what it runs, and starts another at once,
// which new work goes to. It reports whether the process is a PHP host.
func (h *Hosts) Replace(pid int, why string) bool {
	h.mu.Lock()
	l := h.byPID[pid]
	if l == nil {
		h.mu.Unlock()
		return false
	}
	x := l.host
	leaving := x.letGoLocked(l)
	switch l {
	case x.now:
		x.now, x.next = x.next, nil
	case x.next:
		x.next = nil
	}
	if len(leaving) > 0 {
		x.restarts++
		h.announceLocked()
		x.signal()
	}
	h.mu.Unlock()
	if len(leaving) > 0 {
		h.cfg.Log.Error("a PHP host is replaced", "host", l.spec.Name, "pid", pid, "because", why)
	}
	h.dismiss(link.Retire, leaving)
	return true
}

// Kill ends the process with that id at once, if it is a PHP host.
func (h *Hosts) Kill(pid int, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.byPID[pid]; l != nil {
		l.killLocked(why)
	}
}

// Demand starts the host on demand with that name, if it does not run, and keeps it for a
// minute from now.
func (h *Hosts) Demand(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.hosts {
		if x.OnDemand && !x.gone && x.Spec.Name == name {
			x.until = h.cfg.Clock.Now().Add(demandedFor)
			x.signal()
		}
	}
}

// announceLocked wakes WaitReady and Reload. mu is held.
func (h *Hosts) announceLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Drain tells all hosts to take no new requests and to end when they are idle. They are
// not started again.
func (h *Hosts) Drain() {
	h.mu.Lock()
	h.stopping = true
	var all []*life
	for _, x := range h.hosts {
		x.letGoLocked(x.lives...)
		all = append(all, x.lives...) // those that leave already are to know that nobody takes over
		x.signal()
	}
	h.announceLocked()
	h.mu.Unlock()
	h.dismiss(link.Drain, all)
}

// Hurry tells the hosts that drain to wait for no client whose connection is idle. Those that
// are not ready yet have none. Drain first.
func (h *Hosts) Hurry() {
	h.mu.Lock()
	var all []*life
	for _, x := range h.hosts {
		all = append(all, x.lives...)
	}
	h.mu.Unlock()
	h.dismiss(link.Hurry, all)
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
	for _, x := range h.hosts {
		for _, l := range slices.Clone(x.lives) {
			l.killLocked("")
		}
	}
	h.mu.Unlock()
	<-over
}
