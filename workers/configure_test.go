package workers

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
)

// specs are what HostsConfig.Hosts may be after a change: the bench's own host with other
// paths, and others of these names.
func (b *hostBench) specs(app string, file *os.File, others ...string) []Host {
	b.hosts.mu.Lock()
	defer b.hosts.mu.Unlock()
	own := b.hosts.hosts[0].Spec
	own.App, own.Jobs = app, []link.WorkerSpec{{Script: app + "/worker"}}
	own.Web = &link.WebSpec{Root: app + "/public"}
	all := []Host{{Spec: own, Listener: file}}
	for _, name := range others {
		all = append(all, Host{Spec: link.HostSpec{Name: name, Socket: own.Socket}})
	}
	return all
}

// names of the hosts in Status with their states, each as often as it has processes.
func (b *hostBench) names() (all []string) {
	for _, s := range b.hosts.Status() {
		all = append(all, s.Name+" "+s.State)
	}
	return all
}

func (b *hostBench) awaitNames(want ...string) {
	b.t.Helper()
	b.await(strings.Join(want, ", "), func(HostStatus) bool { return slices.Equal(b.names(), want) })
}

func TestConfigureHosts(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	app := t.TempDir()
	b := newHostBench(t, playing(t, "host"), file)
	first := b.ready(0)
	if err := b.hosts.Configure(t.Context(), b.specs(app, file, "tasks")); err != nil {
		t.Fatal(err)
	}
	b.log.await(t, "paths "+app+" "+app+"/public "+app+"/worker")
	b.awaitNames("jobs ready", "tasks ready")
	second := b.hosts.Status()
	b.hosts.mu.Lock()
	if n := b.hosts.hosts[1].started; n != 1 {
		t.Errorf("the new host was started %d times", n)
	}
	b.hosts.mu.Unlock()
	if second[0].PID == first.PID || second[0].Restarts != 0 || second[1].Restarts != 0 || b.hosts.NotReady() != "" {
		t.Errorf("%+v, first %+v", second, first)
	}
	if err := b.hosts.Configure(t.Context(), b.specs(app, file)); err != nil {
		t.Fatal(err)
	}
	b.await("it is forgotten", func(HostStatus) bool {
		b.hosts.mu.Lock()
		defer b.hosts.mu.Unlock()
		return len(b.hosts.hosts) == 1
	})
	b.awaitNames("jobs ready")
	if e, ok := b.hosts.Ended(second[1].PID); !ok || !e.Planned {
		t.Errorf("the host that is gone ended by %+v %v", e, ok)
	}
	// Its name can come again.
	if err := b.hosts.Configure(t.Context(), b.specs(app, file, "tasks")); err != nil {
		t.Fatal(err)
	}
	b.awaitNames("jobs ready", "tasks ready")
}

// A host that is gone is shown and kept while it finishes what it runs.
func TestConfiguredAwayHostDrains(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	b := newHostBench(t, playing(t, "stubborn"), file)
	b.ready(0)
	app := t.TempDir()
	if err := b.hosts.Configure(t.Context(), b.specs(app, file, "tasks")); err != nil {
		t.Fatal(err)
	}
	old := b.hosts.Status()[0]
	for _, s := range b.hosts.Status() {
		if s.Name == "jobs" && s.State == hostDraining {
			b.hosts.Kill(s.PID, "the test is done with it")
		}
	}
	b.awaitNames("jobs ready", "tasks ready")
	tasks := b.hosts.Status()[1]
	if err := b.hosts.Configure(t.Context(), b.specs(app, file)); err != nil {
		t.Fatal(err)
	}
	b.hosts.Kill(old.PID, "the test is done with it")
	b.awaitNames("jobs ready", "tasks draining")
	if b.hosts.NotReady() != "" {
		t.Error(b.hosts.NotReady())
	}
	b.hosts.Kill(tasks.PID, "the test is done with it")
	b.awaitNames("jobs ready")
}

// Where a new process does not get ready, everything stays as it was.
func TestConfigureThatFails(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	good, bad := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, broken), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newHostBench(t, playing(t, "host"), file)
	b.ready(0)
	if err := b.hosts.Configure(t.Context(), b.specs(good, file)); err != nil {
		t.Fatal(err)
	}
	b.awaitNames("jobs ready")
	err := b.hosts.Configure(t.Context(), b.specs(bad, file, "tasks"))
	if !errors.Is(err, ErrReload) || !strings.Contains(err.Error(), "PHP host jobs ended before it was ready (exit code 3: the worker is broken)") {
		t.Error(err)
	}
	b.awaitNames("jobs ready")
	b.clock.Advance(steadyAfter)
	before := b.hosts.Status()[0]
	b.hosts.Interrupt(before.PID, 0, dieOfKill)
	b.ready(before.PID) // with the old configuration, or it would not be
	if err := b.hosts.Reload(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConfigureAfterStop(t *testing.T) {
	t.Parallel()
	_, file := listen(t)
	b := newHostBench(t, playing(t, "host"), file)
	b.ready(0)
	b.hosts.Drain()
	if err := b.hosts.Configure(t.Context(), b.specs(t.TempDir(), file, "tasks")); !errors.Is(err, ErrReload) {
		t.Error(err)
	}
	for _, name := range b.names() {
		if strings.HasPrefix(name, "tasks") {
			t.Error(name)
		}
	}
}

func TestConfigurePools(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.state
	waits, runs := b.thread("mail", 0), b.thread("mail", 1)
	d := b.deliver(runs, job("mail", "q", "x"))
	waiting := waits.next()
	s.await(t, "a credit", func() bool { return s.free("mail") == 1 })
	b.pools.Configure([]Pool{{Name: "other", Queues: []string{"p"}, Script: "other.php"}}, killGrace)
	if a := get(t, waiting); a.code != 0 || a.err != nil {
		t.Errorf("the thread that waits: %+v", a)
	}
	s.await(t, "the new pool alone", func() bool { return len(s.credits.Pools) == 1 && s.free("other") == 0 })
	// What runs is ended as ever.
	if a := get(t, runs.next()); a.code != 0 || a.err != nil {
		t.Errorf("the thread that ran: %+v", a)
	}
	b.onlyEnd(d.Lease, command.Unsettled, "the handler in worker mail ended without ack, release or fail")
	b.deliver(b.thread("other", 0), job("other", "p", "y"))
	// Its queues can change while its threads wait.
	third := b.thread("other", 1)
	answer := third.next()
	s.await(t, "a credit", func() bool { return s.free("other") == 1 })
	b.pools.Configure([]Pool{{Name: "other", Queues: []string{"p", "r"}, Script: "other.php", MaxJobs: 1}}, killGrace)
	s.await(t, "its queues", func() bool {
		return slices.Equal(s.credits.Pools[0].Queues, []string{"p", "r"}) && s.free("other") == 1
	})
	e := s.reserve(job("other", "r", "z"))
	if a := get(t, answer); a.lease != e.Lease {
		t.Errorf("%+v", a)
	}
	s.settle(e.Lease)
	if a := get(t, third.next()); a.code != 0 {
		t.Errorf("max_jobs is not 1: %+v", a)
	}
}

func TestConfigureKillGrace(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.pools.Configure(b.pools.pools(), killGrace+11*time.Second)
	b.stick()
	b.clock.await(t, killGrace+11*time.Second-stuckAfter)
}

func TestConfigureDispatch(t *testing.T) {
	t.Parallel()
	b := newDispatchBench(t, TaskPool{Name: "stays", Threads: 1, MaxWait: 30 * time.Second}, TaskPool{Name: "goes", Threads: 1, MaxWait: 30 * time.Second})
	script, stays, goes, idle := b.peer(), b.peer(), b.peer(), b.peer()
	first := goes.next("goes", 0, 0, "")
	script.dispatch(1, "goes", "runs")
	running := b.reply(first)
	script.dispatch(2, "goes", "waits")
	script.dispatch(3, "stays", "waits too")
	b.d.Configure([]TaskPool{{Name: "new", Threads: 2, MaxWait: time.Second}, {Name: "stays", Threads: 3, MaxWait: 30 * time.Second}})
	b.result(script.await(2, time.Minute), told{2, link.Broke, `pool "goes" is no longer in the configuration`})
	if r := b.reply(goes.next("goes", running.number, link.Returned, "done")); r.code != 0 {
		t.Errorf("%+v", r)
	}
	b.result(script.await(1, time.Minute), told{1, link.Returned, "done"})
	if r := b.reply(idle.next("goes", 0, 0, "")); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if sizes := b.d.Sizes(); len(sizes) != 2 || sizes[0] != (link.PoolSize{Name: "new", Threads: 2}) || sizes[1] != (link.PoolSize{Name: "stays", Threads: 3}) {
		t.Errorf("%+v", sizes)
	}
	if s := b.d.Status(); len(s) != 2 || s[1].Name != "stays" || s[1].Queued != 1 {
		t.Errorf("%+v", s)
	}
	waits := b.reply(stays.next("stays", 0, 0, ""))
	if waits.message != "waits too" {
		t.Errorf("%+v", waits)
	}
	// A shorter max_wait goes for what waits already, and a pool that has a thread waiting
	// lets it go when it is gone.
	script.dispatch(4, "stays", "behind it")
	b.d.Configure([]TaskPool{{Name: "stays", Threads: 1, MaxWait: 2 * time.Second}})
	b.clock.Advance(0)
	answer := script.await(4, time.Minute)
	b.clock.Advance(2 * time.Second)
	b.result(answer, told{4, link.Broke, `no thread of pool "stays" was free within 2s (its max_wait)`})
	last := stays.next("stays", waits.number, link.Returned, "x")
	b.d.Configure(nil)
	if r := b.reply(last); r.code != 0 {
		t.Errorf("%+v", r)
	}
}
