// Package tagged is the field encoding of log entries and of the records in the
// data file: fields with a number, in ascending order, zero values left out. A
// field that is added later changes no byte of what was written before.
//
//	field   key | value
//	key     uvarint: tag << 1 | kind
//	value   kind 0: uvarint
//	        kind 1: uvarint length, then that many bytes
//
// Readers are strict: a tag they do not know is their error to report, because a
// state machine that skips a field would diverge from one that knows it.
package tagged

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// ErrMalformed is returned when bytes are not ascending tagged fields.
var ErrMalformed = errors.New("tagged: malformed fields")

// Uint appends a field, or nothing when v is 0.
func Uint(b []byte, tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = binary.AppendUvarint(b, tag<<1)
	return binary.AppendUvarint(b, v)
}

// Bytes appends a field, or nothing when p is empty.
func Bytes[T ~[]byte | ~string](b []byte, tag uint64, p T) []byte {
	if len(p) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, tag<<1|1)
	b = binary.AppendUvarint(b, uint64(len(p)))
	return append(b, p...)
}

// Reader reads fields in order. The first failure sticks and ends the reading.
type Reader struct {
	b    []byte
	last uint64 // the tag before, plus 1
	kind uint64
	u    uint64
	p    []byte
	err  error
}

// Read begins to read b. Byte fields alias b.
func Read(b []byte) Reader { return Reader{b: b} }

// next moves to the next field and returns its tag; ok is false at the end and
// after a failure.
func (r *Reader) next() (tag uint64, ok bool) {
	if r.err != nil || len(r.b) == 0 {
		return 0, false
	}
	key := r.uvarint()
	tag, r.kind = key>>1, key&1
	if tag < r.last {
		r.fail()
	}
	r.last = tag + 1
	r.u = r.uvarint()
	if r.kind == 1 {
		if r.u > uint64(len(r.b)) {
			r.fail()
			return 0, false
		}
		r.p, r.b = r.b[:r.u:r.u], r.b[r.u:]
	}
	return tag, r.err == nil
}

// Tags moves through the fields; it ends at the end and after a failure, which Err
// returns.
func (r *Reader) Tags() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for {
			tag, ok := r.next()
			if !ok || !yield(tag) {
				return
			}
		}
	}
}

// Uint returns the value of the field that Tags moved to.
func (r *Reader) Uint() uint64 {
	if r.kind != 0 {
		r.fail()
		return 0
	}
	return r.u
}

// Bytes returns the value of the field that Tags moved to.
func (r *Reader) Bytes() []byte {
	if r.kind != 1 {
		r.fail()
		return nil
	}
	return r.p
}

// Unknown records that the reader does not know tag.
func (r *Reader) Unknown(tag uint64) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: tag %d is not known to this version", ErrMalformed, tag)
	}
}

// Err returns the first failure.
func (r *Reader) Err() error { return r.err }

func (r *Reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *Reader) fail() {
	if r.err == nil {
		r.err = ErrMalformed
	}
	r.b = nil
}
