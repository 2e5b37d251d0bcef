package workers

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/queue"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == playArg {
		play(os.Args[2])
		os.Exit(0)
	}
	_ = os.Setenv("POGOD_TEST_SECRET", "not for PHP")
	goleak.VerifyTestMain(m)
}

// patience bounds a wait for a signal in a test that fails.
const patience = 20 * time.Second

// spyClock is a clock.Spy that fails the test.
type spyClock struct{ *clock.Spy }

func newSpyClock() *spyClock {
	return &spyClock{clock.NewSpy(time.UnixMilli(1_763_849_472_123))}
}

// await waits until a timer of d was set.
func (c *spyClock) await(t *testing.T, d time.Duration) {
	t.Helper()
	if !c.Await(d, patience) {
		t.Fatalf("no timer of %s was set", d)
	}
}

// end is one call of Attempts.End.
type end struct {
	d      queue.Delivery
	cause  command.Cause
	reason string
}

// interrupt is one call of Processes.Interrupt.
type interrupt struct {
	pid   int
	slot  int64
	lease uint64
}

// fakeState stands for everything below Pools: the reservations of session 7, the
// attempts' settlement, the leader and the hosts.
type fakeState struct {
	standing raftfsm.Standing
	needs    uint64 // what is seen is fresh from this entry on
	mu       sync.Mutex
	changed  chan struct{} // closed and made anew at every change
	slow     bool          // what is given back is not applied
	session  uint64
	applied  uint64
	lease    uint64
	held     []queue.Delivery
	watchers []chan struct{}
	opened   chan struct{}

	running    map[uint64]bool   // begun, not ended
	before     map[uint64]func() // by lease: what Begin was given
	settled    map[uint64]bool
	settling   map[uint64]bool
	ends       []end
	gaveBack   []queue.Delivery
	offers     int
	credits    leader.Credits
	interrupts []interrupt
	how        map[int]Exit      // by pid: how that host ended
	ready      map[string]uint64 // by line
	demands    []string
	hosts      map[string]int         // by name: the process of a quarantine
	replaced   []int                  // process ids
	killed     []int                  // process ids
	foreign    bool                   // the threads are no host's
	onOffer    func(c leader.Credits) // under mu
	onEnd      func(d queue.Delivery) // under mu
	asked      chan struct{}          // a signal when Ended is called; nil: none
	hold       chan struct{}          // Ended waits for it; nil: it does not
}

func newFakeState() *fakeState {
	return &fakeState{
		changed: make(chan struct{}), session: 7, applied: 10, lease: 100, opened: make(chan struct{}, 1),
		running: map[uint64]bool{}, before: map[uint64]func(){}, settled: map[uint64]bool{}, settling: map[uint64]bool{}, how: map[int]Exit{},
		ready: map[string]uint64{}, hosts: map[string]int{},
	}
}

// change calls f and tells everybody; mu is not held.
func (s *fakeState) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.tell()
}

func (s *fakeState) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// apply is change, as an entry.
func (s *fakeState) apply(f func()) {
	s.change(func() {
		f()
		s.applyLocked()
	})
}

func (s *fakeState) applyLocked() {
	s.applied++
	for _, w := range s.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// await waits until ok, which is called under mu.
func (s *fakeState) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// reserve reserves a job as an entry and returns its delivery.
func (s *fakeState) reserve(d queue.Delivery) queue.Delivery {
	s.apply(func() { d = s.reserveLocked(d) })
	return d
}

func (s *fakeState) reserveLocked(d queue.Delivery) queue.Delivery {
	s.lease++
	d.Lease = s.lease
	if d.Job == (command.JobID{}) {
		d.Job = command.JobID{Millis: 1763849472123, Seq: d.Lease - 50}
	}
	d.Attempts++
	s.held = append(s.held, d)
	return d
}

func (s *fakeState) dropLocked(lease uint64) {
	s.held = slices.DeleteFunc(s.held, func(d queue.Delivery) bool { return d.Lease == lease })
}

// settle is what a handler's ack does.
func (s *fakeState) settle(lease uint64) {
	s.apply(func() {
		s.settled[lease] = true
		s.dropLocked(lease)
	})
}

func (s *fakeState) Reserved(buf []queue.Delivery, session uint64) ([]queue.Delivery, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session == s.session {
		buf = append(buf, s.held...)
	}
	return buf, s.applied
}

func (s *fakeState) Watch() <-chan struct{} {
	c := make(chan struct{}, 1)
	s.change(func() { s.watchers = append(s.watchers, c) })
	return c
}

func (s *fakeState) Session() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

func (s *fakeState) Confirmed() <-chan struct{} { return s.opened }

func (s *fakeState) Standing(applied uint64) raftfsm.Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.session == 0:
		return raftfsm.Overdue
	case applied < s.needs:
		return raftfsm.Stale
	}
	return s.standing
}

func (s *fakeState) Begin(d *queue.Delivery, settling func()) {
	s.change(func() { s.running[d.Lease], s.before[d.Lease] = true, settling })
}

func (s *fakeState) Settling(lease uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settling[lease] || s.settled[lease]
}

func (s *fakeState) End(_ context.Context, d *queue.Delivery, cause command.Cause, reason string) (released bool, err error) {
	s.apply(func() {
		delete(s.running, d.Lease)
		if released = !s.settled[d.Lease]; released {
			s.ends = append(s.ends, end{*d, cause, reason})
			s.dropLocked(d.Lease)
			if s.onEnd != nil {
				s.onEnd(*d)
			}
		}
	})
	return released, nil
}

func (s *fakeState) GiveBack(_ context.Context, d *queue.Delivery) error {
	s.apply(func() {
		s.gaveBack = append(s.gaveBack, *d)
		if !s.slow {
			s.dropLocked(d.Lease)
		}
	})
	return nil
}

func (s *fakeState) Offer(c leader.Credits) {
	s.change(func() {
		s.offers++
		s.credits = c
		if s.onOffer != nil {
			s.onOffer(c)
		}
	})
}

func (s *fakeState) Interrupt(pid int, slot int64, lease uint64) {
	s.change(func() { s.interrupts = append(s.interrupts, interrupt{pid, slot, lease}) })
}

func (s *fakeState) Ready(line string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready[line]
}

func (s *fakeState) Demand(name string) {
	s.change(func() { s.demands = append(s.demands, name) })
}

func (s *fakeState) Runs(name string, pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hosts[name] == pid
}

func (s *fakeState) Replace(pid int, _ string) bool {
	s.change(func() { s.replaced = append(s.replaced, pid) })
	return !s.foreign
}

func (s *fakeState) Kill(pid int, _ string) {
	s.change(func() { s.killed = append(s.killed, pid) })
}

func (s *fakeState) Ended(pid int) (Exit, bool) {
	if s.asked != nil {
		s.asked <- struct{}{}
	}
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.how[pid]
	return e, ok
}

// seen is what the fake was told so far.
type seen struct {
	ends       []end
	gaveBack   []queue.Delivery
	interrupts []interrupt
	credits    leader.Credits
	running    int
	applied    uint64
	replaced   []int
	killed     []int
}

func (s *fakeState) seen() seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return seen{slices.Clone(s.ends), slices.Clone(s.gaveBack), slices.Clone(s.interrupts), s.credits, len(s.running), s.applied, slices.Clone(s.replaced), slices.Clone(s.killed)}
}

// free returns what was offered for a pool last, -1 for nothing; mu is held.
func (s *fakeState) free(pool string) int {
	for _, p := range s.credits.Pools {
		if p.Name == pool {
			return p.Free
		}
	}
	return -1
}
