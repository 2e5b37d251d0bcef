package cluster

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

var _ raftfsm.Submitter = (*Cluster)(nil)

// follow takes note of who leads.
func (c *Cluster) follow() {
	current := func() {
		_, id := c.services.Raft.LeaderWithID()
		c.led(string(id))
	}
	current()
	for {
		select {
		case o := <-c.observed:
			if l, ok := o.Data.(raft.LeaderObservation); ok {
				c.led(string(l.LeaderID))
			}
			if len(c.observed) == 0 {
				current() // raft drops observations that find no room
			}
		case <-c.linked:
			c.tellChange()
		case <-c.ctx.Done():
			return
		}
	}
}

// led notes who leads now. What waits for the one before fails at once, so that it is
// sent to the new one: the former may be gone, or cut off and not know it.
func (c *Cluster) led(id string) {
	c.mu.Lock()
	former := c.leader
	c.leader = id
	var l *link
	if p := c.peers[former]; p != nil {
		l = p.link
	}
	c.mu.Unlock()
	if former == id {
		return
	}
	if l != nil {
		l.sweep(errSwept)
	}
	switch id {
	case "":
		c.cfg.Log.Info("no leader is known")
	case c.cfg.Identity.Node:
		c.cfg.Log.Info("this node leads")
	default:
		c.cfg.Log.Info("node leads", "node", id)
	}
	c.tellChange()
}

func (c *Cluster) tellChange() {
	if c.services.LeaderChanged != nil {
		c.services.LeaderChanged()
	}
}

// route says where what the leader is to get goes now: to this node's own, or over a
// link. It fails with raftfsm.ErrNotSent.
func (c *Cluster) route() (local bool, l *link, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.routeLocked()
}

func (c *Cluster) routeLocked() (local bool, l *link, err error) {
	switch c.leader {
	case "":
		return false, nil, fmt.Errorf("%w: no leader is known", raftfsm.ErrNotSent)
	case c.cfg.Identity.Node:
		return true, nil, nil
	}
	if p := c.peers[c.leader]; p != nil && p.link != nil {
		return false, p.link, nil
	}
	return false, nil, fmt.Errorf("%w: the link to node %s, which leads, is down", raftfsm.ErrNotSent, c.leader)
}

// leads reports whether this node leads, by the last word of raft.
func (c *Cluster) leads() bool {
	local, _, _ := c.route()
	return local
}

// ask sends a request to the leader, which may have changed since l was chosen: led has
// then swept the link already.
func (c *Cluster) ask(l *link, frame []byte) *request {
	r := l.request(frame)
	c.mu.Lock()
	leads := c.leader == l.node
	c.mu.Unlock()
	if !leads {
		l.sweep(errSwept)
	}
	return r
}

// Submit implements raftfsm.Submitter. It does not wait for the network.
func (c *Cluster) Submit(batch []byte, pushes []raftfsm.QueueCount) func() (*raftfsm.Outcome, error) {
	c.mu.Lock()
	local, l, err := c.routeLocked()
	var credits *leader.Credits
	if err == nil {
		credits, c.credits = c.credits, nil
	}
	c.mu.Unlock()
	switch {
	case err != nil:
		return func() (*raftfsm.Outcome, error) { return nil, err }
	case local:
		if credits != nil {
			c.services.Leader.Offer(*credits)
		}
		return c.services.Leader.Submit(batch, pushes)
	}
	r := c.ask(l, appendSubmit(newFrame(opSubmit, len(batch)+512), submit{batch, pushes, credits}))
	return func() (*raftfsm.Outcome, error) {
		a, err := r.wait(context.Background())
		if err != nil {
			return nil, err
		}
		return &a.outcome, nil
	}
}

// OpenSession implements raftfsm.Submitter. node is this node: the leader takes the
// certificate's word.
func (c *Cluster) OpenSession(node string, number uint64) (uint64, error) {
	local, l, err := c.route()
	switch {
	case err != nil:
		return 0, err
	case local:
		return c.services.Leader.OpenSession(node, number)
	}
	a, err := c.ask(l, appendUint(newFrame(opOpenSession, 16), number)).wait(context.Background())
	return a.value, err
}

// EndSession implements raftfsm.Submitter.
func (c *Cluster) EndSession(session uint64) error {
	local, l, err := c.route()
	switch {
	case err != nil:
		return err
	case local:
		return c.services.Leader.EndSession(session)
	}
	_, err = c.ask(l, appendUint(newFrame(opEndSession, 16), session)).wait(context.Background())
	return err
}

// ReadIndex asks the leader for an entry that holds all that was answered before the
// call, on whichever node.
func (c *Cluster) ReadIndex(ctx context.Context) (uint64, error) {
	local, l, err := c.route()
	switch {
	case err != nil:
		return 0, err
	case local:
		return c.services.Leader.ReadIndex(ctx)
	}
	a, err := c.ask(l, newFrame(opReadIndex, 0)).wait(ctx)
	return a.value, err
}

// ResetTime has the leader set cluster time back, on whichever node.
func (c *Cluster) ResetTime(ctx context.Context) (leader.Reset, error) {
	local, l, err := c.route()
	switch {
	case err != nil:
		return leader.Reset{}, err
	case local:
		return c.services.Leader.ResetTime(ctx)
	}
	a, err := c.ask(l, newFrame(opResetTime, 0)).wait(ctx)
	if err != nil {
		return leader.Reset{}, err
	}
	return leader.Reset{Back: time.Duration(a.value) * time.Millisecond, To: time.UnixMilli(int64(a.outcome.Last))}, nil
}

// Redefine has the leader put definitions of the queues in force, on whichever node.
func (c *Cluster) Redefine(ctx context.Context, definitions []byte, hash string) error {
	local, l, err := c.route()
	switch {
	case err != nil:
		return err
	case local:
		return c.services.Leader.Redefine(ctx, definitions, hash)
	}
	_, err = c.ask(l, appendDefine(newFrame(opDefine, len(definitions)+64), define{definitions, hash})).wait(ctx)
	return err
}

// Offer hands this node's credits to the leader. They may get lost; LeaderChanged asks
// for new ones. Credits that a batch follows travel with it, so that the leader has them
// before it hands out what the batch makes ready.
func (c *Cluster) Offer(cr leader.Credits) {
	c.mu.Lock()
	local, l, _ := c.routeLocked()
	c.credits = nil // overtaken
	if cr.Follows && !local {
		c.credits = &cr
	}
	c.mu.Unlock()
	switch {
	case local:
		c.services.Leader.Offer(cr)
	case l != nil && !cr.Follows:
		l.post(appendCredits(newFrame(opOffer, 256), cr), 0)
	}
}

// handle serves one frame, on the goroutine that reads the link: batches are given to the
// leader in the order in which they came, and waited for elsewhere.
func (c *Cluster) handle(l *link, f frame) error {
	body := fields{b: f.body}
	var work func() (answer, error) // what a request still asks for
	switch f.op {
	case opPing:
		if p := body.ping(); body.done() == nil {
			c.heard(l.node, p.applied)
			l.post(appendPong(newFrame(opPong, 32), pong{ping{c.services.Applied(), p.sent}, c.cfg.Clock.Now(), c.tight()}), 0)
		}
	case opPong:
		if p := body.pong(); body.done() == nil {
			c.heard(l.node, p.applied)
			c.pong(l, p)
		}
	case opBook:
		if peers := body.peers(); body.done() == nil {
			c.book.learn(peers...)
		}
	case opOffer:
		if cr := body.credits(); body.done() == nil {
			l.offered = cr
			c.services.Leader.Offer(cr)
		}
	case opAnswer:
		l.answered(f)
		return nil
	case opSubmit:
		if s := body.submit(); body.done() == nil {
			if s.credits != nil {
				l.offered = *s.credits
				c.services.Leader.Offer(*s.credits)
			}
			wait := c.services.Leader.Submit(s.batch, s.pushes)
			work = func() (answer, error) { return outcome(wait()) }
		}
	case opOpenSession:
		number := body.uint(math.MaxUint64)
		work = func() (a answer, err error) {
			a.value, err = c.services.Leader.OpenSession(l.node, number)
			return a, err
		}
	case opEndSession:
		session := body.uint(math.MaxUint64)
		work = func() (answer, error) { return answer{}, c.services.Leader.EndSession(session) }
	case opReadIndex:
		work = func() (a answer, err error) {
			a.value, err = c.services.Leader.ReadIndex(c.ctx)
			return a, err
		}
	case opResetTime:
		work = func() (answer, error) {
			r, err := c.services.Leader.ResetTime(c.ctx)
			return answer{value: uint64(r.Back.Milliseconds()), outcome: raftfsm.Outcome{Last: uint64(r.To.UnixMilli())}}, err
		}
	case opDefine:
		d := body.define()
		work = func() (answer, error) { return answer{}, c.services.Leader.Redefine(c.ctx, d.definitions, d.hash) }
	case opAdmit, opAdmitWorker:
		p := body.peer()
		p.Worker = f.op == opAdmitWorker
		work = func() (answer, error) { return answer{}, c.admitHere(p) }
	case opTransfer:
		node := string(body.bytes())
		work = func() (answer, error) { return answer{}, c.transferHere(node) }
	case opRemove:
		r := body.removal()
		work = func() (answer, error) { return answer{}, c.removeHere(r, r.Node == l.node) }
	default:
		if f.id == 0 {
			body.fail("op %d", f.op)
			break
		}
		body.b = nil // a newer node's request
		work = func() (answer, error) {
			return answer{}, declined("node %s runs an older pogod, which does not know this (request %d): bring it to the version of the others first", c.cfg.Identity.Node, f.op)
		}
	}
	if err := body.done(); err != nil || work == nil {
		return err
	}
	return c.answer(l, f.id, work)
}

// outcome is the answer to a batch.
func outcome(o *raftfsm.Outcome, err error) (answer, error) {
	if err == nil {
		err = o.Err
	}
	if err != nil {
		return answer{}, err
	}
	return answer{outcome: *o}, nil
}

// answer does the rest of a request, beside the reader, which waits when too many are
// under way.
func (c *Cluster) answer(l *link, id uint64, work func() (answer, error)) error {
	select {
	case l.slots <- struct{}{}:
	case <-l.quit:
		c.spawn(func() { _, _ = work() }) // what was begun is seen through; nobody asks for the answer
		return errLost
	}
	c.spawn(func() { // ended by the entry's outcome: applied, or raft shut down
		a, err := work()
		if err != nil {
			a = failure(err)
		}
		l.post(appendAnswer(newFrame(opAnswer, 256), a), id)
		<-l.slots
	})
	return nil
}
