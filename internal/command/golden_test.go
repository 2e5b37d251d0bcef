package command

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/golden.txt anew: only when an encoding was added")

const goldenFile = "testdata/golden.txt"

// opNames in the order of their numbers.
var opNames = map[Op]string{
	OpenSession: "OpenSession", EndSession: "EndSession", Define: "Define", Tick: "Tick", Reserve: "Reserve", SetTime: "SetTime", SetLevel: "SetLevel",
	Push: "Push", Ack: "Ack", Release: "Release", Fail: "Fail",
	RetryFailed: "RetryFailed", ForgetFailed: "ForgetFailed", PurgeFailed: "PurgeFailed", Count: "Count",
	Pause: "Pause", Resume: "Resume", Clear: "Clear", Delete: "Delete", RetryAll: "RetryAll",
}

// full holds each command with all its fields set.
var full = []Command{
	{Op: OpenSession, Node: "node-1", Number: 7},
	{Op: EndSession, Session: 300},
	{Op: Define, Hash: "0123456789abcdef", Definitions: []byte{1, 2, 3}},
	{Op: Tick},
	{Op: Reserve, Queue: "mail", Session: 300, Pool: "jobs", Count: 64},
	{Op: Push, Queue: "mail", Payload: []byte("{\"to\":\"a\x00é\"}"), Delay: 315_360_000_000},
	{Op: Ack, Queue: "mail", Job: JobID{1763849472123, 57}, Lease: 58},
	{Op: Release, Queue: "mail", Job: JobID{1763849472123, 57}, Lease: 58, Delay: 5000, Reason: "it threw", Cause: Broke, Output: "half way\n"},
	{Op: Fail, Queue: "mail", Job: JobID{math.MaxInt64, math.MaxUint64}, Lease: math.MaxUint64, Reason: "gone", Output: "é\x00"},
	{Op: RetryFailed, Queue: "mail", Job: JobID{1763849472123, 57}},
	{Op: ForgetFailed, Queue: "mail", Job: JobID{1763849472123, 57}},
	{Op: PurgeFailed, Queue: "mail"},
	{Op: Count, Queue: "mail", TooLarge: 1, Shutdown: 2, Backend: 128},
	{Op: Pause, Queue: "mail"},
	{Op: Resume, Queue: "mail"},
	{Op: Clear, Queue: "mail", From: 900},
	{Op: Delete, Queue: "mail", Job: JobID{1763849472123, 57}, From: 58},
	{Op: RetryAll, Queue: "mail", Reason: "it threw", Delay: 3_600_000, From: 58, To: math.MaxUint64},
	{Op: SetTime, Time: 1763849472123},
	{Op: SetLevel, Number: 2},
}

// encodings lists what the golden file holds, with a name each.
func encodings(t testing.TB) (names []string, encoded [][]byte) {
	t.Helper()
	add := func(name string, b []byte) {
		names, encoded = append(names, name), append(encoded, b)
	}
	var all []byte
	for _, c := range full {
		b := encode(t, &c)
		add(opNames[c.Op]+" full", b)
		add(opNames[c.Op]+" minimal", encode(t, &Command{Op: c.Op}))
		all = append(all, b...)
	}
	for _, c := range []Command{full[7], full[8]} { // as they were before there was output
		c.Output = ""
		add(opNames[c.Op]+" without output", encode(t, &c))
	}
	for cause := Asked; cause <= lastCause; cause++ {
		add(fmt.Sprintf("Release cause %d", cause), encode(t, &Command{Op: Release, Cause: cause}))
	}
	for _, n := range []int{120, 130, 16380, 16390} {
		b := encode(t, &Command{Op: Push, Payload: bytes.Repeat([]byte{'p'}, n)})
		add(fmt.Sprintf("Push of %d bytes, its first 16", n), b[:16])
	}
	batch := AppendBatch(nil, Batch{Session: 300, Number: 2, Watermark: 1, Commands: encode(t, &full[5])})
	add("Batch", batch)
	add("Batch empty", AppendBatch(nil, Batch{}))
	add("Entry", AppendEntry(nil, Entry{Time: 1763849472123, Batch: batch, Commands: encode(t, &full[4])}))
	add("Entry without a batch", AppendEntry(nil, Entry{Time: 1, Commands: encode(t, &Command{Op: Tick})}))
	add("Entry empty", AppendEntry(nil, Entry{}))
	add("Entry of all commands", AppendEntry(nil, Entry{Time: 1763849472123, Commands: all}))
	add("Result full", AppendResult(nil, Result{Code: UnknownQueue, Job: JobID{1763849472123, 57}, Session: 300, Count: 1000, More: true}))
	add("Result longest", AppendResult(nil, Result{Code: UnknownQueue, Job: JobID{math.MaxInt64, math.MaxUint64}, Session: math.MaxUint64, Count: math.MaxUint64, More: true, Next: math.MaxUint64, To: math.MaxUint64}))
	add("Result minimal", AppendResult(nil, Result{}))
	return names, encoded
}

func encode(t testing.TB, c *Command) []byte {
	t.Helper()
	b, err := c.Append(nil)
	if err != nil {
		t.Fatalf("%+v: %v", *c, err)
	}
	return b
}

// What is in a log must be readable for ever, and equal commands must have equal
// bytes in every version.
func TestGolden(t *testing.T) {
	t.Parallel()
	names, encoded := encodings(t)
	var out strings.Builder
	for i, name := range names {
		fmt.Fprintf(&out, "%s\n    %s\n", name, spaced(encoded[i]))
	}
	if *update {
		if err := os.WriteFile(goldenFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string][]byte{}
	lines := strings.Split(strings.TrimSuffix(string(file), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(lines[i+1]), " ", ""))
		if err != nil {
			t.Fatalf("%s line %d: %v", goldenFile, i+2, err)
		}
		golden[lines[i]] = b
	}
	for i, name := range names {
		if !bytes.Equal(golden[name], encoded[i]) {
			t.Errorf("%s\n is %s\nwas %s", name, spaced(encoded[i]), spaced(golden[name]))
		}
		delete(golden, name)
	}
	for name := range golden {
		t.Errorf("%s is in %s and no longer tested", name, goldenFile)
	}
}

// spaced writes bytes as hex in groups of 4.
func spaced(b []byte) string {
	var s strings.Builder
	for i, c := range b {
		if i > 0 && i%4 == 0 {
			s.WriteByte(' ')
		}
		fmt.Fprintf(&s, "%02x", c)
	}
	return s.String()
}

// The golden file has each command that there is, with each field that it may have.
func TestGoldenCoversEverything(t *testing.T) {
	t.Parallel()
	seen := map[Op]bool{}
	for _, c := range full {
		seen[c.Op] = true
		if got := fieldsIn(t, &c); got != fieldsOf[c.Op] {
			t.Errorf("the full %s has fields %b, may have %b", opNames[c.Op], got, fieldsOf[c.Op])
		}
	}
	for op := range fieldsOf {
		if !seen[op] || opNames[op] == "" {
			t.Errorf("command %d is not in the golden file", op)
		}
	}
}

// fieldsIn returns the tags of an encoded command, a bit each.
func fieldsIn(t *testing.T, c *Command) (fields uint32) {
	t.Helper()
	for tag := range uint64(32) {
		d := *c
		if clearField(&d, tag); !reflect.DeepEqual(d, *c) {
			fields |= 1 << tag
		}
	}
	return fields
}

// clearField sets the field with that tag to zero.
func clearField(c *Command, tag uint64) {
	v := reflect.ValueOf(c).Elem()
	names := map[uint64]string{
		tagQueue: "Queue", tagLease: "Lease", tagPayload: "Payload", tagDelay: "Delay", tagReason: "Reason",
		tagCause: "Cause", tagSession: "Session", tagNode: "Node", tagNumber: "Number", tagPool: "Pool", tagCount: "Count",
		tagHash: "Hash", tagDefinitions: "Definitions", tagTooLarge: "TooLarge", tagShutdown: "Shutdown", tagBackend: "Backend",
		tagOutput: "Output", tagFrom: "From", tagTo: "To", tagTime: "Time",
	}
	switch tag {
	case tagMillis:
		c.Job.Millis = 0
	case tagSeq:
		c.Job.Seq = 0
	default:
		if name := names[tag]; name != "" {
			v.FieldByName(name).SetZero()
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, want := range full {
		for _, want := range []Command{want, {Op: want.Op}} {
			b := append(encode(t, &want), "what follows"...)
			var got Command
			rest, err := got.Decode(b)
			if err != nil || !reflect.DeepEqual(got, want) || string(rest) != "what follows" {
				t.Errorf("%+v became %+v, %q, %v", want, got, rest, err)
			}
		}
	}
	results := []Result{{}, {Code: Accepted, Job: JobID{1, 2}}, {Code: Failure}, {Code: Accepted, Session: 9}, {Code: Accepted, Count: 1000, More: true}, {Code: Full, Count: 3, Next: math.MaxUint64, To: 1 << 60}}
	var b []byte
	for _, r := range results {
		b = AppendResult(b, r)
	}
	for _, want := range results {
		var got Result
		var err error
		if got, b, err = DecodeResult(b); err != nil || got != want {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
}

func TestEntryRoundTrip(t *testing.T) {
	t.Parallel()
	commands := append(encode(t, &full[5]), encode(t, &full[6])...)
	wantBatch := Batch{Session: 1, Number: math.MaxUint64, Watermark: 300, Commands: commands}
	want := Entry{Time: math.MaxInt64, Batch: AppendBatch(nil, wantBatch), Commands: encode(t, &full[4])}
	p := AppendEntry([]byte("before"), want)
	if string(p[:6]) != "before" {
		t.Error("what was in the buffer changed")
	}
	got, err := DecodeEntry(p[6:])
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v became %+v, %v", want, got, err)
	}
	batch, err := DecodeBatch(got.Batch)
	if err != nil || !reflect.DeepEqual(batch, wantBatch) {
		t.Fatalf("%+v became %+v, %v", wantBatch, batch, err)
	}
}
