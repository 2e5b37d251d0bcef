//go:build php

package cluster_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var crasher struct {
	once sync.Once
	path string
	err  error
}

// crasherExtension compiles an extension that can dereference null and abort, for the PHP
// that the node has, and returns its path.
func crasherExtension(t *testing.T) string {
	t.Helper()
	crasher.once.Do(func() { crasher.path, crasher.err = buildCrasher() })
	if crasher.err != nil {
		t.Fatal(crasher.err)
	}
	return crasher.path
}

func buildCrasher() (string, error) {
	config := os.Getenv("POGOD_PHP_CONFIG")
	if config == "" {
		return "", fmt.Errorf("POGOD_PHP_CONFIG is not set: run the tests by scripts/env.sh --php")
	}
	dir, err := func() (string, error) {
		builds.mu.Lock()
		defer builds.mu.Unlock()
		if builds.dir == "" {
			dir, err := os.MkdirTemp("", "pogod-build") // outlives the test: the next one uses it
			if err != nil {
				return "", err
			}
			builds.dir, builds.path = dir, map[string]string{}
		}
		return os.MkdirTemp(builds.dir, "crasher")
	}()
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "crasher"))); err != nil {
		return "", err
	}
	prefix, err := exec.Command(config, "--prefix").Output()
	if err != nil {
		return "", err
	}
	phpize := filepath.Join(strings.TrimSpace(string(prefix)), "bin", "phpize")
	for _, args := range [][]string{{phpize}, {"./configure", "--quiet", "--with-php-config=" + config}, {"make"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", args[0], err, out)
		}
	}
	return filepath.Join(dir, "modules", "crasher.so"), nil
}

// poison are jobs that end their PHP host, and how it then ends.
var poison = []struct {
	name   string
	step   step
	signal string
}{
	{"null", step{"call", "crash_null"}, "SIGSEGV"},
	{"abort", step{"call", "crash_abort"}, "SIGABRT"},
	{"kill", step{"killself"}, "SIGKILL"},
}

func crashSite(t *testing.T, settings string) *site {
	t.Helper()
	return startSite(t, fmt.Sprintf("[php.ini]\nextension = %q\n[queue]\n%s\n[queue.side]\n", crasherExtension(t), settings)+worker(t, "crash", "plan.php", 5))
}

// idler is an idle connection to the admin endpoint.
type idler struct {
	nc net.Conn
	in *bufio.Reader
}

func (s *site) idle(t *testing.T, n int) (all []*idler) {
	t.Helper()
	for range n {
		nc, err := net.Dial("tcp", s.admin)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		i := &idler{nc, bufio.NewReader(nc)}
		if err := i.ask(); err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

// ask makes a request on the connection, which stays open.
func (i *idler) ask() error {
	_ = i.nc.SetDeadline(time.Now().Add(readyWithin))
	if _, err := fmt.Fprintf(i.nc, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", i.nc.RemoteAddr()); err != nil {
		return err
	}
	res, err := http.ReadResponse(i.in, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := bytes.NewBuffer(nil).ReadFrom(res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || res.Close {
		return fmt.Errorf("%s, close %v", res.Status, res.Close)
	}
	return nil
}

// TestE2EPoisonJob has a job end its PHP host each time that it runs: a null pointer and
// an abort in an extension, and a kill of its own process. It fails after max_crashes
// crashes alone, and nothing else fails: not the jobs beside it, which may spend one
// attempt only, nor a page, a connection, the term.
func TestE2EPoisonJob(t *testing.T) {
	t.Parallel()
	s := crashSite(t, "max_attempts = 1\nmax_crashes = 3")
	for i, p := range poison {
		t.Run(p.name, func(t *testing.T) { testPoison(t, s, i, p.step, p.signal) })
	}
}

func testPoison(t *testing.T, s *site, before int, crash step, signal string) {
	const good = 200
	start := s.document(t)
	idlers := s.idle(t, 50)
	pages := s.visit(t, "side")
	counted := s.queue(t, "crash")

	// Long jobs that run when the host dies, and that take their time in quarantine, too.
	gate := "beside " + signal
	var long []string
	for range 3 {
		long = append(long, s.push(t, "crash", plans{"1": {step{"gate", gate}, step{"ack"}}, "*": {step{"call", "usleep", 200_000}, step{"ack"}}}))
	}
	for _, job := range long {
		s.await(t, "crash", job, "start", 1)
	}
	short := s.pushMany(t, "crash", good/2, func(int) string { return "good" })
	killer := s.push(t, "crash", always(crash))
	short = append(short, s.pushMany(t, "crash", good/2, func(int) string { return "good" })...)

	eventually(t, "the poison job is failed", func() bool { return s.queue(t, "crash").Failed == before+1 })
	eventually(t, "all others are acked", func() bool {
		q := s.queue(t, "crash")
		return q.waiting() == 0 && q.Acked-counted.Acked == good+len(long)
	})

	f := s.failedList(t, "crash")[0]
	if want := "PHP host ended by " + signal + " (crash 3 in quarantine, max_crashes = 3)"; f.ID != killer || f.Reason != want || f.Attempts != 4 {
		t.Errorf("%+v, want job %s: %s", f, killer, want)
	}
	for _, job := range long {
		// Two starts: one was interrupted, the second was alone, so no crash cut it short.
		if n := s.notes(t, "crash", job, "start"); len(n) != 2 {
			t.Errorf("a long job was started %d times: %+v", len(n), n)
		}
	}
	for i, job := range append(short, long...) {
		acks := s.notes(t, "crash", job, "ack") // one that came just before the crash may not be noted
		acks = slices.DeleteFunc(acks, func(n noted) bool { return n.code() != "1" })
		if len(acks) > 1 || i >= len(short) && len(acks) == 0 {
			t.Errorf("job %s: %+v", job, acks)
		}
	}
	requireAlone(t, s, start.host(t, "jobs").PID, killer)
	requireUnmoved(t, s, start, idlers)
	if n := pages.end(t); n == 0 {
		t.Error("no page was asked for")
	} else {
		t.Logf("%d pages were answered meanwhile", n)
	}
	log := s.log(t)
	for crashes := 1; crashes <= 3; crashes++ {
		if !regexp.MustCompile(`msg="a job crashed its PHP host alone .*queue=crash job=` + killer + ` .*crashes=` + strconv.Itoa(crashes) + ` max_crashes=3 `).MatchString(log) {
			t.Errorf("the log does not tell of crash %d", crashes)
		}
	}
	took := backAfter(t, log)
	t.Logf("the jobs host was back %s after its end", took)
	if took > 30*time.Second {
		t.Error("that is too long")
	}
}

// requireAlone wants the poison job in a process of its own, each time but the first.
func requireAlone(t *testing.T, s *site, jobs int, killer string) {
	t.Helper()
	starts := s.notes(t, "crash", killer, "start")
	if len(starts) != 4 || starts[0].PID != jobs {
		t.Fatalf("%+v, the jobs host was %d", starts, jobs)
	}
	all := s.notes(t, "crash", "", "start")
	for i, n := range starts[1:] {
		if n.PID == jobs || n.PID == starts[i].PID {
			t.Errorf("attempt %d ran in a process that was dead: %+v", n.Attempts, starts)
		}
		for _, other := range all {
			if other.PID != n.PID || other.Job == killer {
				continue
			}
			ended := slices.ContainsFunc(s.notes(t, "crash", other.Job, "ack"), func(a noted) bool { return a.ID == other.ID && a.At <= n.At })
			if !ended {
				t.Errorf("job %s ran in process %d beside %+v", other.Job, n.PID, n)
			}
		}
	}
}

// requireUnmoved wants all that is no jobs host as it was.
func requireUnmoved(t *testing.T, s *site, before *document, idlers []*idler) {
	t.Helper()
	now := s.document(t)
	if now.Raft.Term != before.Raft.Term || now.Raft.Leader != before.Raft.Leader || now.Raft.State != "Leader" {
		t.Errorf("raft was at %+v and is at %+v", before.Raft, now.Raft)
	}
	if now.host(t, "web") != before.host(t, "web") || now.Node.PID != before.Node.PID {
		t.Errorf("the others did not live on: %+v, before %+v", now, before)
	}
	for n, i := range idlers {
		if err := i.ask(); err != nil {
			t.Errorf("idle connection %d: %v", n, err)
		}
	}
}

// backAfter returns how long the jobs host was away the last time, by the log.
func backAfter(t *testing.T, log string) time.Duration {
	t.Helper()
	at := func(line string) time.Time {
		stamp := regexp.MustCompile(`^time=(\S+)`).FindStringSubmatch(line)
		if stamp == nil {
			t.Fatal(line)
		}
		when, err := time.Parse(time.RFC3339Nano, stamp[1])
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	var ended time.Time
	var took time.Duration
	for line := range strings.Lines(log) {
		switch {
		case strings.Contains(line, `msg="a PHP host ended`) && strings.Contains(line, "host=jobs "):
			ended = at(line)
		case strings.Contains(line, `msg="PHP host is ready" host=jobs `) && !ended.IsZero():
			took = at(line).Sub(ended)
		}
	}
	if took == 0 {
		t.Error("the log does not say when the jobs host was back")
	}
	return took
}

// usage is what /proc says of a process.
type usage struct{ rssKB, threads, descriptors int }

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 {
			switch f[0] {
			case "VmRSS:":
				u.rssKB, _ = strconv.Atoi(f[1])
			case "Threads:":
				u.threads, _ = strconv.Atoi(f[1])
			}
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.descriptors = len(files)
	return u
}

// TestE2ECrashesAgainAndAgain has PHP hosts crash POGOD_CRASHES times in a row: the node
// does not grow.
func TestE2ECrashesAgainAndAgain(t *testing.T) {
	t.Parallel()
	rounds := 3
	if v := os.Getenv("POGOD_CRASHES"); v != "" {
		var err error
		if rounds, err = strconv.Atoi(v); err != nil || rounds < 1 {
			t.Fatalf("POGOD_CRASHES=%s", v)
		}
	}
	s := crashSite(t, "max_attempts = 1\nmax_crashes = 1")
	start := s.document(t)
	idlers := s.idle(t, 50)
	var before usage
	grown := max(1, rounds/10) // rounds in which it may grow to its size
	for i := range rounds {
		p := poison[i%len(poison)]
		neighbour := s.push(t, "crash", plans{"1": {step{"gate", "never"}}, "*": {step{"ack"}}})
		s.await(t, "crash", neighbour, "start", 1)
		killer := s.push(t, "crash", always(p.step))
		ctx := t.Context()
		for s.queue(t, "crash").Failed != i+1 {
			if !pause(ctx, lookPause) {
				t.Fatal(ctx.Err())
			}
		}
		if f := s.failedList(t, "crash", 1)[0]; f.ID != killer || f.Attempts != 2 || !strings.HasPrefix(f.Reason, "PHP host ended by "+p.signal+" (") {
			t.Fatalf("round %d: %+v", i, f)
		}
		if n := s.await(t, "crash", neighbour, "ack", 1); n.code() != "1" || n.Attempts != 2 {
			t.Fatalf("round %d: %+v", i, n)
		}
		if i+1 == grown {
			before = usageOf(t, s.cmd.Process.Pid)
		}
		for _, c := range idlers { // or the endpoint would close them for their idleness
			if err := c.ask(); err != nil {
				t.Fatalf("round %d: an idle connection: %v", i, err)
			}
		}
	}
	after := usageOf(t, s.cmd.Process.Pid)
	t.Logf("%d rounds of two crashes: the node had %+v after %d, and has %+v", rounds, before, grown, after)
	if after.rssKB > before.rssKB+(48<<10) || after.threads > before.threads+8 || after.descriptors > before.descriptors+16 {
		t.Error("the node has grown")
	}
	requireUnmoved(t, s, start, idlers)
	if q := s.queue(t, "crash"); q.Acked != rounds || q.Failed != rounds || q.waiting() != 0 {
		t.Errorf("%+v", q)
	}
}
