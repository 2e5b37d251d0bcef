package cluster_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"pogod/internal/command"
	"pogod/internal/link"
)

// TestConsistentStatusIsLinearizable pushes and asks for a consistent status on all three
// nodes, while one leader after the other is cut off or killed: what is read must fit one
// order of all calls, each between its beginning and its end.
func TestConsistentStatusIsLinearizable(t *testing.T) {
	notTwice(t)
	c := newCluster(t, build(t, ""), nil)
	w := &watcher{begin: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	for i, n := range c.nodes {
		for k := range 2 {
			clients.Go(func() { w.push(ctx, n, 4*i+k) })
			clients.Go(func() { w.read(ctx, n, 4*i+2+k) })
		}
	}
	for range 3 {
		if !w.grows(ctx, 60) {
			t.Fatal("nothing is answered any more")
		}
		i := c.leader()
		for j := range c.nodes {
			if j != i {
				c.lan.cut(way{i, j})
				c.lan.cut(way{j, i})
			}
		}
		w.grows(ctx, 60)
		for j := range c.nodes {
			if j != i {
				c.lan.heal(way{i, j})
				c.lan.heal(way{j, i})
			}
		}
		w.grows(ctx, 30)
		i = c.leader()
		c.nodes[i].kill()
		w.grows(ctx, 60)
		c.nodes[i].start()
	}
	c.whole()
	w.grows(ctx, 60)
	stop()
	clients.Wait()
	pushes, unknown, reads := w.counts()
	t.Logf("%d pushes accepted, %d of unknown outcome, %d consistent reads", pushes, unknown, reads)
	if pushes < 100 || reads < 100 {
		t.Error("too few to show anything")
	}
	model := counter()
	if r := porcupine.CheckOperationsTimeout(model, w.history, time.Minute); r != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s", r)
	}
	// The check can fail: with one read of the future it does.
	for i := range w.history {
		if said, ok := w.history[i].Output.(int); ok && w.history[i].Input == opRead {
			w.history[i].Output = said + 1000
			break
		}
	}
	if r := porcupine.CheckOperationsTimeout(model, w.history, time.Minute); r != porcupine.Illegal {
		t.Errorf("a wrong read was not found: %s", r)
	}
}

// The calls: their outputs are a pushOutcome, and how many pushes there were.
const (
	opPush = "push"
	opRead = "read"
)

type pushOutcome int

const (
	accepted pushOutcome = iota
	unknownOutcome
)

// counter is the model of a queue's counter of pushes. One of unknown outcome may have
// happened, at any time since.
func counter() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{0} },
		Step: func(state, input, output any) []any {
			n := state.(int)
			switch {
			case input == opRead && output.(int) != n:
				return nil
			case input == opRead:
				return []any{n}
			case output == unknownOutcome:
				return []any{n, n + 1}
			}
			return []any{n + 1}
		},
	}
	return m.ToModel()
}

// watcher gathers a history. Calls that surely did nothing are left out.
type watcher struct {
	begin time.Time

	mu      sync.Mutex // guards history
	history []porcupine.Operation
}

func (w *watcher) now() int64 { return time.Since(w.begin).Nanoseconds() }

func (w *watcher) add(o porcupine.Operation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, o)
}

func (w *watcher) counts() (pushes, unknown, reads int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.history {
		switch {
		case o.Input == opRead:
			reads++
		case o.Output == accepted:
			pushes++
		default:
			unknown++
		}
	}
	return pushes, unknown, reads
}

// grows waits for n more calls that were answered.
func (w *watcher) grows(ctx context.Context, n int) bool {
	count := func() int {
		pushes, _, reads := w.counts()
		return pushes + reads
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for end := count() + n; count() < end; {
		if !pause(ctx, pollPause) {
			return false
		}
	}
	return true
}

// between two calls of a client.
const breather = 20 * time.Millisecond

// push pushes until ctx ends.
func (w *watcher) push(ctx context.Context, n *node, client int) {
	var c *link.Client
	for pause(ctx, breather) {
		if c == nil {
			var err error
			if c, err = link.Dial(ctx, n.socket(), link.RoleTool, "test"); err != nil {
				continue
			}
			context.AfterFunc(ctx, c.Close)
		}
		call := w.now()
		code, body, err := c.Call(link.Request(nil, link.Push).String(queueNow).String("x").Int(0))
		var doc struct{ Message string }
		switch {
		case err == nil && code == 1:
			w.add(porcupine.Operation{ClientId: client, Input: opPush, Call: call, Output: accepted, Return: w.now()})
		case err != nil:
			c.Close()
			c = nil
			w.mayBe(call)
		case json.Unmarshal(body, &doc) == nil && strings.Contains(doc.Message, command.ErrNotAccepted.Error()):
		default:
			w.mayBe(call)
		}
	}
}

// mayBe notes a push that may happen at any time from now on; as another client, for its
// own goes on.
func (w *watcher) mayBe(call int64) {
	w.add(porcupine.Operation{ClientId: 1000, Input: opPush, Call: call, Output: unknownOutcome, Return: time.Hour.Nanoseconds()})
}

// read asks for a consistent status until ctx ends.
func (w *watcher) read(ctx context.Context, n *node, client int) {
	for pause(ctx, breather) {
		call := w.now()
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		doc, err := n.document(bounded, "?consistent=1")
		cancel()
		if err == nil {
			w.add(porcupine.Operation{ClientId: client, Input: opRead, Call: call, Output: doc.queue(queueNow).Enqueued, Return: w.now()})
		}
	}
}
