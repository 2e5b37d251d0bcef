package command

import (
	"bytes"
	"hash/crc32"
	"reflect"
	"testing"
)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// FuzzEntry also tries each input behind a version and a CRC that fit, or it would
// hardly get past them.
func FuzzEntry(f *testing.F) {
	entry := sampleEntry(f)
	f.Add(entry)
	f.Add(entry[5:])
	f.Add(AppendEntry(nil, Entry{}))
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, p := range [][]byte{p, sealed(p)} {
			e, err := DecodeEntry(p)
			if err != nil {
				continue
			}
			again, err := DecodeEntry(AppendEntry(nil, e))
			if err != nil || again.Time != e.Time || !bytes.Equal(again.Batch, e.Batch) || !bytes.Equal(again.Commands, e.Commands) {
				t.Fatalf("%x: %+v became %+v, %v", p, e, again, err)
			}
			if b, err := DecodeBatch(e.Batch); err == nil {
				decodeAll(b.Commands)
			}
			decodeAll(e.Commands)
		}
	})
}

func decodeAll(b []byte) {
	var c Command
	for len(b) > 0 {
		rest, err := c.Decode(b)
		if err != nil {
			return
		}
		b = rest
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(AppendBatch(nil, Batch{}))
	f.Add(AppendBatch(nil, Batch{Session: 300, Number: 2, Watermark: 1, Commands: encode(f, &full[5])}))
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := DecodeBatch(p)
		if err != nil {
			return
		}
		encoded := AppendBatch(nil, b)
		again, err := DecodeBatch(encoded)
		if err != nil || !reflect.DeepEqual(again, b) && len(b.Commands) > 0 {
			t.Fatalf("%x: %+v became %+v, %v", p, b, again, err)
		}
		if !bytes.Equal(AppendBatch(nil, again), encoded) {
			t.Fatalf("%x has two encodings", p)
		}
	})
}

func FuzzCommand(f *testing.F) {
	for _, c := range full {
		f.Add(encode(f, &c))
		f.Add(encode(f, &Command{Op: c.Op}))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var c, again Command
		rest, err := c.Decode(p)
		if err != nil {
			return
		}
		if len(rest) >= len(p) || !bytes.HasSuffix(p, rest) {
			t.Fatalf("%x: %x is left", p, rest)
		}
		encoded, err := c.Append(nil)
		if err != nil {
			t.Fatalf("%x was decoded and cannot be encoded: %v", p, err)
		}
		if rest, err := again.Decode(encoded); err != nil || len(rest) > 0 {
			t.Fatalf("%x: %x is left, %v", encoded, rest, err)
		}
		twice, err := again.Append(nil)
		if err != nil || !bytes.Equal(twice, encoded) {
			t.Fatalf("%x has two encodings: %x and %x, %v", p, encoded, twice, err)
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add(AppendResult(nil, Result{}))
	f.Add(AppendResult(nil, Result{Code: Accepted, Job: JobID{1763849472123, 57}, Session: 300, Count: 1000, More: true}))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, _, err := DecodeResult(p)
		if err != nil {
			return
		}
		again, rest, err := DecodeResult(AppendResult(nil, r))
		if err != nil || again != r || len(rest) > 0 {
			t.Fatalf("%x: %+v became %+v, %v", p, r, again, err)
		}
	})
}
