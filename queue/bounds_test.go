package queue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"
	"pogod/storage"
)

// Every command touches at most 1,000 jobs; what is left is done by the next, after a
// restart too.
func TestCommandsAreBounded(t *testing.T) {
	t.Parallel()
	for _, restarts := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarts=%v", restarts), func(t *testing.T) {
			t.Parallel()
			testCommandsAreBounded(t, restarts)
		})
	}
}

func testCommandsAreBounded(t *testing.T, restarts bool) {
	const jobs = 2*command.MaxRecords + 500
	m := machineOf(t, queue.Definition{VisibilityTimeout: time.Second})
	session := m.openSession()
	steps := func(what string, step func() uint64, done func() bool) {
		t.Helper()
		for i, want := range []uint64{1000, 1000, 500} {
			if got := step(); got != want {
				t.Fatalf("%s: %d jobs at step %d, want %d", what, got, i, want)
			}
			if restarts {
				m.restart()
			}
			m.check()
			if last := i == 2; done() != last {
				t.Fatalf("%s: done at step %d: %v", what, i, !last)
			}
		}
	}
	tick := func() uint64 { return m.tick(m.now) }
	reserve := func() uint64 { return uint64(len(m.reserve("q", session, jobs))) }

	for range jobs {
		m.apply(&command.Command{Op: command.Push, Queue: "q", Delay: 50})
	}
	m.now += 50
	steps("delayed jobs due", tick, func() bool { return m.stats("q").Gauges.Delayed == 0 })
	steps("reserve", reserve, func() bool { return m.stats("q").Gauges.Ready == 0 })

	// The end of a session frees the first, Ticks the others, wanted at once.
	ending := func() uint64 {
		before := m.stats("q").Counters.Released
		if m.isLive(session) {
			m.endSession(session)
			// The oldest first, on every replica.
			if left := m.state.Reserved(nil, session); len(left) != jobs-1000 || left[0].Job.Seq <= freed(m) {
				t.Errorf("%d are left, the first is %v", len(left), left[0].Job)
			} else if r := m.apply(&command.Command{Op: command.Ack, Queue: "q", Job: left[0].Job, Lease: left[0].Lease}); r.Code != command.Failure {
				t.Errorf("a lease of the ended session settled: %+v", r)
			}
		} else if due := m.state.NextDue(); due > m.now {
			t.Errorf("no Tick is wanted before %d", due)
		} else {
			m.tick(m.now)
		}
		return m.stats("q").Counters.Released - before
	}
	steps("the end of a session", ending, func() bool { return m.stats("q").Gauges.Reserved == 0 })
	m.tick(m.now)
	if due := m.state.NextDue(); due < math.MaxInt64 {
		t.Errorf("nothing is left, but a Tick is wanted at %d", due)
	}

	session = m.openSession()
	steps("reserve again", reserve, func() bool { return m.stats("q").Gauges.Ready == 0 })
	m.now += 6000
	steps("leases lost", tick, func() bool { return m.stats("q").Gauges.Reserved == 0 })

	for range 3 {
		for _, d := range m.reserve("q", session, jobs) {
			m.apply(settle(command.Fail, &d))
		}
	}
	steps("purge", func() uint64 {
		r := m.apply(&command.Command{Op: command.PurgeFailed, Queue: "q"})
		if r.More != (m.stats("q").Gauges.Failed > 0) {
			t.Errorf("more is left: %v", r.More)
		}
		return r.Count
	}, func() bool { return m.stats("q").Gauges.Failed == 0 })
}

// freed returns the greatest number of a job that the end of a session gave back: the
// first thousand that were pushed.
func freed(m *machine) (last uint64) {
	probe := m.openSession()
	for _, d := range m.reserve("q", probe, command.MaxRecords) {
		last = max(last, d.Job.Seq)
		c := settle(command.Release, &d)
		c.Cause = command.Unstarted
		m.apply(c)
	}
	return last
}

// A Tick shares its bound among all that is due.
func TestTickIsBoundedInAll(t *testing.T) {
	t.Parallel()
	m := machineOf(t, queue.Definition{VisibilityTimeout: time.Second})
	session := m.openSession()
	for range 600 {
		m.push("q", "")
		m.apply(&command.Command{Op: command.Push, Queue: "q", Delay: 6000})
	}
	m.reserve("q", session, 600)
	if n := m.tick(m.now + 6000); n != 1000 {
		t.Errorf("the first Tick touched %d jobs", n)
	}
	if n := m.tick(m.now); n != 200 || m.state.NextDue() != math.MaxInt64 {
		t.Errorf("the second Tick touched %d jobs, the next is due at %d", n, m.state.NextDue())
	}
}

// What a state machine does not know it must not skip.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	m := machineOf(t, queue.Definition{})
	for op, want := range map[command.Op]error{0: command.ErrUnknown, command.OpenSession: command.ErrUnknown, 200: command.ErrUnknown} {
		if _, err := m.state.Apply(m.env(), &command.Command{Op: op}); !errors.Is(err, want) {
			t.Errorf("command %d: %v", op, err)
		}
	}
	if _, err := m.state.Apply(m.env(), &command.Command{Op: command.Define, Definitions: []byte{0xff}}); err == nil {
		t.Error("definitions that are none were taken over")
	}
}

// A file that contradicts itself is refused, not repaired.
func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	live := func(uint64) bool { return true }
	for name, change := range map[string]func(tx *storage.Tx) error{
		"a queue is missing":         func(tx *storage.Tx) error { return put(tx, "queues", []byte{0, 0, 0, 7}, nil) },
		"an unknown field":           func(tx *storage.Tx) error { return put(tx, "queues", []byte{0, 0, 0, 2}, []byte{0x7e, 1}) },
		"unknown settings":           func(tx *storage.Tx) error { return put(tx, "queue-settings", []byte("settings"), []byte{0x7e, 1}) },
		"a reserved job of no queue": func(tx *storage.Tx) error { return put(tx, "reserved", make([]byte, 8), []byte{30, 9}) },
		"a job of later fields":      func(tx *storage.Tx) error { return put(tx, "reserved", make([]byte, 8), []byte{0x7e, 1}) },
	} {
		m := machineOf(t, queue.Definition{})
		m.commit()
		if err := m.store.View(func(tx *storage.Tx) error { return queue.NewState().Load(tx, live) }); err != nil {
			t.Fatal(err)
		}
		m.ok(change(m.tx()))
		if err := queue.NewState().Load(m.tx(), live); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

func put(tx *storage.Tx, bucket string, key, value []byte) error {
	b, err := tx.Bucket([]byte(bucket))
	if err != nil {
		return err
	}
	return b.Put(key, value)
}

func TestDefinitionsRoundTrip(t *testing.T) {
	t.Parallel()
	every := queue.Definition{
		MaxMessages: 1, MaxBytes: 2, MaxPayloadBytes: 3, MaxAttempts: 4, VisibilityTimeout: 5 * time.Second,
		Backoff: []time.Duration{0, time.Second, time.Hour}, MaxCrashes: 6,
	}
	for _, want := range []queue.Definitions{
		{Queues: map[string]queue.Definition{}},
		{AutoCreate: true, Default: every, Queues: map[string]queue.Definition{"a": every, "b": {}}},
	} {
		b, hash := want.Encode()
		got, err := queue.DecodeDefinitions(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
		if again, same := got.Encode(); string(again) != string(b) || same != hash || len(hash) != 16 {
			t.Errorf("%x %s became %x %s", b, hash, again, same)
		}
	}
}

func FuzzDefinitions(f *testing.F) {
	d := queue.Definitions{AutoCreate: true, Queues: map[string]queue.Definition{
		"a": {}, "b": {MaxMessages: 1, MaxAttempts: 300, VisibilityTimeout: time.Hour, Backoff: []time.Duration{0, time.Second}, MaxCrashes: 4},
	}}
	b, _ := d.Encode()
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := queue.DecodeDefinitions(b)
		if err != nil {
			return
		}
		once, _ := d.Encode()
		again, err := queue.DecodeDefinitions(once)
		if err != nil {
			t.Fatalf("%x: %v", once, err)
		}
		if twice, _ := again.Encode(); string(twice) != string(once) {
			t.Fatalf("%x has two encodings: %x and %x", b, once, twice)
		}
	})
}

// The JSON has every key of the contract, zero or not.
func TestStatusJSON(t *testing.T) {
	t.Parallel()
	m := machineOf(t, queue.Definition{MaxPayloadBytes: 9})
	empty := m.stats("q")
	m.push("q", "x")
	st := m.stats("q")
	for _, c := range []struct {
		status queue.Status
		want   string
	}{
		{empty.Status(false), `{"queue":"q","ready":false,"pending":0,"delayed":0,"reserved":0,"failed":0,"enqueued":0,"reserved_total":0,` +
			`"acked":0,"released":0,"failed_total":0,"dropped_full":0,"dropped_payload_too_large":0,"dropped_shutdown":0,` +
			`"backend_errors":0,"max_payload_bytes":9,"oldest_pending_at":null,"suspects":0,` +
			`"paused":false,"deleted":0,"purged":0,"retried":0}`},
		{st.Status(true), `{"queue":"q","ready":true,"pending":1,"delayed":0,"reserved":0,"failed":0,"enqueued":1,"reserved_total":0,` +
			`"acked":0,"released":0,"failed_total":0,"dropped_full":0,"dropped_payload_too_large":0,"dropped_shutdown":0,` +
			`"backend_errors":0,"max_payload_bytes":9,"oldest_pending_at":"1970-01-01T00:16:40Z","suspects":0,` +
			`"paused":false,"deleted":0,"purged":0,"retried":0}`},
	} {
		if got, err := json.Marshal(c.status); err != nil || string(got) != c.want {
			t.Errorf("%s %v\nwant %s", got, err, c.want)
		}
	}
}
