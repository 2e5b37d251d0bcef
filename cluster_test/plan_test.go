package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// The queues of the load, see queueRules.
const (
	queueNow   = "now"
	queueLater = "later"
	queueLate  = "late"
	queueTight = "tight"
	queuePHP   = "php"
	noQueue    = "nowhere" // not declared
)

// The workers that the load is, by the queues that they take jobs from.
const (
	workerExt  = "ext"
	workerLate = "ext-late"
)

// rule is what a queue is declared with.
type rule struct {
	maxAttempts int
	timeout     time.Duration // visibility_timeout
	settings    string        // the rest, as TOML
}

// queueRules are the declared queues. tight is full most of the time.
var queueRules = map[string]rule{
	queueNow:   {maxAttempts: 3, timeout: time.Minute, settings: `backoff = ["0s"]`},
	queueLater: {maxAttempts: 2, timeout: time.Minute, settings: `backoff = ["100ms"]`},
	queueLate:  {maxAttempts: 3, timeout: 300 * time.Millisecond, settings: `backoff = ["50ms"]`},
	queueTight: {maxAttempts: 3, timeout: time.Minute, settings: "max_messages = 2\nmax_payload_bytes = 2000"},
	queuePHP:   {maxAttempts: 3, timeout: time.Minute, settings: `backoff = ["0s"]`},
}

// plan is what becomes of a job; its payload says it, so any consumer can follow it.
type plan string

// The plans. "First" means attempt 1: what an interruption ends is not done again.
const (
	planAck     plan = "ack"     // acked at once
	planSlow    plan = "slow"    // acked after some milliseconds
	planTwice   plan = "twice"   // acked twice: the second answer is the first's
	planDelayed plan = "delayed" // pushed with a delay, acked
	planFail    plan = "fail"    // failed by its handler
	planRelease plan = "release" // first released at once, then acked
	planStale   plan = "stale"   // first released, then acked with the lease that is gone; then acked
	planPause   plan = "pause"   // first released with a delay, then acked
	planExhaust plan = "exhaust" // always released: failed by max_attempts
	planLeave   plan = "leave"   // first left unsettled, then acked
	planForget  plan = "forget"  // always left unsettled: failed by max_attempts
	planLate    plan = "late"    // first acked after the lease is lost, then acked
	planTight   plan = "tight"   // pushed where there is rarely room
	planLarge   plan = "large"   // pushed where it is too large
	planNowhere plan = "nowhere" // pushed to a queue that is not declared
	planLong    plan = "long"    // acked after some seconds
	planPHP     plan = "php"     // acked by a PHP worker
)

// shares of the plans among the pushes.
var shares = []struct {
	plan  plan
	share int
}{
	{planAck, 50},
	{planSlow, 8},
	{planTwice, 2},
	{planDelayed, 10},
	{planFail, 4},
	{planRelease, 8},
	{planStale, 3},
	{planPause, 4},
	{planExhaust, 2},
	{planLeave, 4},
	{planForget, 1},
	{planLate, 1},
	{planTight, 1},
	{planLarge, 1},
	{planNowhere, 1},
}

// pushed is one push of the load.
type pushed struct {
	n       int64
	plan    plan
	queue   string
	delay   time.Duration // whole seconds
	payload string
}

// One push in so many has a payload larger than a batch of the proposer: mostly, and in
// a heavy round, whose log grows fast enough for a snapshot.
const (
	largeLight = 500
	largeHeavy = 8
)

// newPush draws the n-th push. php and long are the shares in a hundred that PHP handles,
// and whose handlers take seconds; one in large has a large payload.
func newPush(r *rand.Rand, n int64, php, long, large int) pushed {
	if r.IntN(100) < php {
		return newPushOf(r, n, planPHP, large)
	}
	if long > 0 && r.IntN(100) < long {
		return newPushOf(r, n, planLong, large)
	}
	left := r.IntN(100)
	for _, s := range shares {
		if left -= s.share; left < 0 {
			return newPushOf(r, n, s.plan, large)
		}
	}
	return newPushOf(r, n, planAck, large)
}

// newPushOf draws what is left open by the plan.
func newPushOf(r *rand.Rand, n int64, of plan, large int) pushed {
	p := pushed{n: n, plan: of, queue: queueNow}
	units := r.IntN(40)
	switch {
	case r.IntN(large) == 0:
		units = 70_000
	case r.IntN(100) == 0:
		units = r.IntN(5000)
	}
	switch p.plan {
	case planDelayed:
		p.queue, p.delay = queueLater, time.Duration(1+r.IntN(3))*time.Second
	case planPause, planForget:
		p.queue = queueLater
	case planLate:
		p.queue = queueLate
	case planTight:
		p.queue, p.delay, units = queueTight, time.Second, 1
	case planLarge:
		p.queue, units = queueTight, 3000
	case planNowhere:
		p.queue = noQueue
	case planPHP:
		p.queue, units = queuePHP, 0
	}
	p.payload = payload(n, p.plan, units)
	return p
}

// payload is n, the plan, and padding that follows from n: what is changed on the way
// is seen. The padding has bytes that are easily mangled.
func payload(n int64, p plan, units int) string {
	unit := strconv.FormatInt(n, 10) + "é\x00"
	return fmt.Sprintf("%d-%s-%s", n, p, strings.Repeat(unit, units))
}

// parsePayload is the reverse; ok is false for what payload did not make.
func parsePayload(s string) (n int64, p plan, ok bool) {
	number, rest, ok1 := strings.Cut(s, "-")
	name, pad, ok2 := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok1 || !ok2 || err != nil {
		return -1, "", false
	}
	units := len(pad) / len(number+"é\x00")
	return n, plan(name), s == payload(n, plan(name), units)
}

// failReason is what a handler gives as the reason of job n.
func failReason(n int64) string { return "the handler of " + strconv.FormatInt(n, 10) + " failed" }
