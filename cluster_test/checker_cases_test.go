package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Lines of a record, put together by the cases. Push 1 of queue now becomes job 10-1,
// whose first lease is 2; connection 1 pushes, 8 and 9 consume.
const (
	pushOne   = "push 100 1 1 now ack 0\npushed 200 1 1 1 10-1\n"
	gotOne    = "got 300 9 1 now 10-1 2 1 250\n"
	ackOne    = "settle 310 9 ack 10-1 2 0\nsettled 320 9 ack 10-1 2 1\n"
	gotAgain  = "got 900 8 1 now 10-1 5 2 850\n"
	ackAgain  = "settle 910 8 ack 10-1 5 0\nsettled 920 8 ack 10-1 5 1\n"
	release   = "settle 310 9 release 10-1 2 0\nsettled 320 9 release 10-1 2 1\n"
	ackLost   = "settle 310 9 ack 10-1 2 0\nsettled 320 9 ack 10-1 2 -1\nlost 330 9 ack\n"
	cutOne    = "cut 400 0 1 3 1\n"
	failAsked = "settle 310 9 fail 10-1 2 0\nsettled 320 9 fail 10-1 2 1\n"
)

func failedOne(reason string, attempts int) []failedJob {
	return []failedJob{{ID: "10-1", Queue: queueNow, Payload: payload(1, planAck, 1), Reason: reason, Attempts: attempts}}
}

// TestChecker shows that each kind of violation is caught, and that what php-api.md
// allows is not one.
func TestChecker(t *testing.T) {
	t.Parallel()
	released := func(lease, attempts string) string {
		return "got 500 9 1 now 10-1 " + lease + " " + attempts + " 450\nsettle 510 9 release 10-1 " + lease + " 0\nsettled 520 9 release 10-1 " + lease + " 1\n"
	}
	for _, c := range []struct {
		name   string
		record string
		failed []failedJob
		want   []kind
	}{
		{"acked", pushOne + gotOne + ackOne, nil, nil},
		{"acked twice by the same verb", pushOne + gotOne + ackOne + ackOne, nil, nil},
		{"unknown push that was not accepted", "push 100 1 1 now ack 0\npushed 200 1 1 -1 -\nlost 210 1 push\n" + cutOne, nil, nil},
		{"unknown push that was accepted", "push 100 1 1 now ack 0\npushed 200 1 1 -1 -\nlost 210 1 push\n" + cutOne + gotOne + ackOne, nil, nil},
		{"push without an answer", "push 100 1 1 now ack 0\n" + gotOne + ackOne, nil, nil},
		{"refused as it should be", "push 100 1 1 tight tight 1000\npushed 200 1 1 0 -\npush 100 1 2 nowhere nowhere 0\npushed 200 1 2 6 -\n", nil, nil},
		{"delivered again after a release", pushOne + gotOne + release + gotAgain + ackAgain, nil, nil},
		{"delivered again after an ack of unknown outcome", pushOne + gotOne + ackLost + cutOne + gotAgain + ackAgain, nil, nil},
		{"acked by an ack of unknown outcome", pushOne + gotOne + ackLost + cutOne, nil, nil},
		{"delivered again after the node's death", pushOne + gotOne + "lost 330 9 idle\n" + cutOne + gotAgain + ackAgain, nil, nil},
		{"delivered again before the loss was noticed", pushOne + gotOne + cutOne + gotAgain + ackAgain + "lost 930 9 idle\n", nil, nil},
		{"delivered again unsettled", pushOne + gotOne + "left 310 9 10-1 2\n" + gotAgain + ackAgain, nil, nil},
		{"delivered again after its time-out", "push 100 1 1 late late 0\npushed 200 1 1 1 10-1\ngot 300 9 1 late 10-1 2 1 250\ngot 5300250 8 1 late 10-1 5 2 850\n" +
			ackAgain + "settle 5400000 9 ack 10-1 2 0\nsettled 5400100 9 ack 10-1 2 5\n", nil, nil},
		{"a stale ack that is refused", pushOne + gotOne + "lost 330 9 idle\n" + cutOne + "dial 410 9 0 1\nsettle 420 9 ack 10-1 2 0\nsettled 430 9 ack 10-1 2 5\n" + gotAgain + ackAgain, nil, nil},
		{"another verb after a release, refused", pushOne + gotOne + release + "settle 330 9 ack 10-1 2 0\nsettled 340 9 ack 10-1 2 5\n" + gotAgain + ackAgain, nil, nil},
		{"failed as asked", pushOne + gotOne + failAsked, failedOne(failReason(1), 1), nil},
		{"failed by an unknown outcome", pushOne + gotOne + "settle 310 9 fail 10-1 2 0\nsettled 320 9 fail 10-1 2 -1\nlost 330 9 fail\n", failedOne(failReason(1), 1), nil},
		{"failed by max_attempts", pushOne + released("2", "1") + released("3", "2") + released("4", "3"), failedOne("max attempts exceeded", 3), nil},
		{"interruptions spend nothing", pushOne + gotOne + "lost 330 9 idle\n" + released("3", "2") + released("4", "3") + released("5", "4"), failedOne("max attempts exceeded", 4), nil},
		{"answers and deliveries from the dark", pushOne + gotOne + "dark 305\n" + ackOne + "push 330 1 2 now ack 0\npushed 340 1 2 1 10-3\n" +
			"got 350 8 2 now 10-3 4 1 250\nsettle 360 8 ack 10-3 4 0\nsettled 370 8 ack 10-3 4 1\n" + cutOne + gotAgain + ackAgain, nil, nil},
		{"acked in the dark", pushOne + "dark 205\n" + gotOne + ackOne + cutOne, nil, nil},
		{"released, and acked in the dark", pushOne + gotOne + release + "dark 325\n" + gotAgain + ackAgain + "cut 950 0 1 3 1\n", nil, nil},
		{"failed in the dark", pushOne + "dark 205\n" + gotOne + failAsked + cutOne, failedOne(failReason(1), 1), nil},
		{"taken back, and the lease given again", pushOne + "dark 205\n" + gotOne + ackOne + cutOne + gotOne + ackOne, nil, nil},

		{"never delivered", pushOne, nil, []kind{lostJob}},
		{"delivered in the dark, and gone", pushOne + "dark 205\n" + gotOne + cutOne, nil, []kind{lostJob}},
		{"acked before the dark, and back", pushOne + gotOne + ackOne + "dark 325\n" + cutOne + gotAgain + ackAgain, nil, []kind{repeated}},
		{"answered before the dark", pushOne + "dark 305\n" + cutOne, nil, []kind{lostJob}},
		{"gone after the node's death", pushOne + gotOne + "lost 330 9 idle\n" + cutOne, nil, []kind{lostJob}},
		{"gone after a release", pushOne + gotOne + release, nil, []kind{lostJob}},
		{"gone unsettled", pushOne + gotOne + "left 310 9 10-1 2\n", nil, []kind{lostJob}},
		{"gone after a fail", pushOne + gotOne + failAsked, nil, []kind{lostJob}},
		{"gone after a stale ack that was refused", pushOne + gotOne + "lost 330 9 idle\n" + cutOne + "settle 420 9 ack 10-1 2 0\nsettled 430 9 ack 10-1 2 5\n", nil, []kind{lostJob}},
		{"unknown push, accepted, gone", "push 100 1 1 now ack 0\npushed 200 1 1 -1 -\n" + gotOne + "lost 330 9 idle\n", nil, []kind{lostJob}},

		{"nobody pushed it", gotOne + ackOne, nil, []kind{inventedJob}},
		{"a payload of nobody", pushOne + gotOne + ackOne + "got 400 9 -1 now 10-7 8 1 350\n", nil, []kind{inventedJob}},
		{"refused and delivered", "push 100 1 1 tight tight 0\npushed 200 1 1 0 -\ngot 300 9 1 tight 10-1 2 1 250\n" + ackOne, nil, []kind{inventedJob}},
		{"not sent and delivered", "push 100 1 1 now ack 0\npushed 200 1 1 2 -\n" + gotOne + ackOne, nil, []kind{inventedJob}},
		{"in another queue", pushOne + "got 300 9 1 later 10-1 2 1 250\n" + ackOne, nil, []kind{inventedJob}},
		{"failed and never pushed", "", failedOne("x", 1), []kind{inventedJob, failedWrong}},
		{"changed on its way", pushOne + gotOne + ackOne, []failedJob{{ID: "10-2", Queue: queueNow, Payload: "1-ack-x"}}, []kind{inventedJob}},

		{"two jobs", pushOne + gotOne + ackOne + "got 400 9 1 now 10-9 12 1 350\nsettle 410 9 ack 10-9 12 0\nsettled 420 9 ack 10-9 12 1\n", nil, []kind{pushedTwice}},
		{"another id", "push 100 1 1 now ack 0\npushed 200 1 1 1 10-2\n" + gotOne + ackOne, nil, []kind{pushedTwice}},

		{"delivered again after an ack", pushOne + gotOne + ackOne + gotAgain + ackAgain, nil, []kind{repeated}},
		{"delivered again after an ack and a death", pushOne + gotOne + ackOne + "lost 330 9 next\n" + cutOne + gotAgain + ackAgain, nil, []kind{repeated}},
		{"delivered again after a fail", pushOne + gotOne + failAsked + gotAgain + ackAgain, nil, []kind{repeated}},
		{"delivered while held", pushOne + gotOne + gotAgain + ackAgain + "settle 950 9 release 10-1 2 0\nsettled 960 9 release 10-1 2 5\n", nil, []kind{repeated}},
		{"the same lease twice", pushOne + gotOne + gotOne + ackOne, nil, []kind{heldTwice}},
		{"beyond max_attempts", pushOne + released("2", "1") + released("3", "2") + released("4", "3") + "got 900 8 1 now 10-1 5 4 850\n" + ackAgain, nil, []kind{repeated}},

		{"a stale ack that is accepted", pushOne + gotOne + "lost 330 9 idle\n" + cutOne + "settle 420 9 ack 10-1 2 0\nsettled 430 9 ack 10-1 2 1\n" + gotAgain + ackAgain, nil, []kind{stale}},
		{"an ack after the next delivery", pushOne + gotOne + release + gotAgain + "settle 905 9 ack 10-1 2 0\nsettled 908 9 ack 10-1 2 1\n" + ackAgain, nil, []kind{stale}},
		{"two verbs", pushOne + gotOne + release + "settle 330 9 ack 10-1 2 0\nsettled 340 9 ack 10-1 2 1\n" + gotAgain + ackAgain, nil, []kind{stale}},

		{"before its delay", "push 100 1 1 later delayed 1000\npushed 200 1 1 1 10-1\ngot 990000 9 1 later 10-1 2 1 250\n" + ackOne, nil, []kind{early}},
		{"before its release's delay", pushOne + gotOne + "settle 310 9 release 10-1 2 1000\nsettled 320 9 release 10-1 2 1\n" + gotAgain + ackAgain, nil, []kind{early}},

		{"an ack refused without cause", pushOne + gotOne + "settle 310 9 ack 10-1 2 0\nsettled 320 9 ack 10-1 2 5\n" + "left 325 9 10-1 2\n" + gotAgain + ackAgain, nil, []kind{refused}},
		{"failed without being asked", pushOne + gotOne + release, failedOne("max attempts exceeded", 1), []kind{failedWrong}},
		{"failed by interruptions", pushOne + gotOne + "lost 330 9 idle\n", failedOne("the node that ran it was lost", 1), []kind{failedWrong}},
		{"failed with another reason", pushOne + gotOne + failAsked, failedOne("else", 1), []kind{failedWrong}},
		{"acked and failed", pushOne + gotOne + ackOne, failedOne(failReason(1), 1), []kind{failedWrong}},
		{"failed twice", pushOne + gotOne + failAsked, append(failedOne(failReason(1), 1), failedOne(failReason(1), 1)...), []kind{failedWrong}},
		{"attempts that stand still", pushOne + gotOne + release + "got 900 8 1 now 10-1 5 1 850\n" + ackAgain, nil, []kind{attemptsKind}},
		{"attempts of the failed list", pushOne + gotOne + failAsked, failedOne(failReason(1), 2), []kind{attemptsKind}},
		{"a living node drops a link", "dial 10 9 0 0\nlost 20 9 next\ndial 30 9 0 0\n", nil, []kind{dropped}},
		{"a dead node drops a link", "dial 10 9 0 0\nlost 20 9 next\n" + cutOne + "dial 30 9 0 1\n", nil, nil},
		{"a refusal without cause", "push 100 1 1 now ack 0\npushed 200 1 1 0 -\n", nil, []kind{protocol}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			newHistory(queueRules).want(t, c.record, c.failed, c.want)
		})
	}
}

// want checks that these kinds of violation are found in a record, and no others.
func (h *history) want(t *testing.T, record string, failed []failedJob, want []kind) *report {
	t.Helper()
	if err := h.read(strings.NewReader(record)); err != nil {
		t.Fatal(err)
	}
	r := h.check(failed)
	var got []kind
	for _, k := range kinds {
		if r.count(k) > 0 {
			got = append(got, k)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q\n%s", got, want, r)
	}
	return r
}

// TestCheckerOfCluster shows which faults justify what with three nodes. Connection 9 is to
// node 0 and 8 to node 1, which gets the job again after 6.5 s.
func TestCheckerOfCluster(t *testing.T) {
	t.Parallel()
	const (
		begin   = "dial 10 1 0 0\ndial 10 9 0 0\ndial 10 8 1 0\n" + pushOne
		again   = "got 6500000 8 1 now 10-1 5 2 850\nsettle 6500010 8 ack 10-1 5 0\nsettled 6500020 8 ack 10-1 5 1\n"
		fence   = "settle 9000000 9 ack 10-1 2 0\nsettled 9000010 9 ack 10-1 2 5\n" // the first handler's ack
		fault   = "fault 400 1 "
		healed  = "heal 6400000 1\n"
		tooSoon = "heal 3900000 1\n" // the session lives
		alone0  = "alone 0>1,1>0,0>2,2>0\n"
		alone1  = "alone 1>0,0>1,1>2,2>1\n"
	)
	for _, c := range []struct {
		name   string
		record string
		want   []kind
		cause  string // of the repeat, when it is justified
	}{
		{"paused", begin + gotOne + fault + "pause 0\n" + healed + again + fence, nil, "session ended"},
		{"given to another before it woke", begin + gotOne + fault + "pause 0\n" + again + "heal 8000000 1\n" + fence, nil, "session ended"},
		{"alone", begin + gotOne + fault + alone0 + healed + again + fence, nil, "session ended"},
		{"out of the leader's sight", begin + gotOne + fault + "bridge 0>2,2>0\n" + healed + again + fence, nil, "session ended"},
		{"one way", begin + gotOne + fault + "oneway 0>2\n" + healed + again + fence, nil, "session ended"},
		{"no quorum", begin + gotOne + fault + "kill 1\nfault 410 2 pause 2\n" + healed + "heal 6400010 2\n" + again + fence, nil, "session ended"},
		{"two pauses, one after the other", begin + gotOne + fault + "pause 0\nheal 3000000 1\nfault 4000000 2 pause 0\nheal 6400000 2\n" + again + fence, nil, "session ended"},
		{"started by a node that wakes", begin + fault + "pause 0\n" + again + "heal 8000000 1\ngot 8000100 9 1 now 10-1 2 1 250\n" + fence, nil, "session ended"},
		{"withdrawn", begin + gotOne + ackOne + "push 400 1 2 now ack 0\npushed 2500000 1 2 -2 -\n", nil, ""},
		{"an ack that took as long as a call may", begin + gotOne + "settle 310 9 ack 10-1 2 0\nsettled 2000400 9 ack 10-1 2 5\nleft 2000410 9 10-1 2\n" + again, nil, "unknown outcome"},
		{"a late ack of unknown outcome", strings.ReplaceAll(begin, "now ack", "late late") + "got 300 9 1 late 10-1 2 1 250\n" + fault + "pause 0\n" +
			"settle 310 9 ack 10-1 2 0\nheal 8000000 1\nsettled 8000100 9 ack 10-1 2 5\n", nil, ""},
		{"a producer that left its node", "dial 10 1 0 0\nlost 20 1 push\ndial 30 1 1 0\n", nil, ""},

		{"acked by a node that was wiped", begin + gotOne + fault + "wipe 0\nlost 500 9 next\ncut 600 0 1 1 0\ndial 1500000 9 0 1\nsettle 1600000 9 ack 10-1 2 0\nsettled 1600010 9 ack 10-1 2 1\nheal 2000000 1\n", nil, ""},
		{"acked too late by a node that was wiped", begin + gotOne + fault + "wipe 0\nlost 500 9 next\ncut 600 0 1 1 0\ndial 1500000 9 0 1\nheal 2000000 1\n" + again + fence, nil, "node killed"},
		{"its disk failed", begin + gotOne + fault + "disk 0\nsettle 500 9 ack 10-1 2 0\nsettled 600 9 ack 10-1 2 5\nlost 700 9 next\ndial 1500000 9 0 0\nheal 2000000 1\n" + again + fence, nil, "unknown outcome"},
		{"acked by a node that was killed", begin + gotOne + fault + "kill 0\nlost 500 9 next\ncut 600 0 1 1 0\ndial 1500000 9 0 1\nsettle 1600000 9 ack 10-1 2 0\nsettled 1600010 9 ack 10-1 2 1\nheal 2000000 1\n", []kind{lostJob, stale}, ""},
		{"acked too late by a node that was wiped, and accepted", begin + gotOne + fault + "wipe 0\nlost 500 9 next\ncut 600 0 1 1 0\ndial 1500000 9 0 1\nheal 2000000 1\n" + again + "settle 9000000 9 ack 10-1 2 0\nsettled 9000010 9 ack 10-1 2 1\n", []kind{stale}, ""},
		{"a disk that did not fail", begin + gotOne + "lost 700 9 next\ndial 1500000 9 0 0\n" + again + fence, []kind{dropped}, ""},
		{"paused too shortly", begin + gotOne + fault + "pause 0\n" + tooSoon + again + fence, []kind{repeated}, ""},
		{"another node paused", begin + gotOne + fault + "pause 1\n" + healed + again + fence, []kind{repeated}, ""},
		{"another node alone", begin + gotOne + fault + alone1 + healed + again + fence, []kind{repeated}, ""},
		{"partitioned elsewhere", begin + gotOne + fault + "bridge 1>2,2>1\n" + healed + again + fence, []kind{repeated}, ""},
		{"paused before", begin + fault + "pause 0\n" + healed + "got 7500000 9 1 now 10-1 2 1 250\ngot 7600000 8 1 now 10-1 5 2 850\n" + ackAgain, []kind{repeated}, ""},
		{"paused later", begin + gotOne + again + "fault 6600000 1 pause 0\nheal 16600000 1\n" + fence, []kind{repeated}, ""},
		{"paused and given to another too soon", begin + gotOne + fault + "pause 0\n" + gotAgain + ackAgain + healed + fence, []kind{repeated}, ""},
		{"acked and paused", begin + gotOne + ackOne + fault + "pause 0\n" + healed + again, []kind{repeated}, ""},
		{"an ack after the session's end", begin + gotOne + fault + "pause 0\n" + again + "heal 8000000 1\nsettle 9000000 9 ack 10-1 2 0\nsettled 9000010 9 ack 10-1 2 1\n", []kind{stale}, ""},
		{"one delivery, two nodes", begin + gotOne + fault + "pause 0\n" + healed + "got 6500000 8 1 now 10-1 2 1 850\nsettle 6500010 8 ack 10-1 2 0\nsettled 6500020 8 ack 10-1 2 1\n", []kind{heldTwice}, ""},
		{"withdrawn and delivered", begin + gotOne + ackOne + "push 400 1 2 now ack 0\npushed 2500000 1 2 -2 -\ngot 2600000 8 2 now 10-7 8 1 350\nsettle 2600010 8 ack 10-7 8 0\nsettled 2600020 8 ack 10-7 8 1\n", []kind{inventedJob}, ""},
		{"an ack refused without cause", begin + gotOne + "settle 310 9 ack 10-1 2 0\nsettled 1900000 9 ack 10-1 2 5\nleft 2000410 9 10-1 2\n" + again, []kind{refused}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(queueRules)
			h.nodes, h.pushTimeout = 3, 2*time.Second
			r := h.want(t, c.record, nil, c.want)
			if c.cause != "" && r.repeats[c.cause] != 1 {
				t.Errorf("the repeat is justified by %v, want %q", r.repeats, c.cause)
			}
		})
	}
}

// TestLongestGaps has 9 s between two accepted pushes, for 6 of which two nodes were down.
func TestLongestGaps(t *testing.T) {
	t.Parallel()
	h := newHistory(queueRules)
	h.nodes = 3
	if err := h.read(strings.NewReader("push 100 1 1 tight tight 0\npushed 1000000 1 1 1 10-1\n" +
		"fault 2000000 1 kill 0\nfault 3000000 2 kill 1\nheal 9000000 2\nheal 9500000 1\npush 9600000 1 2 now ack 0\npushed 10000000 1 2 1 10-2\n")); err != nil {
		t.Fatal(err)
	}
	gap, quorate, beside := h.longestGaps()
	if gap != 9*time.Second || quorate != 3*time.Second || fmt.Sprint(beside) != "[1 kill 0 from 1s to 8.5s 2 kill 1 from 2s to 8s]" {
		t.Errorf("%s, and %s with a quorum: %q", gap, quorate, beside)
	}
}

// TestReportCounts reads the table's figures off a short history.
func TestReportCounts(t *testing.T) {
	t.Parallel()
	h := newHistory(queueRules)
	if err := h.read(strings.NewReader(pushOne + gotOne + release + cutOne + gotAgain + ackAgain + "cut 950 0 0 0 0\n" +
		"push 960 1 2 now ack 0\npushed 970 1 2 5 -\npush 980 1 3 now ack 0\npushed 990 1 3 2 -\n")); err != nil {
		t.Fatal(err)
	}
	r := h.check(nil)
	got := [...]int{r.rounds, r.atStart, r.inFlight, r.pushes, r.accepted, r.notSent, r.unknown, r.answered5, r.deliveries, r.justified(), r.acked}
	want := [...]int{1, 1, 1, 3, 1, 1, 1, 1, 2, 1, 1}
	if got != want || len(r.violations) > 0 {
		t.Errorf("got %v, want %v\n%s", got, want, r)
	}
}

// TestRecordRoundTrip writes and reads every kind of event.
func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	for _, what := range []string{evDial, evPush, evPushed, evGot, evLeft, evSettle, evSettled, evLost, evDark, evCut, evFault, evHeal} {
		e := event{what: what}
		for i, f := range e.fields() {
			switch f := f.(type) {
			case *int64:
				*f = -int64(i)
			case *int:
				*f = i
			case *uint64:
				*f = 1<<63 + uint64(i)
			case *string:
				*f = "w" + what
			}
		}
		line := string(e.append(nil))
		got, err := parseEvent(line)
		if err != nil || got != e {
			t.Errorf("%q became %+v (%v), want %+v", line, got, err, e)
		}
	}
	for _, line := range []string{"", "cut", "pushed 1 2 3 4 5 6", "lost x 1 push", "nothing 1"} {
		if e, err := parseEvent(line); err == nil {
			t.Errorf("%q became %+v", line, e)
		}
	}
}

// TestPayload reads payloads back, and sees one that was changed.
func TestPayload(t *testing.T) {
	t.Parallel()
	for _, units := range []int{0, 1, 300} {
		s := payload(42, planLeave, units)
		if n, p, ok := parsePayload(s); n != 42 || p != planLeave || !ok {
			t.Errorf("%d units became %d %s %v", units, n, p, ok)
		}
		if _, _, ok := parsePayload(s + "x"); ok {
			t.Error("a byte more is not seen")
		}
	}
}
