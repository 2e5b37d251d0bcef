package command

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"pogod/internal/tagged"
)

// EntryVersion is the first byte of a log entry.
const EntryVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is the commands that a node sends together, numbered in its session. The
// state machine applies batch n only after n-1, and answers a batch that it has
// applied already from its stored results.
type Batch struct {
	Session   uint64 // from OpenSession
	Number    uint64 // 1, 2, 3, ... within the session
	Watermark uint64 // results of batches up to this one are no longer wanted
	Commands  []byte // encoded one after the other
}

// AppendBatch appends the encoded batch to buf.
func AppendBatch(buf []byte, b Batch) []byte {
	var head [3 * (1 + binary.MaxVarintLen64)]byte
	h := tagged.Uint(head[:0], 1, b.Session)
	h = tagged.Uint(h, 2, b.Number)
	h = tagged.Uint(h, 3, b.Watermark)
	buf = binary.AppendUvarint(buf, uint64(len(h)))
	buf = append(buf, h...)
	return append(buf, b.Commands...)
}

// DecodeBatch reads what AppendBatch wrote. Commands aliases p.
func DecodeBatch(p []byte) (b Batch, err error) {
	head, rest, err := cut(p)
	if err != nil {
		return b, err
	}
	r := tagged.Read(head)
	for tag := range r.Tags() {
		switch tag {
		case 1:
			b.Session = r.Uint()
		case 2:
			b.Number = r.Uint()
		case 3:
			b.Watermark = r.Uint()
		default:
			return b, fmt.Errorf("%w: field %d of a batch", ErrUnknown, tag)
		}
	}
	if r.Err() != nil {
		return b, fmt.Errorf("%w: %w", ErrMalformed, r.Err())
	}
	b.Commands = rest
	return b, nil
}

// Entry is one log entry.
type Entry struct {
	Time     int64  // cluster time, unix milliseconds, stamped by the leader
	Batch    []byte // AppendBatch, or empty
	Commands []byte // the leader's own, encoded one after the other
}

// AppendEntry appends the encoded entry to buf.
func AppendEntry(buf []byte, e Entry) []byte {
	start := len(buf)
	buf = append(buf, EntryVersion, 0, 0, 0, 0)
	var head [1 + binary.MaxVarintLen64]byte
	h := tagged.Uint(head[:0], 1, uint64(e.Time))
	buf = binary.AppendUvarint(buf, uint64(len(h)))
	buf = append(buf, h...)
	buf = binary.AppendUvarint(buf, uint64(len(e.Batch)))
	buf = append(buf, e.Batch...)
	buf = append(buf, e.Commands...)
	binary.LittleEndian.PutUint32(buf[start+1:], crc32.Checksum(buf[start+5:], castagnoli))
	return buf
}

// DecodeEntry reads what AppendEntry wrote and checks its CRC. The slices alias p.
func DecodeEntry(p []byte) (e Entry, err error) {
	if len(p) < 5 {
		return e, fmt.Errorf("%w: an entry of %d bytes", ErrMalformed, len(p))
	}
	if p[0] != EntryVersion {
		return e, fmt.Errorf("%w: version %d of a log entry", ErrUnknown, p[0])
	}
	if got, want := crc32.Checksum(p[5:], castagnoli), binary.LittleEndian.Uint32(p[1:]); got != want {
		return e, fmt.Errorf("%w: the CRC of an entry is %08x, not %08x: its bytes changed on disk or in memory", ErrMalformed, got, want)
	}
	head, rest, err := cut(p[5:])
	if err != nil {
		return e, err
	}
	r := tagged.Read(head)
	for tag := range r.Tags() {
		if tag != 1 {
			return e, fmt.Errorf("%w: field %d of an entry", ErrUnknown, tag)
		}
		e.Time = int64(r.Uint())
	}
	if r.Err() != nil || e.Time < 0 {
		return e, fmt.Errorf("%w: the head of an entry", ErrMalformed)
	}
	e.Batch, e.Commands, err = cut(rest)
	return e, err
}
