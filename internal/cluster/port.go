package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"pogod/internal/cluster/identity"
)

const (
	handshakeFor = 5 * time.Second // an accepted connection's TLS handshake
	handshakes   = 256             // at once; more wait in the listener's queue
	joins        = 16              // at once; who joins has no certificate, so more are closed
	dialFor      = 2 * time.Second // TCP and TLS. Behind a partition that has healed a new SYN is out within a second
	refusedEvery = 10 * time.Second
	refreshEvery = 3 * time.Second // how often the files of the node's certificate are looked at
)

// conn is a connection of the port, accepted or dialed, whose handshake has ended.
type conn struct {
	*tls.Conn
	node string // the other side's id, from its certificate; "" for a node that joins
	c    *Cluster
}

// Close ends the connection without a word: saying goodbye would wait for a peer that
// does not read.
func (k *conn) Close() error { return k.c.drop(k.NetConn()) }

// keep notes an open connection for Close; false when that has begun.
func (c *Cluster) keep(nc net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = nc.Close()
		return false
	}
	c.conns[nc] = struct{}{}
	return true
}

func (c *Cluster) drop(nc net.Conn) error {
	c.mu.Lock()
	delete(c.conns, nc)
	c.mu.Unlock()
	return nc.Close()
}

// dial connects to the node with that id, or to any of the cluster if it is "".
func (c *Cluster) dial(address, id, proto string, timeout time.Duration) (*conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if !c.keep(nc) {
		return nil, net.ErrClosed
	}
	k := &conn{Conn: tls.Client(nc, c.cfg.Identity.ClientTLS(id, proto)), c: c}
	if err = k.HandshakeContext(ctx); err == nil {
		k.node, err = c.cfg.Identity.Peer(k.ConnectionState())
	}
	if err != nil {
		_ = k.Close()
		return nil, err
	}
	return k, nil
}

// accept takes connections until Close.
func (c *Cluster) accept() {
	config := c.cfg.Identity.ServerTLS()
	slots := make(chan struct{}, handshakes)
	for {
		nc, err := c.cfg.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			c.cfg.Log.Warn("the cluster port cannot accept", "error", err)
			c.pause(100*time.Millisecond, nil) // out of descriptors: others may be closed meanwhile
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-c.ctx.Done():
			_ = nc.Close()
			return
		}
		if !c.keep(nc) {
			return
		}
		k := &conn{Conn: tls.Server(nc, config), c: c}
		c.spawn(func() { c.receive(k, func() { <-slots }) }) // ended by the peer, or by Close
	}
}

// receive makes the handshake and hands the connection to what it is for.
func (c *Cluster) receive(k *conn, shaken func()) {
	ctx, cancel := context.WithTimeout(c.ctx, handshakeFor)
	err := k.HandshakeContext(ctx)
	cancel()
	shaken()
	proto := k.ConnectionState().NegotiatedProtocol
	if err == nil && proto != identity.ProtoJoin {
		k.node, err = c.cfg.Identity.Peer(k.ConnectionState())
	}
	if err != nil {
		_ = k.Close()
		c.refused(k, err)
		return
	}
	if proto != identity.ProtoLink && c.book.isRemoved(k.node) { // which tells it so
		_ = k.Close()
		return
	}
	switch proto {
	case identity.ProtoRaft:
		if c.book.address(k.node) == "" {
			c.cfg.Log.Debug("raft connection of a node that is not known", "node", k.node, "from", k.RemoteAddr())
		}
		c.stream.give(k)
	case identity.ProtoLink:
		if _, err := c.run(k, false); err != nil && c.ctx.Err() == nil {
			c.cfg.Log.Debug("a link from a node ended", "node", k.node, "reason", err)
		}
	case identity.ProtoState:
		c.sendState(k)
	case identity.ProtoJoin:
		c.join(k)
	default:
		_ = k.Close()
	}
}

// refused tells of a connection that was refused, not of each: whoever is at the wrong
// address tries again and again.
func (c *Cluster) refused(k *conn, err error) {
	now := c.cfg.Clock.Now()
	c.mu.Lock()
	quiet := !c.lastRefused.IsZero() && now.Sub(c.lastRefused) < refusedEvery
	if !quiet {
		c.lastRefused = now
	}
	c.mu.Unlock()
	if !quiet && c.ctx.Err() == nil {
		c.cfg.Log.Warn("the cluster port refused a connection", "from", k.RemoteAddr(), "error", err)
	}
}

// join answers a node that wants to become a member.
func (c *Cluster) join(k *conn) {
	defer func() { _ = k.Close() }()
	select {
	case c.joining <- struct{}{}:
		defer func() { <-c.joining }()
	default:
		return
	}
	if !c.pause(silence, c.serving) {
		return
	}
	if err := c.cfg.Identity.Admit(c.ctx, k.Conn, c.cfg.Tokens, c.admit); err != nil {
		c.cfg.Log.Warn("a node could not join", "from", k.RemoteAddr(), "error", err)
	}
}

// refresh keeps the node's certificate good, and takes over what its files hold, until Close.
func (c *Cluster) refresh() {
	for c.ctx.Err() == nil {
		did, err := c.cfg.Identity.Refresh(c.cfg.Dir)
		c.mu.Lock()
		former := c.unrenewed
		c.unrenewed = err
		c.mu.Unlock()
		expires := c.cfg.Identity.Expires()
		switch {
		case err == nil && did != "":
			c.cfg.Log.Info("the certificate of this node was "+did, "expires", expires)
		case err != nil && (former == nil || former.Error() != err.Error()):
			c.cfg.Log.Error("the certificate of this node cannot be taken from its files or renewed: the one from before stays", "expires", expires, "error", err)
		}
		c.pause(refreshEvery, nil)
	}
}

// Certificate says when this node's certificate ends, and why what is in its files cannot be
// used or it was not renewed, nil: all is well.
func (c *Cluster) Certificate() (expires time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Identity.Expires(), c.unrenewed
}
