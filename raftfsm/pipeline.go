package raftfsm

import (
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
)

// quiet is a transport whose pipelines leave out what says nothing new.
//
// raft tells idle followers the commit index by empty appends, one each commitTimeout,
// whether it has moved or not: at two milliseconds that is a tenth of a processor for
// nothing. Heartbeats, which the leader's lease and its followers' patience depend on,
// are no part of a pipeline.
type quiet struct {
	memberTransport
	clock clock.Clock
}

// memberTransport is what raft looks for in a transport between members.
type memberTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// AppendEntriesPipeline implements raft.Transport.
func (q quiet) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := q.memberTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return &quietPipeline{AppendPipeline: p, clock: q.clock}, nil
}

// quietAtMost is how long nothing is sent, so that a broken pipeline is noticed.
const quietAtMost = 100 * time.Millisecond

// quietPipeline belongs to one goroutine of raft, as every pipeline.
type quietPipeline struct {
	raft.AppendPipeline
	clock clock.Clock
	sent  time.Time // zero: nothing yet
	prev  uint64    // the entry after which the last append was
	last  uint64    // the commit index that it told
}

// AppendEntries sends an append unless it would say what the last one said. raft does not
// look at the future of what it has sent, but takes it from Consumer; what was left out
// never comes there, and counts as no contact.
func (p *quietPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	now := p.clock.Now()
	if len(args.Entries) == 0 && args.PrevLogEntry == p.prev && args.LeaderCommitIndex == p.last && !p.sent.IsZero() && now.Sub(p.sent) < quietAtMost {
		return nil, nil //nolint:nilnil // see above
	}
	p.sent, p.prev, p.last = now, args.PrevLogEntry, args.LeaderCommitIndex
	if n := len(args.Entries); n > 0 {
		p.prev = 0 // the next comes after these
	}
	return p.AppendPipeline.AppendEntries(args, resp)
}
