package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"pogod/internal/tagged"
)

// Op is the number of a command. Numbers are append-only.
type Op uint8

// The commands; doc.go lists their fields.
const (
	OpenSession  Op = 1
	EndSession   Op = 2
	Define       Op = 3
	Tick         Op = 4
	Reserve      Op = 5
	SetTime      Op = 7
	SetLevel     Op = 8
	Push         Op = 16
	Ack          Op = 17
	Release      Op = 18
	Fail         Op = 19
	RetryFailed  Op = 20
	ForgetFailed Op = 21
	PurgeFailed  Op = 22
	Count        Op = 23
	Pause        Op = 24
	Resume       Op = 25
	Clear        Op = 26
	Delete       Op = 27
	RetryAll     Op = 28
)

// Cause says why a job is released.
type Cause uint8

// The causes. Numbers are append-only.
const (
	Asked       Cause = 0 // the handler called release; Delay is its own
	Unsettled   Cause = 1 // the handler ended without settling: back-off
	Broke       Cause = 2 // it threw, exited, ran out of memory: back-off
	TimedOut    Cause = 3 // it ran past its time-out: back-off
	Interrupted Cause = 4 // its host or node was lost, through no fault of the job: at once, spends no attempt
	Unstarted   Cause = 5 // it never ran: at once, the attempt is not counted
	Crashed     Cause = 6 // its PHP host ended by itself: at once, spends no attempt; a suspect, or charged with a crash if it was one
)

// lastCause is the greatest cause that this version knows.
const lastCause = Crashed

// MaxPayload is the largest payload that a queue may allow, in bytes. A command
// with it stays under MaxCommand.
const MaxPayload = 15 << 20

// MaxCommand is the largest encoded command, in bytes. A larger one is refused
// before it is proposed, and the log refuses its entry unwritten.
const MaxCommand = 16 << 20

// MaxRecords is how many records one command touches at most; the leader repeats
// it until nothing is left.
const MaxRecords = 1000

var (
	// ErrMalformed is returned when bytes are not what this package wrote.
	ErrMalformed = errors.New("command: malformed")
	// ErrUnknown is returned for a command or a field of a later version. The node
	// that meets it must stop.
	ErrUnknown = errors.New("command: not known to this version of pogod")
	// ErrTooLarge is returned for a command over MaxCommand.
	ErrTooLarge = fmt.Errorf("command: over %d bytes", MaxCommand)
)

// JobID is the id of a job: unique in the cluster for ever.
type JobID struct {
	Millis int64  // unix milliseconds of cluster time at its push
	Seq    uint64 // the state's counter at its push
}

// String returns "<unix milliseconds>-<counter>".
func (id JobID) String() string { return string(id.Append(nil)) }

// Append appends the id's text to b.
func (id JobID) Append(b []byte) []byte {
	b = strconv.AppendInt(b, id.Millis, 10)
	b = append(b, '-')
	return strconv.AppendUint(b, id.Seq, 10)
}

// ParseJobID reads what String returned; ok is false for anything else.
func ParseJobID(s string) (id JobID, ok bool) {
	ms, seq, found := strings.Cut(s, "-")
	if !found {
		return id, false
	}
	m, err1 := strconv.ParseUint(ms, 10, 63)
	n, err2 := strconv.ParseUint(seq, 10, 64)
	id = JobID{int64(m), n}
	if err1 != nil || err2 != nil || id.String() != s {
		return JobID{}, false
	}
	return id, true
}

// Command is one command with all fields that a command may have. Each op uses
// those that doc.go names; the others are zero and take no room.
type Command struct {
	Op          Op
	Queue       string
	Job         JobID
	Lease       uint64
	Payload     []byte // aliases the entry when decoded
	Delay       uint64 // milliseconds
	Reason      string
	Cause       Cause
	Session     uint64
	Node        string
	Number      uint64 // of the opening, grows with each; SetLevel: the level
	Pool        string
	Count       uint64 // jobs to reserve
	Hash        string // of Definitions
	Definitions []byte // queue.EncodeDefinitions
	TooLarge    uint64 // Count: pushes refused for their size
	Shutdown    uint64 // Count: pushes refused while shutting down
	Backend     uint64 // Count: calls that failed with code 5
	Output      string // what the attempt printed last
	From        uint64 // Clear, RetryAll: where to go on, Result.Next of the one before; Delete: the job's place
	To          uint64 // RetryAll: where to end, Result.To of the first; 0: at what has failed by now
	Time        int64  // cluster time, unix milliseconds
}

// The tags of a command's fields. Append-only.
const (
	tagQueue       = 1
	tagMillis      = 2
	tagSeq         = 3
	tagLease       = 4
	tagPayload     = 5
	tagDelay       = 6
	tagReason      = 7
	tagCause       = 8
	tagSession     = 9
	tagNode        = 10
	tagNumber      = 11
	tagPool        = 12
	tagCount       = 13
	tagHash        = 14
	tagDefinitions = 15
	tagTooLarge    = 16
	tagShutdown    = 17
	tagBackend     = 18
	tagOutput      = 20
	tagFrom        = 21
	tagTo          = 22
	tagTime        = 24
)

// fieldsOf says which tags a command may carry: one bit a tag.
var fieldsOf = map[Op]uint32{
	OpenSession:  bits(tagNode, tagNumber),
	EndSession:   bits(tagSession),
	Define:       bits(tagHash, tagDefinitions),
	Tick:         0,
	Reserve:      bits(tagQueue, tagSession, tagPool, tagCount),
	SetTime:      bits(tagTime),
	SetLevel:     bits(tagNumber),
	Push:         bits(tagQueue, tagPayload, tagDelay),
	Ack:          bits(tagQueue, tagMillis, tagSeq, tagLease),
	Release:      bits(tagQueue, tagMillis, tagSeq, tagLease, tagDelay, tagReason, tagCause, tagOutput),
	Fail:         bits(tagQueue, tagMillis, tagSeq, tagLease, tagReason, tagOutput),
	RetryFailed:  bits(tagQueue, tagMillis, tagSeq),
	ForgetFailed: bits(tagQueue, tagMillis, tagSeq),
	PurgeFailed:  bits(tagQueue),
	Count:        bits(tagQueue, tagTooLarge, tagShutdown, tagBackend),
	Pause:        bits(tagQueue),
	Resume:       bits(tagQueue),
	Clear:        bits(tagQueue, tagFrom),
	Delete:       bits(tagQueue, tagMillis, tagSeq, tagFrom),
	RetryAll:     bits(tagQueue, tagReason, tagDelay, tagFrom, tagTo),
}

type knownOp struct {
	fields uint32
	ok     bool
}

// known is fieldsOf by index.
var known = func() (t [256]knownOp) {
	for op, fields := range fieldsOf {
		t[op].fields, t[op].ok = fields, true
	}
	return t
}()

func bits(tags ...uint) (m uint32) {
	for _, t := range tags {
		m |= 1 << t
	}
	return m
}

// fields returns the tags of the fields that are set: one bit a tag.
func (c *Command) fields() (m uint32) {
	for _, f := range [...]struct {
		tag uint
		set bool
	}{
		{tagQueue, c.Queue != ""},
		{tagMillis, c.Job.Millis != 0},
		{tagSeq, c.Job.Seq != 0},
		{tagLease, c.Lease != 0},
		{tagPayload, len(c.Payload) > 0},
		{tagDelay, c.Delay != 0},
		{tagReason, c.Reason != ""},
		{tagCause, c.Cause != 0},
		{tagSession, c.Session != 0},
		{tagNode, c.Node != ""},
		{tagNumber, c.Number != 0},
		{tagPool, c.Pool != ""},
		{tagCount, c.Count != 0},
		{tagHash, c.Hash != ""},
		{tagDefinitions, len(c.Definitions) > 0},
		{tagTooLarge, c.TooLarge != 0},
		{tagShutdown, c.Shutdown != 0},
		{tagBackend, c.Backend != 0},
		{tagOutput, c.Output != ""},
		{tagFrom, c.From != 0},
		{tagTo, c.To != 0},
		{tagTime, c.Time != 0},
	} {
		if f.set {
			m |= 1 << f.tag
		}
	}
	return m
}

// Append appends the encoded command to b. It fails with ErrTooLarge, or with
// ErrMalformed for a command that Decode would refuse, which would stop every node
// that met it in the log, and leaves b as it was. The command's fields are copied.
func (c *Command) Append(b []byte) ([]byte, error) {
	may := &known[c.Op]
	if !may.ok || c.fields()&^may.fields != 0 || c.Job.Millis < 0 || c.Time < 0 || c.Delay > math.MaxInt64 || c.Cause > lastCause {
		return b, fmt.Errorf("%w: command %d with a field or a value that it may not have", ErrMalformed, c.Op)
	}
	start := len(b)
	b = append(b, byte(c.Op))
	// The length comes before the fields and is rarely over two bytes: leave two,
	// and move the fields in the rare case.
	const room = 2
	b = append(b, 0, 0)
	at := len(b)
	b = tagged.Bytes(b, tagQueue, c.Queue)
	b = tagged.Uint(b, tagMillis, uint64(c.Job.Millis))
	b = tagged.Uint(b, tagSeq, c.Job.Seq)
	b = tagged.Uint(b, tagLease, c.Lease)
	b = tagged.Bytes(b, tagPayload, c.Payload)
	b = tagged.Uint(b, tagDelay, c.Delay)
	b = tagged.Bytes(b, tagReason, c.Reason)
	b = tagged.Uint(b, tagCause, uint64(c.Cause))
	b = tagged.Uint(b, tagSession, c.Session)
	b = tagged.Bytes(b, tagNode, c.Node)
	b = tagged.Uint(b, tagNumber, c.Number)
	b = tagged.Bytes(b, tagPool, c.Pool)
	b = tagged.Uint(b, tagCount, c.Count)
	b = tagged.Bytes(b, tagHash, c.Hash)
	b = tagged.Bytes(b, tagDefinitions, c.Definitions)
	b = tagged.Uint(b, tagTooLarge, c.TooLarge)
	b = tagged.Uint(b, tagShutdown, c.Shutdown)
	b = tagged.Uint(b, tagBackend, c.Backend)
	b = tagged.Bytes(b, tagOutput, c.Output)
	b = tagged.Uint(b, tagFrom, c.From)
	b = tagged.Uint(b, tagTo, c.To)
	b = tagged.Uint(b, tagTime, uint64(c.Time))
	n := len(b) - at
	if n > MaxCommand {
		return b[:start], ErrTooLarge
	}
	var length [binary.MaxVarintLen32]byte
	k := binary.PutUvarint(length[:], uint64(n))
	switch {
	case k < room:
		copy(b[at-room+k:], b[at:])
		b = b[:len(b)-room+k]
	case k > room:
		b = append(b, length[:k-room]...)
		copy(b[at+k-room:], b[at:at+n])
	}
	copy(b[at-room:], length[:k])
	return b, nil
}

// Decode reads one command from the front of b into c, whose earlier content is
// lost, and returns what follows. Byte fields alias b.
func (c *Command) Decode(b []byte) (rest []byte, err error) {
	if len(b) == 0 {
		return nil, ErrMalformed
	}
	*c = Command{Op: Op(b[0])}
	k := &known[c.Op]
	if !k.ok {
		return nil, fmt.Errorf("%w: command %d", ErrUnknown, c.Op)
	}
	fields, rest, err := cut(b[1:])
	if err != nil {
		return nil, err
	}
	r := tagged.Read(fields)
	for tag := range r.Tags() {
		if tag > 31 || k.fields&(1<<tag) == 0 {
			return nil, fmt.Errorf("%w: field %d of command %d", ErrUnknown, tag, c.Op)
		}
		c.set(tag, &r)
	}
	if r.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, r.Err())
	}
	if c.Job.Millis < 0 || c.Time < 0 || c.Delay > math.MaxInt64 {
		return nil, fmt.Errorf("%w: a time out of range", ErrMalformed)
	}
	return rest, nil
}

func (c *Command) set(tag uint64, r *tagged.Reader) {
	switch tag {
	case tagQueue:
		c.Queue = string(r.Bytes())
	case tagMillis:
		c.Job.Millis = int64(r.Uint())
	case tagSeq:
		c.Job.Seq = r.Uint()
	case tagLease:
		c.Lease = r.Uint()
	case tagPayload:
		c.Payload = r.Bytes()
	case tagDelay:
		c.Delay = r.Uint()
	case tagReason:
		c.Reason = string(r.Bytes())
	case tagCause:
		if v := r.Uint(); v <= uint64(lastCause) {
			c.Cause = Cause(v)
		} else {
			r.Unknown(tag)
		}
	case tagSession:
		c.Session = r.Uint()
	case tagNode:
		c.Node = string(r.Bytes())
	case tagNumber:
		c.Number = r.Uint()
	case tagPool:
		c.Pool = string(r.Bytes())
	case tagCount:
		c.Count = r.Uint()
	case tagHash:
		c.Hash = string(r.Bytes())
	case tagDefinitions:
		c.Definitions = r.Bytes()
	case tagTooLarge:
		c.TooLarge = r.Uint()
	case tagShutdown:
		c.Shutdown = r.Uint()
	case tagBackend:
		c.Backend = r.Uint()
	case tagOutput:
		c.Output = string(r.Bytes())
	case tagFrom:
		c.From = r.Uint()
	case tagTo:
		c.To = r.Uint()
	case tagTime:
		c.Time = int64(r.Uint())
	}
}

// cut splits b behind a length and that many bytes.
func cut(b []byte) (head, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, fmt.Errorf("%w: cut short", ErrMalformed)
	}
	return b[k : k+int(n)], b[k+int(n):], nil
}
