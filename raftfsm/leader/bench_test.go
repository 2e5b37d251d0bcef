package leader

import (
	"fmt"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/raftfsm"
)

// instantRaft leads and applies each entry at once: every Reserve gets much.
type instantRaft struct {
	lead  chan bool
	index uint64
}

type applied struct{ outcome *raftfsm.Outcome }

func (a applied) Error() error  { return nil }
func (a applied) Response() any { return a.outcome }
func (a applied) Index() uint64 { return 0 }

var plenty = func() (r [64]command.Result) {
	for i := range r {
		r[i].Count = command.MaxRecords
	}
	return r
}()

func (r *instantRaft) Apply([]byte, time.Duration) raft.ApplyFuture {
	r.index++
	return applied{&raftfsm.Outcome{Index: r.index, Leader: plenty[:]}}
}
func (r *instantRaft) Barrier(time.Duration) raft.Future { return applied{} }
func (r *instantRaft) VerifyLeader() raft.Future         { return applied{} }
func (r *instantRaft) CurrentTerm() uint64               { return 1 }
func (r *instantRaft) LeaderCh() <-chan bool             { return r.lead }

// stillState has nothing ready but what is pushed.
type stillState struct {
	ready uint64
	nodes map[uint64]string
}

func (s stillState) Ready(string) uint64         { return s.ready }
func (stillState) Paused(string) bool            { return false }
func (stillState) NextTick() (due, now int64)    { return math.MaxInt64, 0 }
func (stillState) DefinitionsHash() string       { return "" }
func (stillState) Superseded(string) bool        { return false }
func (stillState) Watch() <-chan struct{}        { return nil }
func (s stillState) Sessions() map[uint64]string { return s.nodes }
func (stillState) Applied() uint64               { return 0 }

func benchLeader(b *testing.B, nodes int, ready uint64) *Leader {
	b.Helper()
	s := stillState{ready: ready, nodes: map[uint64]string{}}
	for n := range nodes {
		s.nodes[uint64(n+1)] = fmt.Sprint("node ", n)
	}
	r := &instantRaft{lead: make(chan bool, 1)}
	l := New(Config{
		Raft: r, State: s, Clock: clock.System(), Node: "node 0", SessionTTL: 6 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
	b.Cleanup(l.Close)
	r.lead <- true
	if err := l.WaitReady(b.Context()); err != nil {
		b.Fatal(err)
	}
	return l
}

// A batch of 10 pushes, its Reserves, its outcome, and the credits that each node sends
// after it.
func BenchmarkSubmit(b *testing.B) {
	for nodes := 1; nodes <= 3; nodes++ {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			l := benchLeader(b, nodes, 0)
			batch := command.AppendBatch(nil, command.Batch{Session: 1, Number: 1, Commands: make([]byte, 3000)})
			pushed := []raftfsm.QueueCount{{Queue: "default", Count: 10}}
			queues := []string{"high", "default", "low"}
			b.ReportAllocs()
			var at uint64
			for b.Loop() {
				for n := range nodes {
					l.Offer(Credits{Session: uint64(n + 1), Applied: at, Follows: true, Pools: []Pool{{"mail", []string{"mail"}, 2}, {"jobs", queues, 16}}})
				}
				o, err := l.Submit(batch, pushed)()
				if err != nil {
					b.Fatal(err)
				}
				at = o.Index
			}
		})
	}
}

// 1,000 ready jobs for nodes that are not equally free, and nothing for them.
func BenchmarkAssign(b *testing.B) {
	for _, ready := range []uint64{0, 1000} {
		for _, nodes := range []int{1, 3, 10} {
			b.Run(fmt.Sprintf("nodes=%d/ready=%d", nodes, ready), func(b *testing.B) {
				l := benchLeader(b, nodes, ready)
				queues := []string{"high", "default", "low"}
				for n := range nodes {
					l.Offer(Credits{Session: uint64(n + 1), Follows: true, Pools: []Pool{{"mail", []string{"mail"}, 20}, {"jobs", queues, 400 + n}}})
				}
				l.mu.Lock()
				defer l.mu.Unlock()
				b.ReportAllocs()
				for b.Loop() {
					x := l.assign(l.commands[:0], nil)
					for i := range x.proposals {
						x.proposals[i].settle(0, 0)
					}
				}
			})
		}
	}
}
