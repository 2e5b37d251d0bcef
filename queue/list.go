package queue

import (
	"cmp"
	"context"
	"math"
	"slices"

	"pogod/storage"
)

// JobState is where a job is that is not settled yet.
type JobState string

// The states that List lists.
const (
	IsReady    JobState = "ready"    // the next one first; suspects are apart
	IsSuspect  JobState = "suspect"  // ready, to run alone: the next one first
	IsDelayed  JobState = "delayed"  // the first due first
	IsReserved JobState = "reserved" // in an attempt, the oldest first
)

// Position is behind which job a page of List ended; zero is the beginning, and the end.
type Position struct{ Place, Seq uint64 }

// List lists the jobs of a queue that are in a state, from behind after: limit at most,
// fewer when their payloads pass 8 MiB. next is zero when there are no more. It takes
// nothing, waits for this node's own writes, and fails as Failed does. Jobs that come or
// go between two pages shift nothing.
func (c *Client) List(ctx context.Context, queue string, state JobState, after Position, limit int) (jobs []*Job, next Position, err error) {
	if err := c.ownWrites(ctx); err != nil {
		return nil, next, err
	}
	id, known := c.reader.Queues().Number(queue)
	if !known {
		return nil, next, ErrUnknownQueue
	}
	if state == IsReserved {
		err = c.reader.Inspect(func(s *State, _ *storage.Tx) error {
			jobs, next = s.listReserved(queue, after, limit)
			return nil
		})
		return jobs, next, err
	}
	bucket := map[JobState][]byte{IsSuspect: suspectsName, IsDelayed: delayedName}[state]
	if bucket == nil {
		bucket = readyName
	}
	err = c.reader.View(func(tx *storage.Tx) error {
		jobs, next, err = list(tx, id, bucket, after, limit)
		return err
	})
	return jobs, next, err
}

// list is List from a view, of the queue with that number.
func list(tx *storage.Tx, id uint32, bucket []byte, after Position, limit int) (jobs []*Job, next Position, err error) {
	b, err := jobBucket(tx, id, bucket)
	if err != nil {
		return nil, next, err
	}
	var from []byte
	if after != (Position{}) {
		if after.Seq++; after.Seq == 0 { // the greatest number: behind it is the next place
			after.Place++
		}
		from = placeOf(bucket, after.Place, after.Seq)
	}
	c := b.Cursor()
	size := 0
	k, v, err := c.Seek(from)
	for ; k != nil && err == nil && len(jobs) < limit && size < maxListed; k, v, err = c.Next() {
		j, _, err := decodeJob(v)
		if err != nil {
			return nil, next, err
		}
		if next.Place, next.Seq, err = placeIn(bucket, k); err != nil {
			return nil, next, err
		}
		if &bucket[0] == &delayedName[0] {
			j.DueAt = int64(min(next.Place, math.MaxInt64))
		}
		jobs = append(jobs, j)
		size += len(j.Payload)
	}
	if k == nil {
		next = Position{}
	}
	return jobs, next, err
}

// listReserved is List of the reserved jobs, by their leases.
func (s *State) listReserved(queue string, after Position, limit int) (jobs []*Job, next Position) {
	for _, j := range s.reserved {
		if j.queue.name == queue && j.Lease > after.Place {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b *Job) int { return cmp.Compare(a.Lease, b.Lease) })
	size := 0
	for i, j := range jobs {
		if i == limit || size >= maxListed {
			return jobs[:i], Position{Place: jobs[i-1].Lease}
		}
		own := *j // the caller's; its payload is never changed
		jobs[i] = &own
		size += len(j.Payload)
	}
	return jobs, Position{}
}
