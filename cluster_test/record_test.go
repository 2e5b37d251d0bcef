package cluster_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Answers that are no code of the node.
const (
	codeNotSent   = 2  // certainly nothing happened
	codeLost      = -1 // the link was lost after sending: anything may have happened
	codeWithdrawn = -2 // 5, and the node says that nothing was accepted
)

// event is one line of the record. The words are those of the line; which fields it
// has, says eventFields.
type event struct {
	what     string
	at       int64 // microseconds since the load began
	conn     int
	n        int64 // the push's number, -1 for a payload that is not the load's
	queue    string
	plan     plan
	delay    int64 // milliseconds
	code     int
	job      string // "-": none
	lease    uint64
	attempts int
	asked    int64  // when the delivery was asked for, as at
	verb     string // ack, release or fail
	call     string // push, next, ack, ...; idle: none was outstanding
	node     int    // of a dial and a cut
	round    int    // 0: a cut while the node started; of a dial: how many cuts of the node there were when it began; of a fault: its number
	calls    int    // outstanding at the cut
	pushes   int    // of these
	fault    string // see faultKill and the others
	where    string // the node that it strikes, or the ways that it cuts
}

// What is recorded, in the order in which it happened to the load.
const (
	evDial    = "dial"    // a connection is up
	evPush    = "push"    // a push is about to be sent
	evPushed  = "pushed"  // its answer, synced
	evGot     = "got"     // a delivery came
	evLeft    = "left"    // the next delivery is about to be asked for, this one is unsettled
	evSettle  = "settle"  // a settling call is about to be sent
	evSettled = "settled" // its answer, synced
	evLost    = "lost"    // a connection was lost
	evDark    = "dark"    // the power is about to be cut: what comes until the cut came out of nothing
	evCut     = "cut"     // the node was killed, all that was outstanding has ended
	evFault   = "fault"   // a fault is about to begin
	evHeal    = "heal"    // it is over
)

// fields returns pointers to the fields of the event's line, in order.
func (e *event) fields() []any {
	switch e.what {
	case evDial:
		return []any{&e.at, &e.conn, &e.node, &e.round}
	case evPush:
		return []any{&e.at, &e.conn, &e.n, &e.queue, (*string)(&e.plan), &e.delay}
	case evPushed:
		return []any{&e.at, &e.conn, &e.n, &e.code, &e.job}
	case evGot:
		return []any{&e.at, &e.conn, &e.n, &e.queue, &e.job, &e.lease, &e.attempts, &e.asked}
	case evLeft:
		return []any{&e.at, &e.conn, &e.job, &e.lease}
	case evSettle:
		return []any{&e.at, &e.conn, &e.verb, &e.job, &e.lease, &e.delay}
	case evSettled:
		return []any{&e.at, &e.conn, &e.verb, &e.job, &e.lease, &e.code}
	case evLost:
		return []any{&e.at, &e.conn, &e.call}
	case evDark:
		return []any{&e.at}
	case evCut:
		return []any{&e.at, &e.node, &e.round, &e.calls, &e.pushes}
	case evFault:
		return []any{&e.at, &e.round, &e.fault, &e.where}
	case evHeal:
		return []any{&e.at, &e.round}
	}
	return nil
}

func (e *event) append(b []byte) []byte {
	b = append(b, e.what...)
	for _, f := range e.fields() {
		b = append(b, ' ')
		switch f := f.(type) {
		case *int64:
			b = strconv.AppendInt(b, *f, 10)
		case *int:
			b = strconv.AppendInt(b, int64(*f), 10)
		case *uint64:
			b = strconv.AppendUint(b, *f, 10)
		case *string:
			b = append(b, *f...)
		}
	}
	return append(b, '\n')
}

func parseEvent(line string) (e event, err error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return e, errors.New("an empty line")
	}
	e.what = words[0]
	fields := e.fields()
	if len(fields) == 0 || len(words) != 1+len(fields) {
		return e, fmt.Errorf("not a line of the record: %q", line)
	}
	for i, f := range fields {
		w, err2 := words[1+i], error(nil)
		switch f := f.(type) {
		case *int64:
			*f, err2 = strconv.ParseInt(w, 10, 64)
		case *int:
			*f, err2 = strconv.Atoi(w)
		case *uint64:
			*f, err2 = strconv.ParseUint(w, 10, 64)
		case *string:
			*f = w
		}
		err = errors.Join(err, err2)
	}
	return e, err
}

// readRecord calls f with every event.
func readRecord(r io.Reader, f func(event) error) error {
	s := bufio.NewScanner(r)
	for s.Scan() {
		e, err := parseEvent(s.Text())
		if err == nil {
			err = f(e)
		}
		if err != nil {
			return err
		}
	}
	return s.Err()
}

// recorder appends events to a file. Those that wait for the disk share an fsync.
type recorder struct {
	file  *os.File
	began time.Time

	mu      sync.Mutex // guards the rest; not held during write and fsync
	cond    *sync.Cond
	buf     []byte
	added   uint64 // events in buf and the file
	synced  uint64 // of these, on the disk
	wanted  uint64 // of these, waited for
	closing bool
	done    chan struct{} // closed when run has ended
}

func newRecorder(path string) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	r := &recorder{file: f, began: time.Now(), done: make(chan struct{})}
	r.cond = sync.NewCond(&r.mu)
	go r.run() // ended by close
	return r, nil
}

func (r *recorder) now() int64 { return time.Since(r.began).Microseconds() }

// add records an event now.
func (r *recorder) add(e event) (seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.at = r.now()
	r.buf = e.append(r.buf)
	r.added++
	return r.added
}

// answer records an event that is to reach the disk at once, and does not wait.
func (r *recorder) answer(e event) (seq uint64) {
	seq = r.add(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = max(r.wanted, seq)
	r.cond.Broadcast()
	return seq
}

// wait waits until an event is on the disk.
func (r *recorder) wait(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.synced < seq {
		r.cond.Wait()
	}
}

// ahead lets a connection go on while its last answers are on their way to the disk.
// With none, all connections would wait for the same fsync at the same time, and none
// would have a call outstanding then.
type ahead [4]uint64

// add waits until the answer before the last few is on the disk.
func (a *ahead) add(r *recorder, seq uint64) {
	r.wait(a[0])
	copy(a[:], a[1:])
	a[len(a)-1] = seq
}

// run writes and syncs what gathered. A disk that fails ends the load: without its
// record nothing can be said.
func (r *recorder) run() {
	defer close(r.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for r.wanted <= r.synced && !r.closing {
			r.cond.Wait()
		}
		if len(r.buf) == 0 && r.closing {
			return
		}
		buf, added := r.buf, r.added
		r.buf = nil
		r.mu.Unlock()
		_, err := r.file.Write(buf)
		if err = errors.Join(err, r.file.Sync()); err != nil {
			fmt.Fprintln(os.Stderr, "the record cannot be written:", err)
			os.Exit(1)
		}
		r.mu.Lock()
		r.synced = added
		r.cond.Broadcast()
	}
}

func (r *recorder) close() error {
	r.mu.Lock()
	r.closing = true
	r.cond.Broadcast()
	r.mu.Unlock()
	<-r.done
	return r.file.Close()
}
