package queue_test

import (
	"pogod/internal/command"
	"pogod/queue"

	"pgregory.net/rapid"
)

// pause pauses a queue, or, more often, resumes one.
func (p *pair) pause(t *rapid.T) {
	op := rapid.SampledFrom([]command.Op{command.Pause, command.Resume, command.Resume}).Draw(t, "verb")
	p.apply(&command.Command{Op: op, Queue: p.name(t)})
}

// goOn does the next part of what an earlier Clear or RetryAll has left, if there is one.
func (p *pair) goOn(t *rapid.T, op command.Op) bool {
	if p.rest == nil || p.rest.Op != op || rapid.IntRange(0, 3).Draw(t, "from the beginning") == 0 {
		return false
	}
	p.manyOf(p.rest)
	return true
}

// manyOf applies a Clear or a RetryAll and keeps what it leaves.
func (p *pair) manyOf(c *command.Command) {
	r := p.apply(c)
	p.rest = nil
	if r.More {
		rest := *c
		rest.From, rest.To = r.Next, r.To
		p.rest = &rest
	}
}

func (p *pair) clear(t *rapid.T) {
	if p.goOn(t, command.Clear) {
		return
	}
	if rapid.IntRange(0, 3).Draw(t, "clears are rare") > 0 {
		t.Skip("none")
	}
	p.manyOf(&command.Command{Op: command.Clear, Queue: p.name(t)})
}

func (p *pair) retryAll(t *rapid.T) {
	if p.goOn(t, command.RetryAll) {
		return
	}
	name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "queue")
	if rapid.Bool().Draw(t, "some fail first") { // random steps fail few
		p.apply(&command.Command{Op: command.Reserve, Queue: name, Session: p.all[len(p.all)-1], Count: 3})
		for _, j := range p.model.in(p.model.queue(name), isReserved) {
			p.apply(&command.Command{
				Op: command.Fail, Queue: name, Job: j.id, Lease: j.lease, Reason: rapid.SampledFrom([]string{"", "boom", "it threw", "it threw up"}).Draw(t, "reason"),
			})
		}
	}
	p.manyOf(&command.Command{
		Op: command.RetryAll, Queue: name, Reason: rapid.SampledFrom([]string{"", "", "threw", "it threw", "max attempts exceeded", "Boom"}).Draw(t, "reason"),
		Delay: rapid.SampledFrom([]uint64{0, 0, 0, 50, 100_000, 1 << 62}).Draw(t, "age"),
	})
}

// delete deletes a job, or one that is nowhere, or names another place.
func (p *pair) delete(t *rapid.T) {
	c := &command.Command{Op: command.Delete, Queue: p.name(t)}
	switch {
	case len(p.model.jobs) > 0 && rapid.IntRange(0, 4).Draw(t, "any id") > 0:
		j := rapid.SampledFrom(p.model.jobs).Draw(t, "job")
		c.Queue, c.Job = j.queue.name, j.id
	case len(p.ids) > 0:
		c.Job = rapid.SampledFrom(p.ids).Draw(t, "job")
	}
	o := observed{}
	if number, known := p.m.state.Table().Number(c.Queue); known {
		place, found, err := queue.FindWaiting(p.m.tx(), number, c.Job)
		p.m.ok(err)
		c.From, o.right = place, found
	}
	switch rapid.IntRange(0, 9).Draw(t, "wrong") {
	case 0:
		c.From, o.right = c.From+1, false
	case 1:
		c.Job.Millis++
	}
	p.applySeen(c, o)
}
