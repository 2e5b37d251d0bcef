package tagged

import (
	"errors"
	"math"
	"testing"
)

func TestRoundTripAndRefusals(t *testing.T) {
	t.Parallel()
	b := Uint(nil, 1, math.MaxUint64)
	b = Uint(b, 2, 0) // left out
	b = Bytes(b, 7, "a\x00b")
	b = Bytes(b, 8, []byte(nil)) // left out
	r := Read(b)
	if tag, ok := r.next(); tag != 1 || !ok || r.Uint() != math.MaxUint64 {
		t.Error("first field", tag, ok)
	}
	if tag, ok := r.next(); tag != 7 || !ok || string(r.Bytes()) != "a\x00b" {
		t.Error("second field", tag, ok)
	}
	if _, ok := r.next(); ok || r.Err() != nil {
		t.Error("end", ok, r.Err())
	}
	for name, bad := range map[string][]byte{
		"descending": Uint(Uint(nil, 2, 1), 1, 1),
		"twice":      Uint(Uint(nil, 2, 1), 2, 1),
		"cut":        Bytes(nil, 1, "hello")[:3],
		"no value":   {2},
		"long":       {3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		r := Read(bad)
		for {
			if _, ok := r.next(); !ok {
				break
			}
		}
		if !errors.Is(r.Err(), ErrMalformed) {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
	r = Read(Uint(nil, 1, 1))
	r.next()
	if r.Bytes() != nil || r.Err() == nil {
		t.Error("a number read as bytes")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(Bytes(Uint(nil, 1, 300), 2, "x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out []byte
		r := Read(b)
		for tag := range r.Tags() {
			if r.kind == 0 {
				out = Uint(out, tag, r.Uint())
			} else {
				out = Bytes(out, tag, r.Bytes())
			}
		}
		if r.Err() == nil && len(out) > len(b) {
			t.Fatalf("%x grew to %x", b, out)
		}
	})
}
