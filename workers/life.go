package workers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pogod/internal/link"
)

// Exit is how a PHP host ended.
type Exit struct {
	How string // "SIGSEGV", "exit code 3"
	// Planned: the node had it end or killed it, so what it ran was merely interrupted.
	// Otherwise it crashed, and each job that it ran may be the cause.
	Planned bool
}

// life is one process of a host. Its fields are guarded by Hosts.mu, but for banner and
// lastLine, which belong to copyOutput until the process has ended.
type life struct {
	host       *host
	spec       link.HostSpec // as it was configured at the start
	listener   *os.File      // likewise
	generation uint64        // how many reloads had been asked for when it was started
	started    time.Time
	pid        int // 0 before the process was started
	process    *os.Process
	control    *link.Conn // nil until it said Ready
	ready      bool
	readyAt    time.Time
	version    string           // of its PHP; "" until it is ready
	pages      link.PageFigures // of a web host, as it told them last
	leaving    bool             // gets no new work, and ends when it is idle
	killed     bool             // by the node
	why        string           // it was killed
	ended      chan struct{}
	exit       Exit   // set when ended is closed
	banner     string // what Go's runtime printed of a fatal signal
	lastLine   string // that it printed
}

func (l *life) state() string {
	switch {
	case l.leaving:
		return hostDraining
	case l.ready:
		return hostReady
	}
	return hostStarting
}

// killLocked ends the process. Hosts.mu is held.
func (l *life) killLocked(why string) {
	if l.process != nil && !l.killed {
		l.killed, l.why = true, why
		_ = l.process.Kill() // one that has ended meanwhile is what we want
	}
}

// live runs a life from its start to its end.
func (h *Hosts) live(l *life) {
	defer h.wg.Done()
	// The parent-death signal follows the thread that started the child, so this one
	// must live as long as the child; it ends with this goroutine.
	runtime.LockOSThread()
	slow := h.cfg.Clock.AfterFunc(readyWithin, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if l.host.next == l {
			l.killLocked(fmt.Sprintf("it was not ready within %s", readyWithin))
		}
	})
	state, err := h.run(l)
	slow.Stop()
	h.mu.Lock()
	l.exit = Exit{How: exitReason(state, l.banner)}
	switch {
	case err != nil:
		l.exit.How = err.Error()
	case l.killed && l.why != "":
		l.exit.How += " by the node: " + l.why
	case !l.ready && state.Exited() && !state.Success() && l.banner == "" && l.lastLine != "":
		l.exit.How += ": " + strings.TrimPrefix(l.lastLine, "pogod: ") // a program that does not start says why
	}
	// One that was told to leave and crashed has crashed.
	l.exit.Planned = l.killed || l.leaving && err == nil && state.Success()
	close(l.ended)
	h.lostLocked(l)
	h.mu.Unlock()
	if l.pid != 0 {
		h.cfg.Left(l.pid)
	}
}

// lostLocked takes a life that has ended out of its host, and says when the next is due.
// mu is held.
func (h *Hosts) lostLocked(l *life) {
	x := l.host
	now := h.cfg.Clock.Now()
	x.lives = slices.DeleteFunc(x.lives, func(other *life) bool { return other == l })
	if x.ended = append(x.ended, l); len(x.ended) > keptEnded {
		if old := x.ended[0]; h.byPID[old.pid] == old {
			delete(h.byPID, old.pid)
		}
		x.ended = x.ended[1:]
	}
	x.lastExit = l.exit.How
	if !l.ready && l.generation > x.failed {
		x.failed = l.generation
	}
	if !l.ready {
		x.failure = l.exit.How
	}
	attrs := []any{"host", x.Spec.Name, "pid", l.pid, "by", l.exit.How}
	switch {
	case l.leaving:
		if !l.exit.Planned {
			h.cfg.Log.Error("a PHP host ended before it had drained", attrs...)
		}
	case x.next == l:
		h.cfg.Log.Error("a new process of a PHP host ended before it was ready, the old one goes on", attrs...)
	case l.ready && now.Sub(l.readyAt) >= steadyAfter:
		x.restarts++
		x.pause, x.resume = firstPause, time.Time{}
		h.cfg.Log.Error("a PHP host ended and is started again", attrs...)
	default:
		x.restarts++
		if l.ready { // it boots: what it is given ends it
			x.pause = min(x.pause, readyPause)
		}
		x.resume = now.Add(x.pause)
		h.cfg.Log.Error("a PHP host ended and is started again after a pause", append(attrs, "pause", x.pause)...)
		x.pause = min(2*x.pause, longestPause)
	}
	switch l {
	case x.now:
		x.now, x.next = x.next, nil
	case x.next:
		x.next = nil
	}
	h.announceLocked()
	x.signal()
}

// run starts a life's process and waits for its end. state is nil with an error: there
// was no process.
func (h *Hosts) run(l *life) (state *os.ProcessState, err error) {
	spec, err := json.Marshal(resolved(l.spec))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(h.cfg.Command[0], h.cfg.Command[1:]...)
	cmd.Env = append(environment(os.Environ()), "POGOD_SOCKET="+l.spec.Socket, link.HostSpecEnv+"="+string(spec))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = endedWithin / 2 // a grandchild may keep the pipe open
	if l.listener != nil {
		cmd.ExtraFiles = []*os.File{l.listener}
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var output sync.WaitGroup
	output.Go(func() { h.copyOutput(l.spec.Name, l, r) }) // ended by closing w
	defer output.Wait()
	defer func() { _ = w.Close() }()
	h.mu.Lock()
	switch {
	case l.leaving:
		err = errors.New("not started: it is no longer wanted")
	default:
		if err = cmd.Start(); err != nil {
			err = fmt.Errorf("start PHP host %s: %w", l.spec.Name, err)
			break
		}
		l.pid, l.process = cmd.Process.Pid, cmd.Process
		h.byPID[l.pid] = l
		h.announceLocked()
	}
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	_ = cmd.Wait() // what it says is in ProcessState
	return cmd.ProcessState, nil
}

// resolved is a host's specification with paths that no symlink changes any more while
// the process lives: a link that is switched takes effect at the next start, for all of
// them at once.
func resolved(s link.HostSpec) link.HostSpec {
	s.App = resolve(s.App)
	if s.Web != nil {
		web := *s.Web
		web.Root, web.Worker = resolve(web.Root), resolve(web.Worker)
		s.Web = &web
	}
	s.Jobs = slices.Clone(s.Jobs)
	for i := range s.Jobs {
		s.Jobs[i].Script = resolve(s.Jobs[i].Script)
	}
	return s
}

// resolve follows the symlinks of a path as far as it exists: whoever needs the rest will
// say that it does not.
func resolve(path string) string {
	if path == "" {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir, base := filepath.Split(path); base != "" && dir != "" && dir != path {
		return filepath.Join(resolve(filepath.Clean(dir)), base)
	}
	return path
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

// maxLastLine bounds what is kept of a line that a host printed, in bytes.
const maxLastLine = 1000

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
			l.lastLine = strings.ToValidUTF8(line[:min(len(line), maxLastLine)], "")
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
