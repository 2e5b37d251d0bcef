package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pogod/internal/cluster/identity"
)

const (
	raftPool = 3 // idle connections that raft keeps to a node

	// raftTimeout is how long one RPC takes at most; installing a snapshot may take that
	// for each raftScale bytes. It is also how long an accepted connection may be silent
	// in the middle of an RPC.
	raftTimeout = 5 * time.Second
	raftScale   = 4 << 20

	// raftHold is how long dialing waits for the link to a node that did not answer. After
	// failures that come quickly, one upon the other, raft would not try again for up to
	// ten seconds, and a node that restarts would be without its leader for so long.
	raftHold = time.Second
)

// transport is raft's network transport. Votes are asked for once more on a new
// connection when a kept one turns out to be dead: a voter that has restarted would else
// be missed in an election, and the election would begin anew.
type transport struct{ *raft.NetworkTransport }

func newTransport(s *stream, log *slog.Logger) transport {
	t := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger: transportLog(log), Stream: s, MaxPool: raftPool, Timeout: raftTimeout, MsgpackUseNewTimeFormat: true,
	})
	t.TimeoutScale = raftScale
	return transport{t}
}

// RequestVote implements raft.Transport.
func (t transport) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestVote(id, to, req, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestPreVote(id, to, req, resp) })
}

// again repeats a call that failed quickly on a connection, until all kept ones are used
// up. A call whose own dialing failed is not repeated.
func again(call func() error) (err error) {
	for range raftPool + 1 {
		begun := time.Now()
		err = call()
		if _, dialing := errors.AsType[*dialError](err); err == nil || dialing || time.Since(begun) > time.Second {
			return err
		}
	}
	return err
}

// dialError is an error of dialing a node.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// stream implements raft.StreamLayer over the port. Addresses are those of raftAddress.
type stream struct {
	c      *Cluster
	conns  chan *conn // unbuffered: raft takes each at once
	closed chan struct{}
	once   sync.Once
}

func newStream(c *Cluster) *stream {
	return &stream{c: c, conns: make(chan *conn), closed: make(chan struct{})}
}

// Dial implements raft.StreamLayer.
func (s *stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id := nodeAt(to)
	address := s.c.book.address(id)
	if address == "" {
		return nil, &dialError{fmt.Errorf("the address of node %s is not known", id)}
	}
	k, err := s.c.dial(address, id, identity.ProtoRaft, min(timeout, dialFor))
	if err != nil && s.c.awaitLink(id, raftHold) {
		k, err = s.c.dial(s.c.book.address(id), id, identity.ProtoRaft, min(timeout, dialFor))
	}
	if err != nil {
		return nil, &dialError{err}
	}
	return k, nil
}

// give hands an accepted connection to raft, or closes it.
func (s *stream) give(k *conn) {
	select {
	case s.conns <- k:
	case <-s.closed:
		_ = k.Close()
	}
}

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case k := <-s.conns:
		return &raftConn{conn: k}, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: raft takes no more connections.
func (s *stream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// Addr implements net.Listener: the node's id.
func (s *stream) Addr() net.Addr { return nodeAddr(s.c.cfg.Identity.Node) }

type nodeAddr string

func (nodeAddr) Network() string  { return "pogod" }
func (a nodeAddr) String() string { return string(a) }

// raftConn is a connection that raft accepted. In the middle of an RPC, from its first
// byte until its answer, the other side must not fall silent: it would hold up raft's
// only thread. Between RPCs it may: raft keeps connections for the next vote.
//
// The end of an answer is the end of the RPC, exactly: a Read returns bytes of one TLS
// record at most, and the other side begins each RPC with a record of its own, so none of
// the next has been read.
type raftConn struct {
	*conn
	inside atomic.Bool
}

func (k *raftConn) Read(p []byte) (int, error) {
	inside := k.inside.Load()
	var deadline time.Time
	if inside {
		deadline = time.Now().Add(raftTimeout)
	}
	if err := k.SetReadDeadline(deadline); err != nil {
		return 0, io.EOF // closed here
	}
	n, err := k.conn.Read(p)
	if n > 0 {
		k.inside.Store(true)
	} else if err != nil && !inside {
		err = io.EOF // a node that went away is no error, and raft would log one
	}
	return n, err
}

func (k *raftConn) Write(p []byte) (int, error) {
	if err := k.SetWriteDeadline(time.Now().Add(raftTimeout)); err != nil {
		return 0, err
	}
	n, err := k.conn.Write(p)
	k.inside.Store(false)
	return n, err
}

// transportLog hands the transport's log lines to ours: nodes that are not there are told
// of by the links.
func transportLog(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft transport", Level: hclog.Info, Output: io.Discard})
	l.RegisterSink(logSink{log})
	return l
}

type logSink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s logSink) Accept(name string, _ hclog.Level, msg string, args ...any) {
	s.log.Debug(name+": "+msg, args...)
}
