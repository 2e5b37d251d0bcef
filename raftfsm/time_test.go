package raftfsm_test

import (
	"path/filepath"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"
)

// at applies commands of the leader at a time, in milliseconds.
func (a *applier) at(millis int64, commands ...command.Command) []command.Result {
	a.t.Helper()
	var b []byte
	for i := range commands {
		var err error
		if b, err = commands[i].Append(b); err != nil {
			a.t.Fatal(err)
		}
	}
	o := a.apply(command.Entry{Time: millis, Commands: b})
	if o.Err != nil {
		a.t.Fatal(o.Err)
	}
	return o.Leader
}

// reopen restarts the state machine, which reads its file.
func (a *applier) reopen(path string) {
	a.t.Helper()
	if err := a.fsm.Close(); err != nil {
		a.t.Fatal(err)
	}
	index := a.index
	*a = *newApplier(a.t, path)
	if a.index != index {
		a.t.Fatalf("it is at entry %d, not %d", a.index, index)
	}
}

func (a *applier) held(session uint64) []queue.Delivery {
	d, _ := a.fsm.Reserved(nil, session)
	return d
}

// However the time is set, ahead or back: an attempt may run as long as before, a delayed
// job is due at its time, and the state is the same on a node that restarts in between.
func TestLeasesMoveWithTheTimeAndDueJobsDoNot(t *testing.T) {
	t.Parallel()
	const year = int64(365 * 24 * time.Hour / time.Millisecond)
	const start = 2 * year
	for _, shift := range []int64{600_000, -600_000, year, -year} {
		for _, restart := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "f")
			a := newApplier(t, path)
			again := func() {
				if restart {
					a.reopen(path)
				}
			}
			encoded, hash := definitions.Encode()
			s := a.at(start, command.Command{Op: command.Define, Definitions: encoded, Hash: hash}, command.Command{Op: command.OpenSession, Node: "n", Number: 1})[1].Session
			a.at(start,
				command.Command{Op: command.Push, Queue: "q"}, command.Command{Op: command.Push, Queue: "q"},
				command.Command{Op: command.Push, Queue: "q", Payload: []byte("later"), Delay: 1000},
				command.Command{Op: command.Reserve, Session: s, Queue: "q", Pool: "p", Count: 2})
			again()
			tick := command.Command{Op: command.Tick}
			a.at(start, command.Command{Op: command.SetTime, Time: start + shift})
			if _, now := a.fsm.NextTick(); now != start+shift {
				t.Errorf("set by %d, it is %d", shift, now-start)
			}
			first := a.held(s)
			if len(first) != 2 || first[0].ReservedAt != start+shift || first[0].Timeout != time.Minute {
				t.Fatalf("%+v", first)
			}
			// One is acked that is stored as of the time before.
			a.at(start+shift, command.Command{Op: command.Ack, Queue: "q", Job: first[0].Job, Lease: first[0].Lease})
			again()
			left := (definitions.Default.VisibilityTimeout + 5*time.Second).Milliseconds()
			a.at(start+shift+left-1, tick)
			if got := a.held(s); len(got) != 1 || got[0].Lease != first[1].Lease {
				t.Errorf("set by %d, before the end of its lease: %+v", shift, got)
			}
			again()
			a.at(start+shift+left, tick)
			if got := a.held(s); len(got) != 0 {
				t.Errorf("set by %d, behind the end of its lease: %+v", shift, got)
			}
			// The delayed one, and the one whose lease ended: the latter is ready at once.
			want := uint64(1)
			if shift > 0 || start+shift+left >= start+1000 {
				want = 2
			}
			if a.pending() != want {
				t.Errorf("set by %d: %d ready, want %d", shift, a.pending(), want)
			}
			if want == 1 {
				due := start + 1000
				if a.at(due-1, tick); a.pending() != 1 {
					t.Error("a delayed job came early, by cluster time")
				}
				if a.at(due, tick); a.pending() != 2 {
					t.Error("a delayed job is not due at its time")
				}
			}
			if err := a.fsm.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestTimeGoesBackOnlyWhenItIsSet(t *testing.T) {
	t.Parallel()
	a := newApplier(t, filepath.Join(t.TempDir(), "f"))
	defer func() { _ = a.fsm.Close() }()
	now := func() int64 { _, now := a.fsm.NextTick(); return now }
	a.at(5000)
	if a.at(4000); now() != 5000 {
		t.Error(now())
	}
	a.at(4000, command.Command{Op: command.SetTime, Time: 3000})
	if now() != 3000 {
		t.Error(now())
	}
	if a.at(3001); now() != 3001 {
		t.Error(now())
	}
}

func TestSupersededDefinitionsAreRemembered(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	a := newApplier(t, path)
	encoded, _ := definitions.Encode()
	for _, hash := range []string{"a", "b", "b", "c", "a"} {
		a.at(5000, command.Command{Op: command.Define, Definitions: encoded, Hash: hash})
	}
	for range 2 {
		for hash, want := range map[string]bool{"a": false, "b": true, "c": true, "d": false, "": false} {
			if got := a.fsm.Superseded(hash); got != want {
				t.Errorf("%q superseded: %v", hash, got)
			}
		}
		if a.fsm.DefinitionsHash() != "a" {
			t.Error(a.fsm.DefinitionsHash())
		}
		a.reopen(path)
	}
	// There is a bound.
	for i := range 200 {
		a.at(5000, command.Command{Op: command.Define, Definitions: encoded, Hash: string(rune('A' + i))})
	}
	if a.fsm.Superseded("b") || !a.fsm.Superseded(string(rune('A'+198))) || !a.fsm.Superseded(string(rune('A'+135))) || a.fsm.Superseded(string(rune('A'+134))) {
		t.Error("not the last 64 are remembered")
	}
	if err := a.fsm.Close(); err != nil {
		t.Error(err)
	}
}
