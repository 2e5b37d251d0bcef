package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that was started here, and is ended by its id.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

// startProcess starts a program whose output goes to the file log.
func startProcess(log string, name string, arg ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	p := &process{exec.Command(name, arg...), make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C is this program's alone
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ended by the end of the process
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// endAll asks all to end, and kills those that do not.
func endAll(all []*process) {
	for _, p := range all {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // one that has ended by itself needs none
	}
	late := time.After(20 * time.Second)
	for _, p := range all {
		select {
		case <-p.exited:
		case <-late:
			_ = p.cmd.Process.Kill()
			<-p.exited
			late = time.After(0)
		}
	}
}

// cpuOf returns the seconds of processor time of a process, in the kernel's ticks of 10 ms.
func cpuOf(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, raw)
	}
	user, err := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100, errors.Join(err, err2)
}

// measure has the work done, with what the machine tells at its begin and end.
func measure(ctx context.Context, o *options, c cluster, w *work, nodes []node, d *disk, s *sample) error {
	take := func(sign float64) error {
		for i, n := range nodes {
			cpu, err := cpuOf(n.pid)
			if err != nil {
				return err
			}
			if sign < 0 {
				s.cpu = append(s.cpu, 0)
			}
			s.cpu[i] += sign * cpu
		}
		s.flushes += sign * d.flushes()
		s.entries += sign * float64(c.entries(ctx, w))
		return nil
	}
	if o.perf != "" {
		stop, err := profile(o.perf, s, nodes[0].pid)
		if err != nil {
			return err
		}
		defer stop()
	}
	if w.kind == kindIdle {
		if err := take(-1); err != nil {
			return err
		}
		begin := time.Now()
		if !sleep(ctx, w.length) {
			return ctx.Err()
		}
		s.Seconds = time.Since(begin).Seconds()
		return take(1)
	}
	spec := loadSpec{
		Side: s.side, ID: w.id, Kind: w.kind, Conns: w.conns, Depth: w.depth, From: w.from, To: w.to, Pinned: w.pinned,
		Plain: w.plain, Prefetch: o.prefetch, Length: w.length,
	}
	for _, n := range nodes {
		spec.Nodes = append(spec.Nodes, n.address)
	}
	return withLoad(ctx, &spec, func(lines *bufio.Scanner) error {
		for _, want := range []string{lineBegin, lineEnd} {
			if !lines.Scan() || lines.Text() != want {
				return fmt.Errorf("the load said %q instead of %q", lines.Text(), want)
			}
			sign := 1.0
			if want == lineBegin {
				sign = -1
			}
			if err := take(sign); err != nil {
				return err
			}
		}
		if !lines.Scan() {
			return errors.New("the load had no result")
		}
		return json.Unmarshal(lines.Bytes(), &s.loadResult)
	})
}

// profile records where a process spends its time, until stop.
func profile(dir string, s *sample, pid int) (stop func(), err error) {
	name := fmt.Sprintf("%s-%s-%d", s.side, s.work.id, s.round)
	p, err := startProcess(filepath.Join(dir, name+".log"), "perf", "record", "-g", "-F", "499", "-o", filepath.Join(dir, name+".data"), "-p", strconv.Itoa(pid))
	if err != nil {
		return nil, err
	}
	return func() { endAll([]*process{p}) }, nil
}

// withLoad runs the load's process and has f read its lines.
func withLoad(ctx context.Context, spec *loadSpec, f func(lines *bufio.Scanner) error) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	var said strings.Builder
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = f(bufio.NewScanner(out))
	if err != nil {
		_ = out.Close() // whatever it does, its next line ends it
	}
	if ended := cmd.Wait(); ended != nil {
		err = errors.Join(fmt.Errorf("%w: %s", ended, said.String()), err)
	}
	return err
}

// freeAddress returns an address of this machine that nobody listens at now.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String(), nil
}

// getJSON asks for a document; v may be nil.
func getJSON(ctx context.Context, url string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s: %s", url, res.Status, body)
	}
	if err != nil || v == nil {
		return err
	}
	return json.Unmarshal(body, v)
}

// startWithin bounds each wait of a cluster's start.
const startWithin = time.Minute

// until tries f again until it returns nil.
func until(ctx context.Context, what string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}
