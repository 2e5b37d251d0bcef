package queue

import (
	"encoding/binary"
	"errors"
	"fmt"

	"pogod/internal/command"
)

// fail moves a reserved job to the failed ones.
func (s *State) fail(env *Env, j *Job, reason string) error {
	q := j.queue
	s.unreserve(j)
	q.gauges.Bytes -= uint64(len(j.Payload))
	q.gauges.Failed++
	q.counters.FailedTotal++
	j.Reason, j.FailedAt, j.suspect = reason, env.Now, false
	failed, err := q.bucket(env.Tx, failedName)
	if err != nil {
		return err
	}
	ids, err := q.bucket(env.Tx, failedIDsName)
	if err != nil {
		return err
	}
	order := env.next()
	if err := failed.Put(pairKey(order, j.ID.Seq), j.encode()); err != nil {
		return err
	}
	return ids.Put(seqKey(j.ID.Seq), binary.BigEndian.AppendUint64(nil, order))
}

// failedJob returns a failed job and its key, nil when there is none.
func (q *queueState) failedJob(env *Env, id command.JobID) (j *Job, key []byte, err error) {
	ids, err := q.bucket(env.Tx, failedIDsName)
	if err != nil {
		return nil, nil, err
	}
	order, err := ids.Get(seqKey(id.Seq))
	if err != nil || order == nil {
		return nil, nil, err
	}
	failed, err := q.bucket(env.Tx, failedName)
	if err != nil {
		return nil, nil, err
	}
	key = pairKey(binary.BigEndian.Uint64(order), id.Seq)
	v, err := failed.Get(key)
	if err != nil {
		return nil, nil, err
	}
	if v == nil {
		return nil, nil, fmt.Errorf("%w: failed job %s has an index and no record", ErrInconsistent, id)
	}
	j, _, err = decodeJob(v)
	if err != nil || j.ID != id {
		return nil, nil, err
	}
	return j, key, nil
}

func (q *queueState) removeFailed(env *Env, key []byte) error {
	failed, err := q.bucket(env.Tx, failedName)
	if err != nil {
		return err
	}
	ids, err := q.bucket(env.Tx, failedIDsName)
	if err != nil {
		return err
	}
	q.gauges.Failed--
	q.dirty = true
	return errors.Join(failed.Delete(key), ids.Delete(key[8:]))
}

// retryFailed makes a fresh job of a failed one.
func (s *State) retryFailed(env *Env, c *command.Command) (command.Result, error) {
	q := s.byName[c.Queue]
	if q == nil {
		return failure(command.UnknownQueue)
	}
	old, key, err := q.failedJob(env, c.Job)
	if err != nil {
		return command.Result{}, err
	}
	if old == nil {
		return failure(command.Failure)
	}
	if q.full(len(old.Payload)) {
		return failure(command.Full)
	}
	return s.retry(env, q, old, key)
}

// retry makes a fresh job of a failed one, whose key this is.
func (s *State) retry(env *Env, q *queueState, old *Job, key []byte) (command.Result, error) {
	if err := q.removeFailed(env, key); err != nil {
		return command.Result{}, err
	}
	q.counters.Retried++
	j := &Job{ID: command.JobID{Millis: env.Now, Seq: env.next()}, Payload: old.Payload, Origin: old.Origin}
	if j.Origin == (command.JobID{}) {
		j.Origin = old.ID
	}
	return s.enter(env, q, j, 0)
}

func (s *State) forgetFailed(env *Env, c *command.Command) (command.Result, error) {
	q := s.byName[c.Queue]
	if q == nil {
		return failure(command.UnknownQueue)
	}
	j, key, err := q.failedJob(env, c.Job)
	if err != nil || j == nil {
		return command.Result{Code: command.Accepted}, err
	}
	q.counters.Purged++
	return command.Result{Code: command.Accepted, Count: 1}, q.removeFailed(env, key)
}

func (s *State) purgeFailed(env *Env, c *command.Command) (command.Result, error) {
	q := s.byName[c.Queue]
	if q == nil {
		return failure(command.UnknownQueue)
	}
	failed, err := q.bucket(env.Tx, failedName)
	if err != nil {
		return command.Result{}, err
	}
	var keys [][]byte
	cur := failed.Cursor()
	for k, _, err := cur.First(); k != nil && len(keys) < command.MaxRecords; k, _, err = cur.Next() {
		if err != nil {
			return command.Result{}, err
		}
		keys = append(keys, k)
	}
	for _, key := range keys {
		if err := q.removeFailed(env, key); err != nil {
			return command.Result{}, err
		}
	}
	q.counters.Purged += uint64(len(keys))
	return command.Result{Code: command.Accepted, Count: uint64(len(keys)), More: q.gauges.Failed > 0}, nil
}
