package cluster_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what check found.
type report struct {
	violations []violation

	rounds, atStart, inFlight                     int   // inFlight: of the rounds, those cut with a push outstanding
	calls                                         []int // outstanding at the cut of each round
	pushes, accepted, refused, notSent, withdrawn int
	unknown, unknownFound, answered5              int
	deliveries                                    int
	repeats                                       map[string]int // justified, by what justifies them
	acked, ackedMaybe, failed                     int
	snapshots                                     int // that status showed
	byQueue                                       map[string]*totals

	// Of a cluster.
	faults    map[string]int // by kind
	atKills   int            // pushes that were outstanding on the nodes that were killed
	elections uint64
	gap       time.Duration // between two accepted pushes, the longest
	quorate   time.Duration // the same, less the times without a quorum
	beside    []string      // the faults of that time
	hash      string        // of the state that all nodes have
}

// justified is how many repeats there were that may be.
func (r *report) justified() (n int) {
	for _, k := range r.repeats {
		n += k
	}
	return n
}

// totals are what the load knows of a queue's counters: at least, at most.
type totals struct {
	enqueued, acked, failed [2]int
}

func (r *report) count(k kind) int {
	n := 0
	for _, v := range r.violations {
		if v.kind == k {
			n++
		}
	}
	return n
}

// check judges the history, after everything was worked off. failed is what the
// queues' failed lists hold.
func (h *history) check(failed []failedJob) *report {
	r := &report{byQueue: map[string]*totals{}, repeats: map[string]int{}, faults: map[string]int{}}
	h.silent = silences(h.faults, h.nodes, h.at)
	h.takeFailed(failed)
	for _, id := range slices.Sorted(maps.Keys(h.jobs)) {
		h.assign(h.jobs[id])
	}
	for _, n := range slices.Sorted(maps.Keys(h.pushes)) {
		h.checkPush(h.pushes[n], r)
	}
	for _, id := range slices.Sorted(maps.Keys(h.jobs)) {
		h.checkJob(h.jobs[id], r)
	}
	for _, e := range h.faults {
		if e.what == evFault {
			r.faults[e.fault]++
		}
	}
	r.gap, r.quorate, r.beside = h.longestGaps()
	for _, e := range h.cuts {
		r.atKills += e.pushes
		if e.round == 0 {
			r.atStart++
			continue
		}
		r.rounds++
		r.calls = append(r.calls, e.calls)
		if e.pushes > 0 {
			r.inFlight++
		}
	}
	r.violations = h.violations
	return r
}

// longestGaps are the longest times between two answers to accepted pushes: in all, and
// less what of it no two nodes could talk, with the faults of that time.
func (h *history) longestGaps() (gap, quorate time.Duration, beside []string) {
	var at []int64
	for _, p := range h.pushes {
		if p.code == 1 {
			at = append(at, p.endAt)
		}
	}
	slices.Sort(at)
	none := during(h.faults, h.at, func(active []event) bool { return !slices.Contains(silentNodes(active, h.nodes), false) })
	var worst span
	for i := 1; i < len(at); i++ {
		d := at[i] - at[i-1]
		gap = max(gap, micros(d))
		for _, s := range none {
			d -= max(0, min(s.to, at[i])-max(s.from, at[i-1]))
		}
		if micros(d) > quorate {
			quorate, worst = micros(d), span{at[i-1], at[i]}
		}
	}
	for _, e := range h.faults {
		if e.what != evFault || e.at > worst.to {
			continue
		}
		end := h.at
		if i := slices.IndexFunc(h.faults, func(o event) bool { return o.what == evHeal && o.round == e.round }); i >= 0 {
			end = h.faults[i].at
		}
		if end >= worst.from {
			beside = append(beside, fmt.Sprintf("%d %s %s from %s to %s", e.round, e.fault, e.where, micros(e.at-worst.from).Round(time.Millisecond), micros(end-worst.from).Round(time.Millisecond)))
		}
	}
	return gap, quorate, beside
}

// takeFailed gives each failed job to its history.
func (h *history) takeFailed(failed []failedJob) {
	for _, f := range failed {
		n, _, ok := parsePayload(f.Payload)
		if !ok {
			h.violate(inventedJob, "failed job %s of queue %s has a payload that was never pushed", f.ID, f.Queue)
			continue
		}
		j := h.jobs[f.ID]
		if j == nil {
			j = &jobHistory{id: f.ID, n: n, queue: f.Queue, deliveries: map[uint64]*attempt{}}
			h.jobs[f.ID] = j
		}
		switch {
		case j.failed != nil:
			h.violate(failedWrong, "job %s is in the failed list twice", f.ID)
		case j.n != n || j.queue != f.Queue:
			h.violate(inventedJob, "job %s was push %d of queue %s, and failed as push %d of queue %s", f.ID, j.n, j.queue, n, f.Queue)
		}
		j.failed = &f
	}
}

// assign finds the push of a job.
func (h *history) assign(j *jobHistory) {
	p := h.pushes[j.n]
	switch {
	case p == nil:
		h.violate(inventedJob, "job %s: nobody pushed %d", j.id, j.n)
		return
	case p.queue != j.queue:
		h.violate(inventedJob, "job %s: %d was pushed to queue %s, not to %s", j.id, j.n, p.queue, j.queue)
	}
	p.found = append(p.found, j)
}

func (r *report) queue(name string) *totals {
	t := r.byQueue[name]
	if t == nil {
		t = &totals{}
		r.byQueue[name] = t
	}
	return t
}

func (h *history) checkPush(p *pushSeen, r *report) {
	r.pushes++
	t := r.queue(p.queue)
	code := p.code
	if !p.answered {
		code = codeLost
	}
	switch code {
	case 1:
		r.accepted++
		t.enqueued[0]++
		t.enqueued[1]++
		if len(p.found) == 0 {
			h.violate(lostJob, "push %d of queue %s (%s), answered with job %s, was never delivered", p.n, p.queue, p.plan, p.job)
		}
	case 0, 3, 4, 6, codeNotSent, codeWithdrawn:
		switch code {
		case codeNotSent:
			r.notSent++
		case codeWithdrawn:
			r.withdrawn++
		default:
			r.refused++
			if want, ok := refusal[p.plan]; (!ok || want != code) && (code != 4 || !h.leaving(p.node, p.endAt)) {
				h.violate(protocol, "push %d of queue %s (%s) was answered %d", p.n, p.queue, p.plan, code)
			}
		}
		if len(p.found) > 0 {
			h.violate(inventedJob, "push %d of queue %s was answered %d, and yet there is job %s", p.n, p.queue, code, p.found[0].id)
		}
	case 5, codeLost:
		if r.unknown++; code == 5 {
			r.answered5++
		}
		t.enqueued[1]++
		if len(p.found) > 0 {
			r.unknownFound++
			if p.found[0].sure() {
				t.enqueued[0]++
			}
		}
	default:
		h.violate(protocol, "push %d was answered %d", p.n, code)
	}
	if len(p.found) > 1 {
		h.violate(pushedTwice, "push %d is jobs %s and %s", p.n, p.found[0].id, p.found[1].id)
	}
	for _, j := range p.found {
		if code == 1 && j.id != p.job {
			h.violate(pushedTwice, "push %d was answered with job %s and is job %s", p.n, p.job, j.id)
		}
	}
}

// refusal is the code that a push of a plan may be refused with.
var refusal = map[plan]int{planTight: 0, planLarge: 3, planNowhere: 6}

// ending is how an attempt ended, as far as the load can know.
type ending struct {
	verb     string // of the settling call that was accepted; "": none
	maybe    string // of one whose outcome is unknown
	reason   bool   // it may be delivered again
	cause    string // why, for the report
	fromSeq  int    // not before this event
	early    time.Duration
	earlySeq *settleCall
	late     bool // it was held past its time-out
}

// end judges the calls of one attempt. next is the one after it, nil for the last.
func (h *history) end(j *jobHistory, a, next *attempt) ending {
	var e ending
	timeout := h.rules[j.queue].timeout.Microseconds()
	late := func(at int64) bool { return timeout > 0 && at-a.asked >= timeout }
	gone := func(c *settleCall) bool { // its lease, before the call was sent
		return a.lost != 0 && a.lost < c.seq || next != nil && next.seq < c.seq
	}
	// The session of a node that came back without its data, as another one, lived on for a while.
	outlived := func(c *settleCall) bool {
		return a.lost != 0 && (next == nil || next.seq > c.seq) && h.under(a.node, span{a.at, c.at}, faultWipe)
	}
	for _, c := range a.calls {
		switch {
		case c.code == 1 && gone(c) && !outlived(c):
			h.violate(stale, "job %s, lease %d: %s was accepted after the lease was gone", j.id, a.lease, c.verb)
		case c.code == 1 && e.verb != "" && e.verb != c.verb:
			h.violate(stale, "job %s, lease %d: %s was accepted, and then %s", j.id, a.lease, e.verb, c.verb)
		case c.code == 1:
			if e.verb == "" {
				e.verb, e.fromSeq = c.verb, c.seq
				e.early, e.earlySeq = time.Duration(c.delay)*time.Millisecond, c
			}
		case c.code == codeNotSent, gone(c), c.code == 5 && (e.verb != "" && e.verb != c.verb || late(c.endAt) && !h.excused(a, c)):
			// Nothing happened.
		case c.code == 5 && !c.dying && !h.excused(a, c):
			h.violate(refused, "job %s, lease %d: %s was answered 5 after %s, and nothing had taken the lease", j.id, a.lease, c.verb, micros(c.endAt-a.at))
		case c.code == 5 || c.code == codeLost:
			if e.maybe == "" && e.verb == "" {
				e.maybe = c.verb
				if !e.reason {
					e.reason, e.fromSeq, e.cause = true, c.seq, "unknown outcome"
				}
			}
		default:
			h.violate(protocol, "job %s: %s was answered %d", j.id, c.verb, c.code)
		}
	}
	switch {
	case e.verb == "release":
		e.reason, e.cause = true, e.verb
	case e.verb != "":
		e.reason = false // it is settled for ever
	case e.maybe != "":
	case a.left != 0:
		e.reason, e.fromSeq, e.cause = true, a.left, "left unsettled"
	case a.lost != 0:
		e.reason, e.fromSeq, e.cause = true, a.seq, "node killed" // it was gone before the load knew
	}
	if next != nil && e.verb == "" {
		if e.late = late(next.at); e.late {
			e.reason, e.fromSeq, e.cause = true, 0, "time-out"
		}
		if (!e.reason || next.seq < e.fromSeq) && h.sessionLost(a, next.at) {
			e.reason, e.fromSeq, e.cause = true, 0, "session ended"
		}
	}
	if next == nil && e.verb == "" && len(a.calls) > 0 {
		e.late = late(a.calls[len(a.calls)-1].endAt)
	}
	return e
}

// sessionLost reports whether the session that a delivery was reserved for may have ended
// until then because its node was not heard for long enough.
func (h *history) sessionLost(a *attempt, until int64) bool {
	if a.node >= len(h.silent) {
		return false
	}
	return slices.ContainsFunc(h.silent[a.node], func(s span) bool {
		return micros(s.to-s.from) >= sessionSilence && micros(until-s.from) >= sessionSilence && micros(a.at-s.to) <= startedLate
	})
}

// excused reports whether a settling call may be answered 5: it took as long as calls may
// take, or the session may have ended, or the node's disk had failed.
func (h *history) excused(a *attempt, c *settleCall) bool {
	return h.dying && h.cutSoon(c.endAt) || h.under(a.node, span{c.endAt, c.endAt}, faultDisk, faultFull) || h.pushTimeout > 0 && micros(c.endAt-c.at) >= h.pushTimeout || h.sessionLost(a, c.endAt)
}

// cutSoon reports whether the node was cut off a moment later: its disk was gone before.
func (h *history) cutSoon(at int64) bool {
	return slices.ContainsFunc(h.cuts, func(e event) bool { return at <= e.at && micros(e.at-at) < time.Second })
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

// grain is how much earlier than its delay a job may seem to come: cluster time counts
// whole milliseconds.
const grain = 2 * time.Millisecond

func (h *history) checkJob(j *jobHistory, r *report) {
	t := r.queue(j.queue)
	attempts := slices.SortedFunc(maps.Values(j.deliveries), func(a, b *attempt) int { return cmp.Compare(a.lease, b.lease) })
	attempts = slices.DeleteFunc(attempts, func(a *attempt) bool {
		if a.dark {
			j.dark = append(j.dark, a)
		}
		return a.dark
	})
	r.deliveries += len(attempts)
	p := h.pushes[j.n]
	limit := h.rules[j.queue].maxAttempts
	least, most := 0, 0 // attempts that were spent
	var end ending
	for i, a := range attempts {
		var next *attempt
		if i+1 < len(attempts) {
			next = attempts[i+1]
		}
		if i == 0 {
			if p != nil && micros(a.at-p.at) < time.Duration(p.delay)*time.Millisecond-grain {
				h.violate(early, "job %s was pushed with a delay of %d ms and came after %s", j.id, p.delay, micros(a.at-p.at))
			}
		} else {
			switch {
			case !end.reason:
				h.violate(repeated, "job %s: lease %d ended with %q, and lease %d was delivered", j.id, attempts[i-1].lease, end.verb, a.lease)
			case a.seq < end.fromSeq:
				h.violate(repeated, "job %s: lease %d was delivered while lease %d was held", j.id, a.lease, attempts[i-1].lease)
			case limit > 0 && least >= limit:
				h.violate(repeated, "job %s: lease %d was delivered after %d attempts were spent", j.id, a.lease, least)
			default:
				r.repeats[end.cause]++
			}
			if end.verb == "release" && micros(a.at-end.earlySeq.at) < end.early-grain {
				h.violate(early, "job %s was released with a delay of %s and came after %s", j.id, end.early, micros(a.at-end.earlySeq.at))
			}
			if a.attempts <= attempts[i-1].attempts {
				h.violate(attemptsKind, "job %s: attempts %d after attempts %d", j.id, a.attempts, attempts[i-1].attempts)
			}
		}
		end = h.end(j, a, next)
		switch {
		case end.verb == "release":
			least++
			most++
		case end.verb == "" && (end.maybe != "" || a.left != 0 || end.late):
			most++
		}
	}
	h.checkLast(j, attempts, end, most, r, t)
}

// sure reports whether the job was seen outside of the dark.
func (j *jobHistory) sure() bool {
	for _, a := range j.deliveries {
		if !a.dark {
			return true
		}
	}
	return j.failed != nil
}

// inDark reports whether the job may have been settled so in the dark.
func (j *jobHistory) inDark(verb string) bool {
	return slices.ContainsFunc(j.dark, func(a *attempt) bool {
		return slices.ContainsFunc(a.calls, func(c *settleCall) bool { return c.verb == verb })
	})
}

// checkLast judges where a job has ended.
func (h *history) checkLast(j *jobHistory, attempts []*attempt, end ending, most int, r *report, t *totals) {
	limit := h.rules[j.queue].maxAttempts
	acked, ackedMaybe := end.verb == "ack", end.verb == "" && end.maybe == "ack" || j.inDark("ack")
	most += len(j.dark)
	p := h.pushes[j.n]
	switch {
	case j.failed != nil:
		r.failed++
		t.failed[0]++
		t.failed[1]++
		asked := (end.verb == "fail" || end.verb == "" && end.maybe == "fail" || j.inDark("fail")) && j.failed.Reason == failReason(j.n)
		if !asked && !(limit > 0 && most >= limit && (end.verb == "release" || end.verb == "")) {
			h.violate(failedWrong, "job %s (push %d, queue %s) failed with %q after %d attempts, of which %d may have been spent", j.id, j.n, j.queue, j.failed.Reason, len(attempts), most)
		}
		if len(attempts) > 0 && len(j.dark) == 0 && j.failed.Attempts != attempts[len(attempts)-1].attempts {
			h.violate(attemptsKind, "job %s failed in attempt %d and the list says %d", j.id, attempts[len(attempts)-1].attempts, j.failed.Attempts)
		}
	case acked:
		r.acked++
		t.acked[0]++
		t.acked[1]++
	case ackedMaybe:
		r.ackedMaybe++
		t.acked[1]++
		if p != nil && p.code == 1 || j.sure() {
			t.acked[0]++ // or it would have come again
		}
	case p != nil && p.code != 1 && !j.sure():
		// The push went with the dark.
	case p != nil && len(attempts) == 0:
		h.violate(lostJob, "job %s (push %d, queue %s): it was delivered in the dark, and then never", j.id, j.n, j.queue)
	case p != nil:
		how := cmp.Or(end.verb, end.maybe, "nothing")
		h.violate(lostJob, "job %s (push %d, queue %s): its last delivery, lease %d, ended with %s, and it is neither delivered again nor failed", j.id, j.n, j.queue, attempts[len(attempts)-1].lease, how)
	}
}

// rows are the report's table: names and values. An indented name is part of the one above.
func (r *report) rows() (rows [][2]string) {
	row := func(name string, values ...any) {
		rows = append(rows, [2]string{name, strings.TrimSpace(fmt.Sprintln(values...))})
	}
	parts := func(of map[string]int) {
		for _, name := range slices.Sorted(maps.Keys(of)) {
			row("  "+name, of[name])
		}
	}
	if len(r.faults) == 0 {
		row("rounds", r.rounds)
		row("  cut with pushes in flight", r.inFlight)
		if n := len(r.calls); n > 0 {
			calls := slices.Sorted(slices.Values(r.calls))
			row("  calls outstanding at the cut", fmt.Sprintf("least %d, median %d, most %d", calls[0], calls[n/2], calls[n-1]))
		}
		row("more cuts, while it started", r.atStart)
		row("snapshots seen", r.snapshots)
	} else {
		n := 0
		for _, k := range r.faults {
			n += k
		}
		row("faults", n)
		parts(r.faults)
		row("pushes under way at the kills", r.atKills)
		row("elections", r.elections)
		row("longest time without an accepted push", r.gap.Round(time.Millisecond))
		row("  while two nodes could talk", r.quorate.Round(time.Millisecond))
		row("  beside", strings.Join(r.beside, ", "))
	}
	row("pushes attempted", r.pushes)
	row("  accepted", r.accepted)
	row("  refused", r.refused)
	row("  not sent", r.notSent)
	row("  withdrawn", r.withdrawn)
	row("  outcome unknown", fmt.Sprintf("%d, of these answered 5: %d, found: %d", r.unknown, r.answered5, r.unknownFound))
	row("deliveries", r.deliveries)
	row("repeats, justified", r.justified())
	parts(r.repeats)
	row("jobs acked", fmt.Sprintf("%d, and %d by a call of unknown outcome", r.acked, r.ackedMaybe))
	row("jobs failed", r.failed)
	for _, k := range kinds {
		row(string(k), r.count(k))
	}
	if r.hash != "" {
		row("state of all nodes", r.hash)
	}
	return rows
}

// markdown is the table, for docs/reliability.md.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("| what | count |\n|---|---|\n")
	for _, row := range r.rows() {
		name, part := strings.CutPrefix(row[0], "  ")
		if part {
			name = "… " + name
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, row[1])
	}
	return b.String()
}

// String is the table of the report, and the first violations of each kind.
func (r *report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range r.rows() {
		fmt.Fprintf(w, "  %s\t%s\n", row[0], row[1])
	}
	_ = w.Flush() // to memory
	const show = 5
	for _, k := range kinds {
		n := 0
		for _, v := range r.violations {
			if v.kind != k {
				continue
			}
			if n++; n > show {
				fmt.Fprintf(&b, "  %s: ... and %d more\n", k, r.count(k)-show)
				break
			}
			fmt.Fprintf(&b, "  %s: %s\n", k, v.text)
		}
	}
	return b.String()
}
