package queue

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"pogod/internal/command"
	"pogod/storage"
)

// Proposer takes commands to the state machine; raftfsm has one a node.
type Proposer interface {
	// Propose returns when c is committed on a quorum, fsynced and applied, with its
	// result. Its errors are command.ErrNotAccepted, ErrOutcomeUnknown, ErrTooLarge
	// and ErrClosed. c and what it points to must not change until then.
	Propose(ctx context.Context, c *command.Command) (command.Result, error)
	// LastIndex returns the greatest log entry whose outcome Propose told.
	LastIndex() uint64
}

// Reader shows this node's state.
type Reader interface {
	// WaitApplied waits until the log entry with that index is applied on this node.
	WaitApplied(ctx context.Context, index uint64) error
	// Queues lists the queues without waiting for anything.
	Queues() *Table
	// Inspect calls f with the state and the transaction it was applied to, under
	// the state machine's lock: f is short, and keeps nothing.
	Inspect(f func(s *State, tx *storage.Tx) error) error
	// View calls f with what is committed in the file, all that was applied included.
	View(f func(tx *storage.Tx) error) error
}

var (
	// ErrFull is returned when the queue's max_messages or max_bytes would be
	// exceeded. Code 0.
	ErrFull = errors.New("the queue is full")
	// ErrPayloadTooLarge is returned for a payload over the queue's
	// max_payload_bytes, or over 16 MiB once quoted as JSON. Code 3.
	ErrPayloadTooLarge = errors.New("the payload is over the queue's max_payload_bytes")
	// ErrShuttingDown is returned for a push when the node has drained. Code 4.
	ErrShuttingDown = errors.New("the queue is shutting down on this node")
	// ErrPayloadNotUTF8 is returned for a payload that is not UTF-8. Code 5.
	ErrPayloadNotUTF8 = errors.New("payload is not UTF-8: base64-encode it")
	// ErrUnknownQueue is returned for a queue that is not declared. Code 6.
	ErrUnknownQueue = errors.New("the queue is not declared: add it to [queue] or switch auto_create on")
	// ErrNotHeld is returned when a delivery's lease is not, or no longer, its job's:
	// it was settled, given to another worker after its time-out, or never existed.
	// Code 5.
	ErrNotHeld = errors.New("this delivery is not held: it was settled already, its lease was lost, or the id is not a delivery's")
	// ErrUnknownJob is returned for a failed job that does not exist. Code 5.
	ErrUnknownJob = errors.New("there is no failed job with this id")
)

// MaxReason is how much of a reason is kept, in bytes.
const MaxReason = 8 << 10

// Client is a node's typed access to the queues.
type Client struct {
	proposer Proposer
	reader   Reader

	mu       sync.Mutex                  // guards the rest; held for map operations only
	attempts map[uint64]*running         // by lease: attempts that run on this node
	refused  map[string]*command.Command // by queue: what Count will tell, see Report
	draining bool
}

// running is an attempt on this node.
type running struct {
	queue    string
	job      command.JobID
	settled  command.Op // 0: not yet
	settling int        // calls under way
	before   func()     // called before a settling call is proposed; nil: nothing
	printed  tail       // what it printed last
}

// NewClient returns a client over p and r.
func NewClient(p Proposer, r Reader) *Client {
	return &Client{proposer: p, reader: r, attempts: map[uint64]*running{}, refused: map[string]*command.Command{}}
}

// Push adds a job, to be ready after delay (whole milliseconds, 0 for at once), and
// returns its id. It fails with ErrShuttingDown, ErrPayloadTooLarge,
// ErrPayloadNotUTF8, ErrUnknownQueue, ErrFull, or an error of Proposer; checked in
// that order.
func (c *Client) Push(ctx context.Context, queue string, payload []byte, delay time.Duration) (command.JobID, error) {
	var none command.JobID
	if c.isDraining() {
		c.refuse(queue, func(n *command.Command) { n.Shutdown++ })
		return none, ErrShuttingDown
	}
	limit, declared := c.reader.Queues().Declared(queue)
	if uint64(len(payload)) > limit && limit > 0 || len(payload) > command.MaxPayload || !deliverable(payload) {
		c.refuse(queue, func(n *command.Command) { n.TooLarge++ })
		return none, ErrPayloadTooLarge
	}
	if !utf8.Valid(payload) {
		return none, ErrPayloadNotUTF8
	}
	if !declared && !ValidName(queue) {
		return none, ErrUnknownQueue
	}
	// A queue that is not declared here may be on the other nodes, and its limit may be another
	// one: this node may lag, when it has just joined say. The state machine decides.
	r, err := c.proposer.Propose(ctx, &command.Command{Op: command.Push, Queue: queue, Payload: payload, Delay: uint64(delay.Milliseconds())})
	if err != nil {
		c.refuse(queue, func(n *command.Command) { n.Backend++ })
		return none, err
	}
	switch r.Code {
	case command.Accepted:
		return r.Job, nil
	case command.Full:
		return none, ErrFull
	case command.TooLarge:
		return none, ErrPayloadTooLarge
	}
	return none, ErrUnknownQueue
}

// maxQuoted is the largest payload as a JSON string, in bytes: a message of the link
// holds it, and what stands around it.
const maxQuoted = 16 << 20

// deliverable reports whether the payload fits a message to its worker, whose JSON makes
// up to six bytes of one.
func deliverable(payload []byte) bool {
	if len(payload) <= maxQuoted/6 {
		return true
	}
	n := len(payload)
	for i, c := range payload {
		switch {
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t' || c == '\b' || c == '\f':
			n++
		case c < ' ':
			n += 5
		case c == 0xe2 && i+2 < len(payload) && payload[i+1] == 0x80 && payload[i+2]&^1 == 0xa8:
			n += 3 // U+2028 and U+2029
		}
	}
	return n <= maxQuoted
}

// Ack settles a delivery: its job is done and gone. Errors: ErrUnknownQueue,
// ErrNotHeld, those of Proposer. The same call again during the same attempt
// succeeds again; another verb fails with ErrNotHeld.
func (c *Client) Ack(ctx context.Context, queue, delivery string) error {
	return c.settle(ctx, delivery, &command.Command{Op: command.Ack, Queue: queue})
}

// Release puts the job back, to be ready after delay. Errors as with Ack.
func (c *Client) Release(ctx context.Context, queue, delivery string, delay time.Duration) error {
	return c.settle(ctx, delivery, &command.Command{Op: command.Release, Queue: queue, Delay: uint64(delay.Milliseconds())})
}

// Fail moves the job to the failed ones; MaxReason bytes of reason are kept. Errors
// as with Ack.
func (c *Client) Fail(ctx context.Context, queue, delivery, reason string) error {
	return c.settle(ctx, delivery, &command.Command{Op: command.Fail, Queue: queue, Reason: CutReason(reason)})
}

func (c *Client) settle(ctx context.Context, delivery string, cmd *command.Command) error {
	if _, known := c.reader.Queues().Number(cmd.Queue); !known {
		return ErrUnknownQueue
	}
	id, lease, ok := ParseDeliveryID(delivery)
	if !ok {
		return ErrNotHeld
	}
	cmd.Job, cmd.Lease = id, lease
	c.mu.Lock()
	a := c.attempts[lease]
	if a == nil || a.queue != cmd.Queue || a.job != id {
		a = &running{} // of another node, or over, or a wrong id
	}
	settled := a.settled
	if settled == 0 {
		a.settling++
	}
	before := a.before
	if settled == 0 && cmd.Op != command.Ack {
		cmd.Output = a.printed.text()
	}
	c.mu.Unlock()
	if settled != 0 {
		if settled == cmd.Op {
			return nil
		}
		return ErrNotHeld
	}
	if before != nil {
		before()
	}
	r, err := c.proposer.Propose(ctx, cmd)
	c.mu.Lock()
	a.settling--
	if err == nil && r.Code == command.Accepted {
		a.settled = cmd.Op
	}
	c.mu.Unlock()
	switch {
	case err != nil:
		c.refuse(cmd.Queue, func(n *command.Command) { n.Backend++ })
		return err
	case r.Code == command.UnknownQueue:
		return ErrUnknownQueue
	case r.Code != command.Accepted:
		return ErrNotHeld
	}
	return nil
}

// Begin notes that an attempt starts on this node. Every Begin has an End. settling is
// called before a call of the handler that may settle it is proposed; nil: nothing is.
func (c *Client) Begin(d *Delivery, settling func()) {
	c.mu.Lock()
	c.attempts[d.Lease] = &running{queue: d.Queue, job: d.Job, before: settling}
	c.mu.Unlock()
}

// Settling reports whether the attempt's handler has settled, or is settling, it.
func (c *Client) Settling(lease uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.attempts[lease]
	return a != nil && (a.settled != 0 || a.settling > 0)
}

// End notes that the attempt has ended, and releases the job when it was not
// settled: released says whether that was so. Errors are those of Proposer; a lease
// that was lost meanwhile is none.
func (c *Client) End(ctx context.Context, d *Delivery, cause command.Cause, reason string) (released bool, err error) {
	c.mu.Lock()
	a := c.attempts[d.Lease]
	delete(c.attempts, d.Lease)
	settled := a != nil && a.settled != 0
	output := ""
	if a != nil && !settled && cause != command.Unstarted {
		output = a.printed.text()
	}
	c.mu.Unlock()
	if settled {
		return false, nil
	}
	return c.giveBack(ctx, d, cause, reason, output)
}

// GiveBack releases a delivery that never started.
func (c *Client) GiveBack(ctx context.Context, d *Delivery) error {
	_, err := c.giveBack(ctx, d, command.Unstarted, "", "")
	return err
}

func (c *Client) giveBack(ctx context.Context, d *Delivery, cause command.Cause, reason, output string) (bool, error) {
	r, err := c.proposer.Propose(ctx, &command.Command{
		Op: command.Release, Queue: d.Queue, Job: d.Job, Lease: d.Lease, Cause: cause, Reason: CutReason(reason), Output: output,
	})
	return err == nil && r.Code == command.Accepted, err
}

// RetryFailed makes a fresh job of a failed one and returns its id. Errors:
// ErrUnknownQueue, ErrUnknownJob, ErrFull, those of Proposer.
func (c *Client) RetryFailed(ctx context.Context, queue, id string) (command.JobID, error) {
	r, err := c.onFailed(ctx, command.RetryFailed, queue, id)
	switch {
	case err != nil:
		return command.JobID{}, err
	case r.Code == command.Full:
		return command.JobID{}, ErrFull
	case r.Code == command.Failure:
		return command.JobID{}, ErrUnknownJob
	}
	return r.Job, nil
}

// ForgetFailed deletes a failed job and returns how many there were: 0 or 1.
func (c *Client) ForgetFailed(ctx context.Context, queue, id string) (uint64, error) {
	r, err := c.onFailed(ctx, command.ForgetFailed, queue, id)
	return r.Count, err
}

func (c *Client) onFailed(ctx context.Context, op command.Op, queue, id string) (command.Result, error) {
	job, _ := command.ParseJobID(id) // what is no id is no job's
	r, err := c.proposer.Propose(ctx, &command.Command{Op: op, Queue: queue, Job: job})
	if err == nil && r.Code == command.UnknownQueue {
		err = ErrUnknownQueue
	}
	return r, err
}

// PurgeFailed deletes all failed jobs of a queue and returns how many. It takes
// command.MaxRecords at a time; jobs that fail meanwhile may go too.
func (c *Client) PurgeFailed(ctx context.Context, queue string) (n uint64, err error) {
	for {
		r, err := c.proposer.Propose(ctx, &command.Command{Op: command.PurgeFailed, Queue: queue})
		switch {
		case err != nil:
			return n, err
		case r.Code == command.UnknownQueue:
			return n, ErrUnknownQueue
		}
		n += r.Count
		if !r.More {
			return n, nil
		}
	}
}

// readTimeout bounds how long a read waits for this node to apply its own writes.
const readTimeout = 5 * time.Second

// ownWrites waits until this node's state holds all that its callers were answered for.
func (c *Client) ownWrites(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return c.reader.WaitApplied(ctx, c.proposer.LastIndex())
}

// Failed lists failed jobs, newest first: limit at most, fewer when they are large.
// It waits for this node's own writes, and fails with ErrUnknownQueue, or when the node
// does not catch up with them.
func (c *Client) Failed(ctx context.Context, queue string, limit int) (jobs []*Job, err error) {
	jobs, _, err = c.FailedPage(ctx, queue, 0, limit)
	return jobs, err
}

// Stats of one queue, or of all when name is empty. One that is not known has an
// entry of zeros. The counters hold what this node has refused and not yet told. It
// waits for this node's own writes, and fails when the node does not catch up with them.
func (c *Client) Stats(ctx context.Context, name string) (all []Stats, err error) {
	if err := c.ownWrites(ctx); err != nil {
		return nil, err
	}
	return c.Seen(name)
}

// Seen is Stats of this node's state as it is: of one that lags, without what its callers
// were answered last.
func (c *Client) Seen(name string) (all []Stats, err error) {
	err = c.reader.Inspect(func(s *State, tx *storage.Tx) error {
		if name == "" {
			all, err = s.AllStats(tx)
			return err
		}
		st, _, err := s.Stats(tx, name)
		all = []Stats{st}
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range all {
		if n := c.refused[all[i].Name]; n != nil {
			all[i].Counters.DroppedPayloadTooLarge += n.TooLarge
			all[i].Counters.DroppedShutdown += n.Shutdown
			all[i].Counters.BackendErrors += n.Backend
		}
	}
	return all, err
}

// Drain makes pushes fail with ErrShuttingDown from now on.
func (c *Client) Drain() {
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
}

func (c *Client) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// maxRefused bounds how many queues' refusals are kept until Report.
const maxRefused = 10_000

func (c *Client) refuse(queue string, add func(*command.Command)) {
	if !ValidName(queue) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.refused[queue]
	if n == nil {
		if len(c.refused) >= maxRefused {
			return
		}
		n = &command.Command{Op: command.Count, Queue: queue}
		c.refused[queue] = n
	}
	add(n)
}

// Report writes the counters of what never reached the log, through the log. Call
// it every second or so and before the end; it does nothing when there is nothing
// to tell.
func (c *Client) Report(ctx context.Context) error {
	c.mu.Lock()
	refused := c.refused
	c.refused = map[string]*command.Command{}
	c.mu.Unlock()
	var failed error
	for _, queue := range sortedKeys(refused) {
		n := refused[queue]
		if failed == nil {
			_, failed = c.proposer.Propose(ctx, n)
			if failed == nil || errors.Is(failed, command.ErrOutcomeUnknown) {
				continue // told, or it will be: never twice
			}
		}
		c.refuse(queue, func(m *command.Command) {
			m.TooLarge += n.TooLarge
			m.Shutdown += n.Shutdown
			m.Backend += n.Backend
		})
	}
	return failed
}

// ParseDeliveryID reads "<job id>:<lease>"; ok is false for anything else.
func ParseDeliveryID(s string) (id command.JobID, lease uint64, ok bool) {
	job, l, found := strings.Cut(s, ":")
	if !found {
		return id, 0, false
	}
	if id, ok = command.ParseJobID(job); !ok {
		return id, 0, false
	}
	lease, ok = parseUint(l)
	return id, lease, ok
}

// CutReason returns at most MaxReason bytes of reason, as valid UTF-8.
func CutReason(reason string) string {
	// Twice: what replaces a byte that is not UTF-8 is longer than it.
	return cutString(strings.ToValidUTF8(cutString(reason), "\uFFFD"))
}

// cutString returns at most MaxReason bytes of s and cuts no rune.
func cutString(s string) string {
	if len(s) <= MaxReason {
		return s
	}
	cut := MaxReason
	for cut > MaxReason-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
