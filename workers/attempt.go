package workers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
)

// thread is one connection that has called Next: a thread of a PHP host, or a process
// of its own.
type thread struct {
	conn    *link.Conn
	worker  string
	slot    int64
	waiting bool     // in Next
	running *attempt // nil between attempts
	jobs    int      // attempts that it began
	quick   bool     // its last handler came back to Next right after it had settled
	soon    bool     // its handler is settling, and it is quick: as good as free
	// Of a delivery that Reserve handed out, or its call that waits; nil for a thread.
	reserver *reserver
}

// attempt is one handler that was started.
type attempt struct {
	d       queue.Delivery
	t       *thread
	timer   clock.Timer // interrupts it at the job's time-out
	stuck   clock.Timer // after it was interrupted: looks whether it came back
	settled time.Time   // when its handler began to settle it; zero: not yet
	cut     cut
}

// cut says that and why the node interrupted an attempt.
type cut struct {
	done   bool
	cause  command.Cause
	reason string
}

// message is what the worker's closure gets, as JSON.
type message struct {
	ID       string `json:"id"`
	Queue    string `json:"queue"`
	Payload  string `json:"payload"`
	Attempts uint64 `json:"attempts"`
	Job      string `json:"job"`
}

// encodeDelivery returns the body of Next's answer. It fails with link.ErrTooLong.
func encodeDelivery(d *queue.Delivery) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(256 + len(d.Payload) + len(d.Payload)/8)
	b.Write(link.AppendDelivery(nil, d.Lease, nil))
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it makes six bytes of one
	if err := e.Encode(message{d.ID(), d.Queue, string(d.Payload), d.Attempts, d.Job.String()}); err != nil {
		return nil, fmt.Errorf("the message of a job: %w", err)
	}
	body := bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
	if len(body)+4 > link.MaxFrame {
		return nil, fmt.Errorf("the payload of %d bytes takes %d as JSON, more than a message may have: %w", len(d.Payload), len(body), link.ErrTooLong)
	}
	return body, nil
}
