//go:build php

package phpext

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/link"
)

// job is a job of the test node.
type job struct {
	ID       string `json:"job"`
	Delivery string `json:"id"`
	Queue    string `json:"queue"`
	Payload  string `json:"payload"`
	Attempts int    `json:"attempts"`

	lease uint64
}

// settled is a call that settled a delivery, or the way its attempt ended.
type settled struct {
	how     string // "ack", "release", "fail", "ended", "next": unsettled at the next entry
	payload string
	lease   uint64
	reason  string // of fail; the message of ended
	status  int64  // of ended
	slot    int64
	late    bool // a settling call with a stale or unknown delivery: answered 5
}

// chunk is a frame of output.
type chunk struct {
	worker string
	slot   int64
	lease  uint64
	text   string
}

// node is a node in memory. Its queues are first in, first out; a job is delivered
// once and then forgotten, whatever became of it.
type node struct {
	t      testing.TB
	path   string
	server *link.Server

	events chan settled // everything that ended an attempt, in order
	output chan chunk
	ready  chan string // names of hosts that are up
	conns  chan link.Peer

	mu       sync.Mutex // guards the rest
	jobs     []*job
	waiting  []*waiter
	running  map[string]*run1 // by worker connection's pid and slot
	hosts    []*link.Conn
	pushes   []push
	lastID   int
	draining bool
	pages    link.PageFigures
	lease    uint64
	only     *int64 // the slot that gets deliveries; nil: any

	// Hooks: nil for none. intercept answers a frame itself when it returns true;
	// set it by onFrame.
	intercept func(c *link.Conn, op link.Op, f *link.Fields) (bool, error)
	beforeAck func(n *node, slot int64, lease uint64) func()
}

type push struct {
	queue, payload string
	delay          int64
	pid            int
}

type waiter struct {
	c    *link.Conn
	slot int64
}

type run1 struct {
	*job
	slot int64
}

func newNode(t testing.TB) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "pogo") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	n := &node{
		t: t, path: filepath.Join(dir, "s"), running: map[string]*run1{},
		events: make(chan settled, 1<<16), output: make(chan chunk, 1<<16), ready: make(chan string, 16), conns: make(chan link.Peer, 1<<12),
	}
	t.Cleanup(func() {
		n.stop()
		_ = os.RemoveAll(dir)
	})
	n.start()
	return n
}

// onFrame gives f each frame first; it answers those for which it returns true.
func (n *node) onFrame(f func(c *link.Conn, op link.Op, f *link.Fields) (bool, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.intercept = f
}

func (n *node) start() {
	s, err := link.Listen(n.path, n, slog.New(slog.DiscardHandler))
	if err != nil {
		n.t.Fatal(err)
	}
	n.server = s
}

func (n *node) stop() {
	if n.server != nil {
		n.server.Close()
		n.server = nil
	}
}

func (n *node) push(queue, payload string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastID++
	n.jobs = append(n.jobs, &job{ID: fmt.Sprintf("17-%d", n.lastID), Queue: queue, Payload: payload, Attempts: 1})
	n.deliver()
}

// deliver gives waiting threads their jobs. n.mu is held.
func (n *node) deliver() {
	for len(n.jobs) > 0 && len(n.waiting) > 0 {
		at := slices.IndexFunc(n.waiting, func(w *waiter) bool { return n.only == nil || w.slot == *n.only })
		if at < 0 {
			break
		}
		j, w := n.jobs[0], n.waiting[at]
		n.jobs, n.waiting = n.jobs[1:], slices.Delete(n.waiting, at, at+1)
		n.lease++
		j.lease = n.lease
		j.Delivery = fmt.Sprintf("%s:%d", j.ID, j.lease)
		n.running[key(w.c, w.slot)] = &run1{j, w.slot}
		msg, _ := json.Marshal(j)
		_ = w.c.Answer(1, link.AppendDelivery(nil, j.lease, msg))
	}
	if n.draining {
		for _, w := range n.waiting {
			_ = w.c.Answer(0, nil)
		}
		n.waiting = nil
	}
}

func key(c *link.Conn, slot int64) string { return fmt.Sprintf("%d/%d", c.Peer.PID, slot) }

// drain lets every host and worker go.
func (n *node) drain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.draining = true
	for _, h := range n.hosts {
		_ = h.Send(link.Request(nil, link.Drain))
	}
	n.deliver()
}

// prefer gives the next job to that slot's thread alone.
func (n *node) prefer(slot int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.only = &slot
}

func (n *node) interrupt(slot int64, lease uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hosts {
		_ = h.Send(link.Request(nil, link.Interrupt).Int(slot).Int(int64(lease)))
	}
}

// current returns the delivery that runs, of which there is one.
func (n *node) current() (slot int64, lease uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.running {
		return r.slot, r.lease
	}
	n.t.Error("nothing runs")
	return 0, 0
}

// nextLease returns the lease of the next delivery's attempt, which push has made
// if a thread was waiting.
func (n *node) nextLease() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lease + uint64(len(n.jobs))
}

// take ends an attempt and returns it, or nil. n.mu is held.
func (n *node) take(k string) *run1 {
	r := n.running[k]
	delete(n.running, k)
	return r
}

// find returns the running attempt with that delivery id. n.mu is held.
func (n *node) find(delivery string) (string, *run1) {
	for k, r := range n.running {
		if r.Delivery == delivery {
			return k, r
		}
	}
	return "", nil
}

func (n *node) Serve(c *link.Conn, op link.Op, f *link.Fields) error {
	if c.State == nil {
		c.State = true
		select {
		case n.conns <- c.Peer:
		default: // a test of very many connections does not look at them
		}
		if c.Peer.Role == link.RoleHost {
			n.mu.Lock()
			n.hosts = append(n.hosts, c)
			n.mu.Unlock()
		}
	}
	n.mu.Lock()
	intercept, beforeAck := n.intercept, n.beforeAck
	n.mu.Unlock()
	if intercept != nil {
		if done, err := intercept(c, op, f); done || err != nil {
			return err
		}
	}
	switch op {
	case link.Push:
		p := push{queue: f.String(), payload: f.String(), delay: f.Int(), pid: c.Peer.PID}
		if err := f.Done(); err != nil {
			return err
		}
		n.mu.Lock()
		n.lastID++
		id := fmt.Sprintf("17-%d", n.lastID)
		n.pushes = append(n.pushes, p)
		n.mu.Unlock()
		if strings.HasPrefix(p.queue, "echo") {
			return c.Answer(1, []byte(p.payload))
		}
		return c.Answer(1, fmt.Appendf(nil, `{"ok":true,"id":%q,"code":1}`, id))
	case link.Ack, link.Release, link.Fail:
		_, id := f.String(), f.String()
		e := settled{how: map[link.Op]string{link.Ack: "ack", link.Release: "release", link.Fail: "fail"}[op]}
		if op == link.Release {
			e.status = f.Int()
		}
		if op == link.Fail {
			e.reason = f.String()
		}
		if err := f.Done(); err != nil {
			return err
		}
		n.mu.Lock()
		k, r := n.find(id)
		if r != nil {
			e.payload, e.lease, e.slot = r.Payload, r.lease, r.slot
			n.take(k)
		}
		n.mu.Unlock()
		if e.late = r == nil; e.late {
			n.events <- e
			return c.Answer(5, nil)
		}
		if beforeAck != nil {
			after := beforeAck(n, e.slot, e.lease)
			n.events <- e
			err := c.Answer(1, nil)
			after()
			return err
		}
		n.events <- e
		return c.Answer(1, nil)
	case link.Status:
		q := f.String()
		return c.Answer(1, fmt.Appendf(nil, `{"ready":true,"queues":[],"asked":%q}`, q))
	case link.Failed:
		q, limit := f.String(), f.Int()
		return c.Answer(1, fmt.Appendf(nil, `{"ok":true,"queue":%q,"limit":%d,"code":1}`, q, limit))
	case link.RetryFailed, link.ForgetFailed:
		q, id := f.String(), f.String()
		return c.Answer(1, fmt.Appendf(nil, `{"op":%d,"queue":%q,"id":%q}`, op, q, id))
	case link.PurgeFailed:
		return c.Answer(1, fmt.Appendf(nil, `{"op":%d,"queue":%q}`, op, f.String()))
	case link.Reserve:
		queues, wait := f.String(), f.Int()
		return c.Answer(1, fmt.Appendf(nil, `{"queues":%q,"wait":%d}`, queues, wait))
	case link.Next:
		_, slot := f.String(), f.Int()
		if err := f.Done(); err != nil {
			return err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if r := n.take(key(c, slot)); r != nil {
			n.events <- settled{how: "next", payload: r.Payload, lease: r.lease, slot: slot}
		}
		n.waiting = append(n.waiting, &waiter{c, slot})
		n.deliver()
		return nil
	case link.Ended:
		_, slot, lease, status, message := f.String(), f.Int(), f.Int(), f.Int(), f.String()
		if err := f.Done(); err != nil {
			return err
		}
		n.mu.Lock()
		e := settled{how: "ended", slot: slot, lease: uint64(lease), status: status, reason: message}
		if r := n.take(key(c, slot)); r != nil {
			e.payload = r.Payload
		}
		n.mu.Unlock()
		n.events <- e
		return c.Answer(1, nil)
	case link.Ready:
		if version := f.String(); !strings.HasPrefix(version, "8.") {
			return fmt.Errorf("PHP's version is %q", version)
		}
		n.ready <- c.Peer.Name
		return f.Done()
	case link.Sync:
		return c.Send(link.Request(nil, link.Synced).Int(f.Int()))
	case link.Pages:
		var figures link.PageFigures
		if err := json.Unmarshal(f.Bytes(), &figures); err != nil {
			return err
		}
		n.mu.Lock()
		n.pages = figures
		n.mu.Unlock()
		return f.Done()
	case link.Output:
		n.output <- chunk{f.String(), f.Int(), uint64(f.Int()), f.String()}
		return f.Done()
	}
	return link.ErrFrame
}

func (n *node) Closed(c *link.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, w := range n.waiting {
		if w.c == c {
			n.waiting = append(n.waiting[:i], n.waiting[i+1:]...)
			break
		}
	}
	for i, h := range n.hosts {
		if h == c {
			n.hosts = append(n.hosts[:i], n.hosts[i+1:]...)
			break
		}
	}
}

const patience = 20 * time.Second

// receive waits for a value of a channel.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

// event waits for the next end of an attempt, and for its kind.
func (n *node) event(t testing.TB, how string) settled {
	t.Helper()
	e := receive(t, how, n.events)
	if e.how != how {
		t.Fatalf("got %+v, want %s", e, how)
	}
	return e
}

// printed waits until the attempt has printed text, and returns what every attempt
// has printed since the last such wait.
func (n *node) printed(t testing.TB, lease uint64, text string) map[uint64]string {
	t.Helper()
	all := map[uint64]string{}
	for deadline := time.After(patience); ; {
		select {
		case c := <-n.output:
			if all[c.lease] += c.text; strings.Contains(all[lease], text) {
				return all
			}
		case <-deadline:
			t.Fatalf("attempt %d did not print %q: %v", lease, text, all)
		}
	}
}
