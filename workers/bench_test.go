package workers

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
)

// killGrace of the benches.
const killGrace = 7 * time.Second

// bench is Pools on a real link.
type bench struct {
	t      *testing.T
	state  *fakeState
	clock  *spyClock
	pools  *Pools
	path   string
	closed chan struct{} // Closed waits for it; nil: it does not
}

func newBench(t *testing.T, pools ...Pool) *bench {
	t.Helper()
	b := &bench{t: t, state: newFakeState(), clock: newSpyClock()}
	b.start(pools)
	return b
}

func (b *bench) start(pools []Pool) {
	b.t.Helper()
	if len(pools) == 0 {
		pools = []Pool{{Name: "mail", Queues: []string{"q"}, Script: "worker.php"}}
	}
	log := slog.New(slog.DiscardHandler)
	s := b.state
	b.pools = NewPools(Config{
		Pools: pools, Reservations: s, Session: s, Attempts: s, Offers: s, Processes: s, Quarantine: s, KillGrace: killGrace, Clock: b.clock, Log: log,
	})
	dir, err := os.MkdirTemp("", "p") // a short path, for the socket
	if err != nil {
		b.t.Fatal(err)
	}
	b.path = filepath.Join(dir, "s")
	server, err := link.Listen(b.path, b, log)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if b.closed != nil {
			select {
			case <-b.closed:
			default:
				close(b.closed)
			}
		}
		server.Close()
		b.pools.Close()
		_ = os.RemoveAll(dir)
	})
	s.await(b.t, "Pools watches", func() bool { return len(s.watchers) == 1 })
}

func (b *bench) Serve(c *link.Conn, op link.Op, f *link.Fields) error {
	switch op {
	case link.Next:
		return b.pools.Next(c, f.String(), f.Int())
	case link.Reserve:
		return b.pools.Reserve(c, strings.Split(f.String(), "\n"), time.Duration(f.Int())*time.Millisecond)
	case link.Ended:
		worker, _, lease, status, text := f.String(), f.Int(), f.Int(), f.Int(), f.String()
		return b.pools.Ended(c, worker, uint64(lease), status, text)
	}
	return fmt.Errorf("%w: %d", link.ErrFrame, op)
}

func (b *bench) Closed(c *link.Conn) {
	if b.closed != nil {
		<-b.closed
	}
	b.pools.Closed(c)
}

// caller is a thread that runs a worker script.
type caller struct {
	b      *bench
	c      *link.Client
	worker string
	slot   int64
}

// answer is what Next was answered.
type answer struct {
	code  int32
	lease uint64
	msg   string
	err   error
}

func (b *bench) thread(worker string, slot int64) *caller {
	b.t.Helper()
	c, err := link.Dial(b.t.Context(), b.path, link.RoleWorker, worker)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return &caller{b, c, worker, slot}
}

// call makes the call and returns its answer.
func (k *caller) call() answer {
	code, body, err := k.c.Call(link.Request(nil, link.Next).String(k.worker).Int(k.slot))
	a := answer{code: code, err: err}
	if err == nil && code == 1 {
		var msg []byte
		a.lease, msg, a.err = link.ParseDelivery(body)
		a.msg = string(msg)
	}
	return a
}

// next starts the call.
func (k *caller) next() <-chan answer {
	c := make(chan answer, 1)
	go func() { c <- k.call() }() // ended by the answer, or by closing the client
	return c
}

func (k *caller) ended(lease uint64, text string) {
	k.b.t.Helper()
	code, _, err := k.c.Call(link.Request(nil, link.Ended).String(k.worker).Int(k.slot).Int(int64(lease)).Int(255).String(text))
	if code != 1 || err != nil {
		k.b.t.Fatal(code, err)
	}
}

// get waits for an answer.
func get(t *testing.T, c <-chan answer) answer {
	t.Helper()
	select {
	case a := <-c:
		return a
	case <-time.After(patience):
		t.Fatal("Next was not answered")
		return answer{}
	}
}

// job of a queue for a pool.
func job(pool, name, payload string) queue.Delivery {
	return queue.Delivery{Queue: name, Pool: pool, Payload: []byte(payload), Timeout: 90 * time.Second}
}

// deliver lets k run a job.
func (b *bench) deliver(k *caller, d queue.Delivery) queue.Delivery {
	b.t.Helper()
	c := k.next()
	b.state.await(b.t, "a credit", func() bool { return b.state.free(k.worker) > 0 })
	d = b.state.reserve(d)
	if a := get(b.t, c); a.code != 1 || a.lease != d.Lease || a.err != nil {
		b.t.Fatalf("%+v", a)
	}
	return d
}

// onlyEnd waits for the first release and checks it.
func (b *bench) onlyEnd(lease uint64, cause command.Cause, reason string) {
	b.t.Helper()
	s := b.state
	s.await(b.t, "the attempt's end", func() bool { return len(s.ends) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ends[0]; len(s.ends) != 1 || e.d.Lease != lease || e.cause != cause || e.reason != reason {
		b.t.Errorf("%d releases, the first of lease %d with cause %d: %q; want lease %d, cause %d: %q", len(s.ends), e.d.Lease, e.cause, e.reason, lease, cause, reason)
	}
}

// reconciled waits until Pools has looked at everything so far, and acted on it.
func (b *bench) reconciled() {
	b.t.Helper()
	s := b.state
	for range 2 { // what Pools does comes after its offer, so after the second the first is done
		s.apply(func() {})
		s.mu.Lock()
		applied := s.applied
		s.mu.Unlock()
		s.await(b.t, "a reconciliation", func() bool { return s.credits.Applied >= applied })
	}
}
