package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/valyala/fasthttp"

	"pogod/internal/command"
	"pogod/queue"
)

// ListedJob is a job that waits for a worker or is with one.
type ListedJob struct {
	ID         string     `json:"id"`
	Queue      string     `json:"queue"`
	State      string     `json:"state"` // "ready", "suspect", "delayed" or "reserved"
	Payload    string     `json:"payload"`
	PushedAt   time.Time  `json:"pushed_at"`
	Attempts   uint64     `json:"attempts"`              // so far; of a reserved one with this one
	DueAt      *time.Time `json:"due_at,omitempty"`      // of a delayed one: when it becomes ready
	ReservedAt *time.Time `json:"reserved_at,omitempty"` // of a reserved one
	Worker     string     `json:"worker,omitempty"`      // likewise: the worker or pool that has it
}

// JobPage is a page of the jobs of one state: of ready ones and suspects the next first,
// of delayed ones the first due, of reserved ones the oldest.
type JobPage struct {
	Queue      string      `json:"queue"`
	State      string      `json:"state"`
	Jobs       []ListedJob `json:"jobs"`
	NextCursor *string     `json:"next_cursor"` // of the next page; null: there is none
}

// Paused is the answer to a pause and to a resumption.
type Paused struct {
	Queue  string `json:"queue"`
	Paused bool   `json:"paused"`
}

// Retry is the body of a retry of many jobs; empty: of all.
type Retry struct {
	Error  string  `json:"error,omitempty"`  // a part of the job's reason, as it is written
	Before float64 `json:"before,omitempty"` // seconds since it failed, at least, to the millisecond
}

func (s *Server) jobs(ctx *fasthttp.RequestCtx, name string) {
	limit, state, after := uint64(pageOf), queue.IsReady, queue.Position{}
	if !limited(ctx, &limit) || !stated(ctx, &state) || !position(ctx, &after) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, statusTimeout)
	defer cancel()
	jobs, next, err := s.queues.List(bounded, name, state, after, int(limit))
	if err != nil {
		refuse(ctx, "queue "+name, err)
		return
	}
	page := JobPage{Queue: name, State: string(state), Jobs: make([]ListedJob, 0, len(jobs))}
	for _, j := range jobs {
		page.Jobs = append(page.Jobs, ListedJob{
			ID: j.ID.String(), Queue: name, State: string(state), Payload: string(j.Payload), PushedAt: time.UnixMilli(j.ID.Millis).UTC(),
			Attempts: j.Attempts, DueAt: moment(j.DueAt), ReservedAt: moment(j.ReservedAt), Worker: j.Pool,
		})
	}
	if next != (queue.Position{}) {
		text := command.JobID{Millis: int64(min(next.Place, math.MaxInt64)), Seq: next.Seq}.String()
		page.NextCursor = &text
	}
	write(ctx, page)
}

func moment(millis int64) *time.Time {
	if millis == 0 {
		return nil
	}
	at := time.UnixMilli(millis).UTC()
	return &at
}

// stated reads which jobs are wanted, as number does.
func stated(ctx *fasthttp.RequestCtx, state *queue.JobState) bool {
	values := ctx.QueryArgs().PeekMulti("state")
	if len(values) == 0 {
		return true
	}
	*state = queue.JobState(values[0])
	switch *state {
	case queue.IsReady, queue.IsSuspect, queue.IsDelayed, queue.IsReserved:
		if len(values) == 1 {
			return true
		}
	}
	problem(ctx, fasthttp.StatusBadRequest, "state is ready, suspect, delayed or reserved, and stands once: the failed ones have a path of their own", nil)
	return false
}

// position reads where the page before ended, as number does.
func position(ctx *fasthttp.RequestCtx, after *queue.Position) bool {
	values := ctx.QueryArgs().PeekMulti("cursor")
	if len(values) == 0 {
		return true
	}
	at, ok := command.ParseJobID(string(values[0]))
	if !ok || len(values) > 1 {
		problem(ctx, fasthttp.StatusBadRequest, "cursor is the next_cursor of a page, which is null behind the last one, and stands once", nil)
		return false
	}
	after.Place, after.Seq = uint64(at.Millis), at.Seq
	return true
}

func (s *Server) pause(ctx *fasthttp.RequestCtx, name string) {
	s.setPaused(ctx, name, true, s.queues.Pause)
}

func (s *Server) resume(ctx *fasthttp.RequestCtx, name string) {
	s.setPaused(ctx, name, false, s.queues.Resume)
}

func (s *Server) setPaused(ctx *fasthttp.RequestCtx, name string, paused bool, do func(context.Context, string) error) {
	if !permitted(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	if err := do(bounded, name); err != nil {
		refuse(ctx, "queue "+name, err)
		return
	}
	write(ctx, Paused{name, paused})
}

func (s *Server) clear(ctx *fasthttp.RequestCtx, name string) {
	if !permitted(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	n, err := s.queues.Clear(bounded, name)
	removed(ctx, name, n, "jobs were deleted", err)
}

func (s *Server) deleteJob(ctx *fasthttp.RequestCtx, name, id string) {
	if !permitted(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	if err := s.queues.Delete(bounded, name, id); err != nil {
		refuse(ctx, "queue "+name+", job "+id, err)
		return
	}
	write(ctx, Removed{name, 1})
}

func (s *Server) retryAll(ctx *fasthttp.RequestCtx, name string) {
	if status, why := foreign(&ctx.Request.Header); status != 0 {
		problem(ctx, status, why, nil)
		return
	}
	filter, err := readRetry(ctx.PostBody())
	if err != nil {
		problem(ctx, fasthttp.StatusBadRequest, err.Error(), nil)
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	n, err := s.queues.RetryAll(bounded, name, filter)
	removed(ctx, name, n, "failed jobs were retried", err)
}

// readRetry reads the body of a retry of many jobs.
func readRetry(body []byte) (f queue.Filter, err error) {
	const form = `the body must be empty or an object {"error":"...","before":seconds}, each as you like`
	var parts map[string]json.RawMessage
	if len(body) > 0 && (json.Unmarshal(body, &parts) != nil || parts == nil) {
		return f, errors.New(form)
	}
	for key, raw := range parts {
		switch key {
		case "error":
			if raw[0] != '"' || json.Unmarshal(raw, &f.Reason) != nil {
				return f, errors.New("error must be a string, a part of the reason with which the jobs failed")
			}
		case "before":
			var seconds float64
			if json.Unmarshal(raw, &seconds) != nil || string(raw) == "null" || seconds < 0 || seconds > maxDelay {
				return f, fmt.Errorf("before must be a number of seconds from 0 to %d (ten years): at least so long ago the jobs failed", maxDelay)
			}
			f.Age = time.Duration(math.Round(seconds*1000)) * time.Millisecond
		default:
			return f, fmt.Errorf("unknown member %q: %s", key, form)
		}
	}
	return f, nil
}
