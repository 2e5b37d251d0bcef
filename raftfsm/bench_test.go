package raftfsm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pogod/queue"
	"pogod/raftfsm/leader"
)

// A durable push through proposer, leader, log and state machine: what a node can do
// before the link and PHP. Each caller waits for its answer before it pushes again.
func BenchmarkPush(b *testing.B) {
	payload := []byte(strings.Repeat("x", 256))
	for _, callers := range []int{1, 4, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := start(b, b.TempDir())
			defer n.stop(b)
			before, _ := n.group.FSM.Indexes()
			share(b, callers, func() error {
				_, err := n.queue.Push(b.Context(), "q", payload, 0)
				return err
			})
			after, _ := n.group.FSM.Indexes()
			b.ReportMetric(float64(b.N)/float64(after-before), "commands/fsync")
		})
	}
}

// Push, reserve, ack: as many jobs under way as there are callers.
func BenchmarkCycle(b *testing.B) {
	payload := []byte(strings.Repeat("x", 256))
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := start(b, b.TempDir())
			defer n.stop(b)
			jobs := make(chan queue.Delivery, callers)
			stop := make(chan struct{})
			done := make(chan struct{})
			go func() { // ended by stop
				defer close(done)
				hand(n, callers, jobs, stop)
			}()
			share(b, callers, func() error {
				if _, err := n.queue.Push(b.Context(), "q", payload, 0); err != nil {
					return err
				}
				d := <-jobs
				return n.queue.Ack(b.Context(), "q", d.ID())
			})
			close(stop)
			<-done
		})
	}
}

// hand hands out what is reserved for the node, as package workers does.
func hand(n *node, free int, jobs chan<- queue.Delivery, stop <-chan struct{}) {
	changed := n.group.FSM.Watch()
	given := map[uint64]bool{}
	var buf []queue.Delivery
	for {
		var applied uint64
		buf, applied = n.group.FSM.Reserved(buf[:0], n.proposer.Session())
		held := map[uint64]bool{}
		for _, d := range buf {
			held[d.Lease] = true
			if !given[d.Lease] {
				given[d.Lease] = true
				jobs <- d
			}
		}
		for lease := range given {
			if !held[lease] {
				delete(given, lease)
			}
		}
		n.leader.Offer(leader.Credits{Session: n.proposer.Session(), Applied: applied, Pools: []leader.Pool{{Name: "p", Queues: []string{"q"}, Free: free - len(buf)}}})
		select {
		case <-changed:
		case <-stop:
			return
		}
	}
}

// share runs b.N calls on callers goroutines and reports their rate.
func share(b *testing.B, callers int, call func() error) {
	b.Helper()
	work := make(chan struct{}, callers)
	errs := make(chan error, callers)
	b.ResetTimer()
	begin := time.Now()
	for range callers {
		go func() { // ended by closing work
			var first error
			for range work {
				if err := call(); err != nil && first == nil {
					first = err
				}
			}
			errs <- first
		}()
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	for range callers {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "ops/s")
}
