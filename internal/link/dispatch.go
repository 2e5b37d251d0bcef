package link

import "encoding/binary"

// Outcome says how a task ended, in NextTask and TaskEnded, and in the answer of
// Await. Numbers are append-only.
type Outcome int64

// The outcomes.
const (
	NoOutcome Outcome = 0 // there was no task, or it has not returned
	Returned  Outcome = 1 // the result is an envelope that says ok
	Refused   Outcome = 2 // the result is an envelope that says not ok
	Broke     Outcome = 3 // the result is a sentence: there is no envelope
)

// TaskBit is set in the number of every task and in no lease.
const TaskBit = 1 << 63

// PoolSize is a pool in the greeting.
type PoolSize struct {
	Name    string
	Threads int
}

// AppendGreeting appends the body of Hello's answer.
func AppendGreeting(b []byte, pools []PoolSize) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	f := Builder{b}
	for _, p := range pools {
		f = f.String(p.Name).Int(int64(p.Threads))
	}
	binary.LittleEndian.PutUint32(f.b[at:], uint32(len(f.b)-at-4))
	return f.b
}

// AppendResult appends one result to the body of Await's answer.
func AppendResult(b []byte, handle int64, outcome Outcome, result []byte) []byte {
	return Builder{b}.Int(handle).Int(int64(outcome)).Bytes(result).b
}
