package queue

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pogod/storage"
)

// Stats is what status tells of a queue.
type Stats struct {
	Name            string
	Declared        bool // it takes pushes
	Paused          bool // nothing is reserved from it
	Gauges          Gauges
	Counters        Counters
	MaxPayloadBytes uint64
	OldestPending   time.Time // push of the job that is next in its line, the older of ready jobs and suspects; zero: none is ready
}

// Stats of one queue; known is false for one that was never declared nor made. tx
// is what the state was applied to last, or a view.
func (s *State) Stats(tx *storage.Tx, name string) (st Stats, known bool, err error) {
	q := s.byName[name]
	if q == nil {
		return Stats{Name: name}, false, nil
	}
	st, err = q.stats(tx)
	return st, true, err
}

// AllStats lists the queues by name, those left out that are neither declared nor
// hold a job.
func (s *State) AllStats(tx *storage.Tx) ([]Stats, error) {
	all := make([]Stats, 0, len(s.byID))
	for _, name := range sortedKeys(s.byName) {
		q := s.byName[name]
		if g := q.gauges; !q.declared && g.Ready+g.Delayed+g.Reserved+g.Failed == 0 {
			continue
		}
		st, err := q.stats(tx)
		if err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

func (q *queueState) stats(tx *storage.Tx) (Stats, error) {
	st := Stats{Name: q.name, Declared: q.declared, Paused: q.paused, Gauges: q.gauges, Counters: q.counters, MaxPayloadBytes: q.def.MaxPayloadBytes}
	for _, suspects := range []bool{false, true} {
		l := q.line(suspects)
		if l.jobs == 0 {
			continue
		}
		b, err := jobBucket(tx, q.id, l.bucket)
		if err != nil {
			return st, err
		}
		k, v, err := b.Cursor().Seek(l.head)
		if err != nil {
			return st, err
		}
		if k == nil {
			continue // in a view that is older than the gauges
		}
		j, _, err := decodeJob(v)
		if err != nil {
			return st, err
		}
		if at := time.UnixMilli(j.ID.Millis); st.OldestPending.IsZero() || at.Before(st.OldestPending) {
			st.OldestPending = at
		}
	}
	return st, nil
}

// DefinitionsHash returns the hash that the last Define carried.
func (s *State) DefinitionsHash() string { return s.defHash }

// NextDue returns when a Tick is wanted next, in unix milliseconds of cluster time:
// a lower bound, 0 for at once, math.MaxInt64 for never.
func (s *State) NextDue() int64 {
	if s.orphans {
		return 0
	}
	due := s.firstDeadline
	for _, q := range s.byID {
		due = min(due, q.nextDue)
	}
	return due
}

// Reserved appends the deliveries of a session to buf, oldest lease first.
func (s *State) Reserved(buf []Delivery, session uint64) []Delivery {
	held := make([]*Job, 0, 64)
	for _, j := range s.reserved {
		if j.Session == session {
			held = append(held, j)
		}
	}
	slices.SortFunc(held, func(a, b *Job) int { return cmp.Compare(a.Lease, b.Lease) })
	for _, j := range held {
		buf = append(buf, j.delivery())
	}
	return buf
}

func (j *Job) delivery() Delivery {
	return Delivery{
		Queue: j.queue.name, Job: j.ID, Lease: j.Lease, Pool: j.Pool, Payload: j.Payload,
		Attempts: j.Attempts, ReservedAt: j.ReservedAt, Timeout: j.timeout(),
		Suspect: j.suspect, Crashes: j.Crashes, MaxCrashes: j.queue.def.MaxCrashes,
	}
}

// maxListed bounds the bytes of payload and output of one listing.
const maxListed = 8 << 20

// Failed returns failed jobs of the queue with that number from a view, newest
// first: limit at most, fewer when their payloads and output pass 8 MiB, at least one if
// any.
func Failed(tx *storage.Tx, id uint32, limit int) (jobs []*Job, err error) {
	jobs, _, err = failedPage(tx, id, 0, limit)
	return jobs, err
}

// Check compares the gauges with what the transaction holds, for tests and after
// faults. It reads everything.
func (s *State) Check(tx *storage.Tx) error {
	for _, q := range s.byID {
		var got Gauges
		for name, gauge := range map[string]*uint64{
			string(readyName): &got.Ready, string(suspectsName): &got.Suspects, string(delayedName): &got.Delayed, string(failedName): &got.Failed,
		} {
			b, err := jobBucket(tx, q.id, []byte(name))
			if err != nil {
				return err
			}
			c := b.Cursor()
			for k, v, err := c.First(); k != nil; k, v, err = c.Next() {
				if err != nil {
					return err
				}
				j, _, err := decodeJob(v)
				if err != nil {
					return err
				}
				*gauge++
				if name != string(failedName) {
					got.Bytes += uint64(len(j.Payload))
				}
			}
		}
		got.Ready += got.Suspects
		for _, j := range s.reserved {
			if j.queue == q {
				got.Reserved++
				got.Bytes += uint64(len(j.Payload))
			}
		}
		if got != q.gauges {
			return fmt.Errorf("%w: queue %s holds %+v and says %+v", ErrInconsistent, q.name, got, q.gauges)
		}
	}
	return nil
}
