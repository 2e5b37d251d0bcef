package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version of the protocol, sent in Hello. A node refuses another.
const Version = 1

// MaxFrame bounds the length that a frame or an answer announces, in bytes:
// the largest payload (command.MaxPayload) and room for the rest.
const MaxFrame = 17 << 20

// Op is the operation of a frame. Numbers are append-only.
type Op uint8

// The operations; doc.go lists their fields.
const (
	Hello        Op = 0
	Push         Op = 1
	Ack          Op = 2
	Release      Op = 3
	Fail         Op = 4
	Status       Op = 5
	Failed       Op = 6
	RetryFailed  Op = 7
	ForgetFailed Op = 8
	PurgeFailed  Op = 9

	Next  Op = 16
	Ended Op = 17

	Dispatch  Op = 64
	Await     Op = 65
	Abandon   Op = 66
	NextTask  Op = 67
	TaskEnded Op = 68

	Interrupt Op = 32
	Drain     Op = 33
	Retire    Op = 34
	Hurry     Op = 35
	Ready     Op = 48
	Output    Op = 49

	Reserve Op = 80
	Sync    Op = 81
	Synced  Op = 82
	Access  Op = 83
	Pages   Op = 84

	Publish     Op = 96
	Broadcast   Op = 97
	PublishWith Op = 98
)

// Role says what a connection is for; the second field of Hello.
type Role int64

// The roles. The name beside them in Hello is the worker's or the host's.
const (
	RolePHP    Role = 1 // functions only: web pages, the command line
	RoleWorker Role = 2 // a thread that runs a worker script: Next, Ended, and functions
	RoleTool   Role = 3 // the command line of pogod, load clients
	RoleHost   Role = 4 // the control connection of a PHP host
)

var (
	// ErrFrame is returned when bytes are not a frame of this protocol.
	ErrFrame = errors.New("link: malformed frame")
	// ErrTooLong is returned for a frame or answer over MaxFrame.
	ErrTooLong = errors.New("link: frame too long")
)

// Builder builds one frame. The zero value is not usable; see Request.
type Builder struct{ b []byte }

// Request begins a frame in buf, whose bytes are overwritten; nil is fine.
func Request(buf []byte, op Op) Builder {
	return Builder{append(buf[:0], 0, 0, 0, 0, byte(op))}
}

// Bytes adds a field.
func (f Builder) Bytes(p []byte) Builder {
	f.b = binary.LittleEndian.AppendUint32(f.b, uint32(len(p)))
	f.b = append(f.b, p...)
	return f
}

// String adds a field.
func (f Builder) String(s string) Builder {
	f.b = binary.LittleEndian.AppendUint32(f.b, uint32(len(s)))
	f.b = append(f.b, s...)
	return f
}

// Int adds a field of 8 bytes.
func (f Builder) Int(v int64) Builder {
	f.b = binary.LittleEndian.AppendUint32(f.b, 8)
	f.b = binary.LittleEndian.AppendUint64(f.b, uint64(v))
	return f
}

// Frame returns the finished frame, length included. It fails with ErrTooLong.
func (f Builder) Frame() ([]byte, error) {
	n := len(f.b) - 4
	if n > MaxFrame {
		return nil, ErrTooLong
	}
	binary.LittleEndian.PutUint32(f.b, uint32(n))
	return f.b, nil
}

// Fields reads the fields of a frame in order. The first failure sticks: read
// all of them, then ask Done.
type Fields struct {
	b   []byte
	bad bool
}

// NewFields reads b, the bytes behind a frame's op. The fields alias b.
func NewFields(b []byte) *Fields { return &Fields{b: b} }

// Bytes returns the next field; it aliases the frame.
func (f *Fields) Bytes() []byte {
	if len(f.b) < 4 {
		f.bad = true
		return nil
	}
	n := uint64(binary.LittleEndian.Uint32(f.b))
	if uint64(len(f.b)-4) < n {
		f.bad = true
		f.b = nil
		return nil
	}
	p := f.b[4 : 4+n : 4+n]
	f.b = f.b[4+n:]
	return p
}

// String returns a copy of the next field.
func (f *Fields) String() string { return string(f.Bytes()) }

// Int returns the next field, which has 8 bytes.
func (f *Fields) Int() int64 {
	p := f.Bytes()
	if len(p) != 8 {
		f.bad = true
		return 0
	}
	return int64(binary.LittleEndian.Uint64(p))
}

// Done returns ErrFrame when a field was missing or malformed, or when bytes are
// left over.
func (f *Fields) Done() error {
	if f.bad || len(f.b) != 0 {
		return ErrFrame
	}
	return nil
}

// readFrame reads one frame into buf, which grows and is returned. The fields
// alias it.
func readFrame(r io.Reader, buf []byte) (Op, []byte, []byte, error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, buf, err
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n < 1 {
		return 0, nil, buf, ErrFrame
	}
	if n > MaxFrame {
		return 0, nil, buf, ErrTooLong
	}
	body, buf, err := readBody(r, buf, int(n)-1)
	return Op(h[4]), body, buf, err
}

// readBody reads n bytes. Memory grows with what arrives, not with what a length
// announced, so that a peer cannot make us allocate by claiming.
func readBody(r io.Reader, buf []byte, n int) (body, grown []byte, err error) {
	const step = 1 << 20
	buf = buf[:0]
	for len(buf) < n {
		k := min(n-len(buf), step)
		if cap(buf)-len(buf) < k {
			bigger := make([]byte, len(buf), max(len(buf)+k, min(2*cap(buf), n), 4096))
			copy(bigger, buf)
			buf = bigger
		}
		m, err := io.ReadFull(r, buf[len(buf):len(buf)+k])
		buf = buf[:len(buf)+m]
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, buf, err
		}
	}
	return buf[:n], buf, nil
}

// appendAnswer appends one answer to b.
func appendAnswer(b []byte, code int32, body []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(4+len(body)))
	b = binary.LittleEndian.AppendUint32(b, uint32(code))
	return append(b, body...)
}

// readAnswer reads one answer; body is the caller's.
func readAnswer(r io.Reader) (code int32, body []byte, err error) {
	var h [8]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n < 4 {
		return 0, nil, ErrFrame
	}
	if n > MaxFrame {
		return 0, nil, ErrTooLong
	}
	body, _, err = readBody(r, nil, int(n)-4)
	return int32(binary.LittleEndian.Uint32(h[4:])), body, err
}

// AppendDelivery appends the body of Next's answer: the lease and the message.
func AppendDelivery(b []byte, lease uint64, message []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, lease)
	return append(b, message...)
}

// ParseDelivery is the reverse of AppendDelivery; message aliases body.
func ParseDelivery(body []byte) (lease uint64, message []byte, err error) {
	if len(body) < 8 {
		return 0, nil, fmt.Errorf("%w: a delivery of %d bytes", ErrFrame, len(body))
	}
	return binary.LittleEndian.Uint64(body), body[8:], nil
}
