package leader

import (
	"math"
	"slices"

	"pogod/internal/command"
	"pogod/raftfsm"
)

// laterShare is how often a later queue of a pool is served before the earlier ones, so
// that none starves: once in so many entries with Reserves for pools of that name.
const laterShare = 8

// table is where one assignment is made. Its slices are used again.
type table struct {
	round  uint64
	seats  []seat
	wanted []*session // of deal: who has threads for a queue
	grants []grant
}

// seat is a pool of a session with free threads. Seats of a session stand together, and
// sessions in the order in which equal ones are served: this node's first, which learns
// of a commit first, then in turns.
type seat struct {
	session *session
	pool    *pool
	queues  []*lot // from the first that may have jobs, in the worker's order
	later   *lot   // the later queue whose turn it is
	turn    int
	free    int
}

// grant is a Reserve to be.
type grant struct {
	session *session
	pool    *pool
	queue   *lot
	n, old  int // as of proposal
}

func (t *lot) left() int { return t.pushed + t.ready }

// assign adds Reserves for what is ready, counting what the entry itself pushes, to
// commands. mu is held.
func (l *Leader) assign(commands []byte, pushes []raftfsm.QueueCount) extra {
	x := extra{commands: commands}
	if !l.unbroken() {
		return x
	}
	b := l.book
	l.seat(pushes)
	b.dealLater()
	for queue := b.next(); queue != nil; queue = b.next() {
		b.deal(queue)
	}
	if len(b.table.grants) == 0 {
		return x
	}
	x.proposals = make([]proposal, len(b.table.grants))
	for i, g := range b.table.grants {
		c := command.Command{Op: command.Reserve, Session: g.session.id, Queue: g.queue.queue, Pool: g.pool.name, Count: uint64(g.n)}
		enc, err := c.Append(x.commands)
		if err != nil { // too large: names are bounded, so never
			x.proposals = x.proposals[:i]
			break
		}
		x.commands = enc
		p := &x.proposals[i]
		*p = proposal{session: g.session, pool: g.pool.name, queue: g.queue, n: g.n, old: g.old}
		g.session.proposals = append(g.session.proposals, p)
		g.pool.spent += g.n
		g.queue.claimed += g.old
	}
	l.commands = x.commands
	return x
}

// room is how many jobs an entry may reserve for the pool.
func (p *pool) room() int { return min(p.free-p.spent, command.MaxRecords) }

// seat lays the table: who has free threads, and what is ready for them. mu is held.
func (l *Leader) seat(pushes []raftfsm.QueueCount) {
	b := l.book
	t := &b.table
	t.round++
	t.seats, t.grants = t.seats[:0], t.grants[:0]
	for rank := range 3 {
		for _, s := range b.sessions {
			if s.rank(b.last) != rank || s.ending {
				continue
			}
			for i := range s.pools {
				if p := &s.pools[i]; p.room() > 0 {
					t.seats = append(t.seats, seat{session: s, pool: p, queues: p.queues, free: p.room(), turn: *p.turns + 1})
				}
			}
		}
	}
	for i := range t.seats {
		s := &t.seats[i]
		for _, q := range s.queues {
			if q.round != t.round {
				q.round, q.pushed = t.round, 0
				q.ready = max(int(min(l.cfg.State.Ready(q.queue), math.MaxInt32))-q.claimed, 0)
			}
		}
		if k := len(s.queues); k > 1 && s.turn%laterShare == 0 {
			s.later = s.queues[1+(s.turn/laterShare)%(k-1)]
		}
	}
	for _, p := range pushes {
		if q := b.queues[p.Queue]; q != nil && !l.cfg.State.Paused(p.Queue) {
			q.pushed += p.Count
		}
	}
}

// rank orders sessions that are equal: behind the last that was served come those after
// it, by id, and then the others.
func (s *session) rank(last uint64) int {
	switch {
	case s.own:
		return 0
	case s.id > last:
		return 1
	}
	return 2
}

// dealLater gives each pool whose turn it is a job of a later queue; the freest first.
func (b *book) dealLater() {
	for {
		var freest *seat
		for i := range b.table.seats {
			s := &b.table.seats[i]
			if s.later != nil && s.later.left() > 0 && (freest == nil || s.free > freest.free) {
				freest = s
			}
		}
		if freest == nil {
			return
		}
		b.grant(freest, freest.later, 1)
		freest.later = nil
		b.served(freest.session)
	}
}

// next returns the queue to deal next, nil when no free thread has a job. A pool takes
// no job of a queue while one that it serves earlier has jobs; the queues that pools still
// have to come to are left for later, so that all who serve a queue share it.
func (b *book) next() *lot {
	seats := b.table.seats
	for i := range seats {
		s := &seats[i]
		for len(s.queues) > 0 && s.queues[0].left() == 0 {
			s.queues = s.queues[1:]
		}
	}
	var first *lot
	for i := range seats {
		s := &seats[i]
		if s.free == 0 || len(s.queues) == 0 {
			continue
		}
		queue := s.queues[0]
		if !slices.ContainsFunc(seats, func(s seat) bool {
			return s.free > 0 && len(s.queues) > 1 && slices.Contains(s.queues[1:], queue)
		}) {
			return queue
		}
		if first == nil {
			first = queue // for pools that serve the same queues in different orders
		}
	}
	return first
}

// deal hands out the jobs of a queue.
func (b *book) deal(queue *lot) {
	t := &b.table
	t.wanted = t.wanted[:0]
	free := 0
	for i := range t.seats {
		s := &t.seats[i]
		if !s.wants(queue) {
			continue
		}
		if k := len(t.wanted); k == 0 || t.wanted[k-1] != s.session {
			s.session.free, s.session.take = 0, 0
			t.wanted = append(t.wanted, s.session)
		}
		s.session.free += s.free
		free += s.free
	}
	b.share(min(queue.left(), free))
	for i := range t.seats {
		if s := &t.seats[i]; s.session.take > 0 && s.wants(queue) {
			n := min(s.free, s.session.take)
			s.session.take -= n
			b.grant(s, queue, n)
		}
	}
}

func (s *seat) wants(queue *lot) bool {
	return s.free > 0 && len(s.queues) > 0 && s.queues[0] == queue
}

// share divides n jobs, at most as many as there are free threads: each goes to the
// session with the most threads left, of several to the first. All that are equally free
// get so many at once that they come down to the next, or the rest, one each.
func (b *book) share(n int) {
	for n > 0 {
		most, next, equal := 0, 0, 0
		for _, s := range b.table.wanted {
			switch {
			case s.free > most:
				most, next, equal = s.free, most, 1
			case s.free == most:
				equal++
			case s.free > next:
				next = s.free
			}
		}
		each := min(n/equal, most-next)
		for _, s := range b.table.wanted {
			if s.free != most || n == 0 {
				continue
			}
			k := max(each, 1)
			s.free -= k
			s.take += k
			if n -= k; each == 0 {
				b.served(s)
			}
		}
	}
}

// served notes who was preferred to its equals.
func (b *book) served(s *session) {
	if !s.own {
		b.last = s.id
	}
}

// grant gives n jobs of a queue to a seat, those that the entry pushes first.
func (b *book) grant(s *seat, queue *lot, n int) {
	old := max(n-queue.pushed, 0)
	queue.pushed -= n - old
	queue.ready -= old
	s.free -= n
	*s.pool.turns = s.turn
	t := &b.table
	for i := range t.grants {
		if g := &t.grants[i]; g.pool == s.pool && g.queue == queue {
			g.n += n
			g.old += old
			return
		}
	}
	t.grants = append(t.grants, grant{s.session, s.pool, queue, n, old})
}
