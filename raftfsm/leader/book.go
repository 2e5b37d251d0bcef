package leader

import (
	"cmp"
	"slices"
	"time"
)

// book is what the leader knows beyond the state. What is answered late, of entries of an
// earlier leadership, is noted in the book of that one, which nobody reads any more.
type book struct {
	sessions []*session      // by id: the live ones, and until the next prune some that are not
	queues   map[string]*lot // those that pools name
	turns    map[string]*int // by pool: entries with Reserves for it, for the share of later queues
	last     uint64          // the session that one of several equal ones was left behind for, see seat
	floor    uint64          // credits of before it say nothing: an earlier leader may have given them away

	table table // of assign
}

// session is a node's session as the leader knows it.
type session struct {
	id        uint64
	own       bool   // of this node
	applied   uint64 // of its credits
	pools     []pool // its credits
	proposals []*proposal

	counts bool          // heard says something; otherwise it is to be counted from the next look
	heard  time.Duration // Mono, when a batch of it came last
	batch  uint64        // the number of the entry that carries it, see Leader.given
	ending bool          // an EndSession is under way

	free, take int // of deal
}

// pool is what is left of a pool's credits.
type pool struct {
	name   string
	queues []*lot
	turns  *int
	free   int
	spent  int // of free, by proposals
}

// lot is the ready jobs of a queue.
type lot struct {
	queue   string
	claimed int // ready jobs that Reserves on their way will take

	round  uint64 // the assignment that the rest is of
	pushed int    // jobs that its entry pushes and nobody has
	ready  int    // jobs that were ready before and nobody has
}

// proposal is a Reserve that was proposed and that its session's credits do not show yet.
type proposal struct {
	session *session
	pool    string
	queue   *lot
	n       int
	old     int    // of n, jobs that its own entry does not push
	index   uint64 // of its entry; 0 until it is applied
}

func newBook() *book {
	return &book{queues: map[string]*lot{}, turns: map[string]*int{}}
}

// find returns where a session is, or would be.
func (b *book) find(id uint64) (i int, ok bool) {
	return slices.BinarySearchFunc(b.sessions, id, func(s *session, id uint64) int { return cmp.Compare(s.id, id) })
}

// session returns what is known of a session; a new one may be of this node or not.
func (b *book) session(id uint64) (s *session, known bool) {
	i, known := b.find(id)
	if !known {
		b.sessions = slices.Insert(b.sessions, i, &session{id: id})
	}
	return b.sessions[i], known
}

// live notes that a session is live and of a node; own says whether of this one.
func (b *book) live(id uint64, own bool) *session {
	s, _ := b.session(id)
	s.own = own
	return s
}

// begin forgets the credits of before floor.
func (b *book) begin(floor uint64) {
	b.floor = floor
	for _, s := range b.sessions {
		if s.applied < floor {
			s.pools = nil
		}
	}
}

// credit notes what a session says, and forgets the proposals that it has seen.
func (b *book) credit(s *session, c Credits) {
	s.applied = c.Applied
	s.proposals = slices.DeleteFunc(s.proposals, func(p *proposal) bool { return p.index != 0 && p.index <= c.Applied })
	if len(s.pools) != len(c.Pools) {
		s.pools = make([]pool, len(c.Pools))
	}
	for i := range c.Pools {
		said, p := &c.Pools[i], &s.pools[i]
		if p.turns == nil || p.name != said.Name {
			p.name, p.turns = said.Name, entryOf(b.turns, said.Name)
		}
		if !slices.EqualFunc(p.queues, said.Queues, func(t *lot, queue string) bool { return t.queue == queue }) {
			p.queues = nil
			for _, queue := range said.Queues {
				t := entryOf(b.queues, queue)
				t.queue = queue
				p.queues = append(p.queues, t)
			}
		}
		p.free, p.spent = said.Free, 0
	}
	for _, p := range s.proposals {
		s.spend(p.pool, p.n)
	}
}

func entryOf[T any](m map[string]*T, key string) *T {
	if m[key] == nil {
		m[key] = new(T)
	}
	return m[key]
}

// hear notes a sign of life.
func (s *session) hear(mono time.Duration) { s.counts, s.heard = true, mono }

func (s *session) spend(pool string, n int) {
	for i := range s.pools {
		if p := &s.pools[i]; p.name == pool {
			p.spent += n
			return
		}
	}
}

// settle notes how many jobs a proposal got; index is that of its entry.
func (p *proposal) settle(index uint64, got int) {
	s := p.session
	p.unclaim()
	s.spend(p.pool, got-p.n)
	p.index, p.n = index, got
	if i := slices.Index(s.proposals, p); i >= 0 && (got == 0 || index <= s.applied) {
		s.spend(p.pool, -got)
		s.proposals = slices.Delete(s.proposals, i, i+1)
	}
}

// unclaim leaves the ready jobs of a queue that a proposal was to take to others.
func (p *proposal) unclaim() {
	p.queue.claimed -= p.old
	p.old = 0
}

// Offer takes a node's credits.
func (l *Leader) Offer(c Credits) {
	l.mu.Lock()
	s, known := l.book.session(c.Session)
	if !known {
		node, ok := l.cfg.State.Sessions()[c.Session]
		s.own = ok && node == l.cfg.Node
	}
	if c.Applied < max(s.applied, l.book.floor) {
		l.mu.Unlock()
		return // overtaken
	}
	l.book.credit(s, c)
	l.mu.Unlock()
	if !c.Follows {
		l.signal()
	}
}

// prune forgets the sessions that have ended, with their credits and proposals.
func (l *Leader) prune() {
	live := l.cfg.State.Sessions()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retain(live)
}

// retain forgets all sessions but the live ones, and returns these. mu is held.
func (l *Leader) retain(live map[uint64]string) map[uint64]string {
	again := false
	l.book.sessions = slices.DeleteFunc(l.book.sessions, func(s *session) bool {
		if _, ok := live[s.id]; ok {
			return false
		}
		if !again { // one may have been opened since
			live, again = l.cfg.State.Sessions(), true
		}
		_, ok := live[s.id]
		if !ok {
			for _, p := range s.proposals {
				p.unclaim()
			}
			s.proposals, s.pools = nil, nil
		}
		return !ok
	})
	return live
}
