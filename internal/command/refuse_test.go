package command

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pogod/internal/tagged"
)

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	command := func(op Op, fields []byte) []byte {
		return append(binary.AppendUvarint([]byte{byte(op)}, uint64(len(fields))), fields...)
	}
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"nothing":            {nil, ErrMalformed},
		"command 0":          {command(0, nil), ErrUnknown},
		"command 6":          {command(6, nil), ErrUnknown},
		"command 255":        {command(255, nil), ErrUnknown},
		"no length":          {[]byte{byte(Tick)}, ErrMalformed},
		"a length too long":  {[]byte{byte(Tick), 1}, ErrMalformed},
		"an endless length":  {append([]byte{byte(Tick)}, bytes.Repeat([]byte{0xff}, 11)...), ErrMalformed},
		"field 19":           {command(Push, tagged.Uint(nil, 19, 1)), ErrUnknown},
		"field 31":           {command(Push, tagged.Uint(nil, 31, 1)), ErrUnknown},
		"field 32":           {command(Push, tagged.Uint(nil, 32, 1)), ErrUnknown},
		"field 0":            {command(Push, tagged.Uint(nil, 0, 1)), ErrUnknown},
		"a field of another": {command(Tick, tagged.Bytes(nil, tagQueue, "mail")), ErrUnknown},
		"fields backward":    {command(Push, tagged.Bytes(tagged.Bytes(nil, tagPayload, "x"), tagQueue, "mail")), ErrMalformed},
		"a field twice":      {command(PurgeFailed, tagged.Bytes(tagged.Bytes(nil, tagQueue, "a"), tagQueue, "b")), ErrMalformed},
		"a number for bytes": {command(Push, tagged.Uint(nil, tagQueue, 1)), ErrMalformed},
		"bytes for a number": {command(Push, tagged.Bytes(nil, tagDelay, "1")), ErrMalformed},
		"a later cause":      {command(Release, tagged.Uint(nil, tagCause, uint64(lastCause)+1)), ErrMalformed},
		"a negative time":    {command(Ack, tagged.Uint(nil, tagMillis, 1<<63)), ErrMalformed},
		"a negative delay":   {command(Push, tagged.Uint(nil, tagDelay, 1<<63)), ErrMalformed},
		"a time before 1970": {command(SetTime, tagged.Uint(nil, tagTime, 1<<63)), ErrMalformed},
	} {
		var got Command
		if _, err := got.Decode(c.bytes); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A command that Decode refuses stops every node that meets it, for good: Append must
// not write one.
func TestAppendRefusesWhatDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Command{
		"no op":              {},
		"an unknown op":      {Op: 200},
		"a later cause":      {Op: Release, Cause: lastCause + 1},
		"a negative delay":   {Op: Push, Delay: math.MaxInt64 + 1},
		"a negative time":    {Op: Ack, Job: JobID{Millis: -1}},
		"a time before 1970": {Op: SetTime, Time: -1},
		"a field of another": {Op: Push, Queue: "mail", Reason: "none of its"},
	} {
		buf := []byte("before")
		b, err := c.Append(buf)
		if err == nil || !bytes.Equal(b, buf) {
			t.Errorf("%s was written: %x %v", name, b, err)
		}
	}
	for op := range fieldsOf {
		for tag := range uint64(32) {
			c := Command{Op: op}
			if setField(&c, tag); reflect.DeepEqual(c, Command{Op: op}) {
				continue
			}
			_, err := c.Append(nil)
			if allowed := fieldsOf[op]&(1<<tag) != 0; allowed != (err == nil) {
				t.Errorf("field %d of %s: %v", tag, opNames[op], err)
			}
		}
	}
}

// setField sets the field with that tag to something.
func setField(c *Command, tag uint64) {
	for _, f := range full {
		before := f
		if clearField(&f, tag); reflect.DeepEqual(f, before) {
			continue
		}
		from, to := reflect.ValueOf(before), reflect.ValueOf(c).Elem()
		switch tag {
		case tagMillis:
			c.Job.Millis = 1
		case tagSeq:
			c.Job.Seq = 1
		default:
			for i := range from.NumField() {
				if !reflect.DeepEqual(from.Field(i).Interface(), reflect.ValueOf(f).Field(i).Interface()) {
					to.Field(i).Set(from.Field(i))
				}
			}
		}
		return
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	// op, length and the keys of the fields come on top.
	fits := Command{Op: Push, Payload: make([]byte, MaxCommand-5)}
	if _, err := fits.Append(nil); err != nil {
		t.Error("a command of MaxCommand:", err)
	}
	over := Command{Op: Push, Payload: make([]byte, MaxCommand-4)}
	buf := []byte("before")
	b, err := over.Append(buf)
	if !errors.Is(err, ErrTooLarge) || string(b) != "before" {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	largest := Command{Op: Push, Queue: strings.Repeat("q", 128), Payload: make([]byte, MaxPayload), Delay: math.MaxInt64}
	if _, err := largest.Append(nil); err != nil {
		t.Error("the largest payload that a queue may allow does not fit:", err)
	}
}

// The room for the length grows when the fields pass 127 and 16,383 bytes, and what
// is around a command stays as it is.
func TestLengthGrows(t *testing.T) {
	t.Parallel()
	for _, around := range []int{128, 1 << 14, 1 << 21} {
		for n := around - 12; n <= around+4; n++ {
			want := Command{Op: Push, Queue: "q", Payload: bytes.Repeat([]byte{byte(n)}, n), Delay: 3}
			b, err := want.Append([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			b, err = (&Command{Op: Tick}).Append(b)
			if err != nil || string(b[:6]) != "before" {
				t.Fatalf("%d bytes: %q %v", n, b[:6], err)
			}
			var got, next Command
			rest, err := got.Decode(b[6:])
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%d bytes: %v", n, err)
			}
			if rest, err = next.Decode(rest); err != nil || len(rest) > 0 || next.Op != Tick {
				t.Fatalf("%d bytes: what follows is %+v %v", n, next, err)
			}
		}
	}
}

// sampleEntry has a batch of two commands, and one of the leader.
func sampleEntry(t testing.TB) []byte {
	t.Helper()
	batch := AppendBatch(nil, Batch{Session: 300, Number: 2, Watermark: 1, Commands: append(encode(t, &full[5]), encode(t, &full[7])...)})
	return AppendEntry(nil, Entry{Time: 1763849472123, Batch: batch, Commands: encode(t, &full[4])})
}

func TestEntryCutOrChanged(t *testing.T) {
	t.Parallel()
	entry := sampleEntry(t)
	for n := range entry {
		if _, err := DecodeEntry(entry[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := DecodeEntry(append(bytes.Clone(entry), 0)); !errors.Is(err, ErrMalformed) {
		t.Error("a byte more:", err)
	}
	for i := range entry {
		for bit := range 8 {
			p := bytes.Clone(entry)
			p[i] ^= 1 << bit
			_, err := DecodeEntry(p)
			// The version is in front of the CRC: a later one may have another form.
			want := ErrMalformed
			if i == 0 {
				want = ErrUnknown
			}
			if !errors.Is(err, want) {
				t.Errorf("bit %d of byte %d changed: %v", bit, i, err)
			}
		}
	}
}

func TestHeadsRefuse(t *testing.T) {
	t.Parallel()
	head := func(fields []byte) []byte { return append([]byte{byte(len(fields))}, fields...) }
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"nothing":         {nil, ErrMalformed},
		"cut":             {[]byte{9, 2, 1}, ErrMalformed},
		"field 4":         {head(tagged.Uint(nil, 4, 1)), ErrUnknown},
		"bytes":           {head(tagged.Bytes(nil, 1, "x")), ErrMalformed},
		"fields backward": {head(tagged.Uint(tagged.Uint(nil, 2, 1), 1, 1)), ErrMalformed},
	} {
		if _, err := DecodeBatch(c.bytes); !errors.Is(err, c.want) {
			t.Errorf("a batch: %s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		head []byte
		want error
	}{
		"field 2":         {head(tagged.Uint(nil, 2, 1)), ErrUnknown},
		"bytes":           {head(tagged.Bytes(nil, 1, "x")), ErrMalformed},
		"a negative time": {head(tagged.Uint(nil, 1, 1<<63)), ErrMalformed},
		"no batch":        {head(nil), ErrMalformed},
		"a batch cut":     {append(head(nil), 5, 0), ErrMalformed},
	} {
		if _, err := DecodeEntry(sealed(c.head)); !errors.Is(err, c.want) {
			t.Errorf("an entry: %s: %v", name, err)
		}
	}
}

// sealed puts version and CRC before rest.
func sealed(rest []byte) []byte {
	p := append([]byte{EntryVersion, 0, 0, 0, 0}, rest...)
	binary.LittleEndian.PutUint32(p[1:], checksum(rest))
	return p
}

func TestParseJobID(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]JobID{
		"0-0": {}, "1763849472123-57": {1763849472123, 57},
		"9223372036854775807-18446744073709551615": {math.MaxInt64, math.MaxUint64},
	} {
		if id, ok := ParseJobID(text); !ok || id != want || id.String() != text {
			t.Errorf("%q is %v, %v", text, id, ok)
		}
	}
	for _, text := range []string{
		"", "-", "1", "1-", "-1", "1--2", "1-2-3", " 1-2", "1-2 ", "1 -2", "1- 2", "+1-2", "1-+2", "01-2", "1-02", "1-2\n",
		"0x1-2", "1_0-2", "1-2:3", "9223372036854775808-1", "1-18446744073709551616", "１-2",
	} {
		if id, ok := ParseJobID(text); ok || id != (JobID{}) {
			t.Errorf("%q is %v, %v: want nothing", text, id, ok)
		}
	}
}
