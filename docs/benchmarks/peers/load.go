package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// loadSpec is what the load's process is told, as JSON in the variable loadEnv.
type loadSpec struct {
	Side     string
	ID       string   // of the queue, the stream, the worker
	Kind     kind     //
	Nodes    []string // addresses; 0 leads
	Conns    int
	Depth    int
	From, To int
	Pinned   bool
	Plain    bool
	Prefetch int
	Length   time.Duration
}

const loadEnv = "PEERS_LOAD"

// The lines of the load's process, in their order; after the last comes a loadResult as JSON.
const (
	lineBegin = "begin"
	lineEnd   = "end"
)

// loadResult is what was done between begin and end.
type loadResult struct {
	Ops            int
	Seconds        float64
	P50, P99, P999 float64 // in microseconds
	CPU            float64 // seconds, of this process
}

// client is how the load speaks to one side.
type client interface {
	producer(node int) (producer, error)
	// consumer returns the connection with number i.
	consumer(node, i int) (consumer, error)
}

// producer is one connection that pushes.
type producer interface {
	push(payload []byte) error
}

// pipeliner is a producer that can have many pushes outstanding.
type pipeliner interface {
	// pushes does, without end. It tells done of each that was answered, with the time when it began.
	pushes(payload func() []byte, done func(begin time.Time)) error
}

// consumer is one connection that takes jobs, one at a time.
type consumer interface {
	next() (payload []byte, ack func() error, err error)
}

const (
	payloadBytes = 256
	warmFor      = time.Second
	wakeEvery    = 50 * time.Millisecond
)

// load is the process that pushes and consumes. Its connections and goroutines end with it.
type load struct {
	spec  loadSpec
	start time.Time
	fail  chan error // of 1: the first that goes wrong

	on   atomic.Bool // between begin and end
	mu   sync.Mutex  // guards took
	took []time.Duration
}

// runLoad is the main function of the load's process.
func runLoad(spec string) error {
	l := &load{start: time.Now(), fail: make(chan error, 1)}
	if err := json.Unmarshal([]byte(spec), &l.spec); err != nil {
		return err
	}
	if err := l.begin(newClient(&l.spec)); err != nil {
		return err
	}
	if err := l.wait(warmFor); err != nil {
		return err
	}
	cpu := ownCPU()
	fmt.Println(lineBegin)
	begin := time.Now()
	l.on.Store(true)
	err := l.wait(l.spec.Length)
	l.on.Store(false)
	r := loadResult{Seconds: time.Since(begin).Seconds()}
	fmt.Println(lineEnd)
	r.CPU = ownCPU() - cpu
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Ops = len(l.took); r.Ops > 0 {
		slices.Sort(l.took)
		at := func(q float64) float64 { return float64(l.took[int(float64(r.Ops-1)*q)]) / float64(time.Microsecond) }
		r.P50, r.P99, r.P999 = at(.5), at(.99), at(.999)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func newClient(s *loadSpec) client {
	if s.Side == "nats" {
		return &natsClient{s}
	}
	return &pogodClient{s}
}

// wait waits until d is over or something went wrong.
func (l *load) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case err := <-l.fail:
		return err
	}
}

// failed ends the load. Only the first error is told.
func (l *load) failed(err error) {
	select {
	case l.fail <- err:
	default:
	}
}

// note counts an operation that took d, if it ended within the measurement.
func (l *load) note(d time.Duration) {
	if l.on.Load() {
		l.mu.Lock()
		l.took = append(l.took, d)
		l.mu.Unlock()
	}
}

// begin opens the connections and starts what uses them. All goroutines end with the process.
func (l *load) begin(c client) error {
	s := &l.spec
	at := func(first, i int) int {
		if s.Pinned {
			i = 0
		}
		return (first + i) % len(s.Nodes)
	}
	var tokens chan struct{} // jobs pushed and not acked: bounded, or the pushes would run away from the acks
	if s.Kind == kindCycle {
		tokens = make(chan struct{}, backlog*s.Conns)
	}
	if s.Kind == kindCycle || s.Kind == kindWake {
		for i := range s.Conns {
			k, err := c.consumer(at(s.To, i), i)
			if err != nil {
				return err
			}
			go l.consume(k, tokens)
		}
	}
	conns := s.Conns
	pipelines := s.Side == "nats" && s.Kind == kindAsync
	if !pipelines {
		conns *= s.Depth
	}
	for i := range conns {
		p, err := c.producer(at(s.From, i))
		if err != nil {
			return err
		}
		switch {
		case s.Kind == kindWake:
			go l.knock(p)
		case pipelines:
			go l.stream(p.(pipeliner))
		default:
			go l.push(p, tokens)
		}
	}
	return nil
}

// backlog is how many jobs of a cycle are on their way, for each connection that consumes.
const backlog = 5

// text fills b with a payload that says when it was made.
func (l *load) text(b []byte) []byte {
	b = strconv.AppendInt(b[:0], int64(time.Since(l.start)), 10)
	b = append(b, ' ')
	return append(b, filler[len(b):]...)
}

var filler = strings.Repeat("the same text for everybody, ", payloadBytes/29+1)[:payloadBytes]

// made returns when a payload was made.
func (l *load) made(payload []byte) (time.Duration, error) {
	n, _, _ := strings.Cut(string(payload), " ")
	at, err := strconv.ParseInt(n, 10, 64)
	return time.Duration(at), err
}

// push pushes one job after the other. In a cycle it is the consumer that counts.
func (l *load) push(p producer, tokens chan<- struct{}) {
	b := make([]byte, 0, payloadBytes)
	for {
		if tokens != nil {
			tokens <- struct{}{}
		}
		begin := time.Now()
		if err := p.push(l.text(b)); err != nil {
			l.failed(fmt.Errorf("a push: %w", err))
			return
		}
		if tokens == nil {
			l.note(time.Since(begin))
		}
	}
}

// stream keeps many pushes outstanding.
func (l *load) stream(p pipeliner) {
	err := p.pushes(
		func() []byte { return l.text(make([]byte, 0, payloadBytes)) },
		func(begin time.Time) { l.note(time.Since(begin)) },
	)
	if err != nil {
		l.failed(fmt.Errorf("a push: %w", err))
	}
}

// knock pushes now and then.
func (l *load) knock(p producer) {
	b := make([]byte, 0, payloadBytes)
	for {
		time.Sleep(wakeEvery*4/5 + rand.N(wakeEvery*2/5))
		if err := p.push(l.text(b)); err != nil {
			l.failed(fmt.Errorf("a push: %w", err))
			return
		}
	}
}

// consume takes one job after the other. Of a cycle it counts the ack, of a wake-up the time since before the push.
func (l *load) consume(k consumer, tokens <-chan struct{}) {
	for {
		payload, ack, err := k.next()
		arrived := time.Since(l.start)
		if err == nil && l.spec.Kind == kindWake {
			var at time.Duration
			if at, err = l.made(payload); err == nil {
				l.note(arrived - at)
			}
		}
		begin := time.Now()
		if err == nil {
			err = ack()
		}
		if err != nil {
			l.failed(fmt.Errorf("a consumer: %w", err))
			return
		}
		if tokens != nil {
			l.note(time.Since(begin))
			<-tokens
		}
	}
}

// ownCPU returns the seconds of processor time of this process.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
