package queue

import (
	"fmt"
	"math"

	"pogod/internal/command"
	"pogod/storage"
)

// maxTouched bounds the payload bytes that one command reads, beside the number of its
// records: it stops behind the job that passes them.
const maxTouched = 8 << 20

// clear deletes the jobs that wait, command.MaxRecords at most, and says whether more are
// left. The delayed ones go first, while From is 0; when none is left Next says who goes
// on: all that stand in line up to that step of the counter. What was delayed at the
// beginning and came due meanwhile is among them; what is pushed from then on is not, so
// that it ends however much is pushed.
func (s *State) clear(env *Env, c *command.Command) (command.Result, error) {
	q := s.byName[c.Queue]
	if q == nil {
		return failure(command.UnknownQueue)
	}
	d := &deletion{queue: q, env: env, left: command.MaxRecords, bytes: maxTouched}
	bound := c.From
	if bound == 0 {
		more, err := d.from(delayedName, nil, math.MaxUint64)
		if err != nil || more {
			return d.result(more, 0), err
		}
		q.nextDue = math.MaxInt64
		bound = *env.Counter
	}
	for _, suspects := range []bool{true, false} {
		l := q.line(suspects)
		if l.jobs == 0 {
			continue
		}
		more, err := d.from(l.bucket, l.head, bound)
		if err != nil || more {
			return d.result(more, bound), err
		}
	}
	return d.result(false, 0), nil
}

// deletion is what one command deletes.
type deletion struct {
	queue *queueState
	env   *Env
	left  int // records that it may still delete
	bytes int // of payload that it may still read
	done  uint64
}

func (d *deletion) result(more bool, next uint64) command.Result {
	return command.Result{Code: command.Accepted, Count: d.done, More: more, Next: next}
}

// from deletes the first jobs of a bucket, those in line up to bound, and says whether it
// left some of them.
func (d *deletion) from(bucket, head []byte, bound uint64) (more bool, err error) {
	b, err := d.queue.bucket(d.env.Tx, bucket)
	if err != nil {
		return false, err
	}
	var keys [][]byte
	c := b.Cursor()
	for k, v, err := c.Seek(head); k != nil; k, v, err = c.Next() {
		if err != nil {
			return false, err
		}
		if &bucket[0] != &delayedName[0] && orderOf(k) > bound {
			break
		}
		if d.left == 0 || d.bytes <= 0 {
			more = true
			break
		}
		j, _, err := decodeJob(v)
		if err != nil {
			return false, err
		}
		d.left--
		d.bytes -= len(j.Payload)
		d.queue.gone(bucket, j)
		keys = append(keys, k)
	}
	d.done += uint64(len(keys))
	if n := len(keys); n > 0 && &bucket[0] == &readyName[0] {
		d.queue.head = append(d.queue.head[:0:0], keys[n-1]...)
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return false, err
		}
	}
	return more, nil
}

// gone counts that a job of a bucket is deleted.
func (q *queueState) gone(bucket []byte, j *Job) {
	switch &bucket[0] {
	case &delayedName[0]:
		q.gauges.Delayed--
	case &suspectsName[0]:
		q.gauges.Suspects--
		q.gauges.Ready--
	default:
		q.gauges.Ready--
	}
	q.gauges.Bytes -= uint64(len(j.Payload))
	q.counters.Deleted++
	q.dirty = true
	q.show()
}

// deleteJob deletes one job that has failed, or that waits at the place From: its order in
// line, or when it is due. One that is reserved is not: its attempt runs, code 5. A count
// of 0 says that it is not there.
func (s *State) deleteJob(env *Env, c *command.Command) (command.Result, error) {
	q := s.byName[c.Queue]
	if q == nil {
		return failure(command.UnknownQueue)
	}
	if j := s.reserved[c.Job.Seq]; j != nil && j.queue == q && j.ID == c.Job {
		return failure(command.Failure)
	}
	one := command.Result{Code: command.Accepted, Count: 1}
	j, key, err := q.failedJob(env, c.Job)
	switch {
	case err != nil:
		return command.Result{}, err
	case j != nil:
		q.counters.Purged++
		return one, q.removeFailed(env, key)
	}
	for _, bucket := range [][]byte{readyName, suspectsName, delayedName} {
		b, err := q.bucket(env.Tx, bucket)
		if err != nil {
			return command.Result{}, err
		}
		key := placeOf(bucket, c.From, c.Job.Seq)
		v, err := b.Get(key)
		if err != nil {
			return command.Result{}, err
		}
		if v == nil {
			continue
		}
		j, _, err := decodeJob(v)
		if err != nil {
			return command.Result{}, err
		}
		if j.ID != c.Job {
			break // another time with the number of a job
		}
		q.gone(bucket, j)
		return one, b.Delete(key)
	}
	return command.Result{Code: command.Accepted}, nil
}

// placeOf is the key of a job that waits in a bucket.
func placeOf(bucket []byte, place, seq uint64) []byte {
	if &bucket[0] == &delayedName[0] {
		return pairKey(place, seq)
	}
	return readyKey(defaultPriority, place, seq)
}

// FindWaiting returns the place of a waiting job, from a view, for Delete. It may have to
// read all keys of the queue with that number, but for a job that stands where it was
// pushed to.
func FindWaiting(tx *storage.Tx, queue uint32, id command.JobID) (place uint64, found bool, err error) {
	for _, bucket := range [][]byte{readyName, suspectsName, delayedName} {
		b, err := jobBucket(tx, queue, bucket)
		if err != nil {
			return 0, false, err
		}
		if v, err := b.Get(placeOf(bucket, id.Seq, id.Seq)); err != nil || v != nil {
			return id.Seq, err == nil, err
		}
		c := b.Cursor()
		for k, _, err := c.First(); k != nil; k, _, err = c.Next() {
			if err != nil {
				return 0, false, err
			}
			if at, seq, err := placeIn(bucket, k); err != nil || seq == id.Seq {
				return at, err == nil, err
			}
		}
	}
	return 0, false, nil
}

// placeIn reads what placeOf wrote.
func placeIn(bucket, key []byte) (place, seq uint64, err error) {
	pair := key
	if &bucket[0] != &delayedName[0] && len(key) > 0 {
		pair = key[1:] // behind the priority
	}
	if len(pair) != 16 {
		return 0, 0, fmt.Errorf("%w: a job has a key of %d bytes", ErrInconsistent, len(key))
	}
	return failedOrder(pair), failedOrder(pair[8:]), nil
}
