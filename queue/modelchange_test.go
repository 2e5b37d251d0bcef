package queue_test

import (
	"slices"
	"strings"

	"pogod/internal/command"
)

// The model of what an operator does to many jobs at once. How far such a command came is
// a step of the machine's counter; the model notes which turn that was.

func (m *model) clear(q *modelQueue, c *command.Command, o observed) command.Result {
	r := command.Result{Code: command.Accepted}
	take := func(jobs []*modelJob) (more bool) {
		n := min(len(jobs), 1000-int(r.Count))
		for _, j := range jobs[:n] {
			m.drop(j)
			q.counters[deleted]++
			r.Count++
		}
		return n < len(jobs)
	}
	if c.From == 0 {
		if r.More = take(m.in(q, isDelayed)); r.More {
			return r
		}
		m.marks[o.next] = m.turn
	}
	step := max(c.From, o.next)
	standing := func(suspects bool) []*modelJob {
		return slices.DeleteFunc(m.line(q, suspects), func(j *modelJob) bool { return c.From != 0 && j.turn > m.marks[step] })
	}
	if r.More = take(standing(true)) || take(standing(false)); r.More {
		r.Next = step
	}
	return r
}

func (m *model) deleteJob(q *modelQueue, c *command.Command, o observed) command.Result {
	for _, j := range m.jobs {
		switch {
		case j.queue != q || j.id != c.Job:
			continue
		case j.place == isReserved:
			return command.Result{Code: command.Failure}
		case j.place == isFailed:
			q.counters[purged]++
		case !o.right:
			return command.Result{Code: command.Accepted}
		default:
			q.counters[deleted]++
		}
		m.drop(j)
		return command.Result{Code: command.Accepted, Count: 1}
	}
	return command.Result{Code: command.Accepted}
}

func (m *model) retryAll(q *modelQueue, c *command.Command, o observed) command.Result {
	jobs := m.in(q, isFailed)
	slices.Reverse(jobs) // the oldest first
	r := command.Result{Code: command.Accepted, Next: c.From, To: c.To}
	if c.To == 0 {
		r.To = o.to
		m.marks[o.to] = m.turn
	}
	looked, last, until := 0, 0, m.marks[r.To]
	var found []*modelJob
	for _, j := range jobs {
		if c.From != 0 && j.turn <= m.marks[c.From] || j.turn > until {
			continue
		}
		if looked == 1000 {
			r.More = true
			break
		}
		looked++
		r.Next, last = o.next, j.turn
		if strings.Contains(j.reason, c.Reason) && j.failedAt+int64(c.Delay) <= m.now {
			found = append(found, j)
		}
	}
	if looked > 0 {
		m.marks[r.Next] = last
	}
	for i, j := range found {
		if m.isFull(q, j.payload) {
			return command.Result{Code: command.Full, Count: r.Count}
		}
		m.fresh(j, observed{job: command.JobID{Seq: o.first + uint64(i)}})
		r.Count++
	}
	return r
}
