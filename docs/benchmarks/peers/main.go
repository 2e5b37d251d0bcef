// Command peers measures three nodes of pogod beside three nodes of NATS JetStream, on one machine, in interleaved rounds:
//
//	go run . -pogod ../../../bin/pogod -rounds 5
//
// Each side gets the same work, from one process of its own, over the same number of connections with the same number of
// outstanding requests, and answers after an fsync on a quorum. Lines of key=value are the measurements; a table in
// Markdown ends them. The README beside this file says what is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	pogod, nats string
	dir         string
	nodes       int
	rounds      int
	seconds     time.Duration
	only        *regexp.Regexp
	sides       string
	prefetch    int
	keep        bool
	perf        string
}

func main() {
	if s := os.Getenv(loadEnv); s != "" {
		exit(runLoad(s))
		return
	}
	var o options
	flag.StringVar(&o.pogod, "pogod", "../../../bin/pogod-nophp", "the binary of pogod")
	flag.StringVar(&o.nats, "nats", "", "the binary of nats-server; \"\": build the version in go.mod")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "where both sides keep their data; the disk that is measured")
	flag.IntVar(&o.nodes, "nodes", 3, "nodes of each side: 3, or 1 for a node alone beside JetStream R1")
	flag.IntVar(&o.rounds, "rounds", 5, "interleaved rounds")
	flag.DurationVar(&o.seconds, "for", 5*time.Second, "how long each measurement is; wake-ups and idling four times as long")
	only := flag.String("only", ".", "regular expression of the works to measure, as \"^push\"")
	flag.StringVar(&o.sides, "sides", "pogod,nats", "the sides to run, in their order")
	flag.IntVar(&o.prefetch, "prefetch", 4, "messages that a pull consumer of NATS asks for ahead")
	flag.BoolVar(&o.keep, "keep", false, "keep configuration and logs")
	flag.StringVar(&o.perf, "perf", "", "folder for a perf.data of each measurement's leader; profiled figures are lower")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil && o.nodes != 1 && o.nodes != 3 {
		err = errors.New("-nodes is 1 or 3")
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, &o)
		stop()
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// cluster is one side under test: its nodes run from start to stop.
type cluster interface {
	// start makes new, empty nodes and returns when they serve.
	start(ctx context.Context) error
	// prepare makes what the work needs and returns the nodes, the leader first.
	prepare(ctx context.Context, w *work) ([]node, error)
	// entries is the length of the log that w writes to, at the leader; 0: unknown.
	entries(ctx context.Context, w *work) uint64
	stop()
}

// node is a process of a side.
type node struct {
	address string // for clients
	pid     int
}

// run makes the rounds and prints the report. A fresh cluster serves each group of works, and only one runs at a time, so
// that an idle one costs the other nothing.
func run(ctx context.Context, o *options) error {
	dir, err := os.MkdirTemp(o.dir, "peers")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Println("# kept:", dir)
	} else {
		defer os.RemoveAll(dir) //nolint:errcheck // what is left is small
	}
	d, err := newDisk(dir)
	if err != nil {
		return err
	}
	defer d.close()
	if o.nats == "" && strings.Contains(o.sides, "nats") {
		o.nats = filepath.Join(dir, "nats-server")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", o.nats, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
			return fmt.Errorf("build nats-server (run this in its own folder): %w\n%s", err, out)
		}
	}
	r := &report{nodes: o.nodes}
	r.about(ctx, o)
	for round := 1; round <= o.rounds; round++ {
		for _, g := range groups(o) {
			for _, name := range strings.Split(o.sides, ",") {
				home := filepath.Join(dir, fmt.Sprintf("%s%d%s", name, round, g[0].kind))
				c, err := newCluster(name, o, home)
				if err == nil {
					err = turn(ctx, o, c, name, round, g, d, r)
				}
				if err != nil {
					return fmt.Errorf("%s, round %d, %s: %w", name, round, g[0].kind, err)
				}
				if !o.keep {
					_ = os.RemoveAll(home)
				}
			}
		}
	}
	r.print(os.Stdout)
	return nil
}

func newCluster(name string, o *options, home string) (cluster, error) {
	switch name {
	case "pogod":
		return newPogod(o, home)
	case "nats":
		return newNATS(o, home)
	}
	return nil, fmt.Errorf("no side %q: pogod or nats", name)
}

// turn is one side's works of a group, one after the other.
func turn(ctx context.Context, o *options, c cluster, side string, round int, g []*work, d *disk, r *report) error {
	defer c.stop()
	if err := c.start(ctx); err != nil {
		return err
	}
	for _, w := range g {
		if w.side != "" && w.side != side {
			continue
		}
		nodes, err := c.prepare(ctx, w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if !sleep(ctx, settleFor) {
			return ctx.Err()
		}
		s := &sample{round: round, side: side, work: w}
		if s.probe, err = d.probe(); err == nil && w.kind == kindWake {
			s.paced, err = d.paced()
		}
		if err != nil {
			return err
		}
		if err := measure(ctx, o, c, w, nodes, d, s); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		r.add(s)
	}
	return nil
}

// settleFor is what a new stream, or what the last work left behind, gets before a measurement.
const settleFor = time.Second

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
