package queue_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"

	"pgregory.net/rapid"
)

// pair drives a machine and the model with the same commands and compares them.
type pair struct {
	*rapid.T
	m      *machine
	model  *model
	ids    []command.JobID  // of all jobs ever
	handed []queue.Delivery // all deliveries ever
	all    []uint64         // all sessions ever
	bursts int              // how many there were
	rest   *command.Command // what a Clear or a RetryAll has left
}

var dataFiles atomic.Int64

// Every command, on random ways through the queues, agrees with the model. Now and
// then so many jobs come at once that a command reaches its bound.
func TestStateAgreesWithModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(dir, strconv.FormatInt(dataFiles.Add(1), 10))
		p := &pair{T: rt, m: newMachine(rt, path), model: newModel()}
		p.m.now = 1_000_000
		p.model.now = p.m.now
		defer func() {
			_ = p.m.store.Close()
			remove(path)
		}()
		p.openSession(rt)
		p.define(modelDefinitions{queues: map[string]modelLimits{"a": {timeout: 1000}, "b": {timeout: 100, attempts: 2, crashes: 2, backoff: []int64{10, 200}}}})
		actions := map[string]func(*rapid.T){
			"":         p.compare,
			"push":     p.push,
			"push2":    p.push,
			"push3":    p.push,
			"reserve":  p.reserve,
			"reserve2": p.reserve,
			"settle":   p.settle,
			"settle2":  p.settle,
			"settle3":  p.settle,
			"crash":    p.crash,
			"tick":     p.tick,
			"tick2":    p.tick,
			"retry":    p.onFailed,
			"retry2":   p.onFailed,
			"define":   p.redefine,
			"count":    p.count,
			"session":  p.openSession,
			"end":      p.endSession,
			"commit":   p.commit,
			"restart":  p.restart,
			"burst":    p.burst,
			"pause":    p.pause,
			"clear":    p.clear,
			"delete":   p.delete,
			"delete2":  p.delete,
			"retryAll": p.retryAll,
		}
		for range 3 { // rapid's 30 steps are few for a job that fails twice
			rt.Repeat(actions)
		}
		p.drain()
	})
}

var pairNames = []string{"a", "a", "a", "b", "b", "b", "c", "made", "a b", ""}

func (p *pair) name(t *rapid.T) string { return rapid.SampledFrom(pairNames).Draw(t, "queue") }

// apply gives c to both and demands the same result.
func (p *pair) apply(c *command.Command) command.Result { return p.applySeen(c, observed{}) }

// applySeen is apply with what is known of the machine before.
func (p *pair) applySeen(c *command.Command, o observed) command.Result {
	before := p.m.counter
	got := p.m.apply(c)
	o.job, o.first, o.next, o.to = got.Job, before+1, got.Next, got.To
	if c.Op == command.Reserve {
		fresh := p.m.newer(c.Session, before)
		p.handed = append(p.handed, fresh...)
		for _, d := range fresh {
			o.leases = append(o.leases, d.Lease)
		}
	}
	want := p.model.apply(c, o)
	if got != want {
		p.Fatalf("%+v answers %+v, want %+v", c, got, want)
	}
	if got.Job != (command.JobID{}) {
		p.ids = append(p.ids, got.Job)
	}
	if got.Count > command.MaxRecords {
		p.Fatalf("%+v touched %d jobs", c, got.Count)
	}
	if c.Op == command.Tick && got.Count < command.MaxRecords && p.m.state.NextDue() <= p.m.now {
		p.Fatalf("a Tick that had nothing more to do is wanted again: due %d, now %d", p.m.state.NextDue(), p.m.now)
	}
	return got
}

func (p *pair) push(t *rapid.T) {
	p.apply(&command.Command{
		Op: command.Push, Queue: p.name(t),
		Payload: []byte(rapid.SampledFrom([]string{"", "x", "\x00é", "a payload of some length"}).Draw(t, "payload")),
		Delay:   rapid.SampledFrom([]uint64{0, 0, 0, 0, 1, 50, 50, 3000, 315_360_000_000}).Draw(t, "delay"),
	})
}

func (p *pair) session(t *rapid.T) uint64 {
	if rapid.IntRange(0, 9).Draw(t, "session of no one") == 0 {
		return 999_999
	}
	return p.all[max(0, len(p.all)-1-rapid.IntRange(0, 3).Draw(t, "session back"))]
}

func (p *pair) reserve(t *rapid.T) {
	p.apply(&command.Command{
		Op: command.Reserve, Queue: p.name(t) + rapid.SampledFrom([]string{"", "", "/suspects"}).Draw(t, "line"), Session: p.session(t),
		Pool:  rapid.SampledFrom([]string{"", "jobs", "slow"}).Draw(t, "pool"),
		Count: rapid.SampledFrom([]uint64{0, 1, 1, 2, 3, 5000}).Draw(t, "n"),
	})
}

func (p *pair) settle(t *rapid.T) {
	c := &command.Command{Queue: p.name(t)}
	held := p.model.in(nil, isReserved)
	switch kind := rapid.SampledFrom([]string{"right", "right", "right", "right", "any", "bare", "foreign", "wrong"}).Draw(t, "id"); {
	case kind != "any" && len(held) > 0:
		j := rapid.SampledFrom(held).Draw(t, "held")
		c.Queue, c.Job, c.Lease = j.queue.name, j.id, j.lease
		switch kind {
		case "bare":
			c.Lease = 0
		case "foreign":
			c.Queue = p.name(t)
		case "wrong":
			c.Job.Millis++
		}
	case len(p.handed) > 0: // stale, mostly
		d := rapid.SampledFrom(p.handed).Draw(t, "handed")
		c.Queue, c.Job, c.Lease = d.Queue, d.Job, d.Lease
	}
	c.Op = rapid.SampledFrom([]command.Op{command.Ack, command.Release, command.Release, command.Release, command.Fail}).Draw(t, "verb")
	if c.Op == command.Release {
		c.Cause = rapid.SampledFrom([]command.Cause{
			command.Asked, command.Asked, command.Unsettled, command.Broke, command.TimedOut,
			command.Interrupted, command.Interrupted, command.Unstarted, command.Unstarted, command.Unstarted,
			command.Crashed, command.Crashed, command.Crashed, command.Crashed,
		}).Draw(t, "cause")
		c.Delay = rapid.SampledFrom([]uint64{0, 0, 30, 3000}).Draw(t, "delay")
	}
	if c.Op != command.Ack {
		c.Reason = rapid.SampledFrom([]string{"", "boom", "it threw"}).Draw(t, "reason")
		c.Output = rapid.SampledFrom([]string{"", "half way", "é\n"}).Draw(t, "output")
	}
	p.apply(c)
}

// crash has the host of some jobs crash, and then some of them alone, which few random
// steps come to.
func (p *pair) crash(t *rapid.T) {
	name, session := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "queue"), p.all[len(p.all)-1]
	for _, line := range []string{name, name + "/suspects", name + "/suspects"} {
		p.apply(&command.Command{Op: command.Reserve, Queue: line, Session: session, Count: rapid.Uint64Range(0, 2).Draw(t, "n")})
		for _, j := range p.model.in(p.model.queue(name), isReserved) {
			if rapid.IntRange(0, 3).Draw(t, "lives on") > 0 {
				p.apply(&command.Command{
					Op: command.Release, Queue: name, Job: j.id, Lease: j.lease, Cause: command.Crashed,
					Reason: rapid.SampledFrom([]string{"", "PHP host ended by SIGSEGV"}).Draw(t, "reason"),
				})
			}
		}
	}
}

func (p *pair) tick(t *rapid.T) {
	now := p.m.now
	switch rapid.SampledFrom([]string{"same", "1", "some", "due", "due", "due", "far"}).Draw(t, "time") {
	case "1":
		now++
	case "some":
		now += int64(rapid.IntRange(2, 400).Draw(t, "ms"))
	case "due":
		if due := p.model.nextDue(); due < math.MaxInt64 {
			now = max(now, due)
		}
	case "far":
		now += 100_000
	}
	p.m.now, p.model.now = now, now
	if rapid.IntRange(0, 5).Draw(t, "time passes only") > 0 {
		p.apply(&command.Command{Op: command.Tick})
	}
}

func (p *pair) onFailed(t *rapid.T) {
	c := &command.Command{Queue: p.name(t)}
	c.Op = rapid.SampledFrom([]command.Op{command.RetryFailed, command.RetryFailed, command.ForgetFailed, command.PurgeFailed}).Draw(t, "verb")
	if c.Op != command.PurgeFailed {
		if failed := p.model.in(nil, isFailed); len(failed) > 0 && rapid.IntRange(0, 4).Draw(t, "any id") > 0 {
			j := rapid.SampledFrom(failed).Draw(t, "failed")
			c.Queue, c.Job = j.queue.name, j.id
		} else if len(p.ids) > 0 {
			c.Job = rapid.SampledFrom(p.ids).Draw(t, "job")
		}
		if rapid.IntRange(0, 9).Draw(t, "wrong time") == 0 {
			c.Job.Millis++
		}
	}
	p.apply(c)
}

func drawLimits(t *rapid.T) modelLimits {
	return modelLimits{
		messages: rapid.SampledFrom([]uint64{0, 0, 1, 5}).Draw(t, "messages"),
		bytes:    rapid.SampledFrom([]uint64{0, 0, 30, 100}).Draw(t, "bytes"),
		payload:  rapid.SampledFrom([]uint64{0, 0, 2}).Draw(t, "payload"),
		attempts: rapid.SampledFrom([]uint64{0, 1, 2, 3}).Draw(t, "attempts"),
		crashes:  rapid.SampledFrom([]uint64{0, 1, 2}).Draw(t, "crashes"),
		timeout:  rapid.SampledFrom([]int64{100, 1000, 90_000}).Draw(t, "timeout"),
		backoff:  rapid.SampledFrom([][]int64{nil, {0}, {10, 200}, {1, 0, 7}}).Draw(t, "backoff"),
	}
}

func (p *pair) redefine(t *rapid.T) {
	d := modelDefinitions{defaults: drawLimits(t), auto: rapid.Bool().Draw(t, "auto_create"), queues: map[string]modelLimits{}}
	for _, name := range []string{"a", "b", "c"} {
		if rapid.IntRange(0, 3).Draw(t, "dropped") > 0 {
			d.queues[name] = drawLimits(t)
		}
	}
	p.define(d)
}

func (p *pair) define(d modelDefinitions) {
	defs := &queue.Definitions{Default: definition(d.defaults), AutoCreate: d.auto, Queues: map[string]queue.Definition{}}
	for name, l := range d.queues {
		defs.Queues[name] = definition(l)
	}
	p.m.define(defs)
	p.model.define(d)
}

func definition(l modelLimits) queue.Definition {
	d := queue.Definition{
		MaxMessages: l.messages, MaxBytes: l.bytes, MaxPayloadBytes: l.payload, MaxAttempts: l.attempts, MaxCrashes: l.crashes,
		VisibilityTimeout: time.Duration(l.timeout) * time.Millisecond,
	}
	for _, w := range l.backoff {
		d.Backoff = append(d.Backoff, time.Duration(w)*time.Millisecond)
	}
	return d
}

func (p *pair) count(t *rapid.T) {
	n := rapid.Uint64Range(0, 3)
	p.apply(&command.Command{Op: command.Count, Queue: p.name(t), TooLarge: n.Draw(t, "large"), Shutdown: n.Draw(t, "shutdown"), Backend: n.Draw(t, "backend")})
}

func (p *pair) openSession(*rapid.T) {
	s := p.m.openSession()
	p.model.live[s], p.model.last = true, s
	p.all = append(p.all, s)
}

func (p *pair) endSession(t *rapid.T) {
	s := p.session(t)
	before := len(p.model.in(nil, isReserved))
	p.m.endSession(s)
	p.model.endSession(s)
	if n := before - len(p.model.in(nil, isReserved)); n > command.MaxRecords {
		p.Fatalf("the end of a session touched %d jobs", n)
	}
}

// burst takes many jobs at once to where a bound counts.
func (p *pair) burst(t *rapid.T) {
	if p.bursts == 3 || rapid.IntRange(0, 40).Draw(t, "bursts are rare") > 0 {
		t.Skip("none")
	}
	p.bursts++
	name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "queue")
	kind := rapid.SampledFrom([]string{"ready", "delayed", "reserved", "failed", "suspects"}).Draw(t, "kind")
	c := &command.Command{Op: command.Push, Queue: name, Payload: []byte("burst")}
	if kind == "delayed" {
		c.Delay = 50
	}
	for range rapid.IntRange(500, 1300).Draw(t, "jobs") {
		p.apply(c)
	}
	session := p.all[len(p.all)-1]
	if kind == "reserved" || kind == "failed" || kind == "suspects" {
		p.apply(&command.Command{Op: command.Reserve, Queue: name, Session: session, Count: 700})
		p.apply(&command.Command{Op: command.Reserve, Queue: name, Session: session, Count: 700})
	}
	if kind == "suspects" {
		for _, j := range p.model.in(p.model.queue(name), isReserved) {
			p.apply(&command.Command{Op: command.Release, Queue: name, Job: j.id, Lease: j.lease, Cause: command.Crashed})
		}
		p.apply(&command.Command{Op: command.Reserve, Queue: name + "/suspects", Session: session, Count: 5000})
	}
	if kind == "failed" {
		for _, j := range p.model.in(p.model.queue(name), isReserved) {
			p.apply(&command.Command{Op: command.Fail, Queue: name, Job: j.id, Lease: j.lease, Reason: "burst"})
		}
	}
}

// compare demands that everything that can be read is as the model says.
func (p *pair) compare(t *rapid.T) {
	p.m.check()
	if got, want := p.m.state.NextDue(), p.model.nextDue(); got > want {
		p.Fatalf("NextDue is %d, but something is due at %d", got, want)
	}
	for _, name := range []string{"a", "b", "c", "made"} {
		p.compareQueue(name)
	}
	for _, s := range p.all[max(0, len(p.all)-6):] {
		p.compareReserved(s)
	}
	for _, name := range pairNames {
		_, got := p.m.state.Table().Declared(name)
		if want := p.model.takesPushes(name, modelValidName(name)); got != want {
			p.Fatalf("queue %q takes pushes: %v, want %v", name, got, want)
		}
	}
}

func (p *pair) compareQueue(name string) {
	st, known, err := p.m.state.Stats(p.m.tx(), name)
	p.m.ok(err)
	q := p.model.queue(name)
	if known != (q != nil) {
		p.Fatalf("queue %s is known: %v", name, known)
	}
	if q == nil {
		return
	}
	c := st.Counters
	got := modelCounters{c.Enqueued, c.ReservedTotal, c.Acked, c.Released, c.FailedTotal, c.DroppedFull, c.DroppedPayloadTooLarge, c.DroppedShutdown, c.BackendErrors, c.Deleted, c.Purged, c.Retried}
	if got != q.counters {
		p.Fatalf("counters of %s are %v, want %v", name, got, q.counters)
	}
	_, bytes := p.model.load(q)
	ready, suspects := p.model.line(q, false), p.model.line(q, true)
	want := queue.Stats{Name: name, Declared: q.declared, Paused: q.paused, Counters: c, MaxPayloadBytes: q.limits.payload, Gauges: queue.Gauges{
		Ready: uint64(len(ready) + len(suspects)), Suspects: uint64(len(suspects)), Delayed: uint64(len(p.model.in(q, isDelayed))),
		Reserved: uint64(len(p.model.in(q, isReserved))), Failed: uint64(len(p.model.in(q, isFailed))), Bytes: bytes,
	}}
	next := int64(math.MaxInt64)
	for _, line := range [][]*modelJob{ready, suspects} {
		if len(line) > 0 {
			next = min(next, line[0].id.Millis)
			want.OldestPending = time.UnixMilli(next)
		}
	}
	if st != want {
		p.Fatalf("stats are %+v, want %+v", st, want)
	}
	g := st.Gauges
	if in, out := c.Enqueued, g.Ready+g.Delayed+g.Reserved+c.Acked+c.FailedTotal+c.Deleted; in != out || c.FailedTotal != g.Failed+c.Purged+c.Retried {
		p.Fatalf("%s: %d jobs came, of %d is told what became of them: %+v %+v", name, in, out, g, c)
	}
	if p.m.state.Table().Paused(name) != q.paused {
		p.Fatalf("Table says that %s is paused: %v", name, !q.paused)
	}
	if q.paused {
		ready, suspects = nil, nil // for whoever would reserve them
	}
	if n := p.m.state.Table().Ready(name); n != uint64(len(ready)) {
		p.Fatalf("Table says %s has %d ready, want %d", name, n, len(ready))
	}
	if n := p.m.state.Table().Ready(name + "/suspects"); n != uint64(len(suspects)) {
		p.Fatalf("Table says %s has %d suspects, want %d", name, n, len(suspects))
	}
}

func (p *pair) commit(*rapid.T) {
	p.m.commit()
	p.compareFiled()
}

func (p *pair) restart(*rapid.T) {
	p.m.restart()
	p.compareFiled()
}

// compareFiled compares what is read from the file alone: the failed jobs.
func (p *pair) compareFiled() {
	for _, q := range p.model.queues {
		p.compareFailed(q)
	}
}

func (p *pair) compareFailed(q *modelQueue) {
	const limit = 40
	got, want := p.m.failed(q.name, limit), p.model.in(q, isFailed)
	want = want[:min(len(want), limit)]
	if len(got) != len(want) {
		p.Fatalf("%s lists %d failed jobs, want %d", q.name, len(got), len(want))
	}
	for i, j := range got {
		first := j.Origin
		if first == (command.JobID{}) {
			first = j.ID
		}
		g := fmt.Sprint(j.ID, first, string(j.Payload), j.Reason, j.Output, j.FailedAt, j.Attempts, j.Spent(), j.Crashes)
		w := want[i]
		if s := fmt.Sprint(w.id, w.first, w.payload, w.reason, w.output, w.failedAt, w.attempts, w.spent(), w.crashes); g != s {
			p.Fatalf("failed job %d of %s is %s, want %s", i, q.name, g, s)
		}
	}
}

func (p *pair) compareReserved(session uint64) {
	got := p.m.state.Reserved(nil, session)
	want := slices.DeleteFunc(p.model.in(nil, isReserved), func(j *modelJob) bool { return j.session != session })
	if len(got) != len(want) {
		p.Fatalf("session %d holds %d, want %d", session, len(got), len(want))
	}
	for i := range got {
		d, j := &got[i], want[i]
		timeout := time.Duration(j.deadline-j.reservedAt-5000) * time.Millisecond
		w := queue.Delivery{
			Queue: j.queue.name, Job: j.id, Lease: j.lease, Pool: j.pool, Payload: []byte(j.payload),
			Attempts: j.attempts, ReservedAt: j.reservedAt, Timeout: timeout,
			Suspect: j.suspect, Crashes: j.crashes, MaxCrashes: j.queue.limits.crashes,
		}
		if string(d.Payload) != j.payload {
			p.Fatalf("delivery %s has payload %q, want %q", d.ID(), d.Payload, j.payload)
		}
		if g, s := fmt.Sprintf("%+v", *d), fmt.Sprintf("%+v", w); g != s {
			p.Fatalf("delivery is %s, want %s", g, s)
		}
		if want := fmt.Sprintf("%d-%d:%d", j.id.Millis, j.id.Seq, j.lease); d.ID() != want {
			p.Fatalf("delivery id %s, want %s", d.ID(), want)
		}
	}
}

// drain takes out every job in order, so that the order of all of them is compared.
func (p *pair) drain() {
	p.openSession(nil)
	for _, q := range p.model.queues {
		p.apply(&command.Command{Op: command.Resume, Queue: q.name})
	}
	for p.model.nextDue() < math.MaxInt64 {
		p.m.now = max(p.m.now, p.model.nextDue())
		p.model.now = p.m.now
		if p.apply(&command.Command{Op: command.Tick}).Count == 0 {
			p.Fatalf("nothing was done at %d, though something is due", p.m.now)
		}
		for len(p.model.in(nil, isReady)) > 0 {
			for _, q := range p.model.queues {
				for _, line := range []string{"", "/suspects"} {
					p.apply(&command.Command{Op: command.Reserve, Queue: q.name + line, Session: p.all[len(p.all)-1], Count: 1000})
				}
			}
			p.compare(nil)
			for _, j := range p.model.in(nil, isReserved) {
				if j.session == p.all[len(p.all)-1] {
					p.apply(&command.Command{Op: command.Ack, Queue: j.queue.name, Job: j.id, Lease: j.lease})
				}
			}
		}
	}
	p.compare(nil)
	p.commit(nil)
}
