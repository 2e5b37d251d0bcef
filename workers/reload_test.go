package workers

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/link"
)

// leftHosts keeps what Hosts says of processes that get no new jobs.
type leftHosts struct {
	mu    sync.Mutex // guards leave
	leave []int
	heard chan struct{} // holds one signal: leave has grown
	left  chan int      // process ids, at most as many as a test has processes
}

func (k *leftHosts) listen(c *HostsConfig) {
	k.heard, k.left = make(chan struct{}, 1), make(chan int, 16)
	c.Leave = func(pid int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.leave = append(k.leave, pid)
		select {
		case k.heard <- struct{}{}:
		default:
		}
	}
	c.Left = func(pid int) { k.left <- pid }
}

// awaitLeave waits until somebody was told to leave, and requires that it was pid, once.
func (k *leftHosts) awaitLeave(t *testing.T, pid int) {
	t.Helper()
	select {
	case <-k.heard:
	case <-time.After(patience):
		t.Fatal("nobody was told to leave")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.leave) != 1 || k.leave[0] != pid {
		t.Errorf("told to leave were %v, want %d", k.leave, pid)
	}
}

func (k *leftHosts) leaves(pid int) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.leave {
		if p == pid {
			n++
		}
	}
	return n
}

// lives waits until the host's processes are in these states, the one that new work goes
// to first, and returns them.
func (b *hostBench) lives(states ...string) []HostStatus {
	b.t.Helper()
	var all []HostStatus
	b.await(strings.Join(states, ", "), func(HostStatus) bool {
		all = b.hosts.Status()
		for i, s := range all {
			if len(all) != len(states) || s.State != states[i] {
				return false
			}
		}
		return true
	})
	return all
}

// reload begins a reload.
func (b *hostBench) reload(ctx context.Context) <-chan error {
	c := make(chan error, 1)
	go func() { c <- b.hosts.Reload(ctx) }() // ended by its answer
	return c
}

func getError(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		t.Fatal("no answer")
		return nil
	}
}

// touch asks for a page, for which a slow host waits.
func touch(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
}

func TestReloadLetsTheNewTakeOverWhenItIsReady(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	var k leftHosts
	b := newHostBench(t, playing(t, "slow+stubborn"), file, k.listen)
	touch(t, addr)
	old := b.ready(0)
	answer := b.reload(t.Context())
	both := b.lives(hostReady, hostStarting)
	if both[0].PID != old.PID || b.hosts.NotReady() != "" || k.leaves(old.PID) != 0 {
		t.Errorf("the old one does not serve meanwhile: %+v, %s", both, b.hosts.NotReady())
	}
	touch(t, addr)
	if err := getError(t, answer); err != nil {
		t.Error(err)
	}
	both = b.lives(hostReady, hostDraining)
	if both[1].PID != old.PID || both[0].PID == old.PID || both[0].Restarts != 0 || b.hosts.NotReady() != "" {
		t.Errorf("%+v", both)
	}
	b.log.await(t, `msg="no to 34"`) // it was told once, and goes on with what it runs
	k.awaitLeave(t, old.PID)
	// One that crashes while it drains has crashed; one that is killed by the node was
	// interrupted. The other is not touched.
	b.hosts.Interrupt(old.PID, 0, dieOfKill)
	alone := b.lives(hostReady)
	if e, ok := b.hosts.Ended(old.PID); e != (Exit{How: "SIGKILL"}) || !ok || alone[0].PID != both[0].PID || alone[0].Restarts != 0 {
		t.Errorf("%+v %v, %+v", e, ok, alone)
	}
	select {
	case pid := <-k.left:
		if pid != old.PID {
			t.Errorf("%d has left, not %d", pid, old.PID)
		}
	case <-time.After(patience):
		t.Error("nobody is said to have left")
	}
}

func TestReloadThatFailsLeavesTheOldOne(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	dir := t.TempDir()
	b := newHostBench(t, playing(t, "host"), file, withApp(dir))
	old := b.ready(0)
	write(t, filepath.Join(dir, broken))
	err := getError(t, b.reload(t.Context()))
	if !errors.Is(err, ErrReload) || !strings.Contains(err.Error(), "PHP host jobs ended before it was ready (exit code 3: the worker is broken)") {
		t.Error(err)
	}
	now := b.lives(hostReady)
	if now[0].PID != old.PID || now[0].Restarts != 0 || now[0].LastExit != "exit code 3: the worker is broken" {
		t.Errorf("%+v", now)
	}
	if err := os.Remove(filepath.Join(dir, broken)); err != nil {
		t.Fatal(err)
	}
	if err := getError(t, b.reload(t.Context())); err != nil {
		t.Error(err)
	}
	if now := b.lives(hostReady); now[0].PID == old.PID {
		t.Errorf("%+v", now)
	}
}

// A reload does not wait for the pause of a host that does not start.
func TestReloadOfWhatDoesNotStart(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, broken))
	b := newHostBench(t, playing(t, "host"), file, withApp(dir))
	b.clock.await(t, firstPause)
	if missing := b.hosts.NotReady(); missing != "PHP host jobs is waiting to restart (last exit: exit code 3: the worker is broken)" {
		t.Error(missing)
	}
	if err := os.Remove(filepath.Join(dir, broken)); err != nil {
		t.Fatal(err)
	}
	if err := getError(t, b.reload(t.Context())); err != nil {
		t.Error(err)
	}
}

// What is asked for while a reload is under way may be about newer code: one more reload
// for all of it.
func TestReloadsCoalesce(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	b := newHostBench(t, playing(t, "slow"), file)
	touch(t, addr)
	pids := map[int]bool{b.ready(0).PID: true}
	first := b.reload(t.Context())
	b.await("its process starts", func(HostStatus) bool {
		all := b.hosts.Status()
		return len(all) == 2 && all[1].PID != 0
	})
	pids[b.hosts.Status()[1].PID] = true
	var more []map[*host]uint64
	for range 5 {
		more = append(more, b.hosts.askReload())
	}
	touch(t, addr)
	if err := getError(t, first); err != nil {
		t.Error(err)
	}
	touch(t, addr)
	for _, target := range more {
		if err := b.hosts.reloaded(t.Context(), target); err != nil {
			t.Error(err)
		}
	}
	pids[b.lives(hostReady)[0].PID] = true
	if started := b.hosts.askReload()[b.hosts.hosts[0]] - 1; len(pids) != 3 || started != 3 {
		t.Errorf("%d processes, generation %d; six reloads are to make two", len(pids), started)
	}
}

func TestReloadEndsWithTheNodeAndItsContext(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	b := newHostBench(t, playing(t, "slow"), file)
	touch(t, addr)
	b.ready(0)
	if err := b.hosts.Reload(over(t)); !errors.Is(err, ErrReload) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	answer := b.reload(t.Context())
	b.lives(hostReady, hostStarting)
	b.hosts.Drain()
	if err := getError(t, answer); !errors.Is(err, ErrReload) || !strings.Contains(err.Error(), "shutting down") {
		t.Error(err)
	}
	touch(t, addr) // the new one gets ready, and is told then
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b.hosts.Stop(ctx)
	if s := b.hosts.Status(); len(s) != 1 || s[0].LastExit != "exit code 0" {
		t.Errorf("%+v", s)
	}
}

// A replacement that hangs is given up; the old one goes on.
func TestReplacementThatHangs(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	b := newHostBench(t, playing(t, "slow"), file)
	touch(t, addr)
	old := b.ready(0)
	b.clock.await(t, readyWithin)
	answer := b.reload(t.Context())
	b.clock.await(t, readyWithin)
	b.await("it has begun", func(HostStatus) bool {
		all := b.hosts.Status()
		return len(all) == 2 && all[1].PID != 0
	})
	b.clock.Advance(readyWithin)
	if err := getError(t, answer); err == nil || !strings.Contains(err.Error(), "SIGKILL by the node: it was not ready within 1m0s") {
		t.Error(err)
	}
	if now := b.lives(hostReady); now[0].PID != old.PID {
		t.Errorf("%+v", now)
	}
}

// A crash of the old one while its replacement starts leaves the place to that.
func TestOldOneDiesDuringReload(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	b := newHostBench(t, playing(t, "slow"), file)
	touch(t, addr)
	old := b.ready(0)
	answer := b.reload(t.Context())
	next := b.lives(hostReady, hostStarting)[1]
	b.hosts.Interrupt(old.PID, 0, dieOfKill)
	if missing := b.lives(hostStarting); missing[0].PID != 0 && next.PID != 0 && missing[0].PID != next.PID || missing[0].Restarts != 1 {
		t.Errorf("%+v", missing)
	}
	if missing := b.hosts.NotReady(); missing != "PHP host jobs is starting (last exit: SIGKILL)" {
		t.Error(missing)
	}
	touch(t, addr)
	if err := getError(t, answer); err != nil {
		t.Error(err)
	}
	b.lives(hostReady)
}

func TestReplaceStartsAnotherAtOnce(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	var k leftHosts
	b := newHostBench(t, playing(t, "stubborn"), file, k.listen)
	old := b.ready(0)
	if b.hosts.Replace(os.Getpid(), "x") {
		t.Error("this process is no host")
	}
	for range 2 { // the second changes nothing
		if !b.hosts.Replace(old.PID, "an attempt is stuck") {
			t.Error("it is a host")
		}
	}
	now := b.lives(hostReady, hostDraining)
	if now[1].PID != old.PID || now[0].Restarts != 1 || k.leaves(old.PID) != 1 {
		t.Errorf("%+v, told %d times", now, k.leaves(old.PID))
	}
	b.hosts.Kill(old.PID, "an attempt was stuck")
	b.lives(hostReady)
	if e, ok := b.hosts.Ended(old.PID); e != (Exit{"SIGKILL by the node: an attempt was stuck", true}) || !ok {
		t.Errorf("%+v %v", e, ok)
	}
	b.hosts.Kill(os.Getpid(), "this is no host")
}

func TestHostOnDemand(t *testing.T) {
	t.Parallel()
	addr, file := listen(t)
	b := newHostBench(t, playing(t, "host"), file, func(c *HostsConfig) { c.Hosts[0].OnDemand = true })
	s := b.lives(hostOnDemand)[0]
	if b.hosts.NotReady() != "" || s.PID != 0 || s.Restarts != 0 {
		t.Errorf("%+v %s", s, b.hosts.NotReady())
	}
	if err := getError(t, b.reload(t.Context())); err != nil {
		t.Error("there is nothing to reload:", err)
	}
	b.hosts.Demand("other")
	b.hosts.Demand("jobs")
	pid := b.lives(hostReady)[0].PID
	b.clock.await(t, demandedFor)
	b.clock.Advance(demandedFor - time.Second)
	b.hosts.Demand("jobs")
	b.clock.await(t, demandedFor)
	b.clock.Advance(time.Second)
	if s := b.lives(hostReady)[0]; s.PID != pid {
		t.Errorf("%+v, was %d", s, pid)
	}
	// It is started again as long as somebody wants it.
	b.hosts.Interrupt(pid, 0, dieOfKill)
	s = b.ready(pid)
	if s.Restarts != 1 {
		t.Errorf("%+v", s)
	}
	b.clock.Advance(demandedFor)
	s = b.lives(hostOnDemand)[0]
	if s.LastExit != "exit code 0" {
		t.Errorf("%+v", s)
	}
	b.hosts.Demand("jobs")
	b.lives(hostReady)
	_ = addr
}

// withApp gives the host an application with pages and a worker.
func withApp(dir string) func(*HostsConfig) {
	return func(c *HostsConfig) {
		spec := &c.Hosts[0].Spec
		spec.App = dir
		spec.Web.Root = filepath.Join(dir, "public")
		spec.Jobs = []link.WorkerSpec{{Name: "mail", Script: filepath.Join(dir, "not", "there.php"), Threads: 1}}
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A symlink that is switched deploys: each process has the paths of its start, all of
// them of one release.
func TestPathsAreResolvedAtEachStart(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(dir, "current")
	for _, release := range []string{"r1", "r2"} {
		if err := os.MkdirAll(filepath.Join(dir, release, "public"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("r1", current); err != nil {
		t.Fatal(err)
	}
	b := newHostBench(t, playing(t, "host"), file, withApp(current))
	r1, r2 := filepath.Join(dir, "r1"), filepath.Join(dir, "r2")
	b.log.await(t, `msg="paths `+r1+" "+r1+"/public "+r1+`/not/there.php"`)
	b.ready(0)
	if err := errors.Join(os.Symlink("r2", current+".new"), os.Rename(current+".new", current)); err != nil {
		t.Fatal(err)
	}
	if err := getError(t, b.reload(t.Context())); err != nil {
		t.Fatal(err)
	}
	b.log.await(t, `msg="paths `+r2+" "+r2+"/public "+r2+`/not/there.php"`)
}

// A host that has served is started again at once, as often as it takes.
func TestDeadHostsComeBackAtOnce(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "host"), nil)
	s := b.ready(0)
	for i := range 20 {
		b.clock.Advance(steadyAfter)
		b.hosts.Interrupt(s.PID, 0, dieOfKill)
		if s = b.ready(s.PID); s.Restarts != uint64(i+1) {
			t.Errorf("%+v", s)
		}
	}
	select {
	case d := <-b.clock.Set():
		for ; d != firstPause; d = <-b.clock.Set() {
			if len(b.clock.Set()) == 0 {
				return
			}
		}
		t.Error("there was a pause of", d)
	default:
	}
}
