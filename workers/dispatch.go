package workers

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"pogod/internal/clock"
	"pogod/internal/link"
)

// TaskPool is one pool of the configuration: a script that serves dispatched tasks, and
// its threads.
type TaskPool struct {
	Name    string
	Script  string        // for status
	Threads int           // as configured; 0: they come from outside
	MaxWait time.Duration // the longest that a task waits for a thread
}

// TaskProcesses is what Dispatch needs of Processes.
type TaskProcesses interface {
	Interrupt(pid int, slot int64, task uint64)
	Ended(pid int) (e Exit, ok bool)
}

// DispatchConfig configures Dispatch.
type DispatchConfig struct {
	Pools     []TaskPool
	Processes TaskProcesses
	Clock     clock.Clock
	Log       *slog.Logger
}

// Bounds of what waits. Past them a task breaks at once, with a sentence that says so.
const (
	maxQueued     = 65_536    // tasks of one pool that wait for a thread
	maxQueuedSize = 256 << 20 // bytes of their messages
	maxKeptSize   = 256 << 20 // bytes of results that one connection has not awaited
)

// inlineAnswer is the largest answer that is written by the goroutine at hand: it fits
// the socket's buffer, which is empty while the peer waits.
const inlineAnswer = 64 << 10

// Dispatch hands tasks from the connections that dispatch them to the threads of pools,
// and their results back. All of it is in memory, and a task ends with its caller's
// connection: nothing here outlives a process.
//
// Everything happens on the goroutine of the connection that brought it about. What is to
// be written is gathered under the lock and written after it.
type Dispatch struct {
	cfg     DispatchConfig
	maxKept int // maxKeptSize, but for tests

	mu      sync.Mutex // guards what follows; held for moments, never across a write
	pools   map[string]*taskPool
	order   []*taskPool // as configured
	callers map[*link.Conn]*taskCaller
	threads map[*link.Conn]*taskThread
	retired map[int]struct{} // process ids whose threads are let go, those that come later too
	running map[uint64]*task // by number
	queued  int              // in all pools
	number  uint64           // of the last task, without link.TaskBit
	leaving bool             // only tasks that run may still dispatch
	closed  bool             // no task starts
	idle    chan struct{}    // non-nil while somebody waits until no task is queued or runs

	wg sync.WaitGroup // writes of large answers
}

// taskPool is a pool and its figures.
type taskPool struct {
	TaskPool
	head, tail *task // the queue, the oldest at the head: it is the first to wait too long
	length     int
	size       int           // bytes of the messages in the queue
	free       []*taskThread // those that wait; the last that came has the warmest caches and is taken first
	timer      clock.Timer   // looks at the head; nil before the first task that waited
	armed      bool
	figures    taskFigures
}

// taskThread is one connection that has called NextTask.
type taskThread struct {
	conn    *link.Conn
	pool    *taskPool
	slot    int64
	running *task
	leaving bool // it is told to leave at its next call
}

// taskCaller is one connection that has dispatched.
type taskCaller struct {
	conn     *link.Conn
	tasks    map[int64]*task // by handle: those that were not told to it yet
	done     []*task         // ended and not told; told ones are skipped
	kept     int             // bytes of the results in done
	awaited  *task           // what its call of Await waits for
	timeout  time.Duration   // of that call
	deadline time.Time       // of that call
	timer    clock.Timer     // nil before the first call that waited
	fires    time.Time       // when timer is set; zero: it is not
}

// task is one dispatched call.
type task struct {
	handle     int64
	number     uint64
	caller     *taskCaller
	pool       *taskPool
	body       []byte // of NextTask's answer
	at, began  time.Time
	thread     *taskThread // that runs it
	prev, next *task       // in the pool's queue
	queued     bool
	cut        string // why nobody waits for its result any more; "" while somebody does
	told       bool
	outcome    link.Outcome // NoOutcome until it has ended
	result     []byte
}

// letter is an answer that is to be written.
type letter struct {
	conn *link.Conn
	code int32
	body []byte
	of   []*task // whose results make the body, if any
}

// NewDispatch returns the pools, which have no threads yet.
func NewDispatch(cfg DispatchConfig) *Dispatch {
	d := &Dispatch{
		cfg: cfg, maxKept: maxKeptSize, pools: map[string]*taskPool{}, callers: map[*link.Conn]*taskCaller{},
		threads: map[*link.Conn]*taskThread{}, retired: map[int]struct{}{}, running: map[uint64]*task{},
	}
	d.Configure(cfg.Pools)
	return d
}

// Sizes of the pools, for the greeting of connections.
func (d *Dispatch) Sizes() []link.PoolSize {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]link.PoolSize, 0, len(d.order))
	for _, p := range d.order {
		all = append(all, link.PoolSize{Name: p.Name, Threads: p.Threads})
	}
	return all
}

// Dispatch takes a task. What is wrong with it is told to who awaits it.
func (d *Dispatch) Dispatch(c *link.Conn, handle int64, pool string, message []byte) error {
	d.mu.Lock()
	k := d.callers[c]
	if k == nil {
		k = &taskCaller{conn: c, tasks: map[int64]*task{}}
		d.callers[c] = k
	}
	if k.tasks[handle] != nil {
		d.mu.Unlock()
		return fmt.Errorf("%w: handle %d is in use", link.ErrFrame, handle)
	}
	p := d.pools[pool]
	t := &task{handle: handle, caller: k, pool: p, at: d.cfg.Clock.Now()}
	k.tasks[handle] = t
	if why := d.refusalLocked(c, p, pool, len(message)); why != "" {
		if p != nil {
			p.figures.failed++
		}
		d.concludeLocked(t, link.Broke, []byte(why))
		d.mu.Unlock()
		return nil
	}
	d.number++
	t.number = d.number | link.TaskBit
	t.body = link.AppendDelivery(make([]byte, 0, 8+len(message)), t.number, message)
	var l letter
	if n := len(p.free); n > 0 {
		l = d.beginLocked(t, p.free[n-1])
		p.free = p.free[:n-1]
	} else {
		d.enqueueLocked(t)
	}
	d.mu.Unlock()
	d.post(l)
	return nil
}

// refusalLocked says why a task cannot be taken, "" when it can. mu is held.
func (d *Dispatch) refusalLocked(c *link.Conn, p *taskPool, name string, size int) string {
	switch th := d.threads[c]; {
	case p == nil:
		return fmt.Sprintf("no pool is called %q: name it with [[pool]] in pogod.toml", name)
	case d.closed, d.leaving && (th == nil || th.running == nil):
		return "the node is shutting down"
	case len(p.free) > 0:
		return ""
	case p.length >= maxQueued:
		return fmt.Sprintf("pool %q is full: %d jobs wait for a thread", name, p.length)
	case p.size+size > maxQueuedSize:
		return fmt.Sprintf("pool %q is full: the jobs that wait for a thread have %d MiB", name, p.size>>20)
	}
	return ""
}

// enqueueLocked puts a task behind those that wait. mu is held.
func (d *Dispatch) enqueueLocked(t *task) {
	p := t.pool
	t.queued, t.prev = true, p.tail
	if p.tail != nil {
		p.tail.next = t
	} else {
		p.head = t
	}
	p.tail = t
	p.length++
	p.size += len(t.body)
	d.queued++
	if p.armed {
		return
	}
	p.armed = true
	if p.timer == nil {
		p.timer = d.cfg.Clock.AfterFunc(p.MaxWait, func() { d.waitedTooLong(p) })
		return
	}
	p.timer.Reset(p.MaxWait)
}

// unqueueLocked takes a task out of its pool's queue. mu is held.
func (d *Dispatch) unqueueLocked(t *task) {
	p := t.pool
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		p.head = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		p.tail = t.prev
	}
	t.queued, t.prev, t.next = false, nil, nil
	p.length--
	p.size -= len(t.body)
	d.queued--
}

// beginLocked makes a thread run a task. mu is held.
func (d *Dispatch) beginLocked(t *task, th *taskThread) letter {
	t.began, t.thread = d.cfg.Clock.Now(), th
	th.running = t
	d.running[t.number] = t
	t.pool.figures.begun++
	t.pool.figures.waited += t.began.Sub(t.at)
	l := letter{conn: th.conn, code: 1, body: t.body}
	t.body = nil
	return l
}

// freeLocked notes that a task runs no more. mu is held.
func (d *Dispatch) freeLocked(t *task) {
	delete(d.running, t.number)
	if t.thread.running == t {
		t.thread.running = nil
	}
	t.pool.figures.ended++
	t.pool.figures.ran += d.cfg.Clock.Now().Sub(t.began)
}

// idleLocked wakes who waits for the end of all tasks. mu is held.
func (d *Dispatch) idleLocked() {
	if d.idle != nil && d.queued == 0 && len(d.running) == 0 {
		close(d.idle)
		d.idle = nil
	}
}

// concludeLocked keeps a task's result for its caller, and returns the answer to who
// waits for it now. mu is held.
func (d *Dispatch) concludeLocked(t *task, outcome link.Outcome, result []byte) letter {
	k := t.caller
	if k.kept+len(result) > d.maxKept && k.awaited != t {
		outcome, result = link.Broke, fmt.Appendf(nil, "the results that this script has not awaited have over %d MiB: await them sooner", d.maxKept>>20)
	}
	t.outcome, t.result = outcome, slices.Clone(result) // it lies in a buffer that is used again
	k.kept += len(t.result)
	k.done = append(k.done, t)
	if k.awaited != t {
		return letter{}
	}
	k.awaited = nil
	return d.tellLocked(k, t)
}

// tellLocked gathers the answer of Await: the result that it is about, and others that
// are done, as far as they fit. mu is held.
func (d *Dispatch) tellLocked(k *taskCaller, t *task) letter {
	l := letter{conn: k.conn, code: 1}
	size := 0
	take := func(t *task) {
		t.told = true
		delete(k.tasks, t.handle)
		k.kept -= len(t.result)
		size += 28 + len(t.result)
		l.of = append(l.of, t)
	}
	take(t)
	n := 0
	for ; n < len(k.done); n++ {
		other := k.done[n]
		if other.told {
			continue
		}
		if size+28+len(other.result) > inlineAnswer {
			break
		}
		take(other)
	}
	if k.done = k.done[n:]; len(k.done) == 0 {
		k.done = nil
	}
	return l
}

// NextTask is a thread's call for its next task: its last one has ended, with that
// outcome. It is answered when there is a task, or with 0 when the script must leave its
// loop.
func (d *Dispatch) NextTask(c *link.Conn, pool string, slot int64, number uint64, outcome link.Outcome, result []byte) error {
	d.mu.Lock()
	p, th := d.pools[pool], d.threads[c]
	if th != nil && th.leaving && th.pool.Name == pool { // the pool may be gone, or another of that name
		p = th.pool
	}
	if p == nil {
		d.mu.Unlock()
		d.cfg.Log.Warn("a script asked for tasks of a pool that the configuration does not name; add it as [[pool]]", "pool", pool, "pid", c.Peer.PID)
		return c.Answer(0, nil)
	}
	if th == nil {
		_, retired := d.retired[c.Peer.PID]
		th = &taskThread{conn: c, pool: p, slot: slot, leaving: retired}
		d.threads[c] = th
	}
	if th.pool != p || slices.Contains(p.free, th) {
		d.mu.Unlock()
		return fmt.Errorf("%w: a thread of pool %q that waits, or is another's, asked for a task", link.ErrFrame, pool)
	}
	if last := th.running; last != nil && last.number != number {
		number, outcome, result = last.number, link.Broke, []byte("the worker went on without its result")
	}
	told := d.endLocked(number, outcome, result)
	var next letter
	switch t := p.head; {
	case th.leaving || d.closed:
		next = letter{conn: c}
	case t != nil:
		d.unqueueLocked(t)
		next = d.beginLocked(t, th)
	default:
		p.free = append(p.free, th)
	}
	d.idleLocked()
	d.mu.Unlock()
	d.post(next)
	d.post(told)
	return nil
}

// post writes an answer. A peer that is gone needs none: Closed sees to what it had.
func (d *Dispatch) post(l letter) {
	if l.conn == nil {
		return
	}
	size := len(l.body)
	for _, t := range l.of {
		size += 28 + len(t.result)
	}
	write := func() {
		for _, t := range l.of {
			l.body = link.AppendResult(l.body, t.handle, t.outcome, t.result)
		}
		_ = l.conn.Answer(l.code, l.body)
	}
	if size <= inlineAnswer {
		write()
		return
	}
	d.wg.Go(write) // ended by the peer, which reads or closes, or by the link's end
}
