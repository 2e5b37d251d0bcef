package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// strike is a planned fault.
type strike struct {
	at, lasts time.Duration
	kind      string
	leader    bool // it strikes the node that leads then, if there is one; else another
	pick      int  // which of those that may be struck; of a partition, what else is open
	again     bool // of a kill: once more, while it starts
}

// strikeKind says how often a kind of fault comes, and how long it lasts.
type strikeKind struct {
	kind        string
	share       int
	least, most time.Duration
}

var strikeKinds = []strikeKind{
	{faultKill, 6, 0, 8 * time.Second},
	{faultPause, 6, 200 * time.Millisecond, 12 * time.Second},
	{faultAlone, 3, time.Second, 12 * time.Second},
	{faultBridge, 2, time.Second, 12 * time.Second},
	{faultOneWay, 3, time.Second, 12 * time.Second},
}

// newStrikes draws faults of these kinds for so long. Mostly there is one at a time; now and then the next
// begins while one lasts, and with both there may be no quorum.
func newStrikes(r *rand.Rand, total time.Duration, kinds []strikeKind) (plan []strike) {
	shares := 0
	for _, k := range kinds {
		shares += k.share
	}
	at := time.Second
	for at < total {
		left := r.IntN(shares)
		k := kinds[slices.IndexFunc(kinds, func(k strikeKind) bool { left -= k.share; return left < 0 })]
		long := r.Float64()
		lasts := min(k.least+time.Duration(float64(k.most-k.least)*long*long), total-at) // most are short
		plan = append(plan, strike{at: at, lasts: lasts, kind: k.kind, leader: r.IntN(2) == 0, pick: r.IntN(1 << 30), again: r.IntN(5) == 0})
		next := lasts
		if r.IntN(6) == 0 {
			next = time.Duration(r.Float64() * float64(lasts))
		} else {
			next += 300*time.Millisecond + time.Duration(r.IntN(3000))*time.Millisecond
		}
		at += next
	}
	return plan
}

// ongoing is a fault that lasts.
type ongoing struct {
	strike
	number   int
	node     int // that is killed or paused
	ways     []way
	until    time.Time
	starting bool      // it was killed, or its disk failed, or its clock was wrong; it runs again, and not all is as before yet
	since    time.Time // of a disk: when the process started that it struck
}

// siege brings planned faults over a cluster.
type siege struct {
	c       *cluster
	l       *loader
	disks   []*faultyDisk // of the nodes; nil: they cannot fail
	ongoing []*ongoing
	number  int
}

// run does what is planned, and returns when every fault is over.
func (s *siege) run(ctx context.Context, plan []strike) error {
	begin := time.Now()
	for len(plan) > 0 || len(s.ongoing) > 0 {
		if err := s.c.exited(); err != nil {
			return err
		}
		var err error
		s.ongoing = slices.DeleteFunc(s.ongoing, func(o *ongoing) bool {
			over, e := s.over(ctx, o)
			if err == nil {
				err = e
			}
			return over
		})
		if err == nil && len(plan) > 0 && s.room(plan[0].kind) && time.Since(begin) >= plan[0].at {
			err = s.begin(ctx, plan[0])
			plan = plan[1:]
		}
		if err != nil {
			return err
		}
		if !pause(ctx, 4*pollPause) {
			return ctx.Err()
		}
	}
	return nil
}

// room reports whether a fault may begin beside those that last.
func (s *siege) room(kind string) bool {
	return len(s.ongoing) == 0 || len(s.ongoing) < 2 && !lonely(kind) && !slices.ContainsFunc(s.ongoing, func(o *ongoing) bool {
		return lonely(o.kind) || o.kind == faultClock && o.starting // all are to see that it is right again
	})
}

// begin lets a fault strike. The load notes it first, so that what it excuses is known.
func (s *siege) begin(ctx context.Context, p strike) error {
	leader := s.c.leads()
	if p.kind == faultWipe && leader >= 0 {
		p.leader = false
	} else if p.kind == faultWipe {
		p.kind = faultKill
	}
	free := []int{}
	for i := range s.c.nodes {
		if (i == leader) == p.leader || leader < 0 {
			free = append(free, i)
		}
	}
	for _, o := range s.ongoing {
		if o.ways != nil && slices.Contains([]string{faultAlone, faultBridge, faultOneWay}, p.kind) || o.kind == faultClock && p.kind == faultClock {
			p.kind = faultPause // one partition at a time, and one wrong clock: with two time is what they say
		}
		free = slices.DeleteFunc(free, func(i int) bool { return o.ways == nil && i == o.node })
	}
	if len(free) == 0 {
		return nil // it is down already
	}
	s.number++
	o := &ongoing{strike: p, number: s.number, node: free[p.pick%len(free)], until: time.Now().Add(p.lasts)}
	x, y, z := o.node, (o.node+1)%3, (o.node+2)%3
	if p.pick%2 == 0 {
		y, z = z, y
	}
	switch p.kind {
	case faultAlone:
		o.ways = []way{{x, y}, {y, x}, {x, z}, {z, x}}
	case faultBridge:
		o.ways = []way{{x, y}, {y, x}}
	case faultOneWay:
		o.ways = []way{{x, y}}
		if p.pick%4 < 2 {
			o.ways = []way{{y, x}}
		}
	}
	where := fmt.Sprint(o.node)
	if o.ways != nil {
		where = formatWays(o.ways)
	}
	s.c.t.Logf("fault %d: %s %s for %s, node %d leads", o.number, p.kind, where, p.lasts.Round(time.Millisecond), leader)
	if err := s.l.tell("burst"); err != nil {
		return err
	}
	pause(s.c.t.Context(), burstFor/4+time.Duration(p.pick)%(burstFor/2))
	if err := s.l.tell(fmt.Sprint("fault ", o.number, " ", p.kind, " ", where)); err != nil {
		return err
	}
	s.ongoing = append(s.ongoing, o)
	switch p.kind {
	case faultKill:
		return s.c.killed(s.l, o.node, o.number)
	case faultPause:
		return s.c.nodes[o.node].freeze()
	case faultWipe, faultFlip, faultDisk, faultFull, faultClock:
		return s.strikeMore(ctx, o)
	}
	for _, w := range o.ways {
		s.c.lan.cut(w)
	}
	return nil
}

// over ends a fault when it is time, and says whether all is as before.
func (s *siege) over(ctx context.Context, o *ongoing) (bool, error) {
	if time.Now().Before(o.until) {
		return false, nil
	}
	n := s.c.nodes[o.node]
	switch {
	case slices.Contains([]string{faultWipe, faultFlip, faultDisk, faultFull, faultClock}, o.kind):
		if !s.overMore(ctx, o) {
			if time.Since(o.until) > 2*readyWithin && len(s.ongoing) == 1 {
				doc, err := n.document(ctx, "")
				_, notReady := n.get(ctx, "/readyz")
				return false, fmt.Errorf("node %d, struck by %q, was not as before within %s: %+v: %w", o.node, o.kind, 2*readyWithin, doc, errors.Join(err, notReady))
			}
			return false, nil
		}
	case o.starting:
		ask, cancel := context.WithTimeout(ctx, healedFor)
		defer cancel()
		if _, err := n.get(ask, "/readyz"); err != nil {
			if time.Since(o.until) > readyWithin && len(s.ongoing) == 1 {
				return false, fmt.Errorf("node %d was not ready again within %s: %w", o.node, readyWithin, err)
			}
			return false, nil
		}
	case o.kind == faultKill:
		n.start()
		if o.again {
			pause(ctx, time.Duration(o.pick%300)*time.Millisecond)
			if err := s.c.killed(s.l, o.node, 0); err != nil {
				return false, err
			}
			n.start()
		}
		o.starting = true
		return false, nil
	case o.kind == faultPause:
		if err := n.cmd.Process.Signal(unix.SIGCONT); err != nil {
			return false, err
		}
	}
	for _, w := range o.ways {
		s.c.lan.heal(w)
	}
	return true, s.l.tell(fmt.Sprint("heal ", o.number))
}

// TestStrikes shows that a seed fixes the plan, that no fault outlasts it, and that all
// kinds come.
func TestStrikes(t *testing.T) {
	t.Parallel()
	const total = 10 * time.Minute
	draw := func(seed uint64) []strike { return newStrikes(rand.New(rand.NewPCG(seed, 1)), total, strikeKinds) }
	plan := draw(1)
	if !slices.Equal(plan, draw(1)) || slices.Equal(plan, draw(2)) {
		t.Error("the seed does not fix the plan")
	}
	count, both := map[string]int{}, 0
	for i, s := range plan {
		count[s.kind]++
		if s.at+s.lasts > total {
			t.Errorf("%+v outlasts the plan", s)
		}
		if i > 0 && plan[i-1].at+plan[i-1].lasts > s.at {
			both++
		}
	}
	if len(plan) < 60 || len(count) != 5 || both == 0 || both > len(plan)/3 {
		t.Errorf("%d faults, %d of them two at once: %v", len(plan), both, count)
	}
}
