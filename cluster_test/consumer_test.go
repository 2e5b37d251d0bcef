package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"pogod/internal/link"
)

// delivery is what a consumer holds.
type delivery struct {
	ID       string `json:"id"`
	Queue    string `json:"queue"`
	Payload  string `json:"payload"`
	Attempts int    `json:"attempts"`
	Job      string `json:"job"`

	lease uint64
	n     int64
	plan  plan
	dark  bool
}

// consumer is one thread of a worker.
type consumer struct {
	l       *load
	conn    int
	node    int
	worker  string
	slot    int
	rand    *rand.Rand
	answers ahead
}

// run takes deliveries until finish.
func (k *consumer) run() {
	var held *delivery // when the last connection was lost
	for {
		c := k.l.dial(k.l.ctx, k.conn, k.node, 0, link.RoleWorker, k.worker)
		if c == nil {
			return
		}
		// A lease that ended with its node must not settle anything. One that came in the
		// dark may be given again.
		if held == nil || held.dark || k.rand.IntN(2) == 0 || k.settle(c, held, "ack", 0) {
			held = k.take(c)
		}
	}
}

// take handles one delivery after the other until the connection is lost, and returns
// what was held then.
func (k *consumer) take(c *client) *delivery {
	l := k.l
	stop := context.AfterFunc(l.ctx, c.Close) // the node never ends a Next by itself
	defer stop()
	for {
		asked := l.rec.now()
		code, body, ok := l.call(c, "next", link.Request(nil, link.Next).String(k.worker).Int(int64(k.slot)))
		if !ok || code != 1 {
			l.noteLoss(c, "next")
			return nil
		}
		d := &delivery{}
		lease, msg, err := link.ParseDelivery(body)
		if err == nil {
			err = json.Unmarshal(msg, d)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "a delivery that cannot be read: %q: %v\n", body, err)
		}
		d.lease = lease
		d.n, d.plan, ok = parsePayload(d.Payload)
		if !ok {
			fmt.Fprintf(os.Stderr, "a payload that was never pushed: %.200q\n", d.Payload)
			d.n = -1
		}
		l.rec.add(event{what: evGot, conn: k.conn, n: d.n, queue: word(d.Queue), job: word(d.Job), lease: lease, attempts: d.Attempts, asked: asked})
		l.mu.Lock()
		if l.jobs[d.n] == seenAccepted {
			l.backlog--
		}
		l.jobs[d.n] |= seenDelivered
		d.dark = l.dark
		l.cond.Broadcast()
		l.mu.Unlock()
		if !k.handle(c, d) {
			return d
		}
	}
}

// leaseGrace is how long after an attempt's time-out its lease is lost at the latest.
const leaseGrace = 5 * time.Second

// handle does with a delivery what its job's plan says; false means that the
// connection was lost meanwhile.
func (k *consumer) handle(c *client, d *delivery) bool {
	l, first := k.l, d.Attempts == 1
	switch {
	case d.plan == planFail:
		return k.settle(c, d, "fail", 0)
	case d.plan == planExhaust, d.plan == planRelease && first:
		return k.settle(c, d, "release", 0)
	case d.plan == planPause && first:
		return k.settle(c, d, "release", time.Second)
	case d.plan == planForget, d.plan == planLeave && first:
		l.rec.add(event{what: evLeft, conn: k.conn, job: word(d.Job), lease: d.lease})
		return true
	case d.plan == planStale && first:
		return k.settle(c, d, "release", 0) && k.settle(c, d, "ack", 0)
	case d.plan == planTwice:
		if !k.settle(c, d, "ack", 0) {
			return false
		}
	case d.plan == planSlow:
		pause(l.ctx, time.Duration(k.rand.IntN(60))*time.Millisecond)
	case d.plan == planLong:
		pause(l.ctx, time.Duration(1000+k.rand.IntN(7000))*time.Millisecond)
	case d.plan == planLate && first:
		hold := queueRules[queueLate].timeout + time.Duration(k.rand.IntN(300))*time.Millisecond
		if k.rand.IntN(2) == 0 {
			hold += leaseGrace
		}
		pause(l.ctx, hold)
	}
	if d.plan == planLate {
		l.mu.Lock()
		l.late = max(0, l.late-1)
		l.mu.Unlock()
	}
	return k.settle(c, d, "ack", 0)
}

// settle makes one settling call; false means that the connection was lost.
func (k *consumer) settle(c *client, d *delivery, verb string, delay time.Duration) bool {
	l := k.l
	var f link.Builder
	switch verb {
	case "ack":
		f = link.Request(nil, link.Ack).String(d.Queue).String(d.ID)
	case "release":
		f = link.Request(nil, link.Release).String(d.Queue).String(d.ID).Int(int64(delay / time.Second))
	case "fail":
		f = link.Request(nil, link.Fail).String(d.Queue).String(d.ID).String(failReason(d.n))
	}
	e := event{what: evSettle, conn: k.conn, verb: verb, job: word(d.Job), lease: d.lease, delay: delay.Milliseconds()}
	l.rec.add(e)
	code, _, ok := l.call(c, verb, f)
	e.what, e.code = evSettled, code
	k.answers.add(l.rec, l.rec.answer(e))
	if !ok {
		l.noteLoss(c, verb)
	}
	return ok
}

// mayBeLate takes one of the few pushes of planLate, whose jobs hold a consumer for
// seconds.
func (l *load) mayBeLate() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late >= l.spec.Late {
		return false
	}
	l.late++
	return true
}
