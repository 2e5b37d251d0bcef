package raftfsm_test

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/queue"
	"pogod/raftfsm/clocks"
	"pogod/raftfsm/leader"
)

const year = 365 * 24 * time.Hour

// skews are how wrong a clock may be.
var skews = []time.Duration{10 * time.Minute, -10 * time.Minute, year, -year}

// measure has the members measure each other's clocks, as links do, until the test ends.
func (c *trio) measure() {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ended by stop
		for {
			c.measureOnce()
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	c.t.Cleanup(func() {
		close(stop)
		wg.Wait()
	})
}

func (c *trio) measureOnce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		for _, o := range c.members {
			if m != o && !c.cut[m] && !c.cut[o] && m.clocks != nil {
				sent := m.clock.Mono()
				wall := o.clock.Now()
				m.clocks.Measured(o.dir.NodeID(), wall, sent, m.clock.Mono())
			}
		}
	}
}

// voters are the ids of the members that vote.
func (m *member) voters() (ids []string) {
	f := m.group.Raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// clocked gives a member a clock that the test sets, and the clocks of the others.
func (m *member) clocked(skew time.Duration) {
	s := &clock.Skewed{}
	s.Set(skew)
	m.clock = s
}

// now is cluster time, as the member has applied it.
func (m *member) now() time.Time {
	_, now := m.group.FSM.NextTick()
	return time.UnixMilli(now)
}

// lead has a member lead.
func (c *trio) lead(m *member) {
	c.t.Helper()
	id := raft.ServerID(m.dir.NodeID())
	for late := time.After(patience); c.leading() != m; {
		_ = c.leading().group.Raft.LeadershipTransferToServer(id, raft.ServerAddress(id)).Error()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-late:
			c.t.Fatal("leadership is not transferred")
		}
	}
}

// taken waits until a member's session holds n jobs that it has threads for.
func (c *trio) taken(m *member, n int) []queue.Delivery {
	c.t.Helper()
	changed := m.group.FSM.Watch()
	late := time.After(patience)
	for {
		d, applied := m.group.FSM.Reserved(nil, m.proposer.Session())
		if len(d) >= n {
			return d
		}
		if l := m.reach(); l != nil {
			l.Offer(leader.Credits{Session: m.proposer.Session(), Applied: applied, Pools: []leader.Pool{{Name: "p", Queues: []string{"q"}, Free: n - len(d)}}})
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // who leads may not have known of it
		case <-late:
			c.t.Fatalf("%d jobs were handed out, not %d", len(d), n)
		}
	}
}

// works is a round with a clock that is wrong: a job that runs all the while keeps its
// lease, a delayed one is not early, by the true clock and by the cluster's, none is handed
// out twice, no session ends, and cluster time is the true one.
func (c *trio) works(what string, wrong func()) {
	c.t.Helper()
	m := c.members[0]
	sessions := make([]uint64, 3)
	for i, o := range c.members {
		sessions[i] = o.proposer.Session()
	}
	if _, err := m.queue.Push(c.t.Context(), "q", []byte("runs"), 0); err != nil {
		c.t.Fatal(err)
	}
	running := c.taken(m, 1)[0]
	begun := time.Now()
	id, err := m.queue.Push(c.t.Context(), "q", []byte("later"), delay)
	if err != nil {
		c.t.Fatal(err)
	}
	wrong()
	// One more that is pushed with the wrong clock.
	second := time.Now()
	if _, err := m.queue.Push(c.t.Context(), "q", []byte("later still"), delay); err != nil {
		c.t.Fatal(err)
	}
	for i, since := range []time.Time{begun, second} {
		got := c.taken(m, i+2)
		if passed := time.Since(since); passed < delay-grain {
			c.t.Errorf("%s: a job with a delay of %s was handed out after %s", what, delay, passed)
		}
		for _, d := range got {
			if d.Job == id && d.ReservedAt < id.Millis+delay.Milliseconds() {
				c.t.Errorf("%s: handed out %d ms after its push, by cluster time", what, d.ReservedAt-id.Millis)
			}
			if d.Attempts != 1 {
				c.t.Errorf("%s: job %s was handed out %d times", what, d.Job, d.Attempts)
			}
		}
	}
	for _, o := range c.members {
		if err := o.group.FSM.WaitApplied(c.t.Context(), m.group.FSM.Applied()); err != nil {
			c.t.Fatal(err)
		}
		before := time.Now() // an entry was stamped not long before that, and not after
		if at := o.now(); at.After(before.Add(grain)) || before.Sub(at) > patience {
			c.t.Errorf("%s: cluster time is %s off", what, at.Sub(before))
		}
	}
	for i, o := range c.members {
		if o.proposer.Session() != sessions[i] {
			c.t.Errorf("%s: the session of member %d has ended", what, i)
		}
	}
	for _, d := range c.taken(m, 3) {
		if d.Job == running.Job && d.Lease != running.Lease {
			c.t.Errorf("%s: the job that ran was handed out again", what)
		}
		if err := m.queue.Ack(c.t.Context(), "q", d.ID()); err != nil {
			c.t.Errorf("%s: %v", what, err)
		}
	}
}

const (
	delay = 300 * time.Millisecond
	grain = 2 * time.Millisecond // cluster time counts milliseconds, and clocks that agree to one are equal
)

// Clocks that are set while the nodes run, of the one that leads and of one that does not.
func TestAClockThatIsSetWhileItRuns(t *testing.T) {
	t.Parallel()
	c := newTrioWith(t, 0, func(i int, m *member) { m.clocked(0) })
	c.measure()
	for _, skew := range skews {
		for _, leads := range []bool{true, false} {
			m := c.leading()
			if !leads {
				m = c.follower(m)
			}
			set := m.clock.(*clock.Skewed)
			what := fmt.Sprintf("set by %s, leads: %v", skew, leads)
			c.works(what, func() { set.Set(skew) })
			c.works(what+", set back", func() { set.Set(0) })
		}
	}
	c.equal()
}

// Clocks that are wrong from the start: of the node that founds the group and leads it, and
// of one that joins and comes to lead.
func TestAClockThatIsWrongFromTheStart(t *testing.T) {
	t.Parallel()
	for _, skew := range skews {
		for wrong := range 3 {
			if wrong == 0 && skew > 0 {
				continue // its own clock was the only one, and time has to wait for the others: the next test
			}
			t.Run(fmt.Sprintf("skew=%s/member=%d", skew, wrong), func(t *testing.T) {
				t.Parallel()
				c := newTrioWith(t, 0, func(i int, m *member) {
					m.clocked(0)
					if i == wrong {
						m.clocked(skew)
					}
				})
				c.measure()
				c.works("before it leads", func() {})
				if wrong > 0 {
					c.works("while it comes to lead", func() { c.lead(c.members[wrong]) })
				}
				c.works("while another comes to lead", func() { c.lead(c.members[(wrong+1)%3]) })
				c.equal()
			})
		}
	}
}

// A group that was founded by a node whose clock is ahead: time never goes back, goes on at
// half speed, and is set back when that is asked for; leases and sessions live on, and due
// jobs wait for their time.
func TestTimeThatIsAheadIsSetBackByWhoLeads(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{10 * time.Minute, year} {
		c := newTrioWith(t, 0, func(i int, m *member) {
			m.clocked(0)
			if i == 0 {
				m.clocked(skew)
			}
		})
		c.measure()
		m := c.members[1]
		if _, err := m.queue.Push(t.Context(), "q", []byte("runs"), 0); err != nil {
			t.Fatal(err)
		}
		running := c.taken(m, 1)[0]
		first, begun := m.now(), time.Now()
		if ahead := time.Until(first); ahead < skew-time.Minute {
			t.Fatalf("time is %s ahead", ahead)
		}
		if _, err := m.queue.Push(t.Context(), "q", []byte("later"), 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		later := c.taken(m, 2)[1]
		passed, stood := time.Since(begun), m.now().Sub(first)
		if stood < 100*time.Millisecond-grain || stood > passed/2+time.Second {
			t.Errorf("time went on by %s in %s: that is not half speed", stood, passed)
		}
		if _, err := m.queue.Push(t.Context(), "q", []byte("waits for its time"), time.Second); err != nil {
			t.Fatal(err)
		}
		r, err := c.leading().leader.ResetTime(t.Context())
		if err != nil || r.Back < skew-time.Minute || r.Back > skew+time.Minute {
			t.Errorf("set back by %s: %v", r.Back, err)
		}
		if _, err := m.queue.Push(t.Context(), "q", []byte("behind it"), 0); err != nil {
			t.Fatal(err)
		}
		if err := m.group.FSM.WaitApplied(t.Context(), c.leading().group.FSM.Applied()); err != nil {
			t.Fatal(err)
		}
		if off := time.Since(m.now()); off < -grain || off > patience {
			t.Errorf("time is %s behind the clocks", off)
		}
		got := c.taken(m, 3)
		if got[0].Lease != running.Lease || got[1].Lease != later.Lease || string(got[2].Payload) != "behind it" {
			t.Errorf("%+v", got)
		}
		if st, err := m.queue.Stats(t.Context(), "q"); err != nil || st[0].Gauges.Delayed != 1 {
			t.Errorf("%+v %v", st, err)
		}
		for _, d := range got {
			if err := m.queue.Ack(t.Context(), "q", d.ID()); err != nil {
				t.Error(err)
			}
		}
		if _, err := c.leading().leader.ResetTime(t.Context()); err == nil {
			t.Error("time was set back twice")
		}
		c.equal()
	}
}

func (m *member) newClocks(log *slog.Logger) *clocks.Clocks {
	return clocks.New(clocks.Config{Clock: m.clock, Node: m.dir.NodeID(), Voters: m.voters, Log: log})
}
