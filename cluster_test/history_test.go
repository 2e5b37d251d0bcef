package cluster_test

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// kind of a violation.
type kind string

// What a history can do wrong.
const (
	lostJob      kind = "lost"                 // accepted, and neither acked nor failed
	inventedJob  kind = "invented"             // never pushed, or refused, and yet delivered or failed
	pushedTwice  kind = "pushed twice"         // one push, two jobs; or another id than was answered
	repeated     kind = "repeated"             // delivered again without a reason
	heldTwice    kind = "held twice"           // one delivery, started by two threads
	stale        kind = "settled when stale"   // a lease that was gone settled its job
	early        kind = "early"                // handed out before its time
	refused      kind = "refused"              // a settling call answered 5 while its lease was held
	failedWrong  kind = "failed without cause" // in the failed list, and should not be
	attemptsKind kind = "wrong attempts"       // attempts that do not grow, or differ in the failed list
	dropped      kind = "link dropped"         // a living node closed a connection
	protocol     kind = "wrong answer"         // a code that the call cannot have
	statusKind   kind = "status disagrees"     // with itself, or with what was answered
	hashKind     kind = "states differ"        // of two nodes at the same entry
)

// kinds in the order of the report.
var kinds = []kind{lostJob, inventedJob, pushedTwice, repeated, heldTwice, stale, early, refused, failedWrong, attemptsKind, dropped, protocol, statusKind, hashKind}

// violation is one thing that should not have happened.
type violation struct {
	kind kind
	text string
}

// failedJob is an entry of a queue's failed list.
type failedJob struct {
	ID       string `json:"id"`
	Queue    string `json:"queue"`
	Payload  string `json:"payload"`
	Reason   string `json:"reason"`
	Attempts int    `json:"attempts"`
}

// history is all that the load saw. Feed it the record with add, then the failed
// jobs with check.
type history struct {
	rules map[string]rule
	dying bool // a node may fail, and close connections, before it is killed
	dark  bool // from a dark to a cut

	nodes       int           // of a cluster, 0: a single one
	pushTimeout time.Duration // of a cluster's nodes: a call that takes as long is answered 5
	faults      []event
	silent      [][]span // by node

	seq        int   // of the event, its place in the record
	at         int64 // the event's
	pushes     map[int64]*pushSeen
	jobs       map[string]*jobHistory // by id
	conns      map[int]*connSeen
	cuts       []event
	violations []violation
}

type pushSeen struct {
	event    // of the node, too
	answered bool
	endAt    int64
	code     int
	job      string // of the answer
	found    []*jobHistory
}

// jobHistory is the deliveries of one job.
type jobHistory struct {
	id         string
	n          int64
	queue      string
	deliveries map[uint64]*attempt // by lease
	dark       []*attempt          // came in the dark: they may have been taken back, and their leases given again
	failed     *failedJob
}

// attempt is one delivery and what became of it. The seq fields are 0 for what did
// not happen.
type attempt struct {
	event // of the node, too
	seq   int
	left  int // seq
	lost  int // seq: the connection was lost while it was held
	calls []*settleCall
	dark  bool
}

type settleCall struct {
	event // the call
	seq   int
	code  int
	endAt int64 // when the answer came
	dying bool  // the connection was lost in the same attempt
}

type connSeen struct {
	held   *attempt
	open   *settleCall // under way
	node   int         // of the dial
	round  int         // of the dial
	dialed int64       // when
	lost   bool
}

func newHistory(rules map[string]rule) *history {
	return &history{
		rules: rules, pushes: map[int64]*pushSeen{}, jobs: map[string]*jobHistory{}, conns: map[int]*connSeen{},
	}
}

func (h *history) violate(k kind, format string, args ...any) {
	h.violations = append(h.violations, violation{k, fmt.Sprintf(format, args...)})
}

// read adds a whole record.
func (h *history) read(r io.Reader) error {
	return readRecord(r, func(e event) error { h.add(e); return nil })
}

func (h *history) conn(id int) *connSeen {
	c := h.conns[id]
	if c == nil {
		c = &connSeen{}
		h.conns[id] = c
	}
	return c
}

// add takes the next event of the record.
func (h *history) add(e event) {
	h.seq++
	h.at = e.at
	c := h.conn(e.conn)
	if h.dark && (e.what == evPushed || e.what == evSettled) && e.code != codeNotSent {
		e.code = codeLost
	}
	switch e.what {
	case evDial:
		if c.lost && c.node == e.node && c.round == e.round && !h.dying && !h.under(e.node, span{c.dialed, e.at}, faultLeave, faultDisk, faultFull) {
			h.violate(dropped, "connection %d, while the node lived", e.conn)
		}
		c.lost, c.node, c.round, c.dialed = false, e.node, e.round, e.at
	case evPush:
		e.node = c.node
		h.pushes[e.n] = &pushSeen{event: e}
	case evPushed:
		if p := h.pushes[e.n]; p != nil {
			p.answered, p.endAt, p.code, p.job = true, e.at, e.code, e.job
		}
	case evGot:
		e.node = c.node
		h.got(c, e)
	case evLeft:
		if a := h.attempt(e.job, e.lease); a != nil {
			a.left = h.seq
		}
		c.held = nil
	case evSettle:
		c.open = &settleCall{event: e, seq: h.seq, code: codeLost}
		if a := h.attempt(e.job, e.lease); a != nil {
			a.calls = append(a.calls, c.open)
		}
	case evSettled:
		if c.open != nil {
			c.open.code, c.open.endAt = e.code, e.at
			c.open = nil
		}
	case evLost:
		if c.held != nil {
			c.held.lost = h.seq
			for _, call := range c.held.calls {
				call.dying = true
			}
			c.held = nil
		}
		c.lost = true
	case evDark:
		h.dark = true
	case evCut:
		h.dark = false
		h.cuts = append(h.cuts, e)
	case evFault, evHeal:
		h.faults = append(h.faults, e)
	}
}

// leaving reports whether a node was about to end by itself at a time, by SIGTERM or because
// its disk failed, so that it handed out nothing and refused pushes.
func (h *history) leaving(node int, at int64) bool {
	return h.under(node, span{at, at}, faultLeave, faultDisk, faultFull)
}

// under reports whether a node was under a fault of such a kind at some time of a stretch, or
// a moment before.
func (h *history) under(node int, s span, kinds ...string) bool {
	return slices.ContainsFunc(h.faults, func(f event) bool {
		if f.what != evFault || f.at > s.to || f.where != fmt.Sprint(node) || !slices.Contains(kinds, f.fault) {
			return false
		}
		return !slices.ContainsFunc(h.faults, func(e event) bool {
			return e.what == evHeal && e.round == f.round && micros(s.from-e.at) > startedLate
		})
	})
}

func (h *history) attempt(job string, lease uint64) *attempt {
	if j := h.jobs[job]; j != nil {
		return j.deliveries[lease]
	}
	return nil
}

func (h *history) got(c *connSeen, e event) {
	j := h.jobs[e.job]
	if j == nil {
		j = &jobHistory{id: e.job, n: e.n, queue: e.queue, deliveries: map[uint64]*attempt{}}
		h.jobs[e.job] = j
	}
	a := &attempt{event: e, seq: h.seq, dark: h.dark}
	if old := j.deliveries[e.lease]; old != nil && old.dark && !h.dark {
		j.dark = append(j.dark, old)
	} else if old != nil {
		h.violate(heldTwice, "job %s: lease %d was delivered to connection %d of node %d and to connection %d of node %d", e.job, e.lease, old.conn, old.node, e.conn, e.node)
	}
	if j.n != e.n || j.queue != e.queue {
		h.violate(inventedJob, "job %s was push %d of queue %s, and then push %d of queue %s", e.job, j.n, j.queue, e.n, e.queue)
	}
	j.deliveries[e.lease] = a
	c.held = a
}
