package queue_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"pogod/internal/command"
)

// This file is the queue as the contract tells it, in plain lists, without a thought
// for speed. It uses nothing of package queue: only so can the two disagree.

type modelLimits struct {
	messages, bytes, payload, attempts uint64
	crashes                            uint64
	timeout                            int64   // milliseconds
	backoff                            []int64 // milliseconds
}

type modelDefinitions struct {
	defaults modelLimits
	auto     bool
	queues   map[string]modelLimits
}

type modelPlace int

const (
	isReady modelPlace = iota
	isDelayed
	isReserved
	isFailed
)

type modelJob struct {
	id, first               command.JobID // first: of its chain of retries
	queue                   *modelQueue
	payload                 string
	attempts, interruptions uint64
	crashes                 uint64 // of its host while it ran alone
	suspect                 bool   // it is to run alone
	reason, output          string
	place                   modelPlace
	turn                    int   // grows with each job that becomes ready or fails
	due                     int64 // delayed
	lease, session          uint64
	pool                    string
	reservedAt, deadline    int64
	failedAt                int64
}

func (j *modelJob) spent() uint64 { return j.attempts - j.interruptions }

// modelCounters is in the order of the contract: enqueued, reserved_total, acked,
// released, failed_total, dropped_full, dropped_payload_too_large, dropped_shutdown,
// backend_errors, deleted, purged, retried.
type modelCounters [12]uint64

const (
	enqueued = iota
	reservedTotal
	acked
	released
	failedTotal
	droppedFull
	droppedTooLarge
	droppedShutdown
	backendErrors
	deleted
	purged
	retried
)

type modelQueue struct {
	name           string
	limits         modelLimits
	declared, auto bool
	paused         bool
	counters       modelCounters
}

type model struct {
	now    int64
	last   uint64 // the greatest id or lease that was seen
	turn   int
	defs   modelDefinitions
	queues []*modelQueue // in the order they were made
	jobs   []*modelJob
	live   map[uint64]bool
	marks  map[uint64]int // what turn it was when the machine said that step
}

// observed is what only the machine can choose: ids and leases. The model demands
// that they are new.
type observed struct {
	job    command.JobID
	leases []uint64
	first  uint64 // number of the first job that RetryAll makes, whose ids it does not tell
	next   uint64 // where to go on
	to     uint64 // and how far
	right  bool   // Delete: the job stands at that place
}

func newModel() *model { return &model{live: map[uint64]bool{}, marks: map[uint64]int{}} }

func (m *model) queue(name string) *modelQueue {
	for _, q := range m.queues {
		if q.name == name {
			return q
		}
	}
	return nil
}

func (m *model) add(name string) *modelQueue {
	q := &modelQueue{name: name}
	m.queues = append(m.queues, q)
	return q
}

// in lists the jobs of a queue (nil: of all) in one place, in the order that the
// contract gives them.
func (m *model) in(q *modelQueue, place modelPlace) (jobs []*modelJob) {
	for _, j := range m.jobs {
		if j.place == place && (q == nil || j.queue == q) {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b *modelJob) int {
		switch place {
		case isDelayed:
			return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.id.Seq, b.id.Seq))
		case isReserved:
			return cmp.Compare(a.lease, b.lease)
		case isFailed:
			return cmp.Compare(b.turn, a.turn) // newest first
		}
		return cmp.Compare(a.turn, b.turn)
	})
	return jobs
}

// line lists the ready jobs of a queue that are suspects, or those that are none.
func (m *model) line(q *modelQueue, suspects bool) []*modelJob {
	return slices.DeleteFunc(m.in(q, isReady), func(j *modelJob) bool { return j.suspect != suspects })
}

func (m *model) apply(c *command.Command, o observed) command.Result {
	switch c.Op {
	case command.Push:
		return m.push(c, o)
	case command.Reserve:
		return m.reserve(c, o)
	case command.Tick:
		return m.tick()
	case command.Count:
		return m.count(c)
	}
	q := m.queue(c.Queue)
	if q == nil {
		return command.Result{Code: command.UnknownQueue}
	}
	switch c.Op {
	case command.RetryFailed:
		return m.retry(q, c, o)
	case command.ForgetFailed:
		if j := m.failed(q, c.Job); j != nil {
			m.drop(j)
			q.counters[purged]++
			return command.Result{Code: command.Accepted, Count: 1}
		}
		return command.Result{Code: command.Accepted}
	case command.PurgeFailed:
		return m.purge(q)
	case command.Pause, command.Resume:
		q.paused = c.Op == command.Pause
		return command.Result{Code: command.Accepted}
	case command.Clear:
		return m.clear(q, c, o)
	case command.Delete:
		return m.deleteJob(q, c, o)
	case command.RetryAll:
		return m.retryAll(q, c, o)
	}
	for _, j := range m.in(q, isReserved) {
		if j.id == c.Job && j.lease == c.Lease && m.live[j.session] {
			m.settle(j, c)
			return command.Result{Code: command.Accepted}
		}
	}
	return command.Result{Code: command.Failure}
}

func (m *model) load(q *modelQueue) (jobs, bytes uint64) {
	for _, j := range m.jobs {
		if j.queue == q && j.place != isFailed {
			jobs++
			bytes += uint64(len(j.payload))
		}
	}
	return jobs, bytes
}

func (m *model) isFull(q *modelQueue, payload string) bool {
	jobs, bytes := m.load(q)
	return q.limits.messages > 0 && jobs+1 > q.limits.messages ||
		q.limits.bytes > 0 && bytes+uint64(len(payload)) > q.limits.bytes
}

// takesPushes: a queue that is declared does; with auto_create each valid name does.
func (m *model) takesPushes(name string, valid bool) bool {
	q := m.queue(name)
	return q != nil && q.declared || m.defs.auto && valid
}

func (m *model) push(c *command.Command, o observed) command.Result {
	if !m.takesPushes(c.Queue, modelValidName(c.Queue)) {
		return command.Result{Code: command.UnknownQueue}
	}
	q := m.queue(c.Queue)
	if q == nil {
		q = m.add(c.Queue)
	}
	if !q.declared {
		q.declared, q.auto, q.limits = true, true, m.defs.defaults
	}
	if q.limits.payload > 0 && uint64(len(c.Payload)) > q.limits.payload {
		q.counters[droppedTooLarge]++
		return command.Result{Code: command.TooLarge}
	}
	if m.isFull(q, string(c.Payload)) {
		q.counters[droppedFull]++
		return command.Result{Code: command.Full}
	}
	j := m.enter(q, string(c.Payload), o)
	j.first = j.id
	if c.Delay > 0 {
		j.place, j.due = isDelayed, m.now+int64(c.Delay)
	}
	return command.Result{Code: command.Accepted, Job: j.id}
}

// modelValidName knows the few names that the tests use.
func modelValidName(name string) bool { return name != "" && name != "a b" && name != "a/b" }

// number takes an id or lease that the machine chose; a used one becomes another, so
// that the results differ.
func (m *model) number(n uint64) uint64 {
	if n <= m.last {
		n = math.MaxUint64
	} else {
		m.last = n
	}
	return n
}

func (m *model) enter(q *modelQueue, payload string, o observed) *modelJob {
	j := &modelJob{id: command.JobID{Millis: m.now, Seq: m.number(o.job.Seq)}, queue: q, payload: payload}
	m.jobs = append(m.jobs, j)
	q.counters[enqueued]++
	m.ready(j)
	return j
}

// ready puts a job behind those that wait.
func (m *model) ready(j *modelJob) {
	m.turn++
	j.place, j.turn = isReady, m.turn
}

func (m *model) reserve(c *command.Command, o observed) command.Result {
	name, alone := strings.CutSuffix(c.Queue, "/suspects")
	q := m.queue(name)
	if q == nil || q.paused || !m.live[c.Session] {
		return command.Result{Code: command.Accepted}
	}
	ready := m.line(q, alone)
	n := min(c.Count, uint64(len(ready)), 1000)
	for i, j := range ready[:n] {
		if i < len(o.leases) {
			j.lease = m.number(o.leases[i])
		}
		j.place, j.session, j.pool = isReserved, c.Session, c.Pool
		j.reservedAt, j.deadline = m.now, m.now+q.limits.timeout+5000
		j.attempts++
		q.counters[reservedTotal]++
	}
	return command.Result{Code: command.Accepted, Count: n}
}

func (m *model) drop(j *modelJob) {
	m.jobs = slices.DeleteFunc(m.jobs, func(o *modelJob) bool { return o == j })
}

func (m *model) settle(j *modelJob, c *command.Command) {
	switch c.Op {
	case command.Ack:
		m.drop(j)
		j.queue.counters[acked]++
	case command.Fail:
		j.output = c.Output
		m.fail(j, c.Reason)
	default:
		if c.Cause != command.Unstarted {
			j.output = c.Output
		}
		m.release(j, c.Cause, int64(c.Delay), c.Reason)
	}
}

func (m *model) fail(j *modelJob, reason string) {
	m.turn++
	j.suspect = false
	j.place, j.turn, j.reason, j.failedAt = isFailed, m.turn, reason, m.now
	j.queue.counters[failedTotal]++
}

func (m *model) release(j *modelJob, cause command.Cause, delay int64, reason string) {
	q := j.queue
	if reason != "" {
		j.reason = reason
	}
	if cause == command.Unstarted {
		j.attempts--
		j.place = isReady // its turn is as it was
		return
	}
	q.counters[released]++
	if cause == command.Interrupted {
		j.interruptions++
		j.place = isReady
		return
	}
	if cause == command.Crashed {
		m.crash(j, reason)
		return
	}
	j.suspect = false // it ended in another way, so it does not crash its host
	if q.limits.attempts > 0 && j.spent() >= q.limits.attempts {
		if cause == command.Asked || reason == "" {
			reason = "max attempts exceeded"
		}
		m.fail(j, reason)
		return
	}
	if cause != command.Asked {
		delay = 0
		if n := uint64(len(q.limits.backoff)); n > 0 {
			delay = q.limits.backoff[min(j.spent(), n)-1]
		}
	}
	if delay > 0 {
		j.place, j.due = isDelayed, m.now+delay
		return
	}
	m.ready(j)
}

// crash: no attempt is spent. All jobs of the host are suspects; one that was a suspect
// before ran alone and did it.
func (m *model) crash(j *modelJob, reason string) {
	j.interruptions++
	if !j.suspect {
		j.suspect, j.place = true, isReady
		return
	}
	j.crashes++
	if limit := j.queue.limits.crashes; limit > 0 && j.crashes >= limit {
		if reason == "" {
			reason = "PHP host ended"
		}
		m.fail(j, fmt.Sprintf("%s (crash %d in quarantine, max_crashes = %d)", reason, j.crashes, limit))
		return
	}
	m.ready(j)
}

func (m *model) endSession(session uint64) {
	delete(m.live, session)
	m.freeOrphans(1000)
}

func (m *model) orphans() (jobs []*modelJob) {
	for _, j := range m.in(nil, isReserved) {
		if !m.live[j.session] {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b *modelJob) int { return cmp.Compare(a.id.Seq, b.id.Seq) })
	return jobs
}

func (m *model) freeOrphans(budget int) int {
	jobs := m.orphans()
	jobs = jobs[:min(len(jobs), budget)]
	for _, j := range jobs {
		j.output = ""
		m.release(j, command.Interrupted, 0, "the node that ran it was lost")
	}
	return len(jobs)
}

func (m *model) tick() command.Result {
	budget := 1000 - m.freeOrphans(1000)
	late := slices.DeleteFunc(m.in(nil, isReserved), func(j *modelJob) bool { return j.deadline > m.now })
	slices.SortFunc(late, func(a, b *modelJob) int {
		return cmp.Or(cmp.Compare(a.deadline, b.deadline), cmp.Compare(a.id.Seq, b.id.Seq))
	})
	for _, j := range late[:min(len(late), budget)] {
		budget--
		j.output = ""
		m.release(j, command.TimedOut, 0, modelTimeoutReason(j.deadline-j.reservedAt-5000))
	}
	for _, q := range m.queues {
		for _, j := range m.in(q, isDelayed) {
			if j.due <= m.now && budget > 0 {
				budget--
				m.ready(j)
			}
		}
	}
	return command.Result{Code: command.Accepted, Count: uint64(1000 - budget)}
}

// modelTimeoutReason knows the few time-outs that the tests use.
func modelTimeoutReason(ms int64) string {
	return map[int64]string{
		100: "timed out after 100ms", 1000: "timed out after 1s", 90_000: "timed out after 1m30s",
	}[ms]
}

// nextDue is when the next thing happens by itself.
func (m *model) nextDue() int64 {
	if len(m.orphans()) > 0 {
		return m.now
	}
	due := int64(math.MaxInt64)
	for _, j := range m.jobs {
		switch j.place {
		case isDelayed:
			due = min(due, j.due)
		case isReserved:
			due = min(due, j.deadline)
		}
	}
	return due
}

func (m *model) failed(q *modelQueue, id command.JobID) *modelJob {
	for _, j := range m.in(q, isFailed) {
		if j.id == id {
			return j
		}
	}
	return nil
}

func (m *model) retry(q *modelQueue, c *command.Command, o observed) command.Result {
	old := m.failed(q, c.Job)
	if old == nil {
		return command.Result{Code: command.Failure}
	}
	if m.isFull(q, old.payload) {
		return command.Result{Code: command.Full}
	}
	return command.Result{Code: command.Accepted, Job: m.fresh(old, o).id}
}

func (m *model) fresh(old *modelJob, o observed) *modelJob {
	m.drop(old)
	old.queue.counters[retried]++
	j := m.enter(old.queue, old.payload, o)
	j.first = old.first
	return j
}

func (m *model) purge(q *modelQueue) command.Result {
	jobs := m.in(q, isFailed)
	more := len(jobs) > 1000
	if more {
		jobs = jobs[len(jobs)-1000:] // the oldest
	}
	for _, j := range jobs {
		m.drop(j)
		q.counters[purged]++
	}
	return command.Result{Code: command.Accepted, Count: uint64(len(jobs)), More: more}
}

func (m *model) define(d modelDefinitions) {
	m.defs = d
	for _, name := range sortedNames(d.queues) {
		if m.queue(name) == nil {
			m.add(name)
		}
	}
	for _, q := range m.queues {
		limits, named := d.queues[q.name]
		switch {
		case named:
			q.limits, q.declared, q.auto = limits, true, false
		case q.auto && d.auto:
			q.limits, q.declared = d.defaults, true
		default:
			q.declared = false
		}
	}
}

func sortedNames(queues map[string]modelLimits) (names []string) {
	for name := range queues {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (m *model) count(c *command.Command) command.Result {
	q := m.queue(c.Queue)
	if q == nil {
		return command.Result{Code: command.UnknownQueue}
	}
	q.counters[droppedTooLarge] += c.TooLarge
	q.counters[droppedShutdown] += c.Shutdown
	q.counters[backendErrors] += c.Backend
	return command.Result{Code: command.Accepted}
}
