//go:build php

// Webbench compares the pages of pogod with the bare FrankenPHP library: the same script
// on the same number of threads, in classic and in worker mode, under the same load from a
// process of its own, in interleaved rounds. make bench-web builds and runs it.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "webbench:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		as          = flag.String("as", "", `"serve" or "load": what the program starts itself as`)
		pogod       = flag.String("pogod", "bin/pogod", "the program to compare")
		app         = flag.String("app", "phpext/webbench/app", "the application")
		mode        = flag.String("mode", "classic,worker", "modes, with commas")
		rounds      = flag.Int("rounds", 5, "rounds")
		lasting     = flag.Duration("for", 4*time.Second, "how long each server is asked in a round")
		threads     = flag.Int("threads", 4, "PHP threads")
		connections = flag.Int("connections", 16, "connections that are kept")
		profile     = flag.String("profile", "", "keep pogod's web host under this long a load instead, and say its process id: \"30s\"")
		addr        = flag.String("addr", "", "of a load")
		path        = flag.String("path", "", "of a load")
	)
	flag.Parse()
	root, err := filepath.Abs(*app)
	if err != nil {
		return err
	}
	switch *as {
	case "serve":
		return serve(root, *mode == "worker", *threads)
	case "load":
		return load(*addr, *path, *connections, *lasting)
	}
	b := bench{pogod: *pogod, app: root, threads: *threads, connections: *connections, lasting: *lasting}
	for _, m := range strings.Split(*mode, ",") {
		if *profile != "" {
			if b.lasting, err = time.ParseDuration(*profile); err == nil {
				err = b.hold(m)
			}
		} else {
			err = b.compare(m, *rounds)
		}
		if err != nil {
			return fmt.Errorf("%s mode: %w", m, err)
		}
	}
	return nil
}

// pages are those that are measured.
var pages = []struct{ name, path string }{
	{"5 B", "/index.php"},
	{"10 KB", "/index.php?rows=150&name=somebody"},
}

type bench struct {
	pogod, app           string
	threads, connections int
	lasting              time.Duration
}

// server is one of the two.
type server struct {
	addr string
	pid  int // of the process that runs PHP
	stop func()
}

// compare prints a line for each page.
func (b *bench) compare(mode string, rounds int) error {
	bare, err := b.bare(mode)
	if err != nil {
		return err
	}
	defer bare.stop()
	own, err := b.own(mode)
	if err != nil {
		return err
	}
	defer own.stop()
	for _, p := range pages {
		var rates [2][]float64
		var costs [2][]float64 // microseconds of processor for a request
		var ratios, cheaper []float64
		var last [2]result
		for round := range rounds + 1 { // the first warms up
			for i := range 2 {
				which := (i + round) % 2 // who is first changes
				s := []*server{bare, own}[which]
				before := cpu(s.pid)
				if last[which], err = b.ask(s.addr, p.path); err != nil {
					return err
				}
				if round > 0 {
					rates[which] = append(rates[which], float64(last[which].Requests)/last[which].Took.Seconds())
					costs[which] = append(costs[which], (cpu(s.pid)-before)*1e6/float64(last[which].Requests))
				}
			}
			if last[0].Bytes != last[1].Bytes {
				return fmt.Errorf("the bare library answers %d bytes, pogod %d", last[0].Bytes, last[1].Bytes)
			}
			if round > 0 {
				ratios = append(ratios, rates[1][round-1]/rates[0][round-1])
				cheaper = append(cheaper, costs[0][round-1]/costs[1][round-1])
			}
		}
		fmt.Printf("%-7s %5s (%d bytes)  bare %s/s  pogod %s/s  ratio %s  |  processor us: bare %s  pogod %s  ratio %s  |  last p50/p99: bare %s/%s  pogod %s/%s\n",
			mode, p.name, last[0].Bytes, spread(rates[0], 0), spread(rates[1], 0), spread(ratios, 2), spread(costs[0], 1), spread(costs[1], 1), spread(cheaper, 2),
			last[0].P50.Round(time.Microsecond), last[0].P99.Round(time.Microsecond), last[1].P50.Round(time.Microsecond), last[1].P99.Round(time.Microsecond))
	}
	return nil
}

// hold keeps pogod under load, for a profiler.
func (b *bench) hold(mode string) error {
	own, err := b.own(mode)
	if err != nil {
		return err
	}
	defer own.stop()
	fmt.Println("process", own.pid, mode)
	_, err = b.ask(own.addr, pages[0].path)
	return err
}

// spread writes a median, the lowest and the highest.
func spread(v []float64, digits int) string {
	s := slices.Sorted(slices.Values(v))
	f := func(x float64) string { return strconv.FormatFloat(x, 'f', digits, 64) }
	return fmt.Sprintf("%s (%s to %s)", f(s[len(s)/2]), f(s[0]), f(s[len(s)-1]))
}

// ask loads a server, from a process of its own.
func (b *bench) ask(addr, path string) (r result, err error) {
	cmd := exec.Command(os.Args[0], "-as", "load", "-addr", addr, "-path", path, "-connections", strconv.Itoa(b.connections), "-for", b.lasting.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("the load: %w", err)
	}
	return r, json.Unmarshal(out, &r)
}

// bare starts the bare library.
func (b *bench) bare(mode string) (*server, error) {
	cmd := exec.Command(os.Args[0], "-as", "serve", "-app", b.app, "-mode", mode, "-threads", strconv.Itoa(b.threads))
	return start(cmd, func(line string) string { return line })
}

var pagesLine = regexp.MustCompile(`^ +pages +http://(\S+)`)

// own starts pogod.
func (b *bench) own(mode string) (*server, error) {
	home, err := os.MkdirTemp("", "webbench")
	if err != nil {
		return nil, err
	}
	worker := ""
	if mode == "worker" {
		worker = "worker = \"public/index.php\"\n"
	}
	config := filepath.Join(home, "pogod.toml")
	text := fmt.Sprintf("[node]\ndata_dir = \"data\"\n[php]\napp = %q\n[web]\nlisten = \"127.0.0.1:0\"\nthreads = %d\n%s[admin]\nlisten = \"127.0.0.1:0\"\n", b.app, b.threads, worker)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s, err := start(exec.Command(b.pogod, "serve", "--config", config), func(line string) string {
		if m := pagesLine.FindStringSubmatch(line); m != nil {
			return m[1]
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	end := s.stop
	s.stop = func() {
		end()
		_ = os.RemoveAll(home) // a left-over in the temporary directory harms nobody
	}
	if err := s.awaitPage(); err != nil {
		s.stop()
		return nil, err
	}
	s.pid, err = child(s.pid)
	return s, err
}

// start starts a server, and reads its address off its output.
func start(cmd *exec.Cmd, address func(line string) string) (*server, error) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{pid: cmd.Process.Pid, stop: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}}
	for in := bufio.NewScanner(out); in.Scan(); {
		if s.addr = address(in.Text()); s.addr != "" {
			go func() { _, _ = io.Copy(io.Discard, out) }() // ended by the server's end
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s ended, or said no address", cmd)
}

// awaitPage waits until pages are answered: connections wait meanwhile.
func (s *server) awaitPage() error {
	res, err := (&http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + s.addr + "/")
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// child is the process that pid has started last.
func child(pid int) (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if fields := strings.Fields(string(b)); err == nil && len(fields) > 0 {
			return strconv.Atoi(fields[len(fields)-1])
		}
	}
	return 0, fmt.Errorf("process %d has no child", pid)
}

// cpu is the processor time of a process, in seconds.
func cpu(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return math.NaN()
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100 // the kernel's ticks
}
