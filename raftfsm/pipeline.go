package raftfsm

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
)

// announcer is a transport that tells followers of a commit when there is something to
// tell.
//
// raft's appends carry the commit index of when they were sent, so idle followers learn
// that an entry is committed with the next append, or with an empty one that raft sends
// every CommitTimeout, moved or not: at two milliseconds that is a tenth of a processor
// for nothing. Here that time is long. Once the leader has applied an entry and sent no
// newer one, the pipeline itself sends the empty append that raft would send: at once
// when the entry has a job for some node, else a little later.
//
// Heartbeats, which the leader's lease and its followers' patience depend on, are no part
// of a pipeline.
type announcer struct {
	memberTransport
	clock clock.Clock

	mu        sync.Mutex // guards pipelines
	pipelines map[*pipeline]struct{}
}

// memberTransport is what raft looks for in a transport between members.
type memberTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

func newAnnouncer(t memberTransport, c clock.Clock) *announcer {
	return &announcer{memberTransport: t, clock: c, pipelines: map[*pipeline]struct{}{}}
}

// AppendEntriesPipeline implements raft.Transport.
func (a *announcer) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := a.memberTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, a: a, now: make(chan struct{}, 1), stop: make(chan struct{})}
	a.mu.Lock()
	a.pipelines[p] = struct{}{}
	a.mu.Unlock()
	go p.run() // ended by Close
	return p, nil
}

// applied tells that the entry with that index is committed and applied here; urgent,
// that followers wait for it. Only a leader has pipelines.
func (a *announcer) applied(index uint64, urgent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p := range a.pipelines {
		p.index.Store(index)
		switch {
		case urgent:
			signal(p.now)
		case !p.armed.Swap(true):
			a.clock.AfterFunc(announceAfter, func() {
				p.armed.Store(false)
				signal(p.now)
			})
		}
	}
}

const (
	// announceAfter is how long a commit that nobody waits for may go untold.
	announceAfter = 2 * time.Millisecond
	// quietAtMost is how long nothing is sent, so that a broken pipeline is noticed.
	quietAtMost = 100 * time.Millisecond
)

// pipeline is one of raft's, which sends on one goroutine, and takes answers on another.
type pipeline struct {
	raft.AppendPipeline
	a     *announcer
	index atomic.Uint64 // applied here
	armed atomic.Bool   // announceAfter runs
	now   chan struct{} // holds one signal: index is to be told
	stop  chan struct{}

	mu   sync.Mutex                // guards the rest, and the order of what is sent
	next raft.AppendEntriesRequest // what an empty append would be, with the commit index told last; Term is 0 before the first
	sent time.Time                 // the last append
}

// AppendEntries sends an append, unless it would say what was said last. raft does not
// look at the future of what it has sent but takes it from Consumer; what was left out
// never comes there, and counts as no contact.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.a.clock.Now()
	if len(args.Entries) == 0 && args.Term == p.next.Term && args.PrevLogEntry == p.next.PrevLogEntry &&
		args.LeaderCommitIndex <= p.next.LeaderCommitIndex && now.Sub(p.sent) < quietAtMost {
		return nil, nil //nolint:nilnil // see above
	}
	told := p.next.LeaderCommitIndex
	p.next, p.sent = *args, now
	p.next.Entries = nil
	p.next.LeaderCommitIndex = max(args.LeaderCommitIndex, told)
	if n := len(args.Entries); n > 0 {
		p.next.PrevLogEntry, p.next.PrevLogTerm = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	return p.AppendPipeline.AppendEntries(args, resp)
}

// announce tells what is committed. When an entry was sent since, there is no need: it
// will be applied, too, or the next append tells. raft gets the answer as to any of its
// own appends.
func (p *pipeline) announce() {
	index := p.index.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next.Term == 0 || p.next.LeaderCommitIndex >= index || p.next.PrevLogEntry > index {
		return
	}
	p.next.LeaderCommitIndex, p.sent = index, p.a.clock.Now()
	args := p.next
	_, _ = p.AppendPipeline.AppendEntries(&args, new(raft.AppendEntriesResponse)) // raft's next one fails, too
}

func (p *pipeline) run() {
	for {
		select {
		case <-p.now:
			p.announce()
		case <-p.stop:
			return
		}
	}
}

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.a.mu.Lock()
	if _, open := p.a.pipelines[p]; open {
		delete(p.a.pipelines, p)
		close(p.stop)
	}
	p.a.mu.Unlock()
	return p.AppendPipeline.Close()
}
