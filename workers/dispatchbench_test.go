package workers

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pogod/internal/link"
)

// dispatchBench is Dispatch on a real link.
type dispatchBench struct {
	t     *testing.T
	clock *spyClock
	d     *Dispatch
	path  string
	did   [256]chan struct{} // by operation, the frames that were served; 255 is a connection's end

	mu   sync.Mutex // guards the rest
	hits []hit
	ends map[int]string // how a process ended
}

func newDispatchBench(t *testing.T, pools ...TaskPool) *dispatchBench {
	t.Helper()
	if len(pools) == 0 {
		pools = []TaskPool{{Name: "default", Threads: 1, MaxWait: 30 * time.Second}}
	}
	b := &dispatchBench{t: t, clock: newSpyClock(), ends: map[int]string{}}
	for op := range b.did {
		b.did[op] = make(chan struct{}, 1<<17) // more than a test sends
	}
	log := slog.New(slog.DiscardHandler)
	b.d = NewDispatch(DispatchConfig{Pools: pools, Processes: b, Clock: b.clock, Log: log})
	dir, err := os.MkdirTemp("", "p") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	b.path = filepath.Join(dir, "s")
	server, err := link.Listen(b.path, b, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		b.d.Close()
		_ = os.RemoveAll(dir)
	})
	return b
}

func (b *dispatchBench) Interrupt(pid int, slot int64, number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hits = append(b.hits, hit{pid, slot, number})
}

func (b *dispatchBench) Ended(pid int) (Exit, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	how, ok := b.ends[pid]
	return Exit{How: how}, ok
}

func (b *dispatchBench) interrupts() []hit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]hit(nil), b.hits...)
}

func (b *dispatchBench) Serve(c *link.Conn, op link.Op, f *link.Fields) (err error) {
	switch op {
	case link.Dispatch:
		err = b.d.Dispatch(c, f.Int(), f.String(), f.Bytes())
	case link.Await:
		err = b.d.Await(c, f.Int(), time.Duration(f.Int())*time.Microsecond)
	case link.Abandon:
		b.d.Abandon(c)
	case link.NextTask:
		err = b.d.NextTask(c, f.String(), f.Int(), uint64(f.Int()), link.Outcome(f.Int()), f.Bytes())
	case link.TaskEnded:
		pool, _, number, outcome, result, status := f.String(), f.Int(), f.Int(), f.Int(), f.Bytes(), f.Int()
		err = b.d.TaskEnded(c, pool, uint64(number), link.Outcome(outcome), result, status)
	}
	b.did[op] <- struct{}{}
	return err
}

func (b *dispatchBench) Closed(c *link.Conn) {
	b.d.Closed(c)
	b.did[255] <- struct{}{}
}

// served waits until n more frames of this operation were served; 255 is a connection's end.
func (b *dispatchBench) served(op link.Op, n int) {
	b.t.Helper()
	late := time.After(patience)
	for range n {
		select {
		case <-b.did[op]:
		case <-late:
			b.t.Fatalf("operation %d was not served", op)
		}
	}
}

// taskPeer is one end of a connection: a script that dispatches, or a pool's thread.
type taskPeer struct {
	b *dispatchBench
	*link.Client
}

func (b *dispatchBench) peer() *taskPeer {
	b.t.Helper()
	c, err := link.Dial(b.t.Context(), b.path, link.RolePHP, "")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return &taskPeer{b, c}
}

func (p *taskPeer) dispatch(handle int64, pool, message string) {
	p.b.t.Helper()
	if err := p.Send(link.Request(nil, link.Dispatch).Int(handle).String(pool).String(message)); err != nil {
		p.b.t.Fatal(err)
	}
	p.b.served(link.Dispatch, 1)
}

// told is one result.
type told struct {
	handle  int64
	outcome link.Outcome
	result  string
}

// reply of a call, whenever it comes.
type taskReply struct {
	code    int32
	number  uint64 // of NextTask
	message string
	results []told // of Await
	err     error
}

func (p *taskPeer) start(await bool, f link.Builder) <-chan taskReply {
	c := make(chan taskReply, 1)
	go func() { // ended by the answer, or by closing the client
		code, body, err := p.Call(f)
		r := taskReply{code: code, err: err}
		switch {
		case err != nil || code != 1:
			r.message = string(body)
		case await:
			for f := link.NewFields(body); f.Done() != nil && len(r.results) < 1000; {
				r.results = append(r.results, told{f.Int(), link.Outcome(f.Int()), f.String()})
			}
		default:
			var m []byte
			r.number, m, r.err = link.ParseDelivery(body)
			r.message = string(m)
		}
		c <- r
	}()
	return c
}

func (p *taskPeer) await(handle int64, timeout time.Duration) <-chan taskReply {
	c := p.start(true, link.Request(nil, link.Await).Int(handle).Int(timeout.Microseconds()))
	p.b.served(link.Await, 1)
	return c
}

// next asks for a task; number, outcome and result are those of the last.
func (p *taskPeer) next(pool string, number uint64, outcome link.Outcome, result string) <-chan taskReply {
	c := p.start(false, link.Request(nil, link.NextTask).String(pool).Int(3).Int(int64(number)).Int(int64(outcome)).String(result))
	p.b.served(link.NextTask, 1)
	return c
}

func (b *dispatchBench) reply(c <-chan taskReply) taskReply {
	b.t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(patience):
		b.t.Fatal("a call was not answered")
		return taskReply{}
	}
}

// result waits for an answer of Await that tells of exactly these.
func (b *dispatchBench) result(c <-chan taskReply, want ...told) {
	b.t.Helper()
	if r := b.reply(c); r.code != 1 || fmt.Sprint(r.results) != fmt.Sprint(want) {
		b.t.Errorf("got  %+v\nwant %+v", r, want)
	}
}
