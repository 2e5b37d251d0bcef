package workers

import (
	"context"
	"time"

	"pogod/internal/link"
)

// taskFigures count what became of a pool's tasks since the node started.
type taskFigures struct {
	done, failed, timedOut, cancelled uint64
	begun, ended                      uint64 // given to threads; of these, no longer with one
	waited, ran                       time.Duration
	restarts                          uint64
	lastError                         string
	lastErrorAt                       time.Time
}

// TaskPoolStatus is what status tells of a pool.
type TaskPoolStatus struct {
	Name        string
	Script      string
	Threads     int // as configured
	Waiting     int // threads that are free
	Running     int // threads that run a task
	Queued      int // tasks that wait for a thread
	Done        uint64
	Failed      uint64        // their envelope says so, or their worker broke, or the pool was full
	TimedOut    uint64        // past the caller's time-out or the pool's max_wait
	Cancelled   uint64        // their caller has ended
	Wait        time.Duration // for a thread, on average
	Run         time.Duration // on average
	Restarts    uint64        // scripts that ended
	LastError   string
	LastErrorAt time.Time
}

// Status of all pools, in the order of the configuration.
func (d *Dispatch) Status() []TaskPoolStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]TaskPoolStatus, 0, len(d.order))
	for _, p := range d.order {
		f := &p.figures
		s := TaskPoolStatus{
			Name: p.Name, Script: p.Script, Threads: p.Threads, Waiting: len(p.free), Queued: p.length,
			Done: f.done, Failed: f.failed, TimedOut: f.timedOut, Cancelled: f.cancelled,
			Restarts: f.restarts, LastError: f.lastError, LastErrorAt: f.lastErrorAt,
		}
		if f.begun > 0 {
			s.Wait = f.waited / time.Duration(f.begun)
		}
		if f.ended > 0 {
			s.Run = f.ran / time.Duration(f.ended)
		}
		for _, t := range d.running {
			if t.pool == p {
				s.Running++
			}
		}
		all = append(all, s)
	}
	return all
}

// Retire lets the threads of a process go: those that wait now, the others after their
// task, and those that have not come yet when they do.
func (d *Dispatch) Retire(pid int) {
	d.mu.Lock()
	d.retired[pid] = struct{}{}
	var left []letter
	for _, th := range d.threads {
		if th.conn.Peer.PID == pid {
			th.leaving = true
		}
	}
	for _, p := range d.order {
		kept := p.free[:0]
		for _, th := range p.free {
			if th.leaving {
				left = append(left, letter{conn: th.conn})
				continue
			}
			kept = append(kept, th)
		}
		p.free = kept
	}
	d.mu.Unlock()
	for _, l := range left {
		d.post(l)
	}
}

// Left is told that a process has ended: its id may come again.
func (d *Dispatch) Left(pid int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.retired, pid)
}

// Drain takes tasks of running tasks alone, waits until none is queued or runs, or ctx
// ends, and then tells all threads to leave their loops. It reports whether all have ended;
// Cut ends the others. Whoever dispatches is to have ended before.
func (d *Dispatch) Drain(ctx context.Context) (idle bool) {
	d.mu.Lock()
	d.leaving = true
	ended := make(chan struct{})
	d.idle = ended
	d.idleLocked()
	d.mu.Unlock()
	select {
	case <-ended:
	case <-ctx.Done():
		return false
	}
	d.dismiss()
	return true
}

// dismiss starts no task any more and lets the threads that wait go.
func (d *Dispatch) dismiss() {
	d.mu.Lock()
	d.leaving, d.closed = true, true
	var left []letter
	for _, p := range d.order {
		for _, th := range p.free {
			left = append(left, letter{conn: th.conn})
		}
		p.free = nil
	}
	d.mu.Unlock()
	for _, l := range left {
		d.post(l)
	}
}

// Cut breaks what is queued or runs, and lets all threads go.
func (d *Dispatch) Cut() {
	const why = "the node was shut down"
	d.dismiss()
	d.mu.Lock()
	var told []letter
	var hits []hit
	for _, p := range d.order {
		for t := p.head; t != nil; t = p.head {
			d.unqueueLocked(t)
			p.figures.failed++
			told = append(told, d.concludeLocked(t, link.Broke, []byte(why+" before a thread was free")))
		}
	}
	for _, t := range d.running {
		if t.cut == "" {
			hits = append(hits, d.cutLocked(t, why)...)
			t.pool.figures.failed++
			told = append(told, d.concludeLocked(t, link.Broke, []byte(why+" while the job ran")))
		}
	}
	d.mu.Unlock()
	d.interrupt(hits)
	for _, l := range told {
		d.post(l)
	}
}

// Close stops the timers and waits for answers that are being written. The link is to be
// closed before.
func (d *Dispatch) Close() {
	d.Cut()
	d.mu.Lock()
	for _, p := range d.order {
		if p.timer != nil {
			p.timer.Stop()
		}
	}
	d.mu.Unlock()
	d.wg.Wait()
}
