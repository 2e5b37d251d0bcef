package cluster

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/command"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

var errFake = errors.New("the disk is full")

// submit submits a batch and returns where its error comes.
func (n *node) submit(batch string, pushes ...raftfsm.QueueCount) <-chan error {
	wait := n.Submit([]byte(batch), pushes)
	done := make(chan error, 1)
	go func() { // ended by the outcome
		_, err := wait()
		done <- err
	}()
	return done
}

// submits submits a batch, which succeeds.
func (n *node) submits(batch string) {
	n.t.Helper()
	if err := get(n.t, n.submit(batch), "the outcome"); err != nil {
		n.t.Error(err)
	}
}

func TestFollowerAsksTheLeader(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	o, err := b.Submit([]byte("batch"), []raftfsm.QueueCount{{Queue: "mail", Count: 2}})()
	want := &raftfsm.Outcome{Index: 1, Status: raftfsm.Gap, Last: 5, Results: []command.Result{
		{Code: command.Accepted, Job: command.JobID{Millis: 5, Seq: 1}}, {Code: command.Failure},
	}}
	if err != nil || !reflect.DeepEqual(o, want) {
		t.Errorf("outcome %+v, %v", o, err)
	}
	a.wants("submit batch [{mail 2}]")
	if session, err := b.OpenSession("whatever it says", 3); session != 7 || err != nil {
		t.Error("session", session, err)
	}
	a.wants("open " + b.id + " 3") // by its certificate
	if err := b.EndSession(7); err != nil {
		t.Error(err)
	}
	a.wants("end 7")
	if index, err := b.ReadIndex(t.Context()); index != 42 || err != nil {
		t.Error("index", index, err)
	}
	a.wants("read")
	if r, err := b.ResetTime(t.Context()); err != nil || r.Back != 90*time.Second || r.To.UnixMilli() != 1_763_849_472_000 {
		t.Error("reset", r, err)
	}
	a.wants("reset")
	if err := b.Redefine(t.Context(), []byte("queues"), "hash"); err != nil {
		t.Error(err)
	}
	a.wants("define queues hash")
	a.leader.fail(fmt.Errorf("%w: it is right", leader.ErrNotReset))
	if r, err := b.ResetTime(t.Context()); !errors.Is(err, leader.ErrNotReset) || r != (leader.Reset{}) || !strings.Contains(fmt.Sprint(err), "it is right") {
		t.Error("refused", r, err)
	}
	a.wants("reset")
	a.leader.fail(nil)
	cr := leader.Credits{Session: 7, Applied: 9, Pools: []leader.Pool{{Name: "p", Queues: []string{"a", "b"}, Free: 4}}}
	b.Offer(cr)
	a.wants(fmt.Sprintf("offer %+v", cr))
}

func TestLeaderAsksItself(t *testing.T) {
	t.Parallel()
	a := found(t)
	a.Offer(leader.Credits{Session: 1, Follows: true})
	if err := <-a.submit("batch"); err != nil {
		t.Error(err)
	}
	a.wants("offer {Session:1 Applied:0 Pools:[] Follows:true}")
	a.wants("submit batch []")
	if session, err := a.OpenSession(a.id, 1); session != 7 || err != nil {
		t.Error(session, err)
	}
	if err := a.EndSession(7); err != nil {
		t.Error(err)
	}
	if index, err := a.ReadIndex(t.Context()); index != 42 || err != nil {
		t.Error(index, err)
	}
}

func TestBatchesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	const n = 500
	release := a.leader.keep(t) // all are under way at once
	var outcomes []<-chan error
	for i := range n {
		outcomes = append(outcomes, b.submit(fmt.Sprint(i)))
	}
	for i := range n {
		a.wants(fmt.Sprintf("submit %d []", i))
	}
	release()
	for _, o := range outcomes {
		if err := get(t, o, "an outcome"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	for _, c := range []struct {
		err              error
		notSent, refused bool
	}{
		{fmt.Errorf("%w: this node does not lead", raftfsm.ErrNotSent), true, false},
		{fmt.Errorf("%w: by 7", raftfsm.ErrSessionRefused), false, true},
		{errFake, false, false},
	} {
		a.leader.fail(c.err)
		_, open := b.OpenSession(b.id, 1)
		_, read := b.ReadIndex(t.Context())
		for _, err := range []error{<-b.submit("batch"), open, b.EndSession(7), read} {
			if errors.Is(err, raftfsm.ErrNotSent) != c.notSent || errors.Is(err, raftfsm.ErrSessionRefused) != c.refused ||
				!strings.Contains(err.Error(), c.err.Error()) || !strings.Contains(err.Error(), a.id) {
				t.Errorf("%v came as %v", c.err, err)
			}
		}
	}
}

func TestNobodyToAskIsNotSent(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	check := func(when string) {
		t.Helper()
		_, open := b.OpenSession(b.id, 1)
		_, read := b.ReadIndex(t.Context())
		for _, err := range []error{<-b.submit("batch"), open, b.EndSession(7), read} {
			if !errors.Is(err, raftfsm.ErrNotSent) {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	a.way.cut("")
	b.journal.await(t, 1, "link down", a.id)
	check("the link is down")
	b.lead("")
	b.journal.await(t, 1, "no leader is known")
	check("no leader")
	b.lead("0123456789abcdef")
	b.journal.await(t, 1, "node leads", "0123456789abcdef")
	check("a leader that nobody knows")
}

func TestLinkCutLeavesTheOutcomeOpen(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	a.leader.keep(t)
	outcome := b.submit("batch")
	a.wants("submit batch []") // it is there
	a.way.cut(a.listens)
	if err := get(t, outcome, "the outcome"); err == nil || errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	b.journal.await(t, 2, "link up", a.id) // and the leader is asked again
	get(t, b.changed, "a word that the leader can be reached")
	b.submit("again")
	a.wants("submit again []")
}

// A node that died gets no more jobs, although its session lives on for a while.
func TestANodeWhoseLinkIsLostOffersNothing(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	b.Offer(leader.Credits{Session: 7, Applied: 3, Pools: []leader.Pool{{Name: "p", Free: 2}}})
	a.wants("offer {Session:7 Applied:3 Pools:[{Name:p Queues:[] Free:2}] Follows:false}")
	a.way.cut("") // and it does not come back
	a.wants("offer {Session:7 Applied:3 Pools:[] Follows:false}")
}

// What waits for a leader that was deposed fails at once, though it is silent.
func TestLeaderChangeLeavesTheOutcomeOpen(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	release := a.leader.keep(t)
	c.lead(c.id)
	outcome := b.submit("batch")
	a.wants("submit batch []")
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() { // ended by cancel
		_, err := b.ReadIndex(ctx)
		read <- err
	}()
	a.wants("read")
	cancel()
	if err := get(t, read, "the end of the context"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	b.lead(c.id)
	if err := get(t, outcome, "the outcome"); err == nil || errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	get(t, b.changed, "the change")
	release() // the answer that comes now is for nobody
	if err := get(t, b.submit("again"), "the outcome"); err != nil {
		t.Error(err)
	}
	c.wants("submit again []")
	b.lead(a.id)
	get(t, b.changed, "the change")
	if err := get(t, b.submit("back"), "the outcome"); err != nil {
		t.Error(err)
	}
	a.wants("submit back []")
	if len(b.changed) > 0 {
		t.Error("a change was told twice")
	}
}

// A request for a leader that was deposed while its link was chosen fails like those that
// waited.
func TestRequestBehindALeaderChange(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	a.leader.keep(t)
	chosen := b.linkTo(a.id)
	b.lead(c.id)
	get(t, b.changed, "the change")
	if _, err := b.ask(chosen, newFrame(opReadIndex, 0)).wait(t.Context()); !errors.Is(err, errSwept) {
		t.Error(err)
	}
}

// raft drops what it tells while too much of it waits.
func TestLeaderChangeThatWasNotTold(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	b.raft.mu.Lock()
	b.raft.leader = c.id
	b.raft.mu.Unlock()
	b.observed <- raft.Observation{Data: raft.LeaderObservation{LeaderID: raft.ServerID(a.id)}}
	b.journal.await(t, 1, "node leads", c.id)
}

// Credits that a batch follows are the leader's before the batch is.
func TestCreditsThatABatchFollows(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	follows := func(session uint64) leader.Credits { return leader.Credits{Session: session, Follows: true} }
	offer := func(c leader.Credits) string {
		return fmt.Sprintf("offer {Session:%d Applied:%d Pools:[] Follows:%v}", c.Session, c.Applied, c.Follows)
	}
	b.Offer(follows(1))
	b.Offer(follows(2)) // overtakes
	b.submits("x")
	a.wants(offer(follows(2)))
	a.wants("submit x []")
	b.submits("once") // they travel once
	a.wants("submit once []")
	b.Offer(follows(3))
	b.Offer(leader.Credits{Session: 4}) // overtakes too, and does not wait
	b.submits("y")
	a.wants(offer(leader.Credits{Session: 4}))
	a.wants("submit y []")
	b.Offer(follows(5))
	b.lead("")
	get(t, b.changed, "the change")
	if err := <-b.submit("z"); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	b.lead(a.id) // the batch is sent again, with the credits
	get(t, b.changed, "the change")
	b.submits("z")
	a.wants(offer(follows(5)))
	a.wants("submit z []")
	b.Offer(follows(6))
	b.lead(b.id)
	get(t, b.changed, "the change")
	b.submits("own")
	b.wants(offer(follows(6)))
	b.wants("submit own []")
}

func TestLargestBatch(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	const size = 17 << 20
	if err := get(t, b.submit(strings.Repeat("x", size)), "the outcome"); err != nil {
		t.Error(err)
	}
	a.wants(fmt.Sprintf("submit %d bytes []", size))
	if b.journal.said("link down", a.id) > 0 {
		t.Error("a link went down")
	}
}

// A peer whose machine stands still says nothing, not even that it is gone.
func TestSilentPeerIsGivenUp(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	a.leader.keep(t)
	outcome := b.submit("batch")
	a.wants("submit batch []")
	begun := time.Now()
	a.way.stall(true)
	if err := get(t, outcome, "the outcome"); err == nil || errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	if took := time.Since(begun); took < silence/2 {
		t.Error("given up after", took)
	}
	b.journal.await(t, 1, "link down", a.id, "nothing heard for 2s")
	if err := <-b.submit("while it is down"); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	a.way.stall(false)
	b.journal.await(t, 2, "link up", a.id)
}

func TestClose(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	release := a.leader.keep(t)
	outcome := b.submit("batch")
	a.wants("submit batch []")
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := get(t, outcome, "the outcome"); err == nil {
		t.Error("no error")
	}
	if err := <-b.submit("after"); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error("closed again:", err)
	}
	if b.raft.observers != 0 {
		t.Error("raft is still observed")
	}
	closed := make(chan struct{})
	go func() { // ended by release
		a.Close()
		close(closed)
	}()
	c.journal.await(t, 1, "link down", a.id)
	select {
	case <-closed:
		t.Error("Close did not wait for the batch")
	default:
	}
	release()
	get(t, closed, "Close")
}

// A batch there and its outcome back, one after the other.
func BenchmarkForward(b *testing.B) {
	leads, follower, _ := three(b)
	leads.leader.quiet()
	for _, size := range []int{1 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			batch := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := follower.Submit(batch, nil)(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
