package cluster

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
)

// Two nodes come back elsewhere at once: the third brings them together.
func TestAddressesThatChange(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	for _, n := range []*node{b, c} {
		n.Close()
		n.way = newProxy(t)
	}
	b.open()
	c.open()
	linked(t, a, b, c)
	for _, n := range []*node{a, b, c} {
		for _, o := range []*node{a, b, c} {
			if got := n.book.address(o.id); got != o.way.address() {
				t.Errorf("%s believes %s at %s, not %s", n.id, o.id, got, o.way.address())
			}
		}
	}
}

// Nodes go on connecting while one closes.
func TestCloseWhileOthersConnect(t *testing.T) {
	t.Parallel()
	a := found(t)
	a.cancel() // as Close begins
	for range 20 {
		if c, err := net.Dial("tcp", a.listens); err == nil {
			defer c.Close()
		}
	}
	closed := make(chan struct{})
	go func() { // ended by Close
		a.Close()
		close(closed)
	}()
	get(t, closed, "Close")
}

// What one learns all learn, over links that are up.
func TestGossip(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	a.book.learn(peerAt(other, "1", 1))
	for _, n := range []*node{b, c} {
		eventually(t, "it is told", func() bool { return n.book.address(other) != "" })
	}
}

// A node that comes back is dialed at once, not after a back-off: its start is news.
func TestRestartIsLinkedAtOnce(t *testing.T) {
	t.Parallel()
	a := newNode(t)
	a.clock = clock.NewFake(time.Now()) // no back-off ends
	a.found()
	b := newNode(t).join(a)
	for range 3 {
		linked(t, a, b)
		b.Close()
		eventually(t, "the link is down", func() bool { return a.linkTo(b.id) == nil })
		b.open()
	}
	linked(t, a, b)
}

func TestSeedsOnly(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	c.Close()
	if err := os.Remove(c.dir.File(peersFile)); err != nil {
		t.Fatal(err)
	}
	c.way = newProxy(t)
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere.Close()
	c.seeds = []string{b.way.address(), c.way.address(), nowhere.Addr().String()}
	c.open()
	linked(t, a, b, c)
	c.journal.await(t, 1, "no member can be linked", nowhere.Addr().String())
	for _, n := range []*node{a, b} {
		if got := n.book.address(c.id); got != c.way.address() {
			t.Errorf("%s believes it at %s", n.id, got)
		}
	}
	c.mu.Lock()
	if c.peers[c.id] != nil {
		t.Error("it is linked with itself")
	}
	c.mu.Unlock()
	// The seed is the way to a node whose address nobody knows any more.
	b.Close()
	b.way = newProxy(t)
	c.journal.await(t, 1, "link down", b.id)
	if n := c.journal.said("no member can be linked"); n > 2 {
		t.Error("a silent seed was told", n, "times")
	}
}

func TestNodeOfAnotherClusterIsRefused(t *testing.T) {
	t.Parallel()
	a := found(t)
	x := newNode(t)
	if _, err := identity.Init(x.dir); err != nil {
		t.Fatal(err)
	}
	x.seeds = []string{a.way.address()}
	x.open()
	x.journal.await(t, 1, "no member can be linked", "cluster")
	a.journal.await(t, 1, "refused a connection")
	if len(a.book.all()) != 1 || len(x.book.all()) != 1 {
		t.Error("they know each other")
	}
	// Nor does it pass for a member at a member's address.
	b := newNode(t).join(a)
	a.journal.await(t, 1, "link up", b.id)
	b.way.cut(x.listens)
	a.journal.await(t, 1, "still no link", b.id, "cluster")
	if a.linkTo(b.id) != nil {
		t.Error("it is linked")
	}
}

// raftPair is two nodes without raft: what goes over their transports is told.
func raftPair(t *testing.T) (a, b *node) {
	t.Helper()
	a, b, _ = three(t)
	return a, b
}

// votes answers the votes that it is asked for, until the test ends.
func (n *node) votes(t *testing.T) {
	trans := n.Transport()
	quit := n.ctx.Done()
	go func() { // ended by Close
		for {
			select {
			case rpc := <-trans.Consumer():
				rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
			case <-quit:
				return
			}
		}
	}()
}

// A voter that has restarted answers the first vote that it is asked for: the connections
// that raft kept to it are dead.
func TestVoteOfARestartedNode(t *testing.T) {
	t.Parallel()
	a, b := raftPair(t)
	b.votes(t)
	ask := func() error {
		var resp raft.RequestVoteResponse
		return a.Transport().RequestVote(raft.ServerID(b.id), raft.ServerAddress(b.id), &raft.RequestVoteRequest{Term: 2}, &resp)
	}
	answers := make(chan error, raftPool+1)
	for range raftPool + 1 { // so many connections that a pool is full
		go func() { answers <- ask() }() // ended by the answer
	}
	for range raftPool + 1 {
		if err := get(t, answers, "a vote"); err != nil {
			t.Fatal(err)
		}
	}
	b.Close()
	b.open()
	b.votes(t)
	linked(t, a, b)
	if err := ask(); err != nil {
		t.Error("the first vote after a restart:", err)
	}
	b.Close()
	var down *dialError
	if err := ask(); !errors.As(err, &down) {
		t.Error("a node that is down:", err)
	}
	if _, err := a.stream.Dial("0123456789abcdef", time.Second); !errors.As(err, &down) {
		t.Error("a node that nobody knows:", err)
	}
	if got := a.Transport().LocalAddr(); string(got) != a.id {
		t.Error("raft's address is", got)
	}
}

// What raft sends to a node that is down arrives when it is back, if that is soon: raft
// would wait longer and longer after failures.
func TestRaftWaitsForALinkToComeUp(t *testing.T) {
	t.Parallel()
	a := newNode(t)
	clk := clock.NewSpy(time.Now())
	a.clock = clk
	a.found()
	b := newNode(t).join(a)
	linked(t, a, b)
	down := func() (answer chan error) {
		b.Close()
		eventually(t, "the link is down", func() bool { return a.linkTo(b.id) == nil })
		answer = make(chan error, 1)
		go func() { // ended by the answer
			var resp raft.RequestVoteResponse
			answer <- a.Transport().RequestVote(raft.ServerID(b.id), raft.ServerAddress(b.id), &raft.RequestVoteRequest{Term: 2}, &resp)
		}()
		if !clk.Await(raftHold, patience) {
			t.Fatal("it does not wait")
		}
		return answer
	}
	answer := down()
	b.open()
	b.votes(t)
	if err := get(t, answer, "the answer"); err != nil {
		t.Error(err)
	}
	answer = down()
	clk.Advance(raftHold)
	if _, dialing := errors.AsType[*dialError](get(t, answer, "the failure")); !dialing {
		t.Error("it is not told that the node is down")
	}
}

// Within an RPC the other side must go on; between RPCs it may be silent for ever.
func TestRaftConnectionThatStopsInAnRPC(t *testing.T) {
	t.Parallel()
	a, b := raftPair(t)
	b.votes(t)
	idle, err := a.stream.Dial(raft.ServerAddress(b.id), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	half, err := a.stream.Dial(raft.ServerAddress(b.id), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	begun := time.Now()
	if _, err := half.Write([]byte{1}); err != nil { // a vote is asked for, but not which
		t.Fatal(err)
	}
	_ = half.SetReadDeadline(time.Now().Add(patience))
	if _, err := half.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) < raftTimeout-time.Second {
		t.Error(err, "after", time.Since(begun))
	}
	_ = idle.SetReadDeadline(time.Now().Add(raftTimeout / 2))
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("between RPCs:", err)
	}
}

// An answer ends an RPC: what comes after it has its time again.
func TestRaftConnectionAfterAnAnswer(t *testing.T) {
	t.Parallel()
	a, b := raftPair(t)
	accepted, dialed := net.Pipe()
	defer dialed.Close()
	k := &raftConn{conn: &conn{Conn: tls.Server(accepted, a.cfg.Identity.ServerTLS()), c: a.Cluster}}
	client := tls.Client(dialed, b.cfg.Identity.ClientTLS(a.id, identity.ProtoRaft))
	done := make(chan struct{})
	go func() { // ended by the answer
		defer close(done)
		if _, err := client.Write([]byte("ask")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(client, make([]byte, 6)); err != nil {
			t.Error(err)
		}
	}()
	if _, err := k.Read(make([]byte, 3)); err != nil || !k.inside.Load() {
		t.Error("a request:", err, k.inside.Load())
	}
	if _, err := k.Write([]byte("answer")); err != nil || k.inside.Load() {
		t.Error("its answer:", err, k.inside.Load())
	}
	get(t, done, "the answer")
	k.Close()
	if _, err := k.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error("closed here:", err)
	}
}

// A node that goes away between RPCs is no error for raft, which would log one; in an RPC
// it is.
func TestRaftConnectionThatIsReset(t *testing.T) {
	t.Parallel()
	a, b := raftPair(t)
	for _, inside := range []bool{false, true} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		k := &raftConn{conn: &conn{Conn: tls.Server(accepted, a.cfg.Identity.ServerTLS()), c: a.Cluster}}
		defer k.Close()
		shaken := make(chan error, 1)
		client := tls.Client(nc, b.cfg.Identity.ClientTLS(a.id, identity.ProtoRaft))
		go func() { // ended by the handshake
			_, err := client.Write([]byte{1})
			shaken <- err
		}()
		_, err = k.Read(make([]byte, 1))
		if err := errors.Join(err, get(t, shaken, "the handshake")); err != nil {
			t.Fatal(err)
		}
		k.inside.Store(inside)
		_ = nc.(*net.TCPConn).SetLinger(0)
		nc.Close()
		if _, err := k.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) == inside {
			t.Errorf("in an RPC %v: %v", inside, err)
		}
	}
}

// A node has one link to another, however often it is dialed.
func TestSecondLinkIsDropped(t *testing.T) {
	t.Parallel()
	a, b, _ := three(t)
	first := a.linkTo(b.id)
	k, err := a.dial(b.way.address(), "", identity.ProtoLink, dialFor)
	if err != nil {
		t.Fatal(err)
	}
	if up, err := a.run(k, true); up || !errors.Is(err, errSecond) {
		t.Error(up, err)
	}
	if _, err := first.request(newFrame(opReadIndex, 0)).wait(t.Context()); err != nil || a.linkTo(b.id) != first {
		t.Error("the first link is gone:", err)
	}
}
