package cluster_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pogod/internal/link"
)

// queueCommand runs pogod queue against the node.
func (n *node) queueCommand(stdin string, args ...string) (code int, stdout, stderr string) {
	n.t.Helper()
	cmd := n.command(append([]string{"queue"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := n.within(cmd.Run)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// done is queueCommand for what must succeed; it returns the line that it prints.
func (n *node) done(args ...string) string {
	n.t.Helper()
	code, out, errs := n.queueCommand("", args...)
	if code != 0 || errs != "" {
		n.t.Fatalf("pogod queue %q ended with %d: %s%s", args, code, out, errs)
	}
	return strings.TrimSuffix(out, "\n")
}

// ask makes a request to the admin endpoint.
func (n *node) ask(method, path, body string) (status int, answer string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.admin+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	r, err := n.http.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// failNext takes the next job, which must have that payload, and fails it.
func (k *caller) failNext(payload, reason string) {
	k.t.Helper()
	d := k.next()
	code, _ := k.call(link.Request(nil, link.Fail).String(d.Queue).String(d.ID).String(reason))
	if d.Payload != payload || code != 1 {
		k.t.Fatalf("%+v, not %q, was failed with %d", d, payload, code)
	}
}

// failedPage asks for a page, and returns its payloads and the address of the next one.
func (n *node) failedPage(query string) (payloads, ids []string, next string) {
	n.t.Helper()
	status, body := n.ask("GET", "/api/v1/queues/now/failed"+query, "")
	var page struct {
		Failed []struct {
			ID, Payload, Reason string
			FailedAt            time.Time `json:"failed_at"`
			Attempts            int
		}
		Next *string `json:"next_cursor"`
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil || status != 200 {
		n.t.Fatal(status, body, err)
	}
	for _, j := range page.Failed {
		payloads, ids = append(payloads, j.Payload), append(ids, j.ID)
		if j.Reason != "because of "+j.Payload || j.Attempts != 1 || time.Since(j.FailedAt).Abs() > time.Hour {
			n.t.Errorf("%+v", j)
		}
	}
	if page.Next != nil {
		next = "&cursor=" + *page.Next
	}
	return payloads, ids, next
}

// TestQueueCommands does to a real node what a person does to a queue.
func TestQueueCommands(t *testing.T) {
	notTwice(t)
	t.Parallel()
	n := newNode(t, build(t, ""), "")
	if err := n.configure(); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := n.queueCommand("", "push", queueNow, "a"); code != 3 || !strings.Contains(errs, "no node answers") {
		t.Errorf("without a node: %d %s", code, errs)
	}
	n.up()
	worker := n.caller(link.RoleWorker, workerExt)

	// Pushed jobs come to a worker as they are.
	const payload = "{\"a\":\"<é\u2028😀>\"}"
	id := n.done("push", queueNow, payload)
	if d := worker.next(); d.Payload != payload || d.Job != id || worker.ack(d) != 1 {
		t.Errorf("%+v is not %s", d, id)
	}
	if code, out, errs := n.queueCommand("two\nlines\n", "push", queueNow, "-", "--json"); code != 0 || !strings.HasPrefix(out, `{"queue":"now","id":"`) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if d := worker.next(); d.Payload != "two\nlines\n" || worker.ack(d) != 1 {
		t.Errorf("%+v", d)
	}
	n.done("push", queueLate, "later", "--delay", "1h")
	if out := n.done("show", queueLate); !strings.Contains(out, "0 ready, 1 delayed, 0 reserved") {
		t.Error(out)
	}

	// A look takes none. Nobody takes them from this queue; of the other one a job may be
	// reserved for the worker before it asks.
	one, two := n.done("push", queueLate, "one"), n.done("push", queueLate, "two")
	for range 2 {
		out := n.done("peek", queueLate)
		if at := strings.Index(out, one); strings.Count(out, "\n") != 2 || at < 0 || at > strings.Index(out, two) || !strings.HasSuffix(out, "two") {
			t.Error(out)
		}
	}
	if out := n.done("peek", queueNow); out != "no ready job" {
		t.Error(out)
	}

	// Failed jobs, in pages.
	for i := range 5 {
		text := fmt.Sprint("job ", i)
		n.done("push", queueNow, text)
		worker.failNext(text, "because of "+text)
	}
	first, ids, next := n.failedPage("?limit=2")
	second, _, rest := n.failedPage("?limit=2" + next)
	third, _, end := n.failedPage("?limit=2" + rest)
	if got := fmt.Sprint(first, second, third, end); got != "[job 4 job 3] [job 2 job 1] [job 0]" {
		t.Error(got)
	}
	if out := n.done("failed", queueNow, "--limit", "4"); strings.Count(out, "\n") != 5 || !strings.Contains(out, ids[0]) || !strings.Contains(out, "because of job 4") {
		t.Error(out)
	}

	// Retried ones are fresh jobs.
	fresh := n.done("retry", queueNow, ids[0])
	if d := worker.next(); d.Payload != "job 4" || d.Job != fresh || d.Attempts != 1 || fresh == ids[0] || worker.ack(d) != 1 {
		t.Errorf("%+v is not %s", d, fresh)
	}
	if code, _, errs := n.queueCommand("", "retry", queueNow, ids[0]); code != 1 || !strings.Contains(errs, "answers 404: queue now, job "+ids[0]+": there is no failed job") {
		t.Errorf("retried again: %d %s", code, errs)
	}
	n.done("forget", queueNow, ids[1])
	if out := n.done("retry", queueNow, "--all"); out != "3 failed jobs retried" {
		t.Error(out)
	}
	for _, text := range []string{"job 0", "job 1", "job 2"} { // the oldest first
		worker.failNext(text, "because of "+text)
	}
	if out := n.done("purge", queueNow); out != "3 failed jobs deleted" {
		t.Error(out)
	}
	if out := n.done("show", queueNow); !strings.Contains(out, "0 ready, 0 delayed, 0 reserved, 0 failed\n") || !strings.Contains(out, " 8 failed\n") {
		t.Error(out)
	}
	if out := n.done("ls"); strings.Count(out, "\n") != len(queueRules)+1 { // and default
		t.Error(out)
	}

	// What a node refuses.
	n.done("push", queueTight, "1")
	n.done("push", queueTight, "2")
	quote := func(payload string) string { return fmt.Sprintf(`{"payload":%q}`, payload) }
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "tight/jobs", quote("3"), 507, "queue tight: the queue is full"},
		{"POST", "tight/jobs", quote(strings.Repeat("x", 2001)), 413, "over the queue's max_payload_bytes"},
		{"POST", "now/jobs", quote(strings.Repeat("x", 1<<20)), 200, `"queue":"now"`},
		{"POST", "nowhere/jobs", quote("a"), 404, "queue nowhere: the queue is not declared"},
		{"POST", "a%2Fb/jobs", quote("a"), 404, "queue a/b: the queue is not declared"},
		{"GET", "nowhere", "", 404, "is not declared"},
		{"GET", "nowhere/failed", "", 404, "is not declared"},
		{"DELETE", "nowhere/failed", "", 404, "is not declared"},
		{"DELETE", "now/failed/nonsense", "", 404, "no failed job with this id"},
		{"POST", "now/failed/1-1/retry", "", 404, "no failed job with this id"},
		{"POST", "nowhere/failed/1-1/retry", "", 404, "is not declared"},
	} {
		if status, body := n.ask(c.method, "/api/v1/queues/"+c.path, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}

	// All that is there after a kill.
	n.kill()
	n.up()
	if out := n.done("show", queueTight); !strings.Contains(out, "2 ready") {
		t.Error(out)
	}
	if out := n.done("show", queueNow); !strings.Contains(out, "0 failed\n") {
		t.Error(out)
	}
	n.stop()
}

// TestQueueCommandsWithoutAQuorum asks a node whose two others are dead: each change says
// that it was not done, or that it may be.
func TestQueueCommandsWithoutAQuorum(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), func(n *node) { n.settings = "push_timeout = \"2s\"\n" })
	leader := c.leader()
	n := c.nodes[leader]
	c.nodes[(leader+1)%3].kill()
	c.nodes[(leader+2)%3].kill()
	count := map[int]int{}
	for _, r := range [][3]string{
		{"POST", "now/jobs", `{"payload":"a"}`},
		{"POST", "now/jobs", `{"payload":"b"}`},
		{"POST", "now/failed/1-1/retry", ""},
		{"DELETE", "now/failed/1-1", ""},
		{"DELETE", "now/failed", ""},
	} {
		status, body := n.ask(r[0], "/api/v1/queues/"+r[1], r[2])
		count[status]++
		switch {
		case status == 503 && strings.Contains(body, "nothing was changed"):
		case status == 504 && strings.Contains(body, "look at the queue before you ask again"):
		default:
			t.Errorf("%s %s: %d %s", r[0], r[1], status, body)
		}
	}
	t.Logf("answers: %v", count)
	if code, out, errs := n.queueCommand("", "push", queueNow, "c"); code != 1 || out != "" || !strings.Contains(errs, "answers 50") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}
