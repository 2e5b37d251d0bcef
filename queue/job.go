package queue

import (
	"encoding/binary"
	"fmt"
	"time"

	"pogod/internal/command"
	"pogod/internal/tagged"
	"pogod/storage"
)

// Job is one job as it is stored.
type Job struct {
	ID      command.JobID
	Origin  command.JobID // the first of its chain of retries; zero: itself
	Payload []byte

	Attempts      uint64 // handlers started
	Interruptions uint64 // of them, ended through no fault of the handler
	Crashes       uint64 // of its PHP host while it ran alone in quarantine
	Reason        string // why its last attempt ended badly
	Output        string // what that attempt printed last, where its node could tell
	FailedAt      int64  // unix milliseconds; failed jobs only
	DueAt         int64  // unix milliseconds; delayed jobs that List lists only

	// Of a reserved job only.
	Lease      uint64 // new at every reservation
	Session    uint64 // the node's that holds it
	Pool       string // whose thread it is for
	ReservedAt int64  // unix milliseconds
	Deadline   int64  // unix milliseconds: then the lease is lost

	queue   *queueState
	order   uint64 // its place in line before it was reserved
	suspect bool   // it ran in a host that crashed: it stands in line with the suspects, and runs alone
	stored  bool   // as reserved, in the transaction
}

// Spent returns how many attempts count against max_attempts.
func (j *Job) Spent() uint64 { return j.Attempts - min(j.Interruptions, j.Attempts) }

// timeout is the hard limit of the attempt that a reserved job is in, as it was when
// the attempt was reserved; a later definition of its queue does not change it.
func (j *Job) timeout() time.Duration {
	return time.Duration(j.Deadline-j.ReservedAt)*time.Millisecond - graceAfterTimeout
}

// The tags of a stored job. Append-only.
const (
	jobMillis        = 1
	jobSeq           = 2
	jobPayload       = 3
	jobAttempts      = 4
	jobInterruptions = 5
	jobReason        = 6
	jobOriginMillis  = 7
	jobOriginSeq     = 8
	jobFailedAt      = 9
	jobLease         = 10
	jobSession       = 11
	jobPool          = 12
	jobReservedAt    = 13
	jobDeadline      = 14
	jobQueue         = 15 // the queue's number; reserved jobs only, which share one bucket
	jobOrder         = 16 // its place in line; reserved jobs only, others have it in their key
	jobCrashes       = 17
	jobSuspect       = 18
	jobOutput        = 19
)

// encode returns the stored form, with room for the seal. The payload is copied.
func (j *Job) encode() []byte {
	b := make([]byte, 0, 64+len(j.Payload)+len(j.Reason)+len(j.Output)+len(j.Pool)+storage.SealSize)
	b = tagged.Uint(b, jobMillis, uint64(j.ID.Millis))
	b = tagged.Uint(b, jobSeq, j.ID.Seq)
	b = tagged.Bytes(b, jobPayload, j.Payload)
	b = tagged.Uint(b, jobAttempts, j.Attempts)
	b = tagged.Uint(b, jobInterruptions, j.Interruptions)
	b = tagged.Bytes(b, jobReason, j.Reason)
	b = tagged.Uint(b, jobOriginMillis, uint64(j.Origin.Millis))
	b = tagged.Uint(b, jobOriginSeq, j.Origin.Seq)
	b = tagged.Uint(b, jobFailedAt, uint64(j.FailedAt))
	b = tagged.Uint(b, jobLease, j.Lease)
	b = tagged.Uint(b, jobSession, j.Session)
	b = tagged.Bytes(b, jobPool, j.Pool)
	b = tagged.Uint(b, jobReservedAt, uint64(j.ReservedAt))
	b = tagged.Uint(b, jobDeadline, uint64(j.Deadline))
	if j.stored {
		b = tagged.Uint(b, jobQueue, uint64(j.queue.id))
		b = tagged.Uint(b, jobOrder, j.order)
	}
	b = tagged.Uint(b, jobCrashes, j.Crashes)
	if j.suspect {
		b = tagged.Uint(b, jobSuspect, 1)
	}
	b = tagged.Bytes(b, jobOutput, j.Output)
	return b
}

// decodeJob reads a stored job and its queue's number, 0 when it has none. The
// payload is cloned, so that the job outlives the transaction.
func decodeJob(b []byte) (j *Job, queue uint64, err error) {
	j = &Job{}
	r := tagged.Read(b)
	for tag := range r.Tags() {
		switch tag {
		case jobMillis:
			j.ID.Millis = int64(r.Uint())
		case jobSeq:
			j.ID.Seq = r.Uint()
		case jobPayload:
			j.Payload = append([]byte(nil), r.Bytes()...)
		case jobAttempts:
			j.Attempts = r.Uint()
		case jobInterruptions:
			j.Interruptions = r.Uint()
		case jobReason:
			j.Reason = string(r.Bytes())
		case jobOriginMillis:
			j.Origin.Millis = int64(r.Uint())
		case jobOriginSeq:
			j.Origin.Seq = r.Uint()
		case jobFailedAt:
			j.FailedAt = int64(r.Uint())
		case jobLease:
			j.Lease = r.Uint()
		case jobSession:
			j.Session = r.Uint()
		case jobPool:
			j.Pool = string(r.Bytes())
		case jobReservedAt:
			j.ReservedAt = int64(r.Uint())
		case jobDeadline:
			j.Deadline = int64(r.Uint())
		case jobQueue:
			queue = r.Uint()
		case jobOrder:
			j.order = r.Uint()
		case jobCrashes:
			j.Crashes = r.Uint()
		case jobSuspect:
			j.suspect = r.Uint() == 1
		case jobOutput:
			j.Output = string(r.Bytes())
		default:
			r.Unknown(tag)
		}
	}
	if r.Err() != nil {
		return nil, 0, fmt.Errorf("a stored job: %w", r.Err())
	}
	return j, queue, nil
}

// Delivery is one reservation, as the node that holds it sees it.
type Delivery struct {
	Queue      string
	Job        command.JobID
	Lease      uint64
	Pool       string
	Payload    []byte        // not to be changed
	Attempts   uint64        // this one counted
	ReservedAt int64         // unix milliseconds of cluster time
	Waited     time.Duration // since then, by the cluster time of the state that shows it; set by raftfsm's FSM.Reserved
	Timeout    time.Duration
	Suspect    bool   // it is to run alone in its PHP host, which it may crash
	Crashes    uint64 // charged to the job before this attempt
	MaxCrashes uint64 // of its queue; 0: unlimited
}

// ID returns the delivery's id, "<job id>:<lease>".
func (d *Delivery) ID() string { return string(appendDeliveryID(nil, d.Job, d.Lease)) }

func appendDeliveryID(b []byte, id command.JobID, lease uint64) []byte {
	b = append(id.Append(b), ':')
	return appendUint(b, lease)
}

// Keys of the buckets. Numbers are big-endian so that they sort.

func readyKey(priority byte, order, seq uint64) []byte {
	k := make([]byte, 0, 17)
	k = append(k, 9-priority)
	k = binary.BigEndian.AppendUint64(k, order)
	return binary.BigEndian.AppendUint64(k, seq)
}

// orderOf reads the order from a ready key.
func orderOf(readyKey []byte) uint64 { return binary.BigEndian.Uint64(readyKey[1:]) }

// pairKey is the key of delayed jobs (due time, seq) and of failed ones (order, seq).
func pairKey(a, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), a), seq)
}

// failedOrder reads the order from the key of a failed job.
func failedOrder(key []byte) uint64 { return binary.BigEndian.Uint64(key) }

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 8), seq) }
