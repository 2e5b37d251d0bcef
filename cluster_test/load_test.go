package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
)

// loadSpec is what the load's process is told, as JSON in the variable loadEnv.
type loadSpec struct {
	Sockets     []string // of the nodes, over which producers and consumers are spread
	Record      string   // path of the record, which must not exist yet
	Seed        uint64
	Producers   int
	Consumers   int  // of the worker ext
	Late        int  // consumers of the worker ext-late
	PHP         int  // share of the pushes, in a hundred, that PHP handles
	Long        int  // share of the others whose handlers take seconds
	Plain       bool // neither planTight nor planLate
	Outstanding int  // calls that must be outstanding before "loaded" is answered
	Rate        int  // pushes a second, all producers together; 0: as fast as it goes
}

const loadEnv = "POGOD_CLUSTER_TEST_LOAD"

// Bounds of the accepted jobs that have never been delivered, so that what is left at the
// end is worked off soon, and what is large fits the disk.
const (
	maxBacklog      = 6000
	maxBacklogHeavy = 500
)

// load is the process that pushes and consumes. It outlives the nodes, connects again
// by itself, and answers the commands on its standard input, one line each:
//
//	loaded        enough calls are outstanding, and a push was accepted since the last cut
//	light         few payloads are large
//	heavy         many are
//	dark          the power is about to be cut: what comes from now on is marked
//	burst         for burstFor there is no rate: much is under way
//	killed n r    node n is dead: "cut calls pushes", when all that was outstanding there ended
//	fault i k w   fault i, of kind k, is about to strike w: "fault"
//	heal i        it is over: "heal"
//	stop          no more pushes: "stopped", when the last was answered
//	finish        the consumers end, the record is closed: "finished"
type load struct {
	spec loadSpec
	rec  *recorder

	ctx     context.Context // ends at finish
	pushing context.Context // ends at stop

	mu       sync.Mutex // guards the rest
	cond     *sync.Cond // any of it changed
	number   int64      // of the last push
	large    int        // one push in so many has a large payload
	jobs     map[int64]jobSeen
	backlog  int // accepted and never delivered
	late     int // pushes of planLate under way, as far as it is known
	accepted int // pushes since the last cut
	nodes    []target
	next     time.Time // when the next push is due, with a rate
	burst    time.Time // end of the last burst
	dark     bool      // from dark to killed
}

// target is a node, seen from the load.
type target struct {
	calls    int // outstanding
	lost     int // calls that ended with the link since the last cut
	lostPush int // of these, pushes
	cuts     int // so far
}

// jobSeen says what the load saw of a push.
type jobSeen uint8

const (
	seenAccepted jobSeen = 1 << iota
	seenDelivered
)

// runLoad is the main function of the load's process.
func runLoad(spec string) error {
	l := &load{jobs: map[int64]jobSeen{}, large: largeLight}
	l.cond = sync.NewCond(&l.mu)
	err := json.Unmarshal([]byte(spec), &l.spec)
	if err != nil {
		return err
	}
	if l.rec, err = newRecorder(l.spec.Record); err != nil {
		return err
	}
	l.nodes = make([]target, len(l.spec.Sockets))
	ctx, finish := context.WithCancel(context.Background())
	defer finish()
	pushing, stop := context.WithCancel(ctx)
	defer stop()
	l.ctx, l.pushing = ctx, pushing
	context.AfterFunc(pushing, l.changed)

	var producers, consumers sync.WaitGroup
	conn := 0
	for range l.spec.Producers {
		id := conn
		producers.Go(func() { l.produce(id) }) // ended by stop
		conn++
	}
	for i := range l.spec.Consumers + l.spec.Late {
		k := &consumer{l: l, conn: conn, node: conn, worker: workerExt, slot: i, rand: rand.New(rand.NewPCG(l.spec.Seed, uint64(conn)))}
		if i >= l.spec.Consumers {
			k.worker = workerLate
		}
		consumers.Go(k.run) // ended by finish
		conn++
	}

	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		command, argument, _ := strings.Cut(in.Text(), " ")
		switch command {
		case "loaded":
			l.await(func() bool {
				calls := 0
				for _, n := range l.nodes {
					calls += n.calls
				}
				return l.accepted > 0 && calls >= l.spec.Outstanding
			})
			fmt.Println("loaded")
		case "light", "heavy":
			l.mu.Lock()
			if l.large = largeLight; command == "heavy" {
				l.large = largeHeavy
			}
			l.mu.Unlock()
			fmt.Println(command)
		case "dark":
			l.mu.Lock()
			l.dark = true
			l.mu.Unlock()
			l.rec.wait(l.rec.answer(event{what: evDark}))
			fmt.Println("dark")
		case "killed":
			e := event{what: evCut}
			_, _ = fmt.Sscan(argument, &e.node, &e.round)
			l.cut(&e)
			fmt.Println("cut", e.calls, e.pushes)
		case "burst":
			l.mu.Lock()
			l.burst = time.Now().Add(burstFor)
			l.mu.Unlock()
			fmt.Println(command)
		case evFault, evHeal:
			e := event{what: command}
			_, _ = fmt.Sscan(argument, &e.round, &e.fault, &e.where)
			l.rec.wait(l.rec.answer(e))
			fmt.Println(command)
		case "stop":
			stop()
			producers.Wait()
			fmt.Println("stopped")
		case "finish":
			stop()
			finish()
			producers.Wait()
			consumers.Wait()
			if err := l.rec.close(); err != nil {
				return err
			}
			fmt.Println("finished")
			return nil
		default:
			return fmt.Errorf("no command %q", command)
		}
	}
	return errors.Join(errors.New("the test ended without finish"), in.Err())
}

// changed wakes whoever waits for a change of what mu guards.
func (l *load) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cond.Broadcast()
}

// await waits until f, called with mu held, is true.
func (l *load) await(f func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !f() {
		l.cond.Wait()
	}
}

// cut waits for the end of every call that was outstanding when a node died, and
// notes how many there were.
func (l *load) cut(e *event) {
	n := &l.nodes[e.node]
	l.await(func() bool { return n.calls == 0 })
	l.mu.Lock()
	e.calls, e.pushes = n.lost, n.lostPush
	n.lost, n.lostPush, l.accepted = 0, 0, 0
	n.cuts++
	l.dark = false
	l.mu.Unlock()
	l.rec.wait(l.rec.answer(*e))
}

// redialPause is between two attempts to reach a node.
const redialPause = 5 * time.Millisecond

// client is a connection of the load to a node.
type client struct {
	*link.Client
	conn int // its number
	node int
}

// dial connects to a node, again and again until ctx ends: then it returns nil. With a
// step, each attempt is at the node so many behind the last.
func (l *load) dial(ctx context.Context, conn, node, step int, role link.Role, name string) *client {
	for ; ; node += step {
		node %= len(l.nodes)
		l.mu.Lock()
		cuts := l.nodes[node].cuts
		l.mu.Unlock()
		c, err := link.Dial(ctx, l.spec.Sockets[node], role, name)
		if err == nil {
			l.rec.add(event{what: evDial, conn: conn, node: node, round: cuts})
			return &client{c, conn, node}
		}
		if !pause(ctx, redialPause) {
			return nil
		}
	}
}

// pause waits for d; false means that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// call makes one call and counts it. Its code is codeLost or codeNotSent when the link
// failed; the loss is recorded then, behind the answer.
func (l *load) call(c *client, name string, f link.Builder) (code int, body []byte, ok bool) {
	n := &l.nodes[c.node]
	l.mu.Lock()
	n.calls++
	l.cond.Broadcast()
	l.mu.Unlock()
	answer, body, err := c.Call(f)
	code, ok = int(answer), err == nil
	l.mu.Lock()
	defer l.mu.Unlock()
	n.calls--
	switch {
	case errors.Is(err, link.ErrLost):
		code = codeLost
		if n.lost++; name == evPush {
			n.lostPush++
		}
	case err != nil:
		code = codeNotSent
	}
	l.cond.Broadcast()
	return code, body, ok
}

// noteLoss records that a connection is gone, and closes it.
func (l *load) noteLoss(c *client, call string) {
	l.rec.add(event{what: evLost, conn: c.conn, call: call})
	c.Close()
}

// produce pushes until stop. A node that is gone, or that takes nothing, is left for the
// next one, for a while: else all would come together on the node that is spared longest.
func (l *load) produce(conn int) {
	r := rand.New(rand.NewPCG(l.spec.Seed, uint64(conn)))
	var answers ahead
	home := conn % len(l.nodes)
	for node := home; ; {
		c := l.dial(l.pushing, conn, node, 1, link.RoleTool, "load")
		if c == nil {
			return
		}
		node = c.node + 1
		for n := 0; l.push(c, r, &answers); n++ {
			if c.node != home && n == awayFor {
				node = home
				break
			}
		}
		c.Close()
	}
}

// awayFor is how many pushes a producer makes on another node than its own. All producers
// make as many in a second, so that they are spread again soon after two nodes were away.
const awayFor = 4

// burstFor is how long a burst takes.
const burstFor = 200 * time.Millisecond

// due waits until the next push is due; false means that it is time to stop. What was
// missed is not made up for.
func (l *load) due() bool {
	if l.spec.Rate == 0 {
		return true
	}
	l.mu.Lock()
	at, now := l.next, time.Now()
	if at.Before(now) {
		at = now
	}
	burst := now.Before(l.burst)
	if !burst {
		l.next = at.Add(time.Second / time.Duration(l.spec.Rate))
	}
	l.mu.Unlock()
	return burst || pause(l.pushing, time.Until(at))
}

// push makes one push; false means that the connection is of no further use, or that
// it is time to stop.
func (l *load) push(c *client, r *rand.Rand, answers *ahead) bool {
	l.await(func() bool {
		return l.backlog < maxBacklog && (l.large == largeLight || l.backlog < maxBacklogHeavy) || l.pushing.Err() != nil
	})
	if l.pushing.Err() != nil || !l.due() {
		return false
	}
	l.mu.Lock()
	l.number++
	n, large := l.number, l.large
	l.mu.Unlock()
	p := newPush(r, n, l.spec.PHP, l.spec.Long, large)
	if l.spec.Plain && (p.plan == planTight || p.plan == planLate) || p.plan == planLate && !l.mayBeLate() {
		p = newPushOf(r, n, planAck, large)
	}
	l.rec.add(event{what: evPush, conn: c.conn, n: n, queue: p.queue, plan: p.plan, delay: p.delay.Milliseconds()})
	code, body, ok := l.call(c, evPush, link.Request(nil, link.Push).String(p.queue).String(p.payload).Int(int64(p.delay/time.Second)))
	job := "-"
	var answer struct{ ID, Message string }
	if ok && json.Unmarshal(body, &answer) == nil && code == 1 {
		job = word(answer.ID)
	}
	if code == 5 && strings.Contains(answer.Message, command.ErrNotAccepted.Error()) {
		code = codeWithdrawn
	}
	answers.add(l.rec, l.rec.answer(event{what: evPushed, conn: c.conn, n: n, code: code, job: job}))
	if !ok {
		l.noteLoss(c, evPush)
		return false
	}
	if code == 1 {
		l.mu.Lock()
		l.accepted++
		// What PHP takes is not seen here; it keeps no push waiting.
		if l.jobs[n] |= seenAccepted; l.jobs[n]&seenDelivered == 0 && p.plan != planPHP {
			l.backlog++
		}
		l.cond.Broadcast()
		l.mu.Unlock()
	}
	return code != codeWithdrawn
}

// word makes an id fit for a line of the record.
func word(s string) string {
	if s == "" || strings.ContainsAny(s, " \n\t") {
		return "?"
	}
	return s
}

// readLines sends the lines of r until it ends.
func readLines(r io.Reader) <-chan string {
	lines := make(chan string, 16) // each command has one line as its answer, and one is given at a time
	go func() {                    // ended by the end of r
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}
