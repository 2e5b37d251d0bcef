package queue

import "sync/atomic"

// Table is an immutable list of the queues, to check calls against without the
// state machine's lock. Whether a job is taken is decided when it is applied.
type Table struct {
	queues     map[string]tableEntry
	suspects   map[string]*atomic.Uint64 // by Suspects(queue): the queue's own
	autoCreate bool
	maxPayload uint64 // of queues made by a push
}

type tableEntry struct {
	id         uint32
	declared   bool
	paused     bool
	maxPayload uint64
	ready      *atomic.Uint64 // the queue's own
}

// Ready returns how many jobs Reserve could take from the line of that name, a queue's
// or that of its Suspects, as of the last command that was applied.
func (t *Table) Ready(name string) uint64 {
	if q, known := t.queues[name]; known {
		return q.ready.Load()
	}
	if n, known := t.suspects[name]; known {
		return n.Load()
	}
	return 0
}

// Paused reports whether nothing is reserved from the queue.
func (t *Table) Paused(name string) bool { return t.queues[name].paused }

// Declared reports whether the queue takes pushes, and the largest payload that it
// takes, in bytes; 0: no limit of its own.
func (t *Table) Declared(name string) (maxPayload uint64, ok bool) {
	if q, known := t.queues[name]; known && (q.declared || !t.autoCreate) {
		return q.maxPayload, q.declared
	}
	return t.maxPayload, t.autoCreate && ValidName(name)
}

// Number returns the queue's number, by which Failed finds its jobs; ok is false
// for a queue that was never declared nor made.
func (t *Table) Number(name string) (id uint32, ok bool) {
	q, ok := t.queues[name]
	return q.id, ok
}

// Table returns the queues as they are now. It may be called from anywhere.
func (s *State) Table() *Table { return s.table.Load() }

// publish makes the table anew, after a queue was added, defined, paused or resumed.
func (s *State) publish() {
	t := &Table{queues: make(map[string]tableEntry, len(s.byID)), suspects: make(map[string]*atomic.Uint64, len(s.byID)), autoCreate: s.autoCreate, maxPayload: s.defaults.MaxPayloadBytes}
	for _, q := range s.byID {
		t.queues[q.name] = tableEntry{q.id, q.declared, q.paused, q.def.MaxPayloadBytes, &q.readyNow}
		t.suspects[Suspects(q.name)] = &q.suspectsNow
	}
	s.table.Store(t)
}
