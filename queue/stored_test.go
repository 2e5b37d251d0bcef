package queue

import (
	"bytes"
	"testing"

	"pogod/internal/command"
)

// FuzzStored reads what a data file holds: a job, a queue.
func FuzzStored(f *testing.F) {
	q := &queueState{
		id: 3, name: "mail", def: Definition{MaxAttempts: 3}, declared: true, auto: true,
		gauges: Gauges{Ready: 2, Bytes: 300, Suspects: 1}, counters: Counters{Enqueued: 5, BackendErrors: 1},
	}
	f.Add(q.encode())
	id := command.JobID{Millis: 1763849472123, Seq: 57}
	f.Add((&Job{ID: id, Payload: []byte("payload")}).encode())
	f.Add((&Job{
		ID: id, Origin: command.JobID{Millis: 1, Seq: 2}, Payload: []byte("payload"), Attempts: 3, Interruptions: 1, Reason: "it threw",
		FailedAt: 9, Lease: 58, Session: 4, Pool: "jobs", ReservedAt: 7, Deadline: 8, Output: "half way", queue: q, stored: true, order: 57, Crashes: 2, suspect: true,
	}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if j, number, err := decodeJob(b); err == nil {
			j.queue, j.stored = &queueState{id: uint32(number)}, number > 0
			once := j.encode()
			again, _, err := decodeJob(once)
			if err != nil {
				t.Fatalf("%x: %v", once, err)
			}
			again.queue, again.stored = j.queue, j.stored
			if twice := again.encode(); !bytes.Equal(twice, once) {
				t.Fatalf("%x has two encodings: %x and %x", b, once, twice)
			}
		}
		if q, err := decodeQueueState(b); err == nil {
			once := q.encode()
			again, err := decodeQueueState(once)
			if err != nil || !bytes.Equal(again.encode(), once) {
				t.Fatalf("%x became %x, %v", b, once, err)
			}
		}
	})
}
