package queue

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"pogod/internal/command"
)

// Reasons that the state machine itself gives.
const (
	reasonMaxAttempts = "max attempts exceeded"
	reasonNodeLost    = "the node that ran it was lost"
	reasonCrashed     = "PHP host ended"
)

// Apply applies one command. Its error means that the node must stop; everything a
// caller can do wrong is a result.
func (s *State) Apply(env *Env, c *command.Command) (command.Result, error) {
	switch c.Op {
	case command.Push:
		return s.push(env, c)
	case command.Reserve:
		return s.reserve(env, c)
	case command.Ack, command.Release, command.Fail:
		return s.settle(env, c)
	case command.Tick:
		return s.tick(env)
	case command.RetryFailed:
		return s.retryFailed(env, c)
	case command.ForgetFailed:
		return s.forgetFailed(env, c)
	case command.PurgeFailed:
		return s.purgeFailed(env, c)
	case command.Define:
		return s.define(c)
	case command.Count:
		return s.count(c), nil
	case command.Pause, command.Resume:
		return s.pause(c), nil
	case command.Clear:
		return s.clear(env, c)
	case command.Delete:
		return s.deleteJob(env, c)
	case command.RetryAll:
		return s.retryAll(env, c)
	}
	return command.Result{}, fmt.Errorf("%w: command %d is not the queue's", command.ErrUnknown, c.Op)
}

func failure(code command.Code) (command.Result, error) { return command.Result{Code: code}, nil }

// open returns the queue that a push goes to, nil when it takes none.
func (s *State) open(name string) *queueState {
	q := s.byName[name]
	if q != nil && q.declared {
		return q
	}
	if !s.autoCreate || !ValidName(name) {
		return nil
	}
	if q == nil {
		q = s.addQueue(name)
	}
	q.def, q.auto, q.declared = s.defaults, true, true
	s.publish()
	return q
}

func (s *State) addQueue(name string) *queueState {
	q := &queueState{id: uint32(len(s.byID) + 1), name: name, nextDue: math.MaxInt64, dirty: true}
	s.byID = append(s.byID, q)
	s.byName[name] = q
	return q
}

// full reports whether one more payload of n bytes is over the queue's limits.
func (q *queueState) full(n int) bool {
	jobs := q.gauges.Ready + q.gauges.Delayed + q.gauges.Reserved
	return q.def.MaxMessages > 0 && jobs >= q.def.MaxMessages ||
		q.def.MaxBytes > 0 && q.gauges.Bytes+uint64(n) > q.def.MaxBytes
}

func (s *State) push(env *Env, c *command.Command) (command.Result, error) {
	q := s.open(c.Queue)
	if q == nil {
		return failure(command.UnknownQueue)
	}
	q.dirty = true
	switch {
	case q.def.MaxPayloadBytes > 0 && uint64(len(c.Payload)) > q.def.MaxPayloadBytes: // the node knew another limit
		q.counters.DroppedPayloadTooLarge++
		return failure(command.TooLarge)
	case q.full(len(c.Payload)):
		q.counters.DroppedFull++
		return failure(command.Full)
	}
	j := &Job{ID: command.JobID{Millis: env.Now, Seq: env.next()}, Payload: c.Payload}
	return s.enter(env, q, j, c.Delay)
}

// enter stores a job that is new to the queue.
func (s *State) enter(env *Env, q *queueState, j *Job, delay uint64) (command.Result, error) {
	var err error
	if delay > 0 {
		err = q.putDelayed(env, j, delay)
	} else {
		err = q.putReady(env, j, j.ID.Seq)
	}
	q.counters.Enqueued++
	q.gauges.Bytes += uint64(len(j.Payload))
	return command.Result{Code: command.Accepted, Job: j.ID}, err
}

// putReady puts a job in its line.
func (q *queueState) putReady(env *Env, j *Job, order uint64) error {
	b, err := q.bucket(env.Tx, q.line(j.suspect).bucket)
	if err != nil {
		return err
	}
	key := readyKey(defaultPriority, order, j.ID.Seq)
	if j.suspect {
		q.gauges.Suspects++
	} else if q.head != nil && string(key) < string(q.head) {
		q.head = key
	}
	q.gauges.Ready++
	q.show()
	return b.Put(key, j.encode())
}

func (q *queueState) putDelayed(env *Env, j *Job, delay uint64) error {
	b, err := q.bucket(env.Tx, delayedName)
	if err != nil {
		return err
	}
	due := env.Now + int64(min(delay, math.MaxInt64/2))
	q.nextDue = min(q.nextDue, due)
	q.gauges.Delayed++
	return b.Put(pairKey(uint64(due), j.ID.Seq), j.encode())
}

// reserve hands the first jobs of a line to a session; one that is not live gets none.
func (s *State) reserve(env *Env, c *command.Command) (command.Result, error) {
	name, suspects := strings.CutSuffix(c.Queue, suspectsSuffix)
	q := s.byName[name]
	if q == nil || q.paused || !env.Live(c.Session) {
		return command.Result{Code: command.Accepted}, nil
	}
	l := q.line(suspects)
	if l.jobs == 0 {
		return command.Result{Code: command.Accepted}, nil
	}
	b, err := q.bucket(env.Tx, l.bucket)
	if err != nil {
		return command.Result{}, err
	}
	n := int(min(c.Count, l.jobs, command.MaxRecords))
	if n == 0 {
		return command.Result{Code: command.Accepted}, nil
	}
	keys := make([][]byte, 0, n)
	cur := b.Cursor()
	for k, v, err := cur.Seek(l.head); k != nil && len(keys) < n; k, v, err = cur.Next() {
		if err != nil {
			return command.Result{}, err
		}
		j, _, err := decodeJob(v)
		if err != nil {
			return command.Result{}, err
		}
		j.queue, j.order = q, orderOf(k)
		j.Attempts++
		j.Lease, j.Session, j.Pool = env.next(), c.Session, c.Pool
		j.ReservedAt = env.Now
		j.Deadline = env.Now + (q.def.VisibilityTimeout + graceAfterTimeout).Milliseconds()
		s.reserved[j.ID.Seq] = j
		s.firstDeadline = min(s.firstDeadline, j.Deadline)
		keys = append(keys, k)
	}
	if len(keys) < n {
		return command.Result{}, fmt.Errorf("%w: queue %s says %d ready and has %d", ErrInconsistent, c.Queue, l.jobs, len(keys))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return command.Result{}, err
		}
	}
	if suspects {
		q.gauges.Suspects -= uint64(n)
	} else {
		q.head = append(q.head[:0:0], keys[len(keys)-1]...)
	}
	q.gauges.Ready -= uint64(n)
	q.show()
	q.gauges.Reserved += uint64(n)
	q.counters.ReservedTotal += uint64(n)
	q.dirty = true
	return command.Result{Code: command.Accepted, Count: uint64(n)}, nil
}

// held returns the reserved job that a settling command names, nil when the lease
// is not, or no longer, that of the job, or its session has ended.
func (s *State) held(env *Env, q *queueState, c *command.Command) *Job {
	j := s.reserved[c.Job.Seq]
	if j == nil || j.queue != q || j.ID != c.Job || j.Lease != c.Lease && fenced() || !env.Live(j.Session) {
		return nil
	}
	return j
}

func (s *State) settle(env *Env, c *command.Command) (command.Result, error) {
	q := s.byName[c.Queue]
	if q == nil {
		return failure(command.UnknownQueue)
	}
	j := s.held(env, q, c)
	if j == nil {
		return failure(command.Failure)
	}
	var err error
	switch c.Op {
	case command.Ack:
		s.unreserve(j)
		q.gauges.Bytes -= uint64(len(j.Payload))
		q.counters.Acked++
	case command.Fail:
		j.Output = c.Output
		err = s.fail(env, j, c.Reason)
	default:
		if c.Cause != command.Unstarted { // which printed nothing: the last attempt is another
			j.Output = c.Output
		}
		err = s.release(env, j, c.Cause, c.Delay, c.Reason)
	}
	return command.Result{Code: command.Accepted}, err
}

// unreserve takes the job out of the reserved ones.
func (s *State) unreserve(j *Job) {
	delete(s.reserved, j.ID.Seq)
	if j.stored {
		s.dropped = append(s.dropped, j.ID.Seq)
		j.stored = false
	}
	j.Lease, j.Session, j.Pool, j.ReservedAt, j.Deadline = 0, 0, "", 0, 0
	j.queue.gauges.Reserved--
	j.queue.dirty = true
	if len(s.reserved) == 0 {
		s.firstDeadline = math.MaxInt64 // spares an idle queue a Tick for jobs long acked
	}
}

func (s *State) release(env *Env, j *Job, cause command.Cause, delay uint64, reason string) error {
	q := j.queue
	if reason != "" {
		j.Reason = reason
	}
	switch cause {
	case command.Unstarted:
		s.unreserve(j)
		j.Attempts--
		return q.putReady(env, j, j.order) // where it was
	case command.Interrupted:
		s.unreserve(j)
		j.Interruptions++
		q.counters.Released++
		return q.putReady(env, j, j.order) // a suspect stays one
	case command.Crashed:
		return s.crashed(env, j, reason)
	}
	j.suspect = false // its host outlived it
	if q.def.MaxAttempts > 0 && j.Spent() >= q.def.MaxAttempts {
		q.counters.Released++
		if cause == command.Asked || reason == "" {
			reason = reasonMaxAttempts
		}
		return s.fail(env, j, reason)
	}
	s.unreserve(j)
	q.counters.Released++
	if cause != command.Asked {
		delay = uint64(q.def.backoff(j.Spent()).Milliseconds())
	}
	if delay > 0 {
		return q.putDelayed(env, j, delay)
	}
	return q.putReady(env, j, env.next()) // behind those that wait now
}

// EndSession frees the jobs of a session that ended, command.MaxRecords at most; the
// next Ticks free the rest.
func (s *State) EndSession(env *Env) error {
	_, err := s.freeOrphans(env, command.MaxRecords)
	return err
}

// EndSessions gives back the jobs of all sessions that are not live, however many they are:
// for a state that nothing else changes meanwhile.
func (s *State) EndSessions(env *Env) error {
	_, err := s.freeOrphans(env, math.MaxInt)
	return err
}

// freeOrphans gives back jobs whose session is not live, in the order of their
// numbers, and returns how many.
func (s *State) freeOrphans(env *Env, budget int) (int, error) {
	var orphans []*Job
	for _, j := range s.reserved {
		if !env.Live(j.Session) {
			orphans = append(orphans, j)
		}
	}
	slices.SortFunc(orphans, func(a, b *Job) int { return cmp.Compare(a.ID.Seq, b.ID.Seq) })
	s.orphans = len(orphans) > budget
	n := min(len(orphans), budget)
	for _, j := range orphans[:n] {
		j.Output = "" // its node knew
		if err := s.release(env, j, command.Interrupted, 0, reasonNodeLost); err != nil {
			return n, err
		}
	}
	return n, nil
}

// tick promotes delayed jobs that are due and frees leases that were lost.
func (s *State) tick(env *Env) (command.Result, error) {
	budget := command.MaxRecords
	if s.orphans {
		n, err := s.freeOrphans(env, budget)
		if err != nil {
			return command.Result{}, err
		}
		budget -= n
	}
	if s.firstDeadline <= env.Now {
		n, err := s.freeLate(env, budget)
		if err != nil {
			return command.Result{}, err
		}
		budget -= n
	}
	for _, q := range s.byID {
		if budget == 0 {
			break
		}
		if q.nextDue > env.Now {
			continue
		}
		n, err := q.promote(env, budget)
		if err != nil {
			return command.Result{}, err
		}
		budget -= n
	}
	return command.Result{Code: command.Accepted, Count: uint64(command.MaxRecords - budget)}, nil
}

func (s *State) freeLate(env *Env, budget int) (int, error) {
	var late []*Job
	s.firstDeadline = math.MaxInt64
	for _, j := range s.reserved {
		if j.Deadline <= env.Now {
			late = append(late, j)
		} else {
			s.firstDeadline = min(s.firstDeadline, j.Deadline)
		}
	}
	slices.SortFunc(late, func(a, b *Job) int {
		return cmp.Or(cmp.Compare(a.Deadline, b.Deadline), cmp.Compare(a.ID.Seq, b.ID.Seq))
	})
	if len(late) > budget {
		s.firstDeadline = late[budget].Deadline
		late = late[:budget]
	}
	for _, j := range late {
		j.Output = "" // its node knows, and did not say in time
		if err := s.release(env, j, command.TimedOut, 0, TimeoutReason(j.timeout())); err != nil {
			return 0, err
		}
	}
	return len(late), nil
}

// TimeoutReason is the reason of an attempt that ran past its time-out.
func TimeoutReason(limit time.Duration) string { return "timed out after " + limit.String() }

// promote makes delayed jobs ready that are due.
func (q *queueState) promote(env *Env, budget int) (int, error) {
	b, err := q.bucket(env.Tx, delayedName)
	if err != nil {
		return 0, err
	}
	var keys [][]byte
	var jobs []*Job
	q.nextDue = math.MaxInt64
	c := b.Cursor()
	for k, v, err := c.First(); k != nil; k, v, err = c.Next() {
		if err != nil {
			return 0, err
		}
		if due := int64(binary.BigEndian.Uint64(k)); due > env.Now || len(keys) == budget {
			q.nextDue = due
			break
		}
		j, _, err := decodeJob(v)
		if err != nil {
			return 0, err
		}
		keys, jobs = append(keys, k), append(jobs, j)
	}
	for i, j := range jobs {
		if err := b.Delete(keys[i]); err != nil {
			return 0, err
		}
		q.gauges.Delayed--
		q.dirty = true
		if err := q.putReady(env, j, env.next()); err != nil {
			return 0, err
		}
	}
	return len(jobs), nil
}

// MoveLeases moves the ends of all leases by that many milliseconds, ahead or back, as
// cluster time was set by that: a lease says how long an attempt may run, whatever the
// clocks are set to.
func (s *State) MoveLeases(millis int64) {
	s.firstDeadline = math.MaxInt64
	for _, j := range s.reserved {
		j.ReservedAt += millis
		j.Deadline += millis
		if j.stored {
			s.dropped = append(s.dropped, j.ID.Seq) // to be stored anew, if it still is reserved then
			j.stored = false
		}
		s.firstDeadline = min(s.firstDeadline, j.Deadline)
	}
}

// define takes over the definitions of all queues, and remembers which they supersede. A queue that is no longer
// declared keeps its jobs and takes no pushes.
func (s *State) define(c *command.Command) (command.Result, error) {
	d, err := DecodeDefinitions(c.Definitions)
	if err != nil {
		return command.Result{}, err
	}
	s.supersede(c.Hash)
	s.defaults, s.autoCreate, s.defHash, s.defDirty = d.Default, d.AutoCreate, c.Hash, true
	for _, name := range sortedKeys(d.Queues) {
		if s.byName[name] == nil {
			s.addQueue(name)
		}
	}
	for _, q := range s.byID {
		def, declared := d.Queues[q.name]
		switch {
		case declared:
			q.def, q.declared, q.auto = def, true, false
		case q.auto && d.AutoCreate:
			q.def, q.declared = d.Default, true
		default:
			q.declared = false
		}
		q.dirty = true
	}
	s.publish()
	return command.Result{Code: command.Accepted}, nil
}

func (s *State) count(c *command.Command) command.Result {
	q := s.byName[c.Queue]
	if q == nil {
		return command.Result{Code: command.UnknownQueue}
	}
	q.counters.DroppedPayloadTooLarge += c.TooLarge
	q.counters.DroppedShutdown += c.Shutdown
	q.counters.BackendErrors += c.Backend
	q.dirty = true
	return command.Result{Code: command.Accepted}
}
