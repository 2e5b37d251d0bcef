package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"pogod/raftfsm"
	"pogod/raftfsm/leader"
)

const (
	// silence is how long a link may be silent, and how long a part of a frame may take
	// to be written. pingEvery is how often each side says something.
	silence   = 2 * time.Second
	pingEvery = 500 * time.Millisecond

	// maxRequests bounds the requests that wait for their answers on a link, at each end:
	// one more is not sent; the reader of the other end waits.
	maxRequests = 1024

	// maxQueue bounds the frames that wait to be written. More means a peer that writes
	// but does not read, and ends the link.
	maxQueue = 8 * maxRequests
)

var (
	errLost  = errors.New("the link was lost before the answer came")
	errSwept = errors.New("the leader changed before the answer came")
)

// link is one connection between two nodes, dialed or accepted. Both sides may ask, and
// both answer; nodes ask on the links that they have dialed.
type link struct {
	k     *conn
	node  string        // the other side
	wake  chan struct{} // holds one signal: frames wait
	quit  chan struct{} // closed when the link has ended
	slots chan struct{} // the other side's requests that this one works on

	dialed  bool           // by this node
	level   uint64         // that the other side knows
	offered leader.Credits // the reader's: what the other side offered last

	mu      sync.Mutex // guards the rest
	queue   []outgoing
	pending map[uint64]*request
	lastID  uint64
	ended   bool
}

// outgoing is a frame that waits to be written.
type outgoing struct {
	b []byte
	r *request // nil: no answer is awaited
}

// request waits for its answer. begun is guarded by the link's mu, the rest by done.
type request struct {
	l     *link
	id    uint64
	begun bool          // its frame may be on its way
	done  chan struct{} // closed with body or err set
	body  []byte
	err   error
}

func newLink(k *conn) *link {
	return &link{
		k: k, node: k.node,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), slots: make(chan struct{}, maxRequests),
		pending: map[uint64]*request{},
	}
}

// post queues a frame without an answer; it is dropped when the link has ended.
func (l *link) post(b []byte, id uint64) {
	seal(b, id)
	l.mu.Lock()
	full := len(l.queue) >= maxQueue
	if !l.ended && !full {
		l.enqueue(outgoing{b: b})
	}
	l.mu.Unlock()
	if full {
		l.end()
	}
}

// enqueue leaves a frame to the writer. mu is held.
func (l *link) enqueue(o outgoing) {
	l.queue = append(l.queue, o)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// request queues a frame that is answered. Frames are written in the order of the calls.
func (l *link) request(b []byte) *request {
	r := &request{l: l, done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		r.err = fmt.Errorf("%w: the link to node %s is down", raftfsm.ErrNotSent, l.node)
	case len(l.pending) >= maxRequests:
		r.err = fmt.Errorf("%w: %d requests to node %s wait already", raftfsm.ErrNotSent, maxRequests, l.node)
	case len(b)-4 > maxFrame:
		r.err = fmt.Errorf("%w: a frame of %d bytes", raftfsm.ErrNotSent, len(b))
	default:
		l.lastID++
		r.id = l.lastID
		seal(b, r.id)
		l.pending[r.id] = r
		l.enqueue(outgoing{b, r})
		return r
	}
	close(r.done)
	return r
}

// wait returns the answer. When ctx ends first the answer is not wanted any more.
func (r *request) wait(ctx context.Context) (answer, error) {
	select {
	case <-r.done:
	case <-ctx.Done():
		r.l.mu.Lock()
		delete(r.l.pending, r.id)
		r.l.mu.Unlock()
		return answer{}, ctx.Err()
	}
	if r.err != nil {
		return answer{}, r.err
	}
	f := fields{b: r.body}
	a := f.answer()
	if err := f.done(); err != nil {
		return answer{}, err
	}
	return a, a.err(r.l.node)
}

// answered takes an answer in. One that nobody waits for any more is dropped.
func (l *link) answered(f frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.pending[f.id]; r != nil {
		delete(l.pending, f.id)
		r.body = f.body
		close(r.done)
	}
}

// sweep fails all requests that wait: those of which not a byte was written are surely not
// sent, and never will be.
func (l *link) sweep(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.pending {
		r.err = fmt.Errorf("node %s: %w", l.node, reason)
		if !r.begun {
			r.err = fmt.Errorf("%w: %w", raftfsm.ErrNotSent, r.err)
		}
		delete(l.pending, id)
		close(r.done)
	}
}

// end closes the link and fails what waits. It is idempotent.
func (l *link) end() {
	l.mu.Lock()
	if !l.ended {
		l.ended = true
		l.queue = nil
		close(l.quit)
	}
	l.mu.Unlock()
	_ = l.k.Close()
	l.sweep(errLost)
}

// next takes the next frame to be written, nil when there is none. A request that nobody
// waits for any more is skipped.
func (l *link) next() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 {
		o := l.queue[0]
		l.queue[0] = outgoing{}
		l.queue = l.queue[1:]
		if o.r == nil {
			return o.b
		}
		if l.pending[o.r.id] == o.r {
			o.r.begun = true
			return o.b
		}
	}
	return nil
}

// write writes frames until the link ends.
func (l *link) write() {
	defer l.end()
	w := bufio.NewWriterSize(paced{l.k}, 64<<10)
	for {
		if b := l.next(); b != nil {
			if _, err := w.Write(b); err != nil {
				return
			}
			continue
		}
		if err := w.Flush(); err != nil {
			return
		}
		select {
		case <-l.wake:
		case <-l.quit:
			return
		}
	}
}

// read hands each frame to handle, until the link ends or handle fails.
func (l *link) read(r *bufio.Reader, handle func(l *link, f frame) error) error {
	for {
		f, err := readFrame(r)
		if err == nil {
			err = handle(l, f)
		}
		if err != nil {
			return err
		}
	}
}

// paced bounds how long a link stands still, whatever the size of its frames.
type paced struct{ *conn }

func (p paced) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	n, err := p.conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("nothing heard for %s: %w", silence, err)
	}
	return n, err
}

func (p paced) Write(b []byte) (n int, err error) {
	const part = 128 << 10
	for n < len(b) && err == nil {
		if err = p.SetWriteDeadline(time.Now().Add(silence)); err != nil {
			return n, err
		}
		var m int
		m, err = p.conn.Write(b[n:min(n+part, len(b))])
		n += m
	}
	return n, err
}

// greet exchanges hellos. The one that dialed speaks first; a hello of another version is
// answered too, so that both sides can say what is wrong.
func greet(k *conn, r *bufio.Reader, own hello, dialed bool) (hello, error) {
	b := appendHello(newFrame(opHello, 1024), own)
	seal(b, 0)
	say := func() error { _, err := paced{k}.Write(b); return err }
	if dialed {
		if err := say(); err != nil {
			return hello{}, err
		}
	}
	f, err := readFrame(r)
	if err != nil {
		return hello{}, err
	}
	if !dialed {
		if err := say(); err != nil {
			return hello{}, err
		}
	}
	if f.op != opHello {
		return hello{}, fmt.Errorf("%w: op %d instead of a hello", errMalformed, f.op)
	}
	return decodeHello(f.body)
}
