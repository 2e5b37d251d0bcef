package raftfsm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"pogod/internal/command"
)

// How batches are gathered, sent and answered.

// flight is a batch on its way.
type flight struct {
	number    uint64
	session   uint64
	calls     []*call
	commands  []byte
	pushes    []QueueCount
	ambiguous bool // it may have been applied
	started   time.Time
	sent      time.Duration // the last time, see clock.Boot
}

// run opens the session, and numbers and starts one batch after the other.
func (p *Proposer) run() {
	defer close(p.done)
	for {
		p.mu.Lock()
		for !p.quit && !p.canGoOn() {
			p.cond.Wait()
		}
		if p.quit {
			p.mu.Unlock()
			return
		}
		if p.session == 0 {
			p.requeue()
			p.mu.Unlock()
			p.openSession()
			continue
		}
		p.gather()
		if p.quit || p.session == 0 {
			p.mu.Unlock()
			continue
		}
		f, watermark := p.take()
		p.mu.Unlock()
		wait := p.submit(f, watermark)
		p.wg.Add(1)
		go p.see(f, wait) // ended by the batch's outcome, or by Close
	}
}

// canGoOn reports whether run has something to do: a batch may start, or a session may
// be opened, for which all of the last one must have landed. mu is held.
func (p *Proposer) canGoOn() bool {
	if p.session == 0 {
		return len(p.flying) == 0
	}
	return !p.blocked && (len(p.waiting) > 0 || p.silent && !p.closing) && len(p.flying) < max(p.cfg.InFlight, 1)
}

// gather waits until the callers that were just answered call again, or Gather has
// passed. mu is held, and let go meanwhile.
func (p *Proposer) gather() {
	target, before := min(p.target, batchCommands), len(p.waiting)
	if p.cfg.Gather == 0 || before >= target || before == 0 {
		return
	}
	if p.alone > 0 {
		p.alone--
		return
	}
	over := false
	t := p.cfg.Clock.AfterFunc(min(max(p.took/2, leastGather), p.cfg.Gather), func() {
		p.mu.Lock()
		over = true
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer t.Stop()
	for !over && !p.quit && len(p.waiting) < target {
		p.cond.Wait()
	}
	if len(p.waiting) == before {
		p.alone = gatherAgain
	}
}

// requeue puts what the last session did not apply first, in its old order. mu is held.
func (p *Proposer) requeue() {
	slices.SortFunc(p.ended, func(a, b *flight) int { return cmp.Compare(a.number, b.number) })
	var calls []*call
	for _, f := range p.ended {
		calls = append(calls, f.calls...)
	}
	p.ended = nil
	p.waiting = append(calls, p.waiting...)
}

// openSession tries once, and waits a little after a failure. An opening that may have
// been applied is tried again under the same number, which answers the same session.
func (p *Proposer) openSession() {
	var err error
	if p.opening == 0 {
		p.opening, err = p.cfg.NextOpening()
	}
	sent := p.cfg.Clock.Boot()
	var id uint64
	if err == nil {
		id, err = p.cfg.Submitter.OpenSession(p.cfg.Node, p.opening)
	}
	if err == nil || errors.Is(err, ErrSessionRefused) {
		p.opening = 0
	}
	if err != nil {
		p.cfg.Log.Debug("no session yet", "error", err)
		p.pause()
		return
	}
	p.standing.opened(id, sent)
	p.mu.Lock()
	p.session, p.number = id, 0
	p.mu.Unlock()
	signal(p.confirmed)
}

// pause waits for retryPause or Close.
func (p *Proposer) pause() {
	over := false
	t := p.cfg.Clock.AfterFunc(retryPause, func() {
		p.mu.Lock()
		over = true
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer t.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !over && !p.quit {
		p.cond.Wait()
	}
}

// take makes a batch of what waits. mu is held.
func (p *Proposer) take() (f *flight, watermark uint64) {
	n, size := 0, 0
	for n < len(p.waiting) && n < batchCommands {
		if size += len(p.waiting[n].enc); n > 0 && size > batchBytes {
			break
		}
		n++
	}
	p.number++
	f = &flight{number: p.number, session: p.session, calls: slices.Clone(p.waiting[:n]), started: p.cfg.Clock.Now()}
	p.waiting = slices.Delete(p.waiting, 0, n)
	p.flying = append(p.flying, f)
	p.silent = false
	return f, p.flying[0].number - 1
}

// submit encodes a batch and starts it.
func (p *Proposer) submit(f *flight, watermark uint64) func() (*Outcome, error) {
	if f.commands == nil {
		size := 0
		for _, k := range f.calls {
			size += len(k.enc)
		}
		f.commands = make([]byte, 0, size)
		for _, k := range f.calls {
			f.commands = append(f.commands, k.enc...)
			if k.push == "" {
				continue
			}
			if i := slices.IndexFunc(f.pushes, func(q QueueCount) bool { return q.Queue == k.push }); i >= 0 {
				f.pushes[i].Count += k.ready
			} else {
				f.pushes = append(f.pushes, QueueCount{k.push, k.ready})
			}
		}
	}
	b := command.AppendBatch(make([]byte, 0, 40+len(f.commands)), command.Batch{
		Session: f.session, Number: f.number, Watermark: watermark, Commands: f.commands,
	})
	f.sent = p.cfg.Clock.Boot()
	if f.ambiguous {
		f.pushes = nil // it may be in a log: whoever leads is to take it
	}
	return p.cfg.Submitter.Submit(b, f.pushes)
}

// see waits for a batch's outcome and sends it again, with the same number, until it
// has one.
func (p *Proposer) see(f *flight, wait func() (*Outcome, error)) {
	defer p.wg.Done()
	for {
		o, err := wait()
		if err == nil && o.Err != nil {
			err = o.Err
		}
		switch {
		case errors.Is(err, ErrNotSent):
			if !f.ambiguous && p.takeBack(f) {
				return
			}
		case errors.Is(err, ErrNoRoom):
			if !f.ambiguous && p.withoutPushes(f, err) {
				return
			}
			f.ambiguous = true // a later batch is numbered: this one must be seen through
		case err != nil:
			p.cfg.Log.Debug("a batch is sent again", "number", f.number, "error", err)
			f.ambiguous = true
		case o.Status == Applied:
			p.told(o.Index)
			if p.standing.confirmed(f.sent, o.Index) && p.cfg.SessionTTL > 0 {
				signal(p.confirmed)
			}
			p.land(f, o.Results, nil)
			return
		case o.Status == Ended:
			p.sessionEnded(f)
			return
		case o.Status == Passed:
			p.land(f, nil, command.ErrOutcomeUnknown)
			return
		}
		p.pause()
		p.mu.Lock()
		quit, watermark := p.quit, p.flying[0].number-1
		p.mu.Unlock()
		if quit {
			p.land(f, nil, command.ErrOutcomeUnknown)
			return
		}
		wait = p.submit(f, watermark)
	}
}

// told notes an entry whose outcome a caller is told.
func (p *Proposer) told(index uint64) {
	for {
		last := p.lastIndex.Load()
		if index <= last || p.lastIndex.CompareAndSwap(last, index) {
			return
		}
	}
}

// takeBack undoes the numbering of a batch that is in no log: its calls wait again, and
// can be withdrawn. It reports false when a later batch is numbered already.
func (p *Proposer) takeBack(f *flight) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.undo(f, f.calls) {
		return false
	}
	p.blocked = true
	p.cfg.Clock.AfterFunc(retryPause, func() {
		p.mu.Lock()
		p.blocked = false
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	p.cond.Broadcast() // Close may wait for the last flight
	return true
}

// undo takes back the number of a batch that is in no log, unless a later one has one, and
// has these of its calls wait again. mu is held.
func (p *Proposer) undo(f *flight, calls []*call) bool {
	if p.quit || p.session != f.session || p.flying[len(p.flying)-1] != f {
		return false
	}
	p.remove(f)
	p.number--
	p.waiting = append(slices.Clone(calls), p.waiting...)
	p.silent = len(f.calls) == 0
	return true
}

// withoutPushes is takeBack of a batch that the leader refused for its pushes: these are
// answered so, and the rest is sent at once.
func (p *Proposer) withoutPushes(f *flight, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(f.calls), func(k *call) bool { return k.push != "" })
	if !p.undo(f, rest) {
		return false
	}
	p.noRoom, p.refused = fmt.Errorf("%w: %w", command.ErrNotAccepted, err), p.cfg.Clock.Now()
	for _, k := range f.calls {
		if k.push != "" {
			k.err = p.noRoom
			close(k.done)
		}
	}
	p.cond.Broadcast()
	return true
}

// land answers the calls of a batch.
func (p *Proposer) land(f *flight, results []command.Result, err error) {
	if err == nil && len(results) != len(f.calls) {
		p.cfg.Log.Error("a batch was answered with the wrong number of results", "number", f.number, "calls", len(f.calls), "results", len(results))
		err = command.ErrOutcomeUnknown
	}
	took := p.cfg.Clock.Now().Sub(f.started)
	p.mu.Lock()
	p.target = len(p.waiting) + len(f.calls)
	p.took += (took - p.took) / 8
	p.mu.Unlock()
	for i, k := range f.calls {
		if k.err = err; err == nil {
			k.result = results[i]
		}
		close(k.done)
	}
	p.mu.Lock()
	p.remove(f)
	p.mu.Unlock()
	p.cond.Broadcast()
}

// remove takes a batch out of flying. mu is held.
func (p *Proposer) remove(f *flight) {
	if i := slices.Index(p.flying, f); i >= 0 {
		p.flying = slices.Delete(p.flying, i, i+1)
	}
}

// sessionEnded lets run open a new session. A batch that was surely not applied goes
// into it; of another nobody can know.
func (p *Proposer) sessionEnded(f *flight) {
	p.cfg.Log.Warn("the node's session ended; a new one is opened", "session", f.session)
	p.standing.opened(0, 0)
	if p.cfg.SessionTTL > 0 {
		signal(p.confirmed)
	}
	p.mu.Lock()
	p.session = 0
	quit := p.quit
	if !f.ambiguous && !quit {
		p.remove(f)
		p.ended = append(p.ended, f)
	}
	p.mu.Unlock()
	switch {
	case f.ambiguous:
		p.land(f, nil, command.ErrOutcomeUnknown)
	case quit:
		p.land(f, nil, command.ErrClosed)
	}
	p.cond.Broadcast()
}
