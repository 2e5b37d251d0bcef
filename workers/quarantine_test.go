package workers

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
)

var quarantined = []Pool{{Name: "mail", Queues: []string{"q", "low"}, Script: "worker.php"}, {Name: "cli", Queues: []string{"q"}}}

func TestQuarantineIsOneThreadOfTheSameScript(t *testing.T) {
	t.Parallel()
	want := append(append([]Pool{}, quarantined...), Pool{Name: "mail/quarantine", Queues: []string{"q/suspects", "low/suspects"}, Script: "worker.php"})
	if got := WithQuarantine(quarantined); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	spec := link.HostSpec{
		Name: "jobs", Socket: "s", App: "/app", Ini: map[string]string{"a": "1"}, Web: &link.WebSpec{},
		Jobs: []link.WorkerSpec{{Name: "a", Threads: 3}, {Name: "mail", Script: "worker.php", Threads: 4, FirstSlot: 3, Env: map[string]string{"E": "1"}}},
	}
	got := QuarantineHosts([]Host{{Spec: link.HostSpec{Name: "web", Web: &link.WebSpec{}}, Listener: os.Stdin}, {Spec: spec}})
	alone := spec
	alone.Name, alone.Web = "mail/quarantine", nil
	alone.Jobs = []link.WorkerSpec{{Name: "mail/quarantine", Script: "worker.php", Threads: 1, Env: map[string]string{"E": "1"}}}
	if len(got) != 2 || got[0].Spec.Name != "a/quarantine" || !reflect.DeepEqual(got[1], Host{Spec: alone, OnDemand: true}) {
		t.Errorf("%+v", got)
	}
	if spec.Jobs[1].Threads != 4 || spec.Name != "jobs" {
		t.Errorf("the worker's own host was changed: %+v", spec)
	}
}

// The host of a quarantine is asked for at once, again and again while a suspect waits or
// runs, and not before or after.
func TestQuarantineIsDemandedWhileThereAreSuspects(t *testing.T) {
	t.Parallel()
	b := newBench(t, WithQuarantine(quarantined)...)
	s := b.state
	s.change(func() { s.hosts["mail/quarantine"] = os.Getpid() })
	b.reconciled()
	if s.demands != nil {
		t.Fatal(s.demands)
	}
	s.apply(func() { s.ready["low/suspects"] = 1 })
	s.await(t, "the host is asked for", func() bool { return len(s.demands) == 1 && s.demands[0] == "mail/quarantine" })
	b.reconciled()
	b.clock.await(t, demandEvery)
	b.clock.Advance(demandEvery)
	s.await(t, "it is asked for again", func() bool { return len(s.demands) == 2 })

	k := b.thread("mail/quarantine", 0)
	d := job("mail/quarantine", "low", "x")
	d.Suspect, d.Timeout = true, 0
	d = b.deliver(k, d)
	s.apply(func() { s.ready["low/suspects"] = 0 })
	b.reconciled()
	b.clock.Advance(demandEvery)
	s.await(t, "it is asked for while the job runs", func() bool { return len(s.demands) == 3 })

	s.settle(d.Lease)
	k.next()
	s.await(t, "the job has ended", func() bool { return len(s.running) == 0 })
	b.reconciled()
	b.clock.Advance(10 * demandEvery)
	b.reconciled()
	if n := len(s.demands); n != 3 {
		t.Errorf("asked for %d times, though there is nothing to run", n)
	}
	s.apply(func() { s.ready["q/suspects"] = 1 })
	s.await(t, "the next suspect has it run at once", func() bool { return len(s.demands) == 4 })
}

// Beside another process's jobs, or with its own, a suspect would not be alone.
func TestQuarantineIsForItsOwnHostOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, WithQuarantine(quarantined)...)
	s := b.state
	s.change(func() { s.hosts["mail/quarantine"] = os.Getpid() + 1 })
	if a := get(t, b.thread("mail/quarantine", 0).next()); a.code != 0 {
		t.Errorf("%+v", a)
	}
	s.change(func() { s.hosts["mail/quarantine"] = os.Getpid() })
	k := b.thread("mail/quarantine", 0)
	k.next()
	s.await(t, "one thread", func() bool { return s.free("mail/quarantine") == 1 })
}

// A host that dies in quarantine is charged to its job, which the state machine is told.
func TestCrashInQuarantine(t *testing.T) {
	t.Parallel()
	b := newBench(t, WithQuarantine(quarantined)...)
	s := b.state
	s.change(func() { s.hosts["mail/quarantine"], s.how[os.Getpid()] = os.Getpid(), Exit{How: "SIGABRT"} })
	k := b.thread("mail/quarantine", 0)
	d := job("mail/quarantine", "q", "x")
	d.Suspect, d.Crashes, d.MaxCrashes = true, 1, 2
	d = b.deliver(k, d)
	k.c.Close()
	b.onlyEnd(d.Lease, command.Crashed, "PHP host ended by SIGABRT")
}

// Runs is about the present process of a host.
func TestRuns(t *testing.T) {
	t.Parallel()
	b := newHostBench(t, playing(t, "host"), nil)
	s := b.ready(0)
	if !b.hosts.Runs("jobs", s.PID) || b.hosts.Runs("jobs", s.PID+1) || b.hosts.Runs("mail", s.PID) {
		t.Errorf("%+v", s)
	}
}

// The names cannot be those of a worker or of a queue.
func TestQuarantineNames(t *testing.T) {
	t.Parallel()
	if q := QuarantineOf("mail"); !strings.Contains(q, "/") || !IsQuarantine(q) || IsQuarantine("quarantine") || IsQuarantine("mail") {
		t.Error(q)
	}
	if demandEvery >= time.Minute/2 {
		t.Error(demandEvery)
	}
}
