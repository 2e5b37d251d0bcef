package wshub

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// An event is read back as what was published, whatever bytes it has.
func TestAppendEvent(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"{}", `{"a":"b\n\"\\"}`, "\x00\x1f\x7f\t\r\n", "é€😀\u2028<>&", "\xff\xc3(\xe2\x82", strings.Repeat("x", 100), strings.Repeat("é\"", 300), strings.Repeat("y", 70_000)} {
		before := []byte("before")
		b := appendEvent(bytes.Clone(before), "ev\"ent", "chan-nel", data)
		if !bytes.HasPrefix(b, before) {
			t.Fatalf("%.20q", b)
		}
		b = b[len(before):]
		if frameSize(b) != len(b) || b[0] != 0x81 {
			t.Fatalf("a frame of %d bytes says %d", len(b), frameSize(b))
		}
		text := b[len(b)-payloadSize(b):]
		var e event
		if err := json.Unmarshal(text, &e); err != nil || !utf8.Valid(text) {
			t.Fatalf("%.100q: %v", text, err)
		}
		if want := (event{"ev\"ent", "chan-nel", string([]rune(data))}); e != want {
			t.Errorf("%.100q, want %.100q", e, want)
		}
	}
	if got := string(appendEvent(nil, "e", "", "1")[2:]); got != `{"event":"e","data":"1"}` {
		t.Error(got)
	}
}

// Where a frame ends is known from any byte of it.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	var b []byte
	var ends []int
	for _, n := range []int{0, 1, 125, 126, 1000, 65535, 65536, 3} {
		b = appendFrame(b, opText, make([]byte, n))
		ends = append(ends, len(b))
	}
	next := 0
	for at := range len(b) + 1 {
		if at > 0 && at > ends[next] {
			next++
		}
		want := ends[next] - at
		if at == 0 || want == 0 {
			want = 0
		}
		if got := unfinished(b, at); got != want {
			t.Fatalf("%d bytes are missing at %d, want %d", got, at, want)
		}
	}
}

// Bytes of clients neither panic nor are read beyond what is there, and a frame is the same
// in pieces.
func FuzzParseFrame(f *testing.F) {
	f.Add(masked(0x81, "text"))
	f.Add(masked(0x89, ""))
	f.Add(masked(0x81, strings.Repeat("x", 300)))
	f.Add([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, size, err := parseFrame(bytes.Clone(b), maxMessage)
		if err != nil || size == 0 {
			return
		}
		if size > len(b) || len(got.payload) > size-6 {
			t.Fatalf("%d bytes of %d", size, len(b))
		}
		for i := range size {
			if _, n, err := parseFrame(bytes.Clone(b[:i]), maxMessage); n != 0 || err != nil {
				t.Fatalf("%d of %d bytes are a frame: %v", i, size, err)
			}
		}
	})
}
