package cluster_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pogod/internal/link"
)

// figures asks a node for a queue, with all that any node has answered.
func (n *node) figures(queue string) queueStatus {
	n.t.Helper()
	status, body := n.ask("GET", "/status?consistent=1", "")
	var doc struct{ Queues []queueStatus }
	if err := json.Unmarshal([]byte(body), &doc); err != nil || status != 200 {
		n.t.Fatal(status, body, err)
	}
	for _, q := range doc.Queues {
		if q.Queue == queue {
			return q
		}
	}
	n.t.Fatalf("there is no queue %s in %s", queue, body)
	return queueStatus{}
}

// TestQueueOperations does to the queues of a real node what an operator does, with the
// command line.
func TestQueueOperations(t *testing.T) {
	notTwice(t)
	t.Parallel()
	n := newNode(t, build(t, ""), "")
	n.up()
	// Paused, through a kill: nothing comes, from others it does.
	if out := n.done("pause", queueNow); out != "now is paused" {
		t.Error(out)
	}
	n.done("push", queueNow, "while paused")
	n.kill()
	n.up()
	worker := n.caller(link.RoleWorker, workerExt)
	n.done("push", queueLater, "other")
	if d := worker.next(); d.Payload != "other" || worker.ack(d) != 1 {
		t.Errorf("%+v", d)
	}
	if out := n.done("show", queueNow); !strings.Contains(out, "now (paused: no job is handed out)") || !strings.Contains(out, "1 ready") {
		t.Error(out)
	}
	if out := n.done("ls"); !strings.Contains(out, "now (paused)") {
		t.Error(out)
	}
	if _, body := n.ask("GET", "/metrics", ""); !strings.Contains(body, `pogod_queue_paused{queue="now"} 1`) || !strings.Contains(body, `pogod_queue_paused{queue="later"} 0`) {
		t.Error(body)
	}
	if code, _, errs := n.queueCommand("", "drain", queueNow); code != 1 || !strings.Contains(errs, "is paused and does not get empty") {
		t.Errorf("%d %s", code, errs)
	}
	n.done("resume", queueNow)
	if d := worker.next(); d.Payload != "while paused" || worker.ack(d) != 1 {
		t.Errorf("%+v", d)
	}

	// Clear takes what waits, in several commands, and neither what is reserved nor failed.
	n.done("push", queueNow, "fails")
	worker.failNext("fails", "it broke")
	n.done("push", queueNow, "runs")
	running := worker.next()
	n.done("pause", queueNow)
	var pushes sync.WaitGroup
	for i := range 24 {
		tool := n.caller(link.RoleTool, "tool")
		pushes.Go(func() { // ended by the answers
			for j := range 50 {
				if a := tool.push(queueNow, fmt.Sprint("job ", i, j)); a.code != 1 {
					t.Errorf("a push was answered %+v", a)
				}
			}
		})
	}
	pushes.Wait()
	n.done("push", queueNow, "later", "--delay", "1h")
	if out := n.done("clear", queueNow, "--dry-run"); out != "1201 jobs would be deleted: 1200 ready, 1 delayed" {
		t.Error(out)
	}
	if out := n.done("peek", queueNow, "--state", "delayed"); !strings.Contains(out, "in 59m") {
		t.Error(out)
	}
	if out := n.done("peek", queueNow, "--state", "reserved"); !strings.Contains(out, running.Job) || !strings.Contains(out, "by "+workerExt) {
		t.Error(out)
	}
	if out := n.done("clear", queueNow); out != "1201 jobs deleted" {
		t.Error(out)
	}
	if q := n.figures(queueNow); q.Pending != 0 || q.Delayed != 0 || q.Reserved != 1 || q.Failed != 1 || q.Deleted != 1201 {
		t.Errorf("%+v", q)
	}

	// Delete, of what is where it was pushed to and of what is not.
	id := n.done("push", queueNow, "to go")
	if out := n.done("delete", queueNow, id); out != "1 job deleted" {
		t.Error(out)
	}
	if code, _, errs := n.queueCommand("", "delete", queueNow, running.Job); code != 1 || !strings.Contains(errs, "answers 409") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _ := worker.call(link.Request(nil, link.Release).String(queueNow).String(running.ID).Int(0)); code != 1 {
		t.Error(code)
	}
	n.done("delete", queueNow, running.Job)
	if code, _, errs := n.queueCommand("", "delete", queueNow, running.Job); code != 1 || !strings.Contains(errs, "answers 404") {
		t.Errorf("%d %s", code, errs)
	}

	// A retry of those that are meant.
	n.done("resume", queueNow)
	n.done("push", queueNow, "times out")
	worker.failNext("times out", "timed out after 5s")
	for args, want := range map[string]string{"--before 1h": "0 failed jobs retried", "--error Timed": "0 failed jobs retried", "--error timed": "1 failed job retried"} {
		if out := n.done(append([]string{"retry", queueNow, "--all"}, strings.Fields(args)...)...); out != want {
			t.Errorf("%s: %s", args, out)
		}
	}
	if d := worker.next(); d.Payload != "times out" || worker.ack(d) != 1 {
		t.Errorf("%+v", d)
	}

	// Drain waits for the last one.
	n.done("push", queueNow, "last")
	last := worker.next()
	if code, _, errs := n.queueCommand("", "drain", queueNow, "--timeout", "1s"); code != 1 || !strings.Contains(errs, "is not empty after 1s: 0 ready, 0 delayed, 1 reserved") {
		t.Errorf("%d %s", code, errs)
	}
	drained := make(chan string, 1)
	go func() { drained <- n.done("drain", queueNow) }() // ended by the ack
	if worker.ack(last) != 1 {
		t.Error("the last job was not acked")
	}
	if out := <-drained; !strings.HasPrefix(out, "now is empty: ") {
		t.Error(out)
	}
	q := n.figures(queueNow)
	if q.Enqueued != q.Acked+q.FailedTotal+q.Deleted || q.FailedTotal != q.Failed+q.Purged+q.Retried || q.Retried != 1 || q.Deleted != 1203 {
		t.Errorf("%+v", q)
	}
	n.stop()
}

// A pause holds on all nodes, whoever leads, until a resumption on any.
func TestPauseInACluster(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	delivered := make(chan *delivery, 100)
	waiting := func(n *node) { // ended with the node, or by its clean-up
		k := n.caller(link.RoleWorker, workerExt)
		go func() {
			for {
				code, body, err := k.c.Call(link.Request(nil, link.Next).String(workerExt).Int(0))
				if err != nil || code != 1 {
					return
				}
				var d delivery
				if _, msg, err := link.ParseDelivery(body); err != nil || json.Unmarshal(msg, &d) != nil {
					return
				}
				delivered <- &d
				if code, _, err := k.c.Call(link.Request(nil, link.Ack).String(d.Queue).String(d.ID)); err != nil || code != 1 {
					return
				}
			}
		}()
	}
	for _, n := range c.nodes {
		waiting(n)
	}
	c.nodes[1].done("pause", queueNow)
	const jobs = 30
	push := func(n *node) {
		for range jobs / 3 {
			n.done("push", queueNow, "paused")
		}
	}
	alive := func(n *node) { // a job of another queue that the same threads serve comes
		t.Helper()
		n.done("push", queueLater, "other")
		if d := <-delivered; d.Queue != queueLater {
			t.Fatalf("%+v was delivered", d)
		}
	}
	push(c.nodes[0])
	push(c.nodes[2])
	alive(c.nodes[2])
	leader := c.leader()
	left := []*node{c.nodes[(leader+1)%3], c.nodes[(leader+2)%3]}
	c.nodes[leader].kill()
	eventually(t, "another leads", func() bool {
		status, _ := left[0].ask("GET", "/status?consistent=1", "")
		return status == 200
	})
	push(left[1])
	alive(left[0])
	if q := left[0].figures(queueNow); q.Pending != jobs || q.Reserved != 0 || q.ReservedTotal != 0 {
		t.Errorf("%+v", q)
	}
	left[1].done("resume", queueNow)
	for range jobs {
		if d := <-delivered; d.Queue != queueNow {
			t.Fatalf("%+v was delivered", d)
		}
	}
	left[0].done("drain", queueNow)
}
