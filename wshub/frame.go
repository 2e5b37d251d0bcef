package wshub

import (
	"encoding/binary"
	"errors"
)

// The frames of RFC 6455, as far as a server needs them. Extensions are not offered.

// opcode is what a frame carries.
type opcode byte

const (
	opContinue opcode = 0
	opText     opcode = 1
	opBinary   opcode = 2
	opClose    opcode = 8
	opPing     opcode = 9
	opPong     opcode = 10
)

// control reports whether a frame of this kind may stand between those of a message.
func (o opcode) control() bool { return o >= opClose }

const (
	maxHeader  = 10  // of a frame that a server sends
	maxControl = 125 // bytes that a control frame may carry
)

var (
	// errMalformed is returned when a client breaks RFC 6455.
	errMalformed = errors.New("malformed frame")
	// errOversized is returned for a frame that is larger than is taken.
	errOversized = errors.New("frame too large")
)

// frame is one that a client sent, its payload unmasked.
type frame struct {
	op      opcode
	fin     bool
	payload []byte
}

// parseFrame reads the frame that b begins with, and unmasks it in place. size is how many
// bytes it takes; 0: more must come.
func parseFrame(b []byte, most int) (f frame, size int, err error) {
	if len(b) < 2 {
		return f, 0, nil
	}
	f.op, f.fin = opcode(b[0]&15), b[0]&0x80 != 0
	known := f.op <= opBinary || f.op >= opClose && f.op <= opPong
	if b[0]&0x70 != 0 || b[1]&0x80 == 0 || !known { // reserved bits, no mask
		return f, 0, errMalformed
	}
	n, head := uint64(b[1]&127), 2
	switch n {
	case 126:
		if head = 4; len(b) < head {
			return f, 0, nil
		}
		n = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if head = 10; len(b) < head {
			return f, 0, nil
		}
		n = binary.BigEndian.Uint64(b[2:])
	}
	if f.op.control() && (n > maxControl || !f.fin) {
		return f, 0, errMalformed
	}
	if n > uint64(most) {
		return f, 0, errOversized
	}
	size = head + 4 + int(n)
	if len(b) < size {
		return f, 0, nil
	}
	mask := b[head : head+4]
	f.payload = b[head+4 : size]
	for i := range f.payload {
		f.payload[i] ^= mask[i&3]
	}
	return f, size, nil
}

// appendHeader appends the header of a server's frame of n bytes.
func appendHeader(b []byte, op opcode, n int) []byte {
	switch first := byte(op) | 0x80; {
	case n < 126:
		return append(b, first, byte(n))
	case n < 1<<16:
		return append(b, first, 126, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, first, 127), uint64(n))
	}
}

func appendFrame(b []byte, op opcode, payload []byte) []byte {
	return append(appendHeader(b, op, len(payload)), payload...)
}

// appendClose appends the frame that ends a connection.
func appendClose(b []byte, code int, reason string) []byte {
	b = appendHeader(b, opClose, 2+len(reason))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(b, reason...)
}

// frameSize is how many bytes the server's frame takes that b begins with.
func frameSize(b []byte) int {
	switch n := int(b[1]); n {
	case 126:
		return 4 + int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		return 10 + int(binary.BigEndian.Uint64(b[2:]))
	default:
		return 2 + n
	}
}

// unfinished is how many bytes behind n the frame of b ends that n lies in; 0 between frames.
// b begins with a frame.
func unfinished(b []byte, n int) int {
	at := 0
	for at < n {
		at += frameSize(b[at:])
	}
	return at - n
}
