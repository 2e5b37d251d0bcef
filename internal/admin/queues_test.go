package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"
)

// queued is a Source with queues, of which mail has jobs that have failed. It notes what
// it is asked to change.
type queued struct {
	*fake
	mu    sync.Mutex
	calls []string
	err   error
}

var _ Queues = (*queued)(nil)

func (q *queued) did(format string, args ...any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, fmt.Sprintf(format, args...))
	return q.err
}

func (q *queued) Queues(context.Context) ([]Queue, error) {
	return []Queue{{Queue: "mail", Pending: 2}}, q.err
}

func (q *queued) Queue(_ context.Context, name string) (Queue, error) {
	if name == "nowhere" {
		return Queue{}, queue.ErrUnknownQueue
	}
	return Queue{Queue: name}, q.err
}

func (q *queued) FailedPage(_ context.Context, name string, before uint64, limit int) ([]*queue.Job, uint64, error) {
	if q.err != nil {
		return nil, 0, q.err
	}
	if before == 77 {
		return nil, 0, nil
	}
	return []*queue.Job{
		{ID: command.JobID{Millis: 5, Seq: 6}, Payload: []byte(fmt.Sprint(name, " ", before, " ", limit)), Reason: "boom", FailedAt: 1767323045000, Attempts: 3, Output: "o"},
		{ID: command.JobID{Millis: 3, Seq: 4}, Origin: command.JobID{Millis: 1, Seq: 2}},
	}, 77, nil
}

func (q *queued) List(_ context.Context, name string, state queue.JobState, after queue.Position, limit int) ([]*queue.Job, queue.Position, error) {
	if q.err != nil {
		return nil, queue.Position{}, q.err
	}
	j := &queue.Job{ID: command.JobID{Millis: 1767323045000, Seq: 6}, Payload: []byte(fmt.Sprint(name, " ", state, " ", after, " ", limit)), Attempts: 1}
	switch state {
	case queue.IsDelayed:
		j.DueAt = 1767323046000
	case queue.IsReserved:
		j.ReservedAt, j.Pool = 1767323047000, "jobs"
	}
	if after.Place == 77 {
		return []*queue.Job{j}, queue.Position{}, nil
	}
	return []*queue.Job{j}, queue.Position{Place: 77, Seq: 78}, nil
}

func (q *queued) RetryAll(_ context.Context, name string, f queue.Filter) (uint64, error) {
	return 4, q.did("retry all %s %q %s", name, f.Reason, f.Age)
}

func (q *queued) Pause(_ context.Context, name string) error { return q.did("pause %s", name) }

func (q *queued) Resume(_ context.Context, name string) error { return q.did("resume %s", name) }

func (q *queued) Clear(_ context.Context, name string) (uint64, error) {
	return 5, q.did("clear %s", name)
}

func (q *queued) Delete(_ context.Context, name, id string) error {
	return q.did("delete %s %s", name, id)
}

func (q *queued) Push(_ context.Context, name string, payload []byte, delay time.Duration) (command.JobID, error) {
	text := string(payload)
	if len(text) > 100 {
		text = strconv.Itoa(len(text)) + " bytes"
	}
	return command.JobID{Millis: 8, Seq: 9}, q.did("push %s %q %s", name, text, delay)
}

func (q *queued) RetryFailed(_ context.Context, name, id string) (command.JobID, error) {
	return command.JobID{Millis: 8, Seq: 9}, q.did("retry %s %s", name, id)
}

func (q *queued) ForgetFailed(_ context.Context, name, id string) (uint64, error) {
	if id == "0-0" {
		return 0, nil
	}
	return 1, q.did("forget %s %s", name, id)
}

func (q *queued) PurgeFailed(_ context.Context, name string) (uint64, error) {
	return 3, q.did("purge %s", name)
}

// request is one with a body that its length tells of, unless it is empty.
func request(method, path, headers, body string) string {
	if body != "" {
		headers += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n" + body
}

func TestQueues(t *testing.T) {
	t.Parallel()
	const jobs, failedPath, pushed = QueuesPath + "/mail/jobs", QueuesPath + "/mail/failed", `{"queue":"mail","id":"8-9"}`
	for _, c := range []struct {
		name, request string
		code          int
		want, call    string // a part of the answer; what was done, "": nothing
	}{
		{"list", get(QueuesPath), 200, `{"queues":[{"queue":"mail",`, ""},
		{"one", get(QueuesPath + "/mail"), 200, `{"queue":"mail","ready":false,`, ""},
		{"one unknown", get(QueuesPath + "/nowhere"), 404, "queue nowhere: the queue is not declared", ""},
		{"one with a name to escape", get(QueuePath("å%2f?#")), 200, `{"queue":"å%2f?#",`, ""},
		{"one whose name is two dots", get(QueuePath("..")), 200, `{"queue":"..",`, ""},
		{"head", request("HEAD", QueuesPath+"/mail", "", ""), 200, "", ""},
		{"peek", get(jobs), 200, `{"queue":"mail","state":"ready","jobs":[{"id":"1767323045000-6","queue":"mail","state":"ready","payload":"mail ready {0 0} 100","pushed_at":"2026-01-02T03:04:05Z","attempts":1}],"next_cursor":"77-78"}`, ""},
		{"peek at suspects", get(jobs + "?state=suspect&limit=2"), 200, `"state":"suspect","payload":"mail suspect {0 0} 2"`, ""},
		{"peek at delayed ones", get(jobs + "?state=delayed"), 200, `"attempts":1,"due_at":"2026-01-02T03:04:06Z"}`, ""},
		{"peek at reserved ones", get(jobs + "?state=reserved"), 200, `"attempts":1,"reserved_at":"2026-01-02T03:04:07Z","worker":"jobs"}`, ""},
		{"peek at the next", get(jobs + "?cursor=77-78"), 200, `{77 78} 100","pushed_at":"2026-01-02T03:04:05Z","attempts":1}],"next_cursor":null}`, ""},
		{"peek at failed ones", get(jobs + "?state=failed"), 400, "state is ready, suspect, delayed or reserved", ""},
		{"peek at two", get(jobs + "?state=ready&state=delayed"), 400, "stands once", ""},
		{"peek cursor null", get(jobs + "?cursor=null"), 400, "cursor is the next_cursor of a page", ""},
		{"peek cursor twice", get(jobs + "?cursor=1-2&cursor=1-2"), 400, "stands once", ""},
		{"peek at some", get(jobs + "?limit=7"), 200, `"payload":"mail ready {0 0} 7"`, ""},
		{"peek at none", get(jobs + "?limit=0"), 400, "limit is a number from 1 to 1000", ""},
		{"failed", get(QueuesPath + "/mail/failed"), 200, `{"queue":"mail","failed":[` +
			`{"id":"5-6","queue":"mail","original_id":"5-6","payload":"mail 0 100","reason":"boom","failed_at":"2026-01-02T03:04:05Z","attempts":3,"output":"o"},` +
			`{"id":"3-4","queue":"mail","original_id":"1-2",`, ""},
		{"failed next", get(QueuesPath + "/mail/failed?limit=1&cursor=5"), 200, `"mail 5 1"`, ""},
		{"failed cursor", get(QueuesPath + "/mail/failed"), 200, `"next_cursor":"77"}`, ""},
		{"failed last", get(QueuesPath + "/mail/failed?cursor=77"), 200, `{"queue":"mail","failed":[],"next_cursor":null}`, ""},
		{"failed limit", get(QueuesPath + "/mail/failed?limit=1001"), 400, "limit is a number from 1 to 1000", ""},
		{"failed limit 0", get(QueuesPath + "/mail/failed?limit=0"), 400, "", ""},
		{"failed limit twice", get(QueuesPath + "/mail/failed?limit=1&limit=2"), 400, "stands once", ""},
		{"failed cursor null", get(QueuesPath + "/mail/failed?cursor=null"), 400, "cursor is the next_cursor of a page, which is null behind the last one", ""},
		{"failed cursor empty", get(QueuesPath + "/mail/failed?cursor="), 400, "", ""},
		{"failed cursor +1", get(QueuesPath + "/mail/failed?cursor=%2B1"), 400, "", ""},

		{"push", request("POST", jobs, asJSON, `{"payload":"{\"a\":1}"}`), 200, pushed, `push mail "{\"a\":1}" 0s`},
		{"push empty", request("POST", jobs, asJSON, `{"payload":""}`), 200, pushed, `push mail "" 0s`},
		{"push later", request("POST", jobs, asJSON, ` {"delay": 1.5, "payload": "\u00e9\ud83d\ude00\\ud800"} `), 200, pushed, `push mail "é😀\\ud800" 1.5s`},
		{"push in ten years", request("POST", jobs, asJSON, `{"payload":"a","delay":315360000}`), 200, pushed, `push mail "a" 87600h0m0s`},
		{"push much", request("POST", jobs, asJSON, `{"payload":"`+strings.Repeat("x", 16<<20)+`"}`), 200, pushed, `push mail "16777216 bytes" 0s`},
		{"push too much", request("POST", jobs, asJSON+"Content-Length: "+strconv.Itoa(MaxPush+1)+"\r\n", ""), 413, "over 16781312 bytes", ""},
		{"push much as a form", request("POST", jobs, "Content-Type: text/plain\r\n", `{"payload":"`+strings.Repeat("x", maxBody)+`"}`), 413, "over 4096 bytes", ""},
		{"push much of elsewhere", request("POST", jobs, asJSON+"Origin: https://evil.example\r\n", `{"payload":"`+strings.Repeat("x", maxBody)+`"}`), 413, "over 4096 bytes", ""},
		{"much for another path", request("POST", QueuesPath+"/mail/failed", asJSON, strings.Repeat(" ", maxBody+1)), 413, "over 4096 bytes", ""},
		{"push early", request("POST", jobs, asJSON, `{"payload":"a","delay":-1}`), 400, "delay must be a number of seconds from 0 to 315360000", ""},
		{"push never", request("POST", jobs, asJSON, `{"payload":"a","delay":315360001}`), 400, "", ""},
		{"push beyond", request("POST", jobs, asJSON, `{"payload":"a","delay":1e999}`), 400, "delay must be", ""},
		{"push at a text", request("POST", jobs, asJSON, `{"payload":"a","delay":"5s"}`), 400, "delay must be", ""},
		{"push at null", request("POST", jobs, asJSON, `{"payload":"a","delay":null}`), 400, "delay must be", ""},
		{"push an object", request("POST", jobs, asJSON, `{"payload":{"a":1}}`), 400, "payload must be there and be a string", ""},
		{"push nothing", request("POST", jobs, asJSON, `{}`), 400, "payload must be there and be a string", ""},
		{"push null", request("POST", jobs, asJSON, `null`), 400, "the body must be an object", ""},
		{"push without a body", request("POST", jobs, asJSON, ""), 400, "the body must be an object", ""},
		{"push two", request("POST", jobs, asJSON, `{"payload":"a"}{}`), 400, "the body must be an object", ""},
		{"push other members", request("POST", jobs, asJSON, `{"Payload":"a"}`), 400, `unknown member \"Payload\"`, ""},
		{"push bytes", request("POST", jobs, asJSON, "{\"payload\":\"\xff\"}"), 400, "payload is not UTF-8: base64-encode it", ""},
		{"push half a pair", request("POST", jobs, asJSON, `{"payload":"\ud800"}`), 400, "half of a surrogate pair", ""},
		{"push the other half", request("POST", jobs, asJSON, `{"payload":"\ude00"}`), 400, "half of a surrogate pair", ""},
		{"push two halves", request("POST", jobs, asJSON, `{"payload":"\ud800\ud800"}`), 400, "half of a surrogate pair", ""},
		{"push half a pair and more", request("POST", jobs, asJSON, `{"payload":"\ud800\n"}`), 400, "half of a surrogate pair", ""},
		{"push of elsewhere", request("POST", jobs, asJSON+"Origin: https://evil.example\r\n", `{"payload":"a"}`), 403, "pages of elsewhere", ""},
		{"push as a form", request("POST", jobs, "Content-Type: text/plain\r\n", `{"payload":"a"}`), 415, "", ""},
		{"push to a rebound host", strings.Replace(request("POST", jobs, asJSON, `{"payload":"a"}`), "localhost", "evil.example", 1), 403, "", ""},

		{"retry", request("POST", QueuesPath+"/mail/failed/1-2/retry", asJSON, ""), 200, pushed, "retry mail 1-2"},
		{"retry escaped", request("POST", QueuePath("a b", "failed", "1/2", "retry"), asJSON, "{}"), 200, `{"queue":"a b","id":"8-9"}`, "retry a b 1/2"},
		{"retry of elsewhere", request("POST", QueuesPath+"/mail/failed/1-2/retry", asJSON+"Origin: null\r\n", ""), 403, "", ""},
		{"retry bare", request("POST", QueuesPath+"/mail/failed/1-2/retry", "", ""), 415, "", ""},
		{"retry wishes", request("POST", QueuesPath+"/mail/failed/1-2/retry", asJSON, `{"n":1}`), 400, "", ""},
		{"forget", request("DELETE", QueuesPath+"/mail/failed/1-2", asJSON, ""), 200, `{"queue":"mail","count":1}`, "forget mail 1-2"},
		{"forget none", request("DELETE", QueuesPath+"/mail/failed/0-0", asJSON, ""), 404, "queue mail, job 0-0: there is no failed job with this id", ""},
		{"forget of elsewhere", request("DELETE", QueuesPath+"/mail/failed/1-2", asJSON+"Origin: null\r\n", ""), 403, "", ""},
		{"purge", request("DELETE", QueuesPath+"/mail/failed", asJSON, ""), 200, `{"queue":"mail","count":3}`, "purge mail"},
		{"purge bare", request("DELETE", QueuesPath+"/mail/failed", "", ""), 415, "", ""},
		{"purge of elsewhere", request("DELETE", QueuesPath+"/mail/failed", asJSON+"Origin: null\r\n", ""), 403, "", ""},

		{"retry all", request("POST", failedPath+"/retry", asJSON, ""), 200, `{"queue":"mail","count":4}`, `retry all mail "" 0s`},
		{"retry some", request("POST", failedPath+"/retry", asJSON, ` {"error":"<é>","before":1.0005}`), 200, `{"queue":"mail","count":4}`, `retry all mail "<é>" 1.001s`},
		{"retry wrong", request("POST", failedPath+"/retry", asJSON, `{"error":5}`), 400, "error must be a string", ""},
		{"retry wrong age", request("POST", failedPath+"/retry", asJSON, `{"before":"1h"}`), 400, "before must be a number of seconds", ""},
		{"retry no age", request("POST", failedPath+"/retry", asJSON, `{"before":null}`), 400, "before must be a number of seconds", ""},
		{"retry other", request("POST", failedPath+"/retry", asJSON, `{"reason":"a"}`), 400, `unknown member \"reason\"`, ""},
		{"retry null", request("POST", failedPath+"/retry", asJSON, `null`), 400, "the body must be empty or an object", ""},
		{"retry all bare", request("POST", failedPath+"/retry", "", ""), 415, "", ""},
		{"retry all of elsewhere", request("POST", failedPath+"/retry", asJSON+"Origin: null\r\n", ""), 403, "", ""},
		{"read retry", get(failedPath + "/retry"), 405, "no other method than POST", ""},
		{"pause", request("POST", QueuesPath+"/mail/pause", asJSON, ""), 200, `{"queue":"mail","paused":true}`, "pause mail"},
		{"pause bare", request("POST", QueuesPath+"/mail/pause", "", ""), 415, "", ""},
		{"pause of elsewhere", request("POST", QueuesPath+"/mail/pause", asJSON+"Origin: null\r\n", ""), 403, "", ""},
		{"read pause", get(QueuesPath + "/mail/pause"), 405, "no other method than POST", ""},
		{"resume", request("POST", QueuesPath+"/mail/resume", asJSON, "{}"), 200, `{"queue":"mail","paused":false}`, "resume mail"},
		{"resume wishes", request("POST", QueuesPath+"/mail/resume", asJSON, `{"n":1}`), 400, "", ""},
		{"clear", request("DELETE", jobs, asJSON, ""), 200, `{"queue":"mail","count":5}`, "clear mail"},
		{"clear bare", request("DELETE", jobs, "", ""), 415, "", ""},
		{"clear of elsewhere", request("DELETE", jobs, asJSON+"Origin: null\r\n", ""), 403, "", ""},
		{"delete", request("DELETE", QueuePath("a b", "jobs", "1/2"), asJSON, ""), 200, `{"queue":"a b","count":1}`, "delete a b 1/2"},
		{"delete bare", request("DELETE", jobs+"/1-2", "", ""), 415, "", ""},
		{"read one", get(jobs + "/1-2"), 405, "no other method than DELETE", ""},

		{"no name", get(QueuesPath + "/"), 404, "there is nothing at this path", ""},
		{"more in the name", get(QueuesPath + "x"), 404, "there is nothing at this path", ""},
		{"slash behind", get(QueuesPath + "/mail/"), 404, "there is nothing at this path", ""},
		{"bad escape", get(QueuesPath + "/%zz"), 404, "there is nothing at this path", ""},
		{"below", get(QueuesPath + "/mail/jobs/1-2/x"), 404, "there is nothing at this path", ""},
		{"below a job", request("POST", QueuesPath+"/mail/failed/1-2/fail", asJSON, ""), 404, "there is nothing at this path", ""},
		{"delete all", request("DELETE", QueuesPath, asJSON, ""), 405, "no other method than GET, HEAD", ""},
		{"delete a queue", request("DELETE", QueuesPath+"/mail", asJSON, ""), 405, "no other method than GET, HEAD", ""},
		{"put jobs", request("PUT", jobs, asJSON, ""), 405, "no other method than GET, HEAD, POST, DELETE", ""},
		{"post to failed", request("POST", QueuesPath+"/mail/failed", asJSON, ""), 405, "no other method than GET, HEAD, DELETE", ""},
		{"read one failed", get(QueuesPath + "/mail/failed/1-2"), 405, "no other method than DELETE", ""},
		{"read a retry", get(QueuesPath + "/mail/failed/1-2/retry"), 405, "no other method than POST", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src := &queued{fake: &fake{}}
			r, body := send(t, serve(t, src), c.request)
			if r.StatusCode != c.code || !strings.Contains(body, c.want) {
				t.Error(r.StatusCode, body)
			}
			if got := strings.Join(src.calls, ", "); got != c.call {
				t.Errorf("it did %q, not %q", got, c.call)
			}
			if kind := r.Header.Get("Content-Type"); (kind == "application/problem+json") != (c.code != 200) || r.Header.Get("Cache-Control") != "no-store" && c.code != 413 {
				t.Error(r.Header)
			}
			if allow := r.Header.Get("Allow"); (c.code == 405) != (allow != "") || !strings.Contains(c.want, allow) {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

// Each error has its status, and says whether something may have changed.
func TestQueuesFail(t *testing.T) {
	t.Parallel()
	change := []string{
		request("POST", QueuesPath+"/mail/jobs", asJSON, `{"payload":"a"}`),
		request("POST", QueuesPath+"/mail/failed/1-2/retry", asJSON, ""),
		request("DELETE", QueuesPath+"/mail/failed/1-2", asJSON, ""),
		request("DELETE", QueuesPath+"/mail/failed", asJSON, ""),
		request("POST", QueuesPath+"/mail/failed/retry", asJSON, ""),
		request("POST", QueuesPath+"/mail/pause", asJSON, ""),
		request("POST", QueuesPath+"/mail/resume", asJSON, ""),
		request("DELETE", QueuesPath+"/mail/jobs", asJSON, ""),
		request("DELETE", QueuesPath+"/mail/jobs/1-2", asJSON, ""),
	}
	read := []string{get(QueuesPath), get(QueuesPath + "/mail"), get(QueuesPath + "/mail/failed"), get(QueuesPath + "/mail/jobs")}
	for _, c := range []struct {
		err      error
		requests []string
		code     int
		want     string
	}{
		{queue.ErrUnknownQueue, change, 404, "the queue is not declared: add it to [queue]"},
		{queue.ErrUnknownJob, change[1:2], 404, "queue mail, job 1-2: there is no failed job with this id"},
		{queue.ErrNoJob, change[8:], 404, "queue mail, job 1-2: there is no job with this id"},
		{queue.ErrReserved, change[8:], 409, "queue mail, job 1-2: the job is reserved: a worker has it"},
		{queue.ErrFull, change[4:5], 507, "queue mail, after 4 failed jobs were retried: the queue is full"},
		{queue.ErrFull, change[:2], 507, "the queue is full: ask again when jobs are done, or raise its max_messages"},
		{queue.ErrPayloadTooLarge, change[:1], 413, "the payload is over the queue's max_payload_bytes"},
		{command.ErrTooLarge, change[:1], 413, ""},
		{queue.ErrPayloadNotUTF8, change[:1], 400, "base64-encode it"},
		{queue.ErrShuttingDown, change[:1], 503, "the queue is shutting down on this node"},
		{command.ErrClosed, change, 503, "the node is shutting down"},
		{command.ErrNotTaken, change, 503, "no leader took the command in time: nothing was changed"},
		{fmt.Errorf("%w: x", command.ErrOutcomeUnknown), change, 504, "It may be done already, or be done yet: look at the queue before you ask again"},
		{context.DeadlineExceeded, read, 503, "deadline"},
		{queue.ErrUnknownQueue, read[1:], 404, "queue mail: the queue is not declared"},
		{errors.New("the file is closed"), append(read, change...), 503, "the file is closed"},
	} {
		s := serve(t, &queued{fake: &fake{}, err: c.err})
		for _, request := range c.requests {
			r, body := send(t, s, request)
			var p struct {
				Title, Detail string
				Status        int
			}
			if err := json.Unmarshal([]byte(body), &p); r.StatusCode != c.code || err != nil || p.Status != c.code || p.Title == "" || !strings.Contains(p.Detail, c.want) {
				t.Errorf("%v: %d %s\n%s", c.err, r.StatusCode, body, request)
			}
		}
	}
	// A purge says how far it came.
	s := serve(t, &queued{fake: &fake{}, err: command.ErrNotAccepted})
	if _, body := send(t, s, change[3]); !strings.Contains(body, "queue mail, after 3 failed jobs were deleted: not accepted") {
		t.Error(body)
	}
	// A Source without queues.
	if r, body := send(t, serve(t, &fake{}), get(QueuesPath)); r.StatusCode != 404 {
		t.Error(r.StatusCode, body)
	}
}
