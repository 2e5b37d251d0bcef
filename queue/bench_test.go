package queue_test

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"
)

var benchBacklog = flag.Int("backlog", 0, "also benchmark with so many jobs waiting; it takes a while to fill, 1000000 some 10 s")

// BenchmarkCycles counts push, reserve and ack of a job as one cycle. They come in
// batches of 64, as from a node's proposer, and are committed, synced, every 4,096
// commands. The log is left out.
func BenchmarkCycles(b *testing.B) {
	backlogs := []int{0}
	if *benchBacklog > 0 {
		backlogs = append(backlogs, *benchBacklog)
	}
	for _, backlog := range backlogs {
		for _, payload := range []int{100, 1000} {
			b.Run(fmt.Sprintf("backlog=%d/payload=%d", backlog, payload), func(b *testing.B) {
				benchmarkCycles(b, backlog, payload)
			})
		}
	}
}

const (
	benchBatch  = 64
	benchCommit = 4096
)

func benchmarkCycles(b *testing.B, backlog, payload int) {
	m := newMachine(b, filepath.Join(b.TempDir(), "data"))
	defer m.close()
	m.now = 1_763_849_472_123
	m.define(&queue.Definitions{Queues: map[string]queue.Definition{"mail": {MaxAttempts: 3, VisibilityTimeout: time.Minute}}})
	session := m.openSession()
	push := command.Command{Op: command.Push, Queue: "mail", Payload: make([]byte, payload)}
	reserve := command.Command{Op: command.Reserve, Queue: "mail", Session: session, Pool: "jobs", Count: benchBatch}
	ack := command.Command{Op: command.Ack, Queue: "mail"}
	commands := 0
	env := m.env()
	apply := func(c *command.Command) {
		if commands++; commands%benchCommit == 0 {
			m.commit()
			env.Tx = m.tx()
		}
		if r, err := m.state.Apply(env, c); err != nil || r.Code != command.Accepted {
			b.Fatal(r, err)
		}
	}
	for range backlog {
		apply(&push)
	}
	m.commit()
	env.Tx = m.tx()
	var held []queue.Delivery
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += benchBatch {
		for range benchBatch {
			apply(&push)
		}
		apply(&reserve)
		held = m.state.Reserved(held[:0], session)
		for i := range held {
			ack.Job, ack.Lease = held[i].Job, held[i].Lease
			apply(&ack)
		}
	}
	m.commit()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cycles/s")
	if st := m.stats("mail"); st.Gauges.Ready != uint64(backlog) || st.Gauges.Reserved != 0 {
		b.Fatalf("%+v", st)
	}
}

// BenchmarkFlush measures a commit of a state with many reserved jobs.
func BenchmarkFlush(b *testing.B) {
	for _, reserved := range []int{0, 1000} {
		b.Run(fmt.Sprintf("reserved=%d", reserved), func(b *testing.B) {
			m := newMachine(b, filepath.Join(b.TempDir(), "data"))
			defer m.close()
			m.define(&queue.Definitions{Queues: map[string]queue.Definition{"mail": {VisibilityTimeout: time.Minute}}})
			session := m.openSession()
			for range reserved {
				m.push("mail", "payload")
			}
			m.reserve("mail", session, uint64(reserved))
			m.commit()
			for b.Loop() {
				m.apply(&command.Command{Op: command.Count, Queue: "mail", Backend: 1})
				m.commit()
			}
		})
	}
}
