package command

import (
	"errors"
	"fmt"

	"pogod/internal/tagged"
)

// Code is how a command ended; the numbers are those that PHP sees.
type Code int8

// The codes.
const (
	Full         Code = 0 // max_messages or max_bytes would be exceeded
	Accepted     Code = 1 // committed and fsynced
	Unavailable  Code = 2 // no node is reachable; never from the state machine
	TooLarge     Code = 3 // over max_payload_bytes
	ShuttingDown Code = 4 // never from the state machine
	Failure      Code = 5 // lost lease, unknown id
	UnknownQueue Code = 6
)

// Result is what the state machine answers to one command.
type Result struct {
	Code    Code
	Job     JobID  // Push, RetryFailed: the new job
	Session uint64 // OpenSession: the session's id
	Count   uint64 // ForgetFailed, PurgeFailed, Clear, Delete, RetryAll, Reserve: how many
	More    bool   // PurgeFailed, Clear, RetryAll: over MaxRecords, call again
	Next    uint64 // Clear, RetryAll: From of that call
	To      uint64 // RetryAll: To of that call
}

// AppendResult appends the encoded result, behind its length, to b.
func AppendResult(b []byte, r Result) []byte {
	b = append(b, 0) // the length: eight fields take under 80 bytes
	at := len(b)
	b = tagged.Uint(b, 1, uint64(r.Code))
	b = tagged.Uint(b, 2, uint64(r.Job.Millis))
	b = tagged.Uint(b, 3, r.Job.Seq)
	b = tagged.Uint(b, 4, r.Session)
	b = tagged.Uint(b, 5, r.Count)
	if r.More {
		b = tagged.Uint(b, 6, 1)
	}
	b = tagged.Uint(b, 7, r.Next)
	b = tagged.Uint(b, 8, r.To)
	b[at-1] = byte(len(b) - at)
	return b
}

// DecodeResult reads one result from the front of b and returns what follows.
func DecodeResult(b []byte) (r Result, rest []byte, err error) {
	fields, rest, err := cut(b)
	if err != nil {
		return r, nil, err
	}
	t := tagged.Read(fields)
	for tag := range t.Tags() {
		switch tag {
		case 1:
			r.Code = Code(t.Uint())
		case 2:
			r.Job.Millis = int64(t.Uint())
		case 3:
			r.Job.Seq = t.Uint()
		case 4:
			r.Session = t.Uint()
		case 5:
			r.Count = t.Uint()
		case 6:
			r.More = t.Uint() == 1
		case 7:
			r.Next = t.Uint()
		case 8:
			r.To = t.Uint()
		default:
			t.Unknown(tag)
		}
	}
	if t.Err() != nil {
		return r, nil, errors.Join(ErrMalformed, t.Err())
	}
	return r, rest, nil
}

var (
	// ErrNotAccepted is returned by a proposer when a command was certainly not
	// accepted; what wraps it says why.
	ErrNotAccepted = errors.New("not accepted")
	// ErrNotTaken is the ErrNotAccepted of a command that no leader took in time.
	ErrNotTaken = fmt.Errorf("%w: no leader took the command in time", ErrNotAccepted)
	// ErrOutcomeUnknown is returned by a proposer when a command was sent but its
	// answer did not come in time. It may be applied now, later or never; the node
	// goes on trying, and never applies it twice.
	ErrOutcomeUnknown = errors.New("the outcome is unknown: the command was sent and not answered in time")
	// ErrClosed is returned by a proposer that was closed. Nothing was accepted.
	ErrClosed = errors.New("the node is shutting down")
)
