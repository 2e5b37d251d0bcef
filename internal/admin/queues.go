package admin

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"pogod/internal/command"
	"pogod/queue"
)

// Queues is what the endpoint needs of the queues. A Source that has any is one. Its
// methods are called from many goroutines at once; their errors are those of package
// queue, and of its Proposer.
type Queues interface {
	// Queues lists the queues that are declared or hold a job, sorted by name.
	Queues(ctx context.Context) ([]Queue, error)
	// Queue returns one of them, and otherwise queue.ErrUnknownQueue.
	Queue(ctx context.Context, name string) (Queue, error)
	// FailedPage lists failed jobs as queue.Client does.
	FailedPage(ctx context.Context, name string, before uint64, limit int) (jobs []*queue.Job, next uint64, err error)
	// List lists the jobs of a state as queue.Client does.
	List(ctx context.Context, name string, state queue.JobState, after queue.Position, limit int) (jobs []*queue.Job, next queue.Position, err error)
	// Push adds a job and returns its id.
	Push(ctx context.Context, name string, payload []byte, delay time.Duration) (command.JobID, error)
	// RetryFailed makes a fresh job of a failed one and returns its id.
	RetryFailed(ctx context.Context, name, id string) (command.JobID, error)
	// ForgetFailed deletes a failed job and returns how many there were: 0 or 1.
	ForgetFailed(ctx context.Context, name, id string) (uint64, error)
	// PurgeFailed deletes all failed jobs and returns how many, with an error too.
	PurgeFailed(ctx context.Context, name string) (uint64, error)
	// RetryAll makes fresh jobs of failed ones and returns how many, with an error too.
	RetryAll(ctx context.Context, name string, f queue.Filter) (uint64, error)
	// Pause has nothing more handed out, until Resume.
	Pause(ctx context.Context, name string) error
	// Resume ends a Pause.
	Resume(ctx context.Context, name string) error
	// Clear deletes the jobs that wait and returns how many, with an error too.
	Clear(ctx context.Context, name string) (uint64, error)
	// Delete deletes one job that waits or has failed.
	Delete(ctx context.Context, name, id string) error
}

// QueuesPath is where the queues are; QueuePath makes the paths below it.
const QueuesPath = "/api/v1/queues" // GET

// QueuePath returns the path of a queue (GET) and of what is below it:
//
//	QueuePath(name, "jobs")                GET, POST, DELETE
//	QueuePath(name, "jobs", id)            DELETE
//	QueuePath(name, "pause")               POST
//	QueuePath(name, "resume")              POST
//	QueuePath(name, "failed")              GET, DELETE
//	QueuePath(name, "failed", "retry")     POST
//	QueuePath(name, "failed", id)          DELETE
//	QueuePath(name, "failed", id, "retry") POST
func QueuePath(name string, below ...string) string {
	path := QueuesPath
	for _, part := range append([]string{name}, below...) {
		part = url.PathEscape(part)
		if strings.Trim(part, ".") == "" { // "." and ".." are names, and would be taken for more
			part = strings.ReplaceAll(part, ".", "%2E")
		}
		path += "/" + part
	}
	return path
}

// How many failed jobs a page has.
const (
	pageOf  = 100
	maxPage = 1000
)

// changeTimeout bounds what may be many commands; each has its push_timeout.
const changeTimeout = 2 * time.Minute

// QueueList is the answer of QueuesPath.
type QueueList struct {
	Queues []Queue `json:"queues"` // sorted by name
}

// FailedJob is a job that has failed, as in pogo_queue_failed.
type FailedJob struct {
	ID         string    `json:"id"`
	Queue      string    `json:"queue"`
	OriginalID string    `json:"original_id"` // the first of its chain of retries
	Payload    string    `json:"payload"`
	Reason     string    `json:"reason"`
	FailedAt   time.Time `json:"failed_at"`
	Attempts   uint64    `json:"attempts"`
	Output     string    `json:"output"` // what its last attempt printed last
}

// FailedPage is a page of failed jobs, the newest first.
type FailedPage struct {
	Queue      string      `json:"queue"`
	Failed     []FailedJob `json:"failed"`
	NextCursor *string     `json:"next_cursor"` // of the next page; null: there is none
}

// Pushed is the answer to a push and to a retry.
type Pushed struct {
	Queue string `json:"queue"`
	ID    string `json:"id"` // of the new job
}

// Removed is the answer to a deletion.
type Removed struct {
	Queue string `json:"queue"`
	Count uint64 `json:"count"` // jobs that are gone by it
}

// ofQueues returns what answers a request below QueuesPath, and the methods that its path
// takes; nil: there is nothing at the path. The path is read as it was sent: a queue's
// name may have in it what would be tidied away.
func (s *Server) ofQueues(ctx *fasthttp.RequestCtx) (answer func(*fasthttp.RequestCtx), allow string) {
	rest, found := strings.CutPrefix(string(ctx.URI().PathOriginal()), QueuesPath)
	if !found || s.queues == nil {
		return nil, ""
	}
	parts := strings.Split(rest, "/")
	if parts[0] != "" {
		return nil, ""
	}
	for i, part := range parts[1:] {
		plain, err := url.PathUnescape(part)
		if err != nil || plain == "" {
			return nil, ""
		}
		parts[i+1] = plain
	}
	if len(parts) == 1 {
		return s.queueList, "GET, HEAD"
	}
	name, below := parts[1], parts[2:]
	with := func(f func(*fasthttp.RequestCtx, string)) func(*fasthttp.RequestCtx) {
		return func(ctx *fasthttp.RequestCtx) { f(ctx, name) }
	}
	withJob := func(f func(ctx *fasthttp.RequestCtx, name, id string)) func(*fasthttp.RequestCtx) {
		return func(ctx *fasthttp.RequestCtx) { f(ctx, name, below[1]) }
	}
	switch {
	case len(below) == 0:
		return with(s.queue), "GET, HEAD"
	case len(below) == 1 && below[0] == "jobs":
		return with(byMethod(ctx, s.jobs, s.push, s.clear)), "GET, HEAD, POST, DELETE"
	case len(below) == 2 && below[0] == "jobs":
		return withJob(s.deleteJob), "DELETE"
	case len(below) == 1 && below[0] == "pause":
		return with(s.pause), "POST"
	case len(below) == 1 && below[0] == "resume":
		return with(s.resume), "POST"
	case len(below) == 1 && below[0] == "failed":
		return with(byMethod(ctx, s.failed, nil, s.purge)), "GET, HEAD, DELETE"
	case len(below) == 2 && below[0] == "failed" && below[1] == "retry":
		return with(s.retryAll), "POST"
	case len(below) == 2 && below[0] == "failed":
		return withJob(s.forget), "DELETE"
	case len(below) == 3 && below[0] == "failed" && below[2] == "retry":
		return withJob(s.retry), "POST"
	}
	return nil, ""
}

// byMethod chooses one of several that answer at the same path.
func byMethod[F any](ctx *fasthttp.RequestCtx, get, post, remove F) F {
	switch {
	case ctx.IsPost():
		return post
	case ctx.IsDelete():
		return remove
	}
	return get
}

func (s *Server) queueList(ctx *fasthttp.RequestCtx) {
	bounded, cancel := context.WithTimeout(s.ctx, statusTimeout)
	defer cancel()
	all, err := s.queues.Queues(bounded)
	if err != nil {
		refuse(ctx, "the queues", err)
		return
	}
	write(ctx, QueueList{list(all)})
}

func (s *Server) queue(ctx *fasthttp.RequestCtx, name string) {
	bounded, cancel := context.WithTimeout(s.ctx, statusTimeout)
	defer cancel()
	q, err := s.queues.Queue(bounded, name)
	if err != nil {
		refuse(ctx, "queue "+name, err)
		return
	}
	write(ctx, q)
}

func (s *Server) failed(ctx *fasthttp.RequestCtx, name string) {
	limit, before := uint64(pageOf), uint64(0)
	if !limited(ctx, &limit) ||
		!number(ctx, "cursor", "the next_cursor of a page, which is null behind the last one", 1<<63, &before) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, statusTimeout)
	defer cancel()
	jobs, next, err := s.queues.FailedPage(bounded, name, before, int(limit))
	if err != nil {
		refuse(ctx, "queue "+name, err)
		return
	}
	page := FailedPage{Queue: name, Failed: make([]FailedJob, 0, len(jobs))}
	for _, j := range jobs {
		f := FailedJob{
			ID: j.ID.String(), Queue: name, OriginalID: j.ID.String(), Payload: string(j.Payload), Reason: j.Reason,
			FailedAt: time.UnixMilli(j.FailedAt).UTC(), Attempts: j.Attempts, Output: j.Output,
		}
		if j.Origin != (command.JobID{}) {
			f.OriginalID = j.Origin.String()
		}
		page.Failed = append(page.Failed, f)
	}
	if next != 0 {
		text := strconv.FormatUint(next, 10)
		page.NextCursor = &text
	}
	write(ctx, page)
}

// limited reads the limit of a page, as number does.
func limited(ctx *fasthttp.RequestCtx, limit *uint64) bool {
	return number(ctx, "limit", fmt.Sprintf("a number from 1 to %d", maxPage), maxPage, limit)
}

// number reads a parameter of the query, from 1 to most; an absent one changes nothing. It
// says whether there is more to do, and has answered otherwise.
func number(ctx *fasthttp.RequestCtx, name, what string, most uint64, to *uint64) bool {
	values := ctx.QueryArgs().PeekMulti(name)
	if len(values) == 0 {
		return true
	}
	text := string(values[0])
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || len(values) > 1 || n == 0 || n > most || strconv.FormatUint(n, 10) != text {
		problem(ctx, fasthttp.StatusBadRequest, name+" is "+what+", and stands once", nil)
		return false
	}
	*to = n
	return true
}

func (s *Server) push(ctx *fasthttp.RequestCtx, name string) {
	if status, why := foreign(&ctx.Request.Header); status != 0 {
		problem(ctx, status, why, nil)
		return
	}
	payload, delay, err := readJob(ctx.PostBody())
	if err != nil {
		problem(ctx, fasthttp.StatusBadRequest, err.Error(), nil)
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	id, err := s.queues.Push(bounded, name, payload, delay)
	if err != nil {
		refuse(ctx, "queue "+name, err)
		return
	}
	write(ctx, Pushed{name, id.String()})
}

func (s *Server) retry(ctx *fasthttp.RequestCtx, name, id string) {
	if !permitted(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	job, err := s.queues.RetryFailed(bounded, name, id)
	if err != nil {
		refuse(ctx, "queue "+name+", job "+id, err)
		return
	}
	write(ctx, Pushed{name, job.String()})
}

func (s *Server) forget(ctx *fasthttp.RequestCtx, name, id string) {
	if !permitted(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	n, err := s.queues.ForgetFailed(bounded, name, id)
	if err == nil && n == 0 {
		err = queue.ErrUnknownJob
	}
	if err != nil {
		refuse(ctx, "queue "+name+", job "+id, err)
		return
	}
	write(ctx, Removed{name, n})
}

func (s *Server) purge(ctx *fasthttp.RequestCtx, name string) {
	if !permitted(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	n, err := s.queues.PurgeFailed(bounded, name)
	removed(ctx, name, n, "failed jobs were deleted", err)
}

// removed answers what many commands did, with how far it came.
func removed(ctx *fasthttp.RequestCtx, name string, n uint64, what string, err error) {
	switch {
	case err == nil:
		write(ctx, Removed{name, n})
	case n > 0:
		refuse(ctx, fmt.Sprintf("queue %s, after %d %s", name, n, what), err)
	default:
		refuse(ctx, "queue "+name, err)
	}
}

// refuse answers an error of Queues. A full queue is 507, not 409: it passes, and 409 is
// what a node does not have at all.
func refuse(ctx *fasthttp.RequestCtx, what string, err error) {
	status, advice := fasthttp.StatusServiceUnavailable, ""
	switch {
	case errors.Is(err, queue.ErrUnknownQueue), errors.Is(err, queue.ErrUnknownJob), errors.Is(err, queue.ErrNoJob):
		status = fasthttp.StatusNotFound
	case errors.Is(err, queue.ErrReserved):
		status = fasthttp.StatusConflict
	case errors.Is(err, queue.ErrFull):
		status, advice = fasthttp.StatusInsufficientStorage, ": ask again when jobs are done, or raise its max_messages or max_bytes"
	case errors.Is(err, queue.ErrPayloadTooLarge), errors.Is(err, command.ErrTooLarge):
		status = fasthttp.StatusRequestEntityTooLarge
	case errors.Is(err, queue.ErrPayloadNotUTF8):
		status = fasthttp.StatusBadRequest
	case errors.Is(err, command.ErrOutcomeUnknown):
		status, advice = fasthttp.StatusGatewayTimeout, ". It may be done already, or be done yet: look at the queue before you ask again"
	case errors.Is(err, command.ErrNotAccepted):
		advice = ": nothing was changed; ask again, or another node"
	}
	problem(ctx, status, what+": "+err.Error()+advice, nil)
}
