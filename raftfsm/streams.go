package raftfsm

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/storage"
)

// Stream is a data file on its way from one node to another.
type Stream struct {
	Peer    string // the other node; "" when it is not known
	Sending bool   // else it is received
	Bytes   int64  // so far
	Total   int64  // 0: not known yet
	Since   time.Time
}

// heldFor is how long after a stream the log is kept for the member that got it, at most:
// one that never follows again must not make the log grow for ever.
const heldFor = 30 * time.Second

// errCut ends a stream that did not come to its end.
var errCut = errors.New("raftfsm: the stream was cut off")

// streams are the data files on their way, and the members for which the log is kept.
//
// While a stream runs, and until its receiver follows the log again, no snapshot is taken:
// it would cut off the very entries that the receiver needs next, and the file would have
// to be sent again, without end.
type streams struct {
	clock clock.Clock
	log   *slog.Logger

	mu       sync.Mutex // guards the rest
	active   []*stream
	held     map[string]time.Time // members that got a whole stream, until when
	sent     uint64               // whole streams, since the start
	received uint64
}

// stream is one of them. peer is guarded by streams.mu.
type stream struct {
	peer    string
	sending bool
	bytes   atomic.Int64
	total   atomic.Int64
	since   time.Time
}

func newStreams(c clock.Clock, log *slog.Logger) *streams {
	return &streams{clock: c, log: log, held: map[string]time.Time{}}
}

func (s *streams) begin(t *stream) {
	t.since = s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = append(s.active, t)
}

// end takes a stream out, once; err is nil when it was whole.
func (s *streams) end(t *stream, err error) {
	s.mu.Lock()
	i := slices.Index(s.active, t)
	if i < 0 {
		s.mu.Unlock()
		return
	}
	s.active = slices.Delete(s.active, i, i+1)
	switch { // who has got a part of a file needs another whole one, and no entries
	case err == nil && t.sending:
		s.sent++
		if t.peer != "" {
			s.held[t.peer] = s.clock.Now().Add(heldFor)
		}
	case err == nil:
		s.received++
	}
	peer := t.peer
	s.mu.Unlock()
	text := "the data file was received from another node"
	if t.sending {
		text = "the data file was sent to another node"
	}
	attrs := []any{"bytes", t.bytes.Load(), "took", s.clock.Now().Sub(t.since).Round(time.Millisecond)}
	if peer != "" {
		attrs = append(attrs, "node", peer)
	}
	if err != nil {
		s.log.Warn("a stream of the data file did not come to its end; it is begun anew if it is needed", append(attrs, "sending", t.sending, "reason", err)...)
		return
	}
	s.log.Info(text, attrs...)
}

// to names the node that a stream goes to.
func (s *streams) to(t *stream, peer string) {
	s.mu.Lock()
	t.peer = peer
	s.mu.Unlock()
	s.log.Info("the data file is sent to a node that lags behind the log", "node", peer, "bytes", t.total.Load())
}

// from names the node that a stream comes from.
func (s *streams) from(t *stream, peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.peer = peer
}

// follows notes that a member takes entries as they come.
func (s *streams) follows(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, peer)
}

// holding reports whether the log is to be kept as it is.
func (s *streams) holding() bool {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for peer, until := range s.held {
		if now.After(until) {
			delete(s.held, peer)
		}
	}
	return len(s.held) > 0 || slices.ContainsFunc(s.active, func(t *stream) bool { return t.sending })
}

// all returns the streams that run, and how many have come to their end.
func (s *streams) all() (running []Stream, sent, received uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.active {
		running = append(running, Stream{t.peer, t.sending, t.bytes.Load(), t.total.Load(), t.since})
	}
	return running, s.sent, s.received
}

// outgoing is a copy as raft reads it. Close ends it.
type outgoing struct {
	*io.PipeReader
	s *streams
	t *stream
}

// send begins a stream of a copy, which it closes.
func (s *streams) send(c *storage.Copy) *outgoing {
	t := &stream{sending: true}
	t.total.Store(c.Size())
	s.begin(t)
	r, w := io.Pipe()
	go func() { // ended by the end of the copy, or by Close
		_, err := c.WriteTo(counting{w, &t.bytes})
		err = errors.Join(err, c.Close())
		_ = w.CloseWithError(err) // nil: the end; never fails
	}()
	return &outgoing{r, s, t}
}

// Close implements io.Closer.
func (o *outgoing) Close() error {
	err := o.PipeReader.Close()
	var end error
	if o.t.bytes.Load() < o.t.total.Load() {
		end = errCut
	}
	o.s.end(o.t, end)
	return err
}

type counting struct {
	io.Writer
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// incoming is a stream that is received.
type incoming struct {
	*storage.Incoming
	s *streams
	t *stream
}

func (s *streams) receive(path string) (*incoming, error) {
	in, err := storage.Receive(path)
	if err != nil {
		return nil, err
	}
	t := &stream{}
	s.begin(t)
	s.log.Info("this node lags behind the log and is sent the data file")
	return &incoming{in, s, t}, nil
}

func (i *incoming) Write(p []byte) (int, error) {
	n, err := i.Incoming.Write(p)
	i.t.bytes.Store(i.Received())
	i.t.total.Store(i.Total())
	return n, err
}

func (i *incoming) finished() { i.s.end(i.t, nil) }

func (i *incoming) drop(err error) error {
	i.s.end(i.t, err)
	return i.Cancel()
}

// streamed is a transport that tells streams who gets them, and who follows.
type streamed struct {
	memberTransport
	streams *streams
}

// InstallSnapshot implements raft.Transport.
func (t streamed) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if o, ok := data.(*outgoing); ok {
		t.streams.to(o.t, string(id))
	}
	return t.memberTransport.InstallSnapshot(id, to, args, resp, data)
}

// AppendEntriesPipeline implements raft.Transport. raft opens one when the member has all
// entries that there were a moment ago.
func (t streamed) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.memberTransport.AppendEntriesPipeline(id, to)
	if err == nil {
		t.streams.follows(string(id))
	}
	return p, err
}
