package workers

import (
	"sync"
	"testing"

	"pogod/internal/command"
	"pogod/queue"
	"pogod/raftfsm/leader"
)

// Many threads and jobs, with a leader that reserves whatever is free; some attempts are
// acked, some left unsettled, some broken, some lose their connection. Every job is acked
// once, and none runs twice at the same time.
func TestManyThreadsAndJobs(t *testing.T) {
	t.Parallel()
	const threads, jobs = 12, 300
	b := &bench{t: t, state: newFakeState(), clock: newSpyClock()}
	s := b.state
	var backlog []queue.Delivery
	for i := range jobs {
		d := job("mail", "q", "x")
		d.Timeout = 0
		d.Job = command.JobID{Millis: 1, Seq: uint64(i)}
		backlog = append(backlog, d)
	}
	runs, acked := map[uint64]int{}, map[uint64]int{} // by job
	var last uint64
	s.onOffer = func(c leader.Credits) {
		if c.Applied < last {
			return
		}
		for free := c.Pools[0].Free; free > 0 && len(backlog) > 0; free-- {
			s.reserveLocked(backlog[0])
			backlog = backlog[1:]
			s.applyLocked()
			last = s.applied
		}
	}
	s.onEnd = func(d queue.Delivery) {
		runs[d.Job.Seq]--
		backlog = append(backlog, d)
	}
	b.start(nil)
	var all sync.WaitGroup
	for i := range threads {
		k := b.thread("mail", int64(i))
		all.Go(func() {
			for {
				a := k.call()
				if a.err != nil {
					t.Error(a.err)
				}
				if a.code != 1 {
					return
				}
				var seq uint64
				s.apply(func() {
					for _, d := range s.held {
						if d.Lease == a.lease {
							seq = d.Job.Seq
						}
					}
					if runs[seq]++; runs[seq] != 1 {
						t.Errorf("job %d runs %d times at once", seq, runs[seq])
					}
					if a.lease%4 != 0 {
						s.settled[a.lease] = true
						s.dropLocked(a.lease)
						runs[seq]--
						acked[seq]++
					}
				})
				switch a.lease % 12 {
				case 4:
					k.ended(a.lease, "broke")
				case 8:
					k.c.Close()
					k = b.thread("mail", k.slot)
				}
			}
		})
	}
	s.await(t, "all jobs", func() bool { return len(acked) == jobs && len(s.running) == 0 })
	b.pools.Drain(t.Context())
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for seq, n := range acked {
		if n != 1 {
			t.Errorf("job %d was acked %d times", seq, n)
		}
	}
}
