package cluster

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"pogod/internal/cluster/identity"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

// idle is a link that nobody writes.
func idle(n *node) *link {
	return newLink(&conn{Conn: tls.Client(new(net.TCPConn), nil), node: other, c: n.Cluster})
}

func TestRequestsThatAreLost(t *testing.T) {
	t.Parallel()
	a := found(t)
	l := idle(a)
	begun, queued := l.request(newFrame(opReadIndex, 0)), l.request(newFrame(opReadIndex, 0))
	if b := l.next(); b == nil || !begun.begun || queued.begun {
		t.Fatal("the first is not on its way, or the second is")
	}
	l.sweep(errSwept)
	if _, err := begun.wait(t.Context()); !errors.Is(err, errSwept) || errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("on its way:", err)
	}
	if _, err := queued.wait(t.Context()); !errors.Is(err, errSwept) || !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("not on its way:", err)
	}
	if l.next() != nil {
		t.Error("a request that was surely not sent is sent")
	}
	last := l.request(newFrame(opReadIndex, 0))
	l.end()
	if _, err := last.wait(t.Context()); !errors.Is(err, errLost) || !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("when the link ended:", err)
	}
	if _, err := l.request(newFrame(opReadIndex, 0)).wait(t.Context()); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("after that:", err)
	}
	l.end()
}

func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	a := found(t)
	l := idle(a)
	defer l.end()
	for range maxRequests {
		if r := l.request(newFrame(opReadIndex, 0)); r.err != nil {
			t.Fatal(r.err)
		}
	}
	if _, err := l.request(newFrame(opReadIndex, 0)).wait(t.Context()); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("one more than may wait:", err)
	}
	l = idle(a)
	if _, err := l.request(make([]byte, maxFrame+headSize)).wait(t.Context()); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("a frame that is too long:", err)
	}
	for range maxQueue {
		l.post(newFrame(opPing, 0), 0)
	}
	select {
	case <-l.quit:
		t.Error("ended too early")
	default:
	}
	l.post(newFrame(opPing, 0), 0)
	get(t, l.quit, "the end of a link that nobody reads")
}

// stranger is a node without a Cluster, which does what a test wants.
type stranger struct {
	*tls.Conn
	r *bufio.Reader
}

// visit dials n as another member, and exchanges hellos.
func visit(t *testing.T, n, as *node, proto string) stranger {
	t.Helper()
	c, err := tls.Dial("tcp", n.listens, as.cfg.Identity.ClientTLS(n.id, proto))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	s := stranger{c, bufio.NewReader(c)}
	if proto == identity.ProtoLink {
		s.say(t, appendHello(newFrame(opHello, 0), hello{}), 0)
		if f, err := readFrame(s.r); err != nil || f.op != opHello {
			t.Fatal(f.op, err)
		}
	}
	return s
}

func (s stranger) say(t *testing.T, frame []byte, id uint64) {
	t.Helper()
	seal(frame, id)
	if _, err := s.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// hears reads until the answer to a request, or the end.
func (s stranger) hears(id uint64) (answer, error) {
	for {
		f, err := readFrame(s.r)
		if err != nil {
			return answer{}, err
		}
		if f.op == opAnswer && f.id == id {
			body := fields{b: f.body}
			return body.answer(), body.done()
		}
	}
}

// member makes a node that is a member and closed: a stranger speaks for it.
func member(t *testing.T, at *node) *node {
	t.Helper()
	n := newNode(t).join(at)
	n.Close()
	at.journal.await(t, 1, "link down", n.id)
	return n
}

func TestMalformedFrameEndsTheLink(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := member(t, a)
	long := newFrame(opPing, 0)
	for name, send := range map[string]func(s stranger){
		"an unknown op":  func(s stranger) { s.say(t, newFrame(99, 0), 0) },
		"a cut body":     func(s stranger) { s.say(t, newFrame(opPing, 0), 0) },
		"a cut batch":    func(s stranger) { s.say(t, append(newFrame(opSubmit, 1), 9), 1) },
		"a bad opening":  func(s stranger) { s.say(t, newFrame(opOpenSession, 0), 1) },
		"another hello":  func(s stranger) { s.say(t, appendHello(newFrame(opHello, 0), hello{}), 0) },
		"an endless one": func(s stranger) { seal(long, 0); long[3] = 0xff; _, _ = s.Write(long) },
	} {
		before := a.journal.said("a link was closed")
		s := visit(t, a, b, identity.ProtoLink)
		send(s)
		if _, err := s.hears(1); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		a.journal.await(t, before+1, "level=WARN", "a link was closed", b.id, "malformed frame")
	}
	if n := len(a.leader.called); n != 0 {
		t.Error("the leader was called:", <-a.leader.called)
	}
}

func TestARequestOfANewerNodeIsDeclined(t *testing.T) {
	t.Parallel()
	a := found(t)
	s := visit(t, a, member(t, a), identity.ProtoLink)
	s.say(t, append(newFrame(99, 3), "new"...), 1)
	if got, err := s.hears(1); err != nil || got.class != classDeclined || !strings.Contains(got.text, a.id+" runs an older pogod") {
		t.Fatal(got, err)
	}
	s.say(t, newFrame(opReadIndex, 0), 2)
	if got, err := s.hears(2); err != nil || got.class != classNone {
		t.Error("the link did not go on:", got, err)
	}
}

func TestAnotherVersionIsRefusedOnBothSides(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := member(t, a)
	c, err := tls.Dial("tcp", a.listens, b.cfg.Identity.ClientTLS(a.id, identity.ProtoLink))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := stranger{c, bufio.NewReader(c)}
	s.say(t, append(newFrame(opHello, 0), version+1, 7, 7), 0)
	if f, err := readFrame(s.r); err != nil || f.op != opHello { // so that it can say why
		t.Error(f.op, err)
	}
	a.journal.await(t, 1, b.id, "run the same pogod on all nodes")
	if _, err := readFrame(s.r); err == nil {
		t.Error("the link lives on")
	}
}

// A node that does not say anything is gone, and so is one that does not even greet.
func TestSilentStrangerIsClosed(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := member(t, a)
	begun := time.Now()
	s := visit(t, a, b, identity.ProtoLink)
	if _, err := s.hears(1); err == nil || time.Since(begun) < silence {
		t.Error(err, "after", time.Since(begun))
	}
	if c, err := tls.Dial("tcp", a.listens, b.cfg.Identity.ClientTLS(a.id, identity.ProtoLink)); err != nil {
		t.Error(err)
	} else if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("greeted first")
	}
	a.journal.await(t, 2, "a link from a node ended", b.id, "nothing heard for 2s")
}

// The reader waits when too many requests are under way, and goes on after that.
func TestRequestsUnderWayAreBounded(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := member(t, a)
	s := visit(t, a, b, identity.ProtoLink)
	release := a.leader.keep(t)
	const more = 100
	sent := make(chan struct{})
	go func() { // ended by the link's reading, or its end
		defer close(sent)
		for i := range uint64(maxRequests + more) {
			frame := appendSubmit(newFrame(opSubmit, 0), submit{batch: []byte("b")})
			seal(frame, i+1)
			_, _ = s.Write(frame)
		}
	}()
	for range maxRequests + 1 { // the last one is begun and waits for its place
		a.wants("submit b []")
	}
	get(t, sent, "the frames")
	s.say(t, newFrame(opReadIndex, 0), maxRequests+more+1)
	select {
	case call := <-a.leader.called:
		t.Error("one more is under way:", call)
	case <-time.After(200 * time.Millisecond): // nothing is to come, so nothing signals it
	}
	release()
	if a, err := s.hears(maxRequests + more + 1); err != nil || a.value != 42 {
		t.Error(a, err)
	}
}

// The leader learns of what it began how it ended, though nobody wants the answer: it
// counts what it has reserved in each.
func TestBatchIsSeenThroughWhenItsLinkEnds(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := member(t, a)
	s := visit(t, a, b, identity.ProtoLink)
	a.leader.keep(t)
	for i := range uint64(maxRequests + 1) {
		s.say(t, appendSubmit(newFrame(opSubmit, 0), submit{batch: []byte("b")}), i+1)
	}
	for range maxRequests + 1 { // the last one waits for its place
		a.wants("submit b []")
	}
	s.Close()
	eventually(t, "all are waited for", func() bool { return a.leader.waits.Load() == maxRequests+1 })
}

// What a node offered holds as long as a link from it does.
func TestOfferOutlivesOneOfTwoLinks(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := member(t, a)
	read := func(s stranger) {
		t.Helper()
		s.say(t, newFrame(opReadIndex, 0), 1)
		a.wants("read") // so what it did before has been seen
	}
	offer := func(s stranger, session uint64) {
		t.Helper()
		s.say(t, appendCredits(newFrame(opOffer, 0), leader.Credits{Session: session, Applied: 3, Pools: []leader.Pool{{Name: "p", Free: 2}}}), 0)
		a.wants(fmt.Sprintf("offer {Session:%d Applied:3 Pools:[{Name:p Queues:[] Free:2}] Follows:false}", session))
	}
	first := visit(t, a, b, identity.ProtoLink)
	offer(first, 7)
	second := visit(t, a, b, identity.ProtoLink)
	read(second)
	ended := a.journal.said("a link from a node ended", b.id)
	first.Close()
	a.journal.await(t, ended+1, "a link from a node ended", b.id)
	read(second) // and no offer came
	offer(second, 8)
	second.Close()
	a.wants("offer {Session:8 Applied:3 Pools:[] Follows:false}")
}

// A peer that lives and speaks but does not read is given up as well: the batch that it
// reads half is an open question, the one behind it is not.
func TestPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := member(t, a)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	talking := make(chan struct{})
	stop := make(chan struct{})
	go func() { // ended by stop
		defer close(talking)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_ = nc.(*net.TCPConn).SetReadBuffer(64 << 10)
		c := tls.Server(nc, b.cfg.Identity.ServerTLS())
		if f, err := readFrame(c); err != nil || f.op != opHello {
			t.Error(f.op, err)
			return
		}
		frame := appendHello(newFrame(opHello, 0), hello{})
		seal(frame, 0)
		for {
			if _, err := c.Write(frame); err != nil {
				return
			}
			frame = appendPing(newFrame(opPing, 0), ping{})
			seal(frame, 0)
			select {
			case <-time.After(pingEvery):
			case <-stop:
				return
			}
		}
	}()
	// Not over the proxy, whose buffers would take it all.
	a.book.learn(identity.Peer{ID: b.id, Address: ln.Addr().String(), Version: 99})
	a.journal.await(t, 1, "link up", b.id, ln.Addr().String())
	a.lead(b.id)
	get(t, a.changed, "who leads")
	half, behind := a.submit(strings.Repeat("x", 17<<20)), a.submit("y")
	if err := get(t, half, "an outcome"); err == nil || errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("the one that was written in part:", err)
	}
	if err := get(t, behind, "an outcome"); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("the one behind it:", err)
	}
	close(stop)
	ln.Close()
	get(t, talking, "the end")
}

func TestPortRefuses(t *testing.T) {
	t.Parallel()
	a, foreign := found(t), found(t)
	for _, proto := range []string{identity.ProtoLink, identity.ProtoRaft, "h2"} {
		credulous := foreign.cfg.Identity.ClientTLS("", proto)
		credulous.VerifyConnection = nil
		c, err := tls.Dial("tcp", a.listens, credulous)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", proto, err)
		}
	}
	a.journal.await(t, 1, "level=WARN", "refused a connection")
	if n := a.journal.said("level=WARN", "refused a connection"); n != 1 {
		t.Error(n, "lines told of refusals that came at once")
	}
}

// Who joins need not be a member yet, so few at once may take their time.
func TestJoinsAreBounded(t *testing.T) {
	t.Parallel()
	a := found(t)
	const more = 4
	closed := make(chan struct{}, joins+more)
	for range joins + more {
		c, err := tls.Dial("tcp", a.listens, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{identity.ProtoJoin}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { // ended by either side
			_, _ = c.Read(make([]byte, 1))
			closed <- struct{}{}
		}()
	}
	for range more {
		get(t, closed, "the end of one too many")
	}
	select {
	case <-closed:
		t.Error("one that may take its time was closed")
	case <-time.After(200 * time.Millisecond): // nothing is to come, so nothing signals it
	}
}
