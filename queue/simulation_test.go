package queue_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"
)

// event is one step of a log: a command, or the end of a session.
type event struct {
	now     int64
	command *command.Command
	opened  uint64 // a session
	ended   uint64
}

func (e event) apply(m *machine) string {
	m.now = e.now
	switch {
	case e.opened > 0:
		m.openSession()
		return fmt.Sprint("session ", m.counter)
	case e.ended > 0:
		m.endSession(e.ended)
		return ""
	}
	return fmt.Sprintf("%+v", m.apply(e.command))
}

// generate makes a log of n events by driving m, so that ids and leases fit.
func generate(m *machine, r *rand.Rand, n int) (log []event, answers []string) {
	names := []string{"a", "a", "b", "b", "c", "made"}
	var sessions []uint64
	var handed []queue.Delivery
	var ids []command.JobID
	do := func(e event) {
		e.now = m.now
		log, answers = append(log, e), append(answers, e.apply(m))
	}
	name := func() string { return names[r.IntN(len(names))] }
	for len(log) < n {
		if len(sessions) == 0 || r.IntN(200) == 0 {
			do(event{opened: 1})
			sessions = append(sessions, m.counter)
		}
		session := sessions[max(0, len(sessions)-1-r.IntN(3))]
		c := &command.Command{Queue: name()}
		switch k := r.IntN(100); {
		case k < 35:
			c.Op, c.Payload = command.Push, bytes.Repeat([]byte{'p'}, r.IntN(300))
			c.Delay = uint64(max(0, r.IntN(4000)-2500))
		case k < 55:
			c.Op, c.Session, c.Pool, c.Count = command.Reserve, session, "jobs", uint64(r.IntN(4))
			if r.IntN(3) == 0 {
				c.Queue = queue.Suspects(c.Queue)
			}
			before := m.counter
			do(event{command: c})
			for _, d := range m.newer(session, before) {
				handed, ids = append(handed, d), append(ids, d.Job)
			}
			continue
		case k < 85 && len(handed) > 0:
			d := handed[max(0, len(handed)-1-r.IntN(20))]
			c.Op = []command.Op{command.Ack, command.Release, command.Release, command.Fail}[r.IntN(4)]
			c.Queue, c.Job, c.Lease = d.Queue, d.Job, d.Lease
			if c.Op == command.Release {
				c.Cause = command.Cause(r.IntN(int(command.Crashed) + 1))
				c.Delay = uint64(r.IntN(2) * r.IntN(500))
			}
			if c.Op != command.Ack {
				c.Reason = "boom"
			}
		case k < 93:
			m.now += int64(r.IntN(1500))
			c = &command.Command{Op: command.Tick}
		case k < 97 && len(ids) > 0:
			c.Op = []command.Op{command.RetryFailed, command.ForgetFailed}[r.IntN(2)]
			c.Job = ids[r.IntN(len(ids))]
		case k < 98 && r.IntN(5) == 0:
			c.Op = command.PurgeFailed
		case k < 98 && len(ids) > 0:
			switch r.IntN(8) {
			case 0:
				c.Op, c.From = command.Clear, uint64(r.IntN(2))*m.counter
			case 1:
				c.Op = command.Pause
			case 2, 3:
				c.Op = command.Resume
			case 4, 5:
				c.Op, c.From, c.Reason, c.Delay = command.RetryAll, uint64(r.IntN(2))*m.counter/2, []string{"", "boo"}[r.IntN(2)], uint64(r.IntN(2000))
			default:
				c.Op, c.Job = command.Delete, ids[r.IntN(len(ids))]
				c.From = c.Job.Seq
			}
		case k < 99 && r.IntN(4) == 0:
			do(event{ended: session})
			continue
		default:
			d := &queue.Definitions{AutoCreate: r.IntN(2) == 0, Queues: map[string]queue.Definition{}}
			for _, name := range []string{"a", "b", "c"} {
				if r.IntN(4) > 0 {
					d.Queues[name] = queue.Definition{
						MaxMessages: uint64(r.IntN(2) * 200), MaxAttempts: uint64(r.IntN(4)), MaxCrashes: uint64(r.IntN(3)), VisibilityTimeout: time.Second,
						Backoff: []time.Duration{time.Duration(r.IntN(3)) * 100 * time.Millisecond},
					}
				}
			}
			c = &command.Command{Op: command.Define}
			c.Definitions, c.Hash = d.Encode()
		}
		do(event{command: c})
	}
	return log, answers
}

// One seed drives three replicas through the same log. They commit and restart at
// moments of their own; the last one crashes too, and applies again what it lost. In
// the end their files hold the same bytes, and every answer was the same.
func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	seeds := 12
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			replica := func(name string) *machine {
				m := newMachine(t, filepath.Join(dir, name))
				m.now = 1_000_000
				return m
			}
			// The leader of this log commits once, at the end.
			first := replica("first")
			log, answers := generate(first, rand.New(rand.NewPCG(uint64(seed), 1)), 3000)
			first.commit()
			first.check()
			first.close()
			want := dump(t, first.path)

			r := rand.New(rand.NewPCG(uint64(seed), 2))
			second, third := replica("second"), replica("third")
			replay(t, second, log, answers, func() string { return pick(r, 100, "commit", 400, "restart") })
			replay(t, third, log, answers, func() string { return pick(r, 60, "commit", 600, "crash") })
			for _, m := range []*machine{second, third} {
				if got := dump(t, m.path); !bytes.Equal(got, want) {
					t.Errorf("%s differs from the first:\n%s", filepath.Base(m.path), firstDifference(got, want))
				}
			}
		})
	}
}

// pick returns one with 1 in n, other with 1 in k.
func pick(r *rand.Rand, n int, one string, k int, other string) string {
	switch {
	case r.IntN(n) == 0:
		return one
	case r.IntN(k) == 0:
		return other
	}
	return ""
}

// replay applies log to m, does after each event what then says, and commits and
// closes at the end.
func replay(t *testing.T, m *machine, log []event, answers []string, then func() string) {
	t.Helper()
	type kept struct {
		now      int64
		counter  uint64
		sessions []uint64
		next     int
	}
	// What raftfsm commits together with the queue.
	save := func(next int) (k kept) {
		k = kept{m.now, m.counter, nil, next}
		for s := range m.live {
			k.sessions = append(k.sessions, s)
		}
		return k
	}
	m.commit()
	committed := save(0)
	for i := 0; i < len(log); i++ {
		if got := log[i].apply(m); got != answers[i] {
			t.Fatalf("event %d: %s answers %s, the first %s", i, filepath.Base(m.path), got, answers[i])
		}
		switch then() {
		case "commit":
			m.commit()
			committed = save(i + 1)
		case "restart":
			m.restart()
			m.check()
			committed = save(i + 1)
		case "crash":
			m.now, m.counter, m.live = committed.now, committed.counter, map[uint64]bool{}
			for _, s := range committed.sessions {
				m.live[s] = true
			}
			m.crash()
			i = committed.next - 1
		}
	}
	m.commit()
	m.check()
	m.close()
}

func firstDifference(got, want []byte) string {
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range max(len(g), len(w)) {
		var a, b []byte
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if !bytes.Equal(a, b) {
			return fmt.Sprintf("line %d: %.400s\n   want: %.400s", i+1, a, b)
		}
	}
	return "none"
}
