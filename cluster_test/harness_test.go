package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain runs the tests, or the load when this process was started as one.
func TestMain(m *testing.M) {
	if spec := os.Getenv(loadEnv); spec != "" {
		if err := runLoad(spec); err != nil {
			fmt.Fprintln(os.Stderr, "the load:", err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if builds.dir != "" {
		_ = os.RemoveAll(builds.dir) // a left-over in the temporary directory harms nobody
	}
	os.Exit(code)
}

// envInt is a number from the environment.
func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s must be a number from 1, not %q", name, s)
	}
	return n
}

// notTwice skips a test of a node without PHP in a build with PHP, unless rounds are
// asked for: the build without PHP runs it too.
func notTwice(t *testing.T) {
	t.Helper()
	if withPHP && os.Getenv("POGOD_CRASH_ROUNDS") == "" {
		t.Skip("the build without PHP runs it")
	}
}

// newSeed is POGOD_SEED, or a random one, which is printed.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("POGOD_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("POGOD_SEED must be a number, not %q", s)
		}
		seed = n
	}
	t.Logf("POGOD_SEED=%d", seed)
	return seed
}

// loader is the load's process, seen from the test.
type loader struct {
	t      *testing.T
	record string
	stderr string
	stdin  io.WriteCloser
	lines  <-chan string
	cmd    *exec.Cmd
}

// startLoad starts the load of a node. Its record is outside the node's directories.
func startLoad(t *testing.T, spec loadSpec) *loader {
	t.Helper()
	dir := t.TempDir()
	l := &loader{t: t, record: filepath.Join(dir, "record"), stderr: filepath.Join(dir, "stderr")}
	spec.Record = l.record
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := os.Create(l.stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	l.cmd = exec.Command(self)
	l.cmd.Env = append(os.Environ(), loadEnv+"="+string(b))
	l.cmd.Stderr = stderr
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.lines = readLines(stdout)
	t.Cleanup(func() {
		if l.cmd != nil {
			_ = l.cmd.Process.Kill() // it was not asked to finish: the test has failed
			_ = l.cmd.Wait()
		}
		keep(t, l.record, "record")
		if b, err := os.ReadFile(l.stderr); err == nil && len(b) > 0 {
			t.Logf("the load says:\n%.4000s", b)
		}
	})
	return l
}

// ask gives a command and waits for its answer, or for the end of the node, if that is
// given.
func (l *loader) ask(command string, n *node) (string, error) {
	if _, err := fmt.Fprintln(l.stdin, command); err != nil {
		return "", fmt.Errorf("the load is gone: %w", err)
	}
	return l.wait(command, n)
}

// wait waits for the answer to a command that was given.
func (l *loader) wait(command string, n *node) (string, error) {
	var exited chan struct{}
	if n != nil {
		exited = n.exited
	}
	select {
	case line, ok := <-l.lines:
		if !ok {
			return "", fmt.Errorf("the load ended at %q", command)
		}
		return line, nil
	case <-exited:
		return "", fmt.Errorf("%w while the load was asked for %q: %w", errExited, command, n.err)
	case <-time.After(drainWithin):
		return "", fmt.Errorf("the load did not answer %q within %s", command, drainWithin)
	}
}

// finish ends the load, whose record is complete then.
func (l *loader) finish() error {
	if _, err := l.ask("finish", nil); err != nil {
		return err
	}
	err := l.cmd.Wait()
	l.cmd = nil
	return err
}

// trial is a series of rounds: start the node, put it under load, cut it off.
type trial struct {
	rounds  int
	seed    uint64
	plain   bool                                   // no pushes that the state machine refuses, and none that take seconds
	broken  bool                                   // the node has a bug that may end it for good: first it must accept something
	php     int                                    // share of the pushes, in a hundred, that PHP handles
	cut     func(*node, *loader, *rand.Rand) error // before the node is killed; nil: nothing. The node may fail of it
	restore func()                                 // before the next start; nil: nothing
	extra   func(*history) error                   // adds what others saw; nil: nothing
}

// The load: more than 64 calls are outstanding at any time, although some wait for
// their record's fsync.
const (
	producers   = 80
	consumers   = 224
	lates       = 16
	outstanding = 64
)

// errRefused is returned by run when the node did not start again.
var errRefused = errors.New("the node did not start again")

// run does the rounds, then lets all be worked off, and judges. When the node does not
// start again after a cut, it returns errRefused and a report in which all that was not
// settled by then is lost.
func (tr *trial) run(t *testing.T, n *node) (*report, error) {
	t.Helper()
	r := rand.New(rand.NewPCG(tr.seed, 0))
	l := startLoad(t, loadSpec{
		Sockets: []string{n.socket()}, Seed: tr.seed, Producers: producers, Consumers: consumers, Late: lates, PHP: tr.php, Plain: tr.plain, Outstanding: outstanding,
	})
	var seen counts
	for round := 1; round <= tr.rounds; round++ {
		err := tr.round(t, n, l, r, round, &seen)
		switch {
		case errors.Is(err, errRefused):
			return tr.judge(n, l, nil, nil), err
		case err != nil:
			t.Fatalf("round %d: %v", round, err)
		}
	}
	n.start()
	if err := n.ready(); err != nil {
		return tr.judge(n, l, nil, nil), fmt.Errorf("%w: %w", errRefused, err)
	}
	seen.check(n)
	if line, err := l.ask("stop", n); err != nil || line != "stopped" {
		t.Fatal(line, err)
	}
	queues, drainErr := n.drained()
	failed, err := n.takeFailed()
	if err != nil {
		t.Fatal(err)
	}
	rep := tr.judge(n, l, failed, queues)
	n.stop()
	return rep, drainErr
}

// round starts the node, puts it under load and cuts it off. Now and then it is cut off
// while it starts, too, wherever it is then.
func (tr *trial) round(t *testing.T, n *node, l *loader, r *rand.Rand, round int, seen *counts) error {
	if r.IntN(5) == 0 && (!tr.broken || round > 1) {
		n.start()
		pause(t.Context(), time.Duration(r.IntN(150))*time.Millisecond)
		if err := tr.end(n, l, r, 0); err != nil {
			return err
		}
	}
	weight, most := "light", 1200
	if round%5 == 4 {
		weight, most = "heavy", 4000 // long enough for a snapshot, or for a cut in the middle of one
	}
	n.start()
	if err := n.ready(); err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	seen.check(n)
	for _, command := range []string{weight, "loaded"} {
		if line, err := l.ask(command, n); err != nil || line != command {
			return errors.Join(err, errors.New(line))
		}
	}
	pause(t.Context(), time.Duration(r.IntN(most))*time.Millisecond)
	select {
	case <-n.exited:
		return fmt.Errorf("%w under load: %w: %s", errExited, n.err, n.lastLine())
	default:
	}
	return tr.end(n, l, r, round)
}

// end cuts the node off. The load sees the end of all that was outstanding before the
// node may start again.
func (tr *trial) end(n *node, l *loader, r *rand.Rand, round int) error {
	if tr.cut != nil {
		if err := tr.cut(n, l, r); err != nil {
			return err
		}
	}
	n.kill()
	line, err := l.ask(fmt.Sprint("killed 0 ", round), nil)
	if err != nil || !strings.HasPrefix(line, "cut ") {
		return errors.Join(err, errors.New(line))
	}
	if tr.restore != nil {
		tr.restore()
	}
	return nil
}

// judge ends the load and checks its record, and what status said.
func (tr *trial) judge(n *node, l *loader, failed []failedJob, queues map[string]queueStatus) *report {
	l.t.Helper()
	h := newHistory(queueRules)
	h.dying = tr.cut != nil
	r := l.judge(h, tr.extra, failed)
	r.snapshots = n.snapshots
	r.disagree(n)
	if queues != nil {
		r.compare(queues)
	}
	return r
}

// disagree adds what a node's status said that cannot be.
func (r *report) disagree(n *node) {
	for _, text := range n.wrong {
		r.violations = append(r.violations, violation{statusKind, text})
	}
}

// judge ends the load and checks its record. extra adds what others saw; nil: nothing.
func (l *loader) judge(h *history, extra func(*history) error, failed []failedJob) *report {
	l.t.Helper()
	if err := l.finish(); err != nil {
		l.t.Fatal(err)
	}
	f, err := os.Open(l.record)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if err := h.read(f); err != nil {
		l.t.Fatalf("the record: %v", err)
	}
	if extra != nil {
		if err := extra(h); err != nil {
			l.t.Fatal(err)
		}
	}
	return h.check(failed)
}

// counts are counters that never fall, as status showed them last.
type counts map[string]queueStatus

// check asks for status, which checks itself, and compares it with what it said before:
// what was answered once is never forgotten.
func (c *counts) check(n *node) {
	now, err := n.status()
	if err != nil {
		n.disagree("it was not answered: %v", err)
		return
	}
	for name, before := range *c {
		q := now[name]
		if q.Enqueued < before.Enqueued || q.Acked < before.Acked || q.FailedTotal < before.FailedTotal {
			n.disagree("the counters of queue %s fell, from %+v to %+v", name, before, q)
		}
	}
	*c = now
}

// compare compares the counters at the end with what the load knows.
func (r *report) compare(queues map[string]queueStatus) {
	for name, q := range queues {
		k := r.queue(name)
		for _, c := range []struct {
			name string
			now  int
			want [2]int
		}{{"enqueued", q.Enqueued, k.enqueued}, {"acked", q.Acked, k.acked}, {"failed_total", q.FailedTotal, k.failed}, {"failed", q.Failed, k.failed}} {
			if c.now < c.want[0] || c.now > c.want[1] {
				text := fmt.Sprintf("%s of queue %s is %d, and by the record %d to %d", c.name, name, c.now, c.want[0], c.want[1])
				r.violations = append(r.violations, violation{statusKind, text})
			}
		}
	}
}

// require fails the test for every violation.
func (r *report) require(t *testing.T) {
	t.Helper()
	t.Logf("\n%s", r)
	if n := len(r.violations); n > 0 {
		t.Errorf("%d violations, see the table", n)
	}
	if r.inFlight == 0 {
		t.Error("no round was cut with pushes in flight: this has shown nothing")
	}
	if r.accepted == 0 || r.justified() == 0 || r.failed == 0 {
		t.Error("the load was too thin: some of its kinds of job never came")
	}
}
