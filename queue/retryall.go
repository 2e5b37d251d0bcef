package queue

import (
	"math"
	"strings"

	"pogod/internal/command"
)

// retryAll makes fresh jobs of those that failed, the oldest first, of whose reason
// Reason is a part and which failed at least Delay ago. It looks at command.MaxRecords at
// most, from behind the one that failed at the step From of the counter up to the step
// To, and says whether there are more; To is 0 for the first, and what it answers for the
// rest, so that jobs which fail again are not retried again. A full queue ends it: code 0,
// with the count of what was done.
func (s *State) retryAll(env *Env, c *command.Command) (command.Result, error) {
	q := s.byName[c.Queue]
	if q == nil {
		return failure(command.UnknownQueue)
	}
	failed, err := q.bucket(env.Tx, failedName)
	if err != nil {
		return command.Result{}, err
	}
	r := command.Result{Code: command.Accepted, Next: c.From, To: c.To}
	if r.To == 0 {
		r.To = *env.Counter
	}
	if c.From == math.MaxUint64 { // behind it is nothing
		return r, nil
	}
	type found struct {
		job *Job
		key []byte
	}
	var all []found
	looked, bytes := 0, 0
	cur := failed.Cursor()
	for k, v, err := cur.Seek(pairKey(c.From+1, 0)); k != nil && failedOrder(k) <= r.To; k, v, err = cur.Next() {
		if err != nil {
			return command.Result{}, err
		}
		if looked == command.MaxRecords || bytes >= maxTouched {
			r.More = true
			break
		}
		j, _, err := decodeJob(v)
		if err != nil {
			return command.Result{}, err
		}
		looked++
		bytes += len(j.Payload) + len(j.Output)
		r.Next = failedOrder(k)
		if strings.Contains(j.Reason, c.Reason) && j.FailedAt <= env.Now-int64(min(c.Delay, math.MaxInt64/2)) {
			all = append(all, found{j, append([]byte(nil), k...)})
		}
	}
	for _, f := range all {
		if q.full(len(f.job.Payload)) {
			return command.Result{Code: command.Full, Count: r.Count}, nil
		}
		if _, err := s.retry(env, q, f.job, f.key); err != nil {
			return command.Result{}, err
		}
		r.Count++
	}
	return r, nil
}
