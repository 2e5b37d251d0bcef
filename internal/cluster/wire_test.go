package cluster

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pogod/internal/cluster/identity"
	"pogod/internal/command"
	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

var update = flag.Bool("update", false, "write testdata/golden.txt anew: only with a new version of the protocol")

const goldenFile = "testdata/golden.txt"

var (
	somePeers   = []identity.Peer{{ID: "0123456789abcdef", Address: "10.0.0.7:8083", Version: 300}, {ID: "fedcba9876543210", Address: "[::1]:1"}}
	someCredits = leader.Credits{Session: 300, Applied: math.MaxUint64, Follows: true, Pools: []leader.Pool{{Name: "jobs", Queues: []string{"mail", ""}, Free: 4}, {}}}
	someAnswer  = answer{class: classOther, text: "the disk is full", value: 7, outcome: raftfsm.Outcome{
		Index: 9, Status: raftfsm.Passed, Last: 3,
		Results: []command.Result{{}, {Code: command.Accepted, Job: command.JobID{Millis: 1763849472123, Seq: 57}}},
	}}
)

// body is a kind of body: one example of it, and how it is read and written again.
type body struct {
	name string
	full []byte
	back func(b []byte) (again []byte, value any, err error)
}

func codec[T any](name string, full T, write func([]byte, T) []byte, read func(f *fields) T) body {
	return body{name, write(nil, full), func(b []byte) ([]byte, any, error) {
		f := fields{b: b}
		v := read(&f)
		if err := f.done(); err != nil {
			return nil, nil, err
		}
		return write(nil, v), v, nil
	}}
}

// bodies in an order that is kept: fuzzing names them by it.
func bodies() []body {
	h := codec("hello", hello{300, 2, somePeers}, appendHello, nil)
	h.back = func(b []byte) ([]byte, any, error) {
		v, err := decodeHello(b)
		return appendHello(nil, v), v, err
	}
	return []body{
		h,
		codec("ping", ping{300, 5}, appendPing, (*fields).ping),
		codec("book", somePeers, appendPeers, (*fields).peers),
		codec("offer", someCredits, appendCredits, (*fields).credits),
		codec("answer", someAnswer, appendAnswer, (*fields).answer),
		codec("answer empty", answer{}, appendAnswer, (*fields).answer),
		codec("submit", submit{[]byte("batch"), []raftfsm.QueueCount{{Queue: "mail", Count: 2}, {Queue: "", Count: 300}}, &someCredits}, appendSubmit, (*fields).submit),
		codec("submit without credits", submit{[]byte("batch"), nil, nil}, appendSubmit, (*fields).submit),
		codec("number", uint64(300), appendUint, func(f *fields) uint64 { return f.uint(math.MaxUint64) }),
		codec("admit", somePeers[0], appendPeer, (*fields).peer),
		codec("pong", somePong, appendPong, (*fields).pong),
		codec("define", define{[]byte{1, 0}, "0123456789abcdef"}, appendDefine, (*fields).define),
	}
}

var somePong = pong{ping{300, 5}, time.UnixMicro(1_763_849_472_123_456), true}

// Nodes of one version of the protocol understand each other, whatever built them.
func TestGolden(t *testing.T) {
	t.Parallel()
	var now strings.Builder
	line := func(name string, b []byte) { fmt.Fprintf(&now, "%s %s\n", name, hex.EncodeToString(b)) }
	for _, b := range bodies() {
		line(b.name, b.full)
	}
	frame := appendPing(newFrame(opPing, 8), ping{1, 2})
	seal(frame, 0x0102)
	line("frame", frame)
	for _, o := range []op{opHello, opPing, opPong, opBook, opOffer, opAnswer, opSubmit, opOpenSession, opEndSession, opReadIndex, opAdmit, opResetTime, opDefine} {
		fmt.Fprintf(&now, "%d ", o)
	}
	fmt.Fprintln(&now)
	if *update {
		if err := os.WriteFile(goldenFile, []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.ReadFile(goldenFile)
	if err != nil || string(was) != now.String() {
		t.Errorf("is\n%s\nwas\n%s\n%v", now.String(), was, err)
	}
}

func TestBodiesComeBack(t *testing.T) {
	t.Parallel()
	for _, b := range bodies() {
		again, v, err := b.back(b.full)
		if err != nil || !bytes.Equal(again, b.full) {
			t.Errorf("%s: %x became %x (%+v), %v", b.name, b.full, again, v, err)
		}
		for n := range b.full {
			if again, _, err := b.back(b.full[:n]); err == nil && !bytes.Equal(again, b.full[:n]) {
				t.Errorf("%s: its first %d bytes were read as something else", b.name, n)
			}
		}
		if _, _, err := b.back(append(bytes.Clone(b.full), 0xff)); !errors.Is(err, errMalformed) {
			t.Errorf("%s with a byte too many: %v", b.name, err)
		}
	}
}

func TestMalformedBodies(t *testing.T) {
	t.Parallel()
	peer := func(id, address string) []byte { return appendPeer(nil, identity.Peer{ID: id, Address: address}) }
	many := func(n int, b []byte) []byte { return append(appendUint(nil, uint64(n)), bytes.Repeat(b, n)...) }
	id, address := somePeers[0].ID, somePeers[0].Address
	for name, c := range map[string]struct {
		body []byte
		read func(f *fields)
	}{
		"a short id":            {peer(id[1:], address), func(f *fields) { f.peer() }},
		"an id in capitals":     {peer(strings.ToUpper(id), address), func(f *fields) { f.peer() }},
		"no port":               {peer(id, "10.0.0.7"), func(f *fields) { f.peer() }},
		"no host":               {peer(id, ":8083"), func(f *fields) { f.peer() }},
		"a long address":        {peer(id, strings.Repeat("x", 300)+":1"), func(f *fields) { f.peer() }},
		"too many peers":        {many(maxPeers+1, peer(id, address)), func(f *fields) { f.peers() }},
		"too many pushes":       {append(many(maxList+1, []byte{0, 1}), 0), func(f *fields) { f.submit() }},
		"too many pools":        {append([]byte{1, 1, 1}, many(maxList+1, []byte{0, 1, 0})...), func(f *fields) { f.credits() }},
		"a count over 31 bits":  {append(appendUint([]byte{1, 0}, math.MaxInt32+1), 0), func(f *fields) { f.submit() }},
		"follows neither way":   {[]byte{1, 1, 2, 0}, func(f *fields) { f.credits() }},
		"an unknown status":     {[]byte{0, 0, 0, 0, byte(raftfsm.Passed) + 1, 0, 0}, func(f *fields) { f.answer() }},
		"a damaged result":      {[]byte{0, 0, 0, 0, 0, 0, 1, 5}, func(f *fields) { f.answer() }},
		"bytes beyond the end":  {appendUint(nil, math.MaxUint64), func(f *fields) { f.bytes() }},
		"a number without end":  {bytes.Repeat([]byte{0xff}, 11), func(f *fields) { f.uint(math.MaxUint64) }},
		"a list without an end": {appendUint(nil, maxList), func(f *fields) { f.list(maxList, func() {}) }},
	} {
		f := fields{b: c.body}
		c.read(&f)
		if err := f.done(); (name != "a list without an end") != errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeHello(nil); !errors.Is(err, errMalformed) {
		t.Error("no hello:", err)
	}
	if _, err := decodeHello([]byte{version + 1, 99}); err == nil || !strings.Contains(err.Error(), "run the same pogod") {
		t.Error("another version:", err)
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	big := append(newFrame(opSubmit, 0), bytes.Repeat([]byte("abc"), 2<<20)...)
	seal(big, 7)
	f, err := readFrame(bytes.NewReader(big))
	if err != nil || f.op != opSubmit || f.id != 7 || !bytes.Equal(f.body, big[headSize:]) {
		t.Error(f.op, f.id, len(f.body), err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":  {nil, io.EOF},
		"cut head": {big[:5], io.ErrUnexpectedEOF},
		"cut body": {big[:headSize], io.ErrUnexpectedEOF},
		"short":    {append([]byte{8, 0, 0, 0}, big[4:]...), errMalformed},
		"long":     {append([]byte{1, 0, 0, 4}, big[4:]...), errMalformed},
	} {
		if _, err := readFrame(bytes.NewReader(c.b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A length costs no memory before its bytes come.
	if b, err := readBody(bytes.NewReader(big), maxFrame); cap(b) > 4*len(big) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes came, room for %d was made, %v", len(big), cap(b), err)
	}
}

func TestErrorsOnTheWire(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]class{
		raftfsm.ErrNotSent:                    classNotSent,
		raftfsm.ErrSessionRefused:             classRefused,
		fmt.Errorf("%w: not now", errBarred):  classBarred,
		io.EOF:                                classOther,
		errors.New(strings.Repeat("é", 5000)): classOther,
	} {
		a := failure(err)
		again := a.err("n")
		if a.class != want || len(a.text) > maxText || sentinels[want] != nil && !errors.Is(again, sentinels[want]) || !strings.HasPrefix(again.Error(), "node n: ") {
			t.Errorf("%v became %v, class %d", err, again, a.class)
		}
	}
	if err := (answer{}).err("n"); err != nil {
		t.Error(err)
	}
	if err := (answer{class: 99}).err("n"); err == nil || errors.Is(err, raftfsm.ErrNotSent) {
		t.Error("an error of a later version:", err)
	}
}

func FuzzFrame(f *testing.F) {
	b := appendPing(newFrame(opPing, 8), ping{1, 2})
	seal(b, 3)
	f.Add(b)
	f.Add([]byte{9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		again := append(newFrame(fr.op, len(fr.body)), fr.body...)
		seal(again, fr.id)
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// Whatever comes, reading it does not panic, and what was read is read again the same.
func FuzzBody(f *testing.F) {
	for i, b := range bodies() {
		f.Add(byte(i), b.full)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		all := bodies()
		k := all[int(kind)%len(all)]
		again, v, err := k.back(b)
		if err != nil {
			return
		}
		if _, w, err := k.back(again); err != nil || !reflect.DeepEqual(v, w) {
			t.Fatalf("%s %x: %+v became %+v, %v", k.name, b, v, w, err)
		}
	})
}
