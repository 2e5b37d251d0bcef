package leader

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"pogod/internal/command"
	"pogod/raftfsm"
)

// seatOf names a pool of a session.
type seatOf struct {
	session uint64
	pool    string
}

// world is a group of nodes around the leader: a log, the state that it makes, and nodes
// that see the state late and say late what is free.
type world struct {
	*bench
	t       *rapid.T
	waiting sync.WaitGroup // for outcomes

	last   uint64 // session
	held   map[seatOf]int
	jobs   map[seatOf]map[string]int // of held, by queue
	flying []*flying
	nodes  []*worldNode
	offers []Credits // on their way
}

// flying is an entry on its way.
type flying struct {
	*entry
	sent batch
}

// batch is what a node's batch does.
type batch struct {
	session  uint64
	push     raftfsm.QueueCount
	finished seatOf
}

type worldNode struct {
	name    string
	session uint64
	pools   []Pool // Free is how many threads there are
	seen    uint64 // index
	held    map[string]int
}

var worldQueues = []string{"a", "b", "c"}

func newWorld(outer *testing.T, t *rapid.T) *world {
	w := &world{bench: newBenchTTL(outer, ttl), t: t, last: 10, held: map[seatOf]int{}, jobs: map[seatOf]map[string]int{}}
	w.state.set(func() { w.state.sessions, w.state.applied = map[uint64]string{}, w.index })
	for i, name := range []string{"own", "a", "b"} {
		n := &worldNode{name: name}
		for _, pool := range []string{"p", "o"}[:rapid.IntRange(1, 2).Draw(t, "pools")] {
			queues := rapid.Permutation(worldQueues).Draw(t, "queues")[:rapid.IntRange(1, 3).Draw(t, "served")]
			n.pools = append(n.pools, Pool{Name: pool, Queues: queues, Free: rapid.IntRange(1, 5).Draw(t, "threads")})
		}
		w.nodes = append(w.nodes, n)
		w.begin(i)
	}
	return w
}

// begin gives a node a new session, as its opening does when it is applied.
func (w *world) begin(i int) {
	n := w.nodes[i]
	w.end(n.session)
	w.last++
	n.session, n.seen, n.held = w.last, 0, nil
	w.state.set(func() { w.state.sessions[n.session] = n.name })
}

// end ends a session: what it holds is ready again.
func (w *world) end(session uint64) {
	w.state.set(func() {
		delete(w.state.sessions, session)
		for at, jobs := range w.jobs {
			if at.session == session {
				for q, n := range jobs {
					w.state.ready[q] += uint64(n)
				}
				delete(w.jobs, at)
				delete(w.held, at)
			}
		}
	})
	for _, n := range w.nodes {
		if n.session == session {
			n.session = 0
		}
	}
}

func (w *world) live(session uint64) bool {
	return session != 0 && slices.ContainsFunc(w.nodes, func(n *worldNode) bool { return n.session == session })
}

func (w *world) threads(at seatOf) int {
	for _, n := range w.nodes {
		for _, p := range n.pools {
			if n.session == at.session && p.Name == at.pool {
				return p.Free
			}
		}
	}
	return 0
}

// reserve does what a Reserve does when it is applied.
func (w *world) reserve(at seatOf, queue string, n int) (got int) {
	if !w.live(at.session) {
		return 0
	}
	w.state.set(func() {
		got = min(n, int(w.state.ready[queue]))
		w.state.ready[queue] -= uint64(got)
	})
	w.held[at] += got
	if w.jobs[at] == nil {
		w.jobs[at] = map[string]int{}
	}
	w.jobs[at][queue] += got
	if w.held[at] > w.threads(at) {
		w.t.Fatalf("entry %d: %+v holds %d jobs and has %d threads", w.index, at, w.held[at], w.threads(at))
	}
	return got
}

// finish ends a job that a session holds.
func (w *world) finish(at seatOf) {
	for q, n := range w.jobs[at] {
		if n > 0 {
			w.jobs[at][q]--
			w.held[at]--
			return
		}
	}
}

// take takes the entries that were proposed, and checks that they ask for no more than
// there will be when they are applied.
func (w *world) take(sent batch) {
	w.settle()
	for {
		select {
		case e := <-w.raft.entries:
			f := &flying{entry: e}
			if e.batch != "" {
				f.sent = sent
			}
			w.flying = append(w.flying, f)
			w.check(f)
		default:
			return
		}
	}
}

func (w *world) check(f *flying) {
	ready := map[string]int{}
	for _, q := range worldQueues {
		ready[q] = int(w.state.Ready(q))
	}
	held := maps.Clone(w.held)
	for _, x := range w.flying {
		ready[x.sent.push.Queue] += x.sent.push.Count
		for _, c := range x.commands {
			if c.Op == command.Reserve && w.live(c.Session) {
				ready[c.Queue] -= int(c.Count)
				held[seatOf{c.Session, c.Pool}] += int(c.Count)
			}
		}
	}
	seen := map[string]bool{}
	for _, c := range f.commands {
		if c.Op != command.Reserve {
			continue
		}
		if k := fmt.Sprint(c.Session, c.Pool, c.Queue); seen[k] {
			w.t.Fatalf("two Reserves of one entry for %s", k)
		} else {
			seen[k] = true
		}
		at := seatOf{c.Session, c.Pool}
		if w.live(c.Session) && held[at] > w.threads(at) {
			w.t.Fatalf("%+v: %d jobs for %d threads, with those on their way", c, held[at], w.threads(at))
		}
		if ready[c.Queue] < 0 {
			w.t.Fatalf("%+v: %d more than there will be", c, -ready[c.Queue])
		}
	}
}

// commit applies the next entry; err is what raft answers although it was applied.
func (w *world) commit(err error) {
	f := w.flying[0]
	w.flying = w.flying[1:]
	w.index++
	if p := f.sent.push; w.live(f.sent.session) {
		w.state.set(func() { w.state.ready[p.Queue] += uint64(p.Count) })
		w.finish(f.sent.finished)
	}
	var results []command.Result
	for _, c := range f.commands {
		r := command.Result{Code: command.Accepted}
		switch c.Op {
		case command.Reserve:
			r.Count = uint64(w.reserve(seatOf{c.Session, c.Pool}, c.Queue, int(c.Count)))
		case command.EndSession:
			w.end(c.Session)
		case command.OpenSession:
			w.begin(slices.IndexFunc(w.nodes, func(n *worldNode) bool { return n.name == c.Node }))
			r.Session = w.last
		}
		results = append(results, r)
	}
	w.state.set(func() { w.state.applied = w.index })
	if err != nil {
		f.resolve(nil, err)
		return
	}
	f.resolve(&raftfsm.Outcome{Index: w.index, Leader: results}, nil)
}

func (w *world) submit(b batch) {
	var pushes []raftfsm.QueueCount
	if b.push.Count > 0 {
		pushes = append(pushes, b.push)
	}
	wait := w.Submit(command.AppendBatch(nil, command.Batch{Session: b.session, Number: 1}), pushes)
	w.waiting.Go(func() { _, _ = wait() }) // ended by the outcome
	w.take(b)
}

// see shows a node the state of now.
func (w *world) see(n *worldNode) {
	n.seen, n.held = w.index, map[string]int{}
	for _, p := range n.pools {
		n.held[p.Name] = w.held[seatOf{n.session, p.Name}]
	}
}

// offer sends what a node believes to be free.
func (w *world) offer(n *worldNode, follows bool) {
	if n.session == 0 || n.held == nil {
		return
	}
	c := Credits{Session: n.session, Applied: n.seen, Follows: follows}
	for _, p := range n.pools {
		p.Free -= n.held[p.Name]
		c.Pools = append(c.Pools, p)
	}
	w.offers = append(w.offers, c)
}

func (w *world) deliver(i int) {
	c := w.offers[i]
	w.offers = slices.Delete(w.offers, i, i+1)
	w.Offer(c)
}

func (w *world) node() *worldNode { return rapid.SampledFrom(w.nodes).Draw(w.t, "node") }

// another is a time in which another node leads: some of what is on its way is applied,
// the rest lost, and others reserve for the threads that are free.
func (w *world) another(elected bool) {
	told := rapid.Bool().Draw(w.t, "deposition told")
	if told && elected {
		w.raft.lead <- false
	}
	for range rapid.IntRange(0, len(w.flying)).Draw(w.t, "applied") {
		w.commit(raft.ErrLeadershipLost)
	}
	for _, f := range w.flying {
		f.resolve(nil, raft.ErrNotLeader)
	}
	w.flying = nil
	if told && elected {
		w.until("it does not lead", func() bool { return !w.Leading() })
	}
	for range rapid.IntRange(0, 6).Draw(w.t, "entries of another leader") {
		w.index++
		n, queue := w.node(), rapid.SampledFrom(worldQueues).Draw(w.t, "queue")
		w.state.set(func() { w.state.ready[queue] += uint64(rapid.IntRange(0, 3).Draw(w.t, "pushes")) })
		for _, p := range n.pools {
			at := seatOf{n.session, p.Name}
			if free := p.Free - w.held[at]; n.session != 0 && free > 0 && slices.Contains(p.Queues, queue) {
				w.reserve(at, queue, rapid.IntRange(1, free).Draw(w.t, "reserved"))
			}
		}
		w.state.set(func() { w.state.applied = w.index })
		if rapid.Bool().Draw(w.t, "seen") {
			w.see(n)
		}
		w.offer(n, true)
		if rapid.Bool().Draw(w.t, "offered to this one") && len(w.offers) > 0 {
			w.deliver(len(w.offers) - 1)
		}
	}
	w.raft.lead <- true
	barrier := w.barrier()
	for len(w.raft.entries) > 0 { // before it knew
		(<-w.raft.entries).resolve(nil, raft.ErrNotLeader)
	}
	w.offer(w.node(), true)
	for len(w.offers) > 0 && rapid.Bool().Draw(w.t, "offered meanwhile") {
		w.deliver(0)
	}
	barrier.resolve(nil, nil)
	w.until("it leads", w.Leading)
	turn := rapid.IntRange(0, 2*laterShare).Draw(w.t, "turn") // no run is long enough to come to a later queue's
	w.mu.Lock()
	*entryOf(w.book.turns, "p") = turn
	w.mu.Unlock()
	w.take(batch{})
}

// idle returns a pool that has a free thread and a job for it.
func (w *world) idle() string {
	for _, n := range w.nodes {
		for _, p := range n.pools {
			for _, q := range p.Queues {
				if n.session != 0 && w.held[seatOf{n.session, p.Name}] < p.Free && w.state.Ready(q) > 0 {
					return fmt.Sprintf("pool %s of node %s could take a job of %s", p.Name, n.name, q)
				}
			}
		}
	}
	return ""
}

// Whatever nodes say, however late, and whoever leads meanwhile: no pool holds, with what
// is on its way, more jobs than it has threads, nobody is promised what is not there, and
// in the end no thread is free that could have a job.
func TestReservesNeverExceedCreditsAndNoThreadIsForgotten(outer *testing.T) {
	outer.Parallel()
	rapid.Check(outer, func(t *rapid.T) {
		w := newWorld(outer, t)
		defer w.waiting.Wait()
		defer w.stop()
		w.another(false)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				q := raftfsm.QueueCount{Queue: rapid.SampledFrom(worldQueues).Draw(t, "queue"), Count: rapid.IntRange(1, 6).Draw(t, "jobs")}
				w.submit(batch{session: w.node().session, push: q})
			},
			"finish": func(t *rapid.T) {
				n := w.node()
				p := rapid.SampledFrom(n.pools).Draw(t, "pool")
				at := seatOf{n.session, p.Name}
				if n.held[p.Name] > 0 {
					w.submit(batch{session: n.session, finished: at})
				}
			},
			"apply": func(t *rapid.T) {
				for range rapid.IntRange(0, len(w.flying)).Draw(t, "entries") {
					w.commit(nil)
				}
				w.take(batch{})
			},
			"fail": func(t *rapid.T) {
				if len(w.flying) > 0 {
					i := rapid.IntRange(0, len(w.flying)-1).Draw(t, "entry")
					w.flying[i].resolve(nil, raft.ErrEnqueueTimeout)
					w.flying = slices.Delete(w.flying, i, i+1)
				}
			},
			"see":   func(*rapid.T) { w.see(w.node()) },
			"offer": func(*rapid.T) { w.offer(w.node(), false) },
			"deliver": func(t *rapid.T) {
				if len(w.offers) > 0 {
					w.deliver(rapid.IntRange(0, len(w.offers)-1).Draw(t, "offer"))
					w.take(batch{})
				}
			},
			"open": func(*rapid.T) {
				n := w.node()
				w.waiting.Go(func() { _, _ = w.OpenSession(n.name, 1) }) // ended by the outcome
				e := w.entry()
				w.flying = append(w.flying, &flying{entry: e})
				w.check(w.flying[len(w.flying)-1])
				w.take(batch{})
			},
			"time": func(t *rapid.T) {
				w.pass(ttl / lookEvery * 3)
				w.take(batch{})
			},
			"another leader": func(*rapid.T) { w.another(true) },
		})
		for range 100 {
			for len(w.flying) > 0 {
				w.commit(nil)
				w.take(batch{})
			}
			for i, n := range w.nodes {
				if n.session == 0 {
					w.index++
					w.begin(i)
					w.state.set(func() { w.state.applied = w.index })
				}
				w.see(n)
				w.offer(n, false)
				w.deliver(len(w.offers) - 1)
			}
			w.take(batch{})
			if len(w.flying) > 0 {
				continue
			}
			why := w.idle()
			if why == "" {
				return
			}
			select {
			case e := <-w.raft.entries:
				w.flying = append(w.flying, &flying{entry: e})
			case <-time.After(patience):
				t.Fatal(why)
			}
		}
		t.Fatal("jobs are reserved for ever")
	})
}
