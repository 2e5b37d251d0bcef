package queue

import (
	"fmt"
)

// suspectsSuffix makes the name of a queue's line of suspects of its own; no queue's
// name has a slash.
const suspectsSuffix = "/suspects"

// Suspects returns the name under which Reserve and Table.Ready know the suspects of a
// queue. Whoever reserves from there runs each job alone in its PHP host: a crash is
// then the job's own.
func Suspects(queue string) string { return queue + suspectsSuffix }

// line is where ready jobs of a queue wait: most in one line, suspects in the other.
type line struct {
	bucket []byte
	jobs   uint64
	head   []byte // no key is below
}

func (q *queueState) line(suspects bool) line {
	if suspects {
		return line{suspectsName, q.gauges.Suspects, nil}
	}
	return line{readyName, q.gauges.Ready - q.gauges.Suspects, q.head}
}

// show tells the Table how many may be reserved from each line.
func (q *queueState) show() {
	if q.paused {
		q.readyNow.Store(0)
		q.suspectsNow.Store(0)
		return
	}
	q.readyNow.Store(q.line(false).jobs)
	q.suspectsNow.Store(q.line(true).jobs)
}

// crashed takes back a job whose PHP host ended by itself. Which of a host's jobs ended
// it is not known, so each is only a suspect, in its place among the others. A suspect
// ran alone: the crash is charged to it, and the last that its queue allows fails it.
// Neither spends an attempt.
func (s *State) crashed(env *Env, j *Job, reason string) error {
	q := j.queue
	q.counters.Released++
	j.Interruptions++
	if !j.suspect {
		s.unreserve(j)
		j.suspect = true
		return q.putReady(env, j, j.order)
	}
	j.Crashes++
	if limit := q.def.MaxCrashes; limit > 0 && j.Crashes >= limit {
		if reason == "" {
			reason = reasonCrashed
		}
		return s.fail(env, j, fmt.Sprintf("%s (crash %d in quarantine, max_crashes = %d)", reason, j.Crashes, limit))
	}
	s.unreserve(j)
	return q.putReady(env, j, env.next()) // behind the other suspects, who may be innocent
}
