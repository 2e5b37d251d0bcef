package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"pogod/internal/cluster/identity"
	"pogod/internal/command"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

// version of the link's protocol, the first byte of a hello. Whatever changes an encoding
// is a new one: readers are strict.
const version = 4

const (
	maxFrame = 64 << 20  // the length that a frame announces; the largest batch has 17 MiB
	headSize = 4 + 1 + 8 // before a frame's body: length, op, request id
	maxList  = 1 << 16   // entries of a list
	maxPeers = 1000      // that a book names
	maxText  = 4 << 10   // words of an error, in bytes
)

// op is the operation of a frame. Numbers are append-only.
type op byte

// The operations; doc.go lists their fields.
const (
	opHello       op = 1
	opPing        op = 2
	opPong        op = 3
	opBook        op = 4
	opOffer       op = 5
	opAnswer      op = 6
	opSubmit      op = 16
	opOpenSession op = 17
	opEndSession  op = 18
	opReadIndex   op = 19
	opAdmit       op = 20
	opResetTime   op = 21
	opDefine      op = 22
	opTransfer    op = 23
	opRemove      op = 24
	opAdmitWorker op = 25 // as opAdmit
)

// errMalformed is returned when bytes are not what this file writes.
var errMalformed = errors.New("malformed frame")

// frame is one frame as it was read.
type frame struct {
	op   op
	id   uint64 // of the request; 0: none
	body []byte
}

// newFrame begins a frame whose body has about that size. The body is appended, and seal
// ends it.
func newFrame(o op, size int) []byte {
	b := make([]byte, headSize, headSize+size)
	b[4] = byte(o)
	return b
}

func seal(b []byte, id uint64) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	binary.LittleEndian.PutUint64(b[5:], id)
}

// readFrame reads one frame, whose body is the caller's.
func readFrame(r io.Reader) (frame, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n < headSize-4 || n > maxFrame {
		return frame{}, fmt.Errorf("%w: a length of %d bytes", errMalformed, n)
	}
	body, err := readBody(r, int(n)-(headSize-4))
	return frame{op(head[4]), binary.LittleEndian.Uint64(head[5:]), body}, err
}

// readBody reads n bytes. Memory grows with what comes, not with what was announced.
func readBody(r io.Reader, n int) (b []byte, err error) {
	const step = 1 << 20
	for len(b) < n && err == nil {
		b = slices.Grow(b, min(n-len(b), max(len(b), step)))
		var m int
		m, err = io.ReadFull(r, b[len(b):min(cap(b), n)])
		b = b[:len(b)+m]
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// A body is its fields, one after the other: numbers as uvarints, bytes and lists behind
// their length.

func appendUint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func appendBytes[T ~[]byte | ~string](b []byte, p T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// fields reads the fields of a body in order. The first failure sticks: read all, then
// ask done.
type fields struct {
	b   []byte
	err error
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
	}
	f.b = nil
}

// uint reads a number of at most limit.
func (f *fields) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || v > limit {
		f.fail("a number")
		return 0
	}
	f.b = f.b[n:]
	return v
}

// bytes reads bytes, which alias the body.
func (f *fields) bytes() []byte {
	n := f.uint(uint64(len(f.b)))
	if n > uint64(len(f.b)) {
		f.fail("cut short")
		return nil
	}
	p := f.b[:n:n]
	f.b = f.b[n:]
	return p
}

// list reads a list; entry reads one of its entries.
func (f *fields) list(limit uint64, entry func()) {
	for n := f.uint(limit); n > 0 && f.err == nil; n-- {
		entry()
	}
}

// done returns the first failure; bytes that are left over are one.
func (f *fields) done() error {
	if len(f.b) > 0 {
		f.fail("%d bytes too many", len(f.b))
	}
	return f.err
}

func appendPeer(b []byte, p identity.Peer) []byte {
	return appendUint(appendBytes(appendBytes(b, p.ID), p.Address), p.Version)
}

func (f *fields) peer() identity.Peer {
	p := identity.Peer{ID: string(f.bytes()), Address: string(f.bytes()), Version: f.uint(math.MaxUint64)}
	if err := checkPeer(p); err != nil && f.err == nil {
		f.fail("%v", err)
	}
	return p
}

// checkPeer refuses what is no node's id or no address: both go into files and log lines.
func checkPeer(p identity.Peer) error {
	if len(p.ID) != 16 || strings.Trim(p.ID, "0123456789abcdef") != "" {
		return fmt.Errorf("the node id %q is not 16 hexadecimal digits", p.ID)
	}
	if host, port, err := net.SplitHostPort(p.Address); err != nil || host == "" || port == "" || len(p.Address) > 300 {
		return fmt.Errorf("the address %q of node %s is not host:port", p.Address, p.ID)
	}
	return nil
}

func appendPeers(b []byte, peers []identity.Peer) []byte {
	b = appendUint(b, uint64(len(peers)))
	for _, p := range peers {
		b = appendPeer(b, p)
	}
	return b
}

func (f *fields) peers() (peers []identity.Peer) {
	f.list(maxPeers, func() { peers = append(peers, f.peer()) })
	return peers
}

// hello is the first frame of each side.
type hello struct {
	applied uint64
	level   uint64          // the feature level that the sender's pogod knows
	book    []identity.Peer // with the sender's own address
}

func appendHello(b []byte, h hello) []byte {
	return appendPeers(appendUint(appendUint(append(b, version), h.applied), h.level), h.book)
}

func decodeHello(b []byte) (h hello, err error) {
	if len(b) > 0 && b[0] != version {
		return h, fmt.Errorf("it speaks version %d of the cluster link and this node version %d: run the same pogod on all nodes", b[0], version)
	}
	f := fields{b: b}
	f.uint(version)
	h = hello{f.uint(math.MaxUint64), f.uint(math.MaxUint64), f.peers()}
	return h, f.done()
}

// ping is the body of ping, and the beginning of that of pong.
type ping struct {
	applied uint64
	sent    uint64 // Mono of the side that pings; a pong gives it back
}

func appendPing(b []byte, p ping) []byte { return appendUint(appendUint(b, p.applied), p.sent) }

func (f *fields) ping() ping { return ping{f.uint(math.MaxUint64), f.uint(math.MaxInt64)} }

// pong answers a ping.
type pong struct {
	ping            // applied is that of the side that answers, sent is given back
	wall  time.Time // its wall clock; one from before 1970 says 1970
	tight bool      // its disk has little room
}

func appendPong(b []byte, p pong) []byte {
	tight := uint64(0)
	if p.tight {
		tight = 1
	}
	return appendUint(appendUint(appendPing(b, p.ping), uint64(max(0, p.wall.UnixMicro()))), tight)
}

func (f *fields) pong() pong {
	return pong{f.ping(), time.UnixMicro(int64(f.uint(math.MaxInt64))), f.uint(1) == 1}
}

// define is definitions of the queues, encoded, that are to be put in force.
type define struct {
	definitions []byte // aliases the frame
	hash        string
}

func appendDefine(b []byte, d define) []byte {
	return appendBytes(appendBytes(b, d.definitions), d.hash)
}

func (f *fields) define() define { return define{f.bytes(), string(f.bytes())} }

// submit is a batch, and the credits that come with it.
type submit struct {
	batch   []byte // aliases the frame
	pushes  []raftfsm.QueueCount
	credits *leader.Credits // nil: none
}

func appendSubmit(b []byte, s submit) []byte {
	b = appendUint(b, uint64(len(s.pushes)))
	for _, q := range s.pushes {
		b = appendUint(appendBytes(b, q.Queue), uint64(q.Count))
	}
	b = appendBytes(b, s.batch)
	if s.credits != nil {
		b = appendCredits(b, *s.credits)
	}
	return b
}

func (f *fields) submit() (s submit) {
	f.list(maxList, func() {
		s.pushes = append(s.pushes, raftfsm.QueueCount{Queue: string(f.bytes()), Count: int(f.uint(math.MaxInt32))})
	})
	s.batch = f.bytes()
	if len(f.b) > 0 {
		c := f.credits()
		s.credits = &c
	}
	return s
}

func appendCredits(b []byte, c leader.Credits) []byte {
	follows := uint64(0)
	if c.Follows {
		follows = 1
	}
	b = appendUint(appendUint(appendUint(b, c.Session), c.Applied), follows)
	b = appendUint(b, uint64(len(c.Pools)))
	for _, p := range c.Pools {
		b = appendUint(appendBytes(b, p.Name), uint64(p.Free))
		b = appendUint(b, uint64(len(p.Queues)))
		for _, q := range p.Queues {
			b = appendBytes(b, q)
		}
	}
	return b
}

func (f *fields) credits() leader.Credits {
	c := leader.Credits{Session: f.uint(math.MaxUint64), Applied: f.uint(math.MaxUint64), Follows: f.uint(1) == 1}
	f.list(maxList, func() {
		p := leader.Pool{Name: string(f.bytes()), Free: int(f.uint(math.MaxInt32))}
		f.list(maxList, func() { p.Queues = append(p.Queues, string(f.bytes())) })
		c.Pools = append(c.Pools, p)
	})
	return c
}

// class says what an error means to the one that asked. Numbers are append-only.
type class uint64

const (
	classNone     class = 0
	classNotSent  class = 1 // raftfsm.ErrNotSent
	classRefused  class = 2 // raftfsm.ErrSessionRefused
	classOther    class = 3 // nobody knows
	classBarred   class = 4 // errBarred
	classKept     class = 5 // leader.ErrNotReset
	classNoRoom   class = 6 // raftfsm.ErrNoRoom
	classDeclined class = 7 // ErrDeclined
)

// sentinels of the classes that have one.
var sentinels = map[class]error{
	classNotSent: raftfsm.ErrNotSent, classRefused: raftfsm.ErrSessionRefused, classBarred: errBarred, classKept: leader.ErrNotReset,
	classNoRoom: raftfsm.ErrNoRoom, classDeclined: ErrDeclined,
}

// answer is the answer to a request: an error, or what its op answers.
type answer struct {
	class   class
	text    string          // of the error
	value   uint64          // a session's id, an index, milliseconds by which time was set back
	outcome raftfsm.Outcome // of submit: Index, Status, Last, Results
}

// failure is the answer that tells of an error.
func failure(err error) answer {
	text := err.Error()
	a := answer{class: classOther, text: strings.ToValidUTF8(text[:min(len(text), maxText)], "")}
	for c, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			a.class = c
		}
	}
	return a
}

func appendAnswer(b []byte, a answer) []byte {
	b = appendUint(appendBytes(appendUint(b, uint64(a.class)), a.text), a.value)
	o := &a.outcome
	b = appendUint(appendUint(appendUint(b, o.Index), uint64(o.Status)), o.Last)
	b = appendUint(b, uint64(len(o.Results)))
	for _, r := range o.Results {
		b = command.AppendResult(b, r)
	}
	return b
}

func (f *fields) answer() answer {
	a := answer{class: class(f.uint(math.MaxUint64)), text: string(f.bytes()), value: f.uint(math.MaxUint64)}
	a.outcome.Index, a.outcome.Status, a.outcome.Last = f.uint(math.MaxUint64), raftfsm.Status(f.uint(uint64(raftfsm.Passed))), f.uint(math.MaxUint64)
	f.list(maxList, func() {
		r, rest, err := command.DecodeResult(f.b)
		if err != nil {
			f.fail("%v", err)
			return
		}
		a.outcome.Results, f.b = append(a.outcome.Results, r), rest
	})
	return a
}

// remoteError is an error that another node told of.
type remoteError struct {
	node  string
	text  string
	class error // the sentinel of its class; nil: none
}

func (e *remoteError) Error() string { return "node " + e.node + ": " + e.text }
func (e *remoteError) Unwrap() error { return e.class }

// err returns the error that a node's answer tells of.
func (a answer) err(node string) error {
	if a.class == classNone {
		return nil
	}
	return &remoteError{node, a.text, sentinels[a.class]}
}
