// Package api is what each native PHP function means: its checks in their order, its
// result codes, its JSON. It serves the node's link and is the same for every caller:
// web pages, workers, the php command line, tools.
//
// The contract is docs/php-api.md. All calls of one connection are made one after the
// other, on the goroutine of that connection.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"pogod/internal/command"
	"pogod/internal/link"
	"pogod/queue"
)

// Queue is what the functions need of the queues; *queue.Client does it.
type Queue interface {
	Push(ctx context.Context, queue string, payload []byte, delay time.Duration) (command.JobID, error)
	Ack(ctx context.Context, queue, delivery string) error
	Release(ctx context.Context, queue, delivery string, delay time.Duration) error
	Fail(ctx context.Context, queue, delivery, reason string) error
	RetryFailed(ctx context.Context, queue, id string) (command.JobID, error)
	ForgetFailed(ctx context.Context, queue, id string) (uint64, error)
	PurgeFailed(ctx context.Context, queue string) (uint64, error)
	Failed(ctx context.Context, queue string, limit int) ([]*queue.Job, error)
	Stats(ctx context.Context, name string) ([]queue.Stats, error)
	Reservable(ctx context.Context, queues []string) error
}

// Threads takes what threads and hosts say that is not a function: *workers.Pools and
// *workers.Hosts do.
type Threads interface {
	Next(c *link.Conn, worker string, slot int64) error
	Reserve(c *link.Conn, queues []string, wait time.Duration) error
	Ended(c *link.Conn, worker string, lease uint64, status int64, text string) error
	Closed(c *link.Conn)
}

// Hosts takes the frames of control connections.
type Hosts interface {
	Serve(c *link.Conn, op link.Op, f *link.Fields) error
}

// Server implements link.Handler.
type Server struct {
	ctx     context.Context //nolint:containedctx // the life of the node, for calls that have no context of their own
	queue   Queue
	threads Threads
	hosts   Hosts
	ready   func() bool
	tasks   Tasks // nil: no pool is served
	hub     Hub   // nil: there is none
}

// New returns a server. ctx ends calls under way; ready is what status tells.
func New(ctx context.Context, q Queue, t Threads, h Hosts, ready func() bool) *Server {
	return &Server{ctx: ctx, queue: q, threads: t, hosts: h, ready: ready}
}

// Closed implements link.Handler.
func (s *Server) Closed(c *link.Conn) {
	if s.tasks != nil {
		s.tasks.Closed(c)
	}
	s.threads.Closed(c)
}

// maxDelay of a push or release: ten years. The extension throws ValueError before.
const maxDelay = 10 * 365 * 24 * time.Hour

// Serve implements link.Handler.
func (s *Server) Serve(c *link.Conn, op link.Op, f *link.Fields) error {
	if c.Peer.Role == link.RoleHost {
		return s.hosts.Serve(c, op, f)
	}
	switch op {
	case link.Push:
		name, payload, delay := f.String(), f.Bytes(), seconds(f.Int())
		if err := check(f, delay); err != nil {
			return err
		}
		id, err := s.queue.Push(s.ctx, name, payload, delay)
		return s.answerJob(c, id, err)
	case link.Ack, link.Release, link.Fail:
		return s.settle(c, op, f)
	case link.Status:
		name := f.String()
		if err := f.Done(); err != nil {
			return err
		}
		return s.status(c, name)
	case link.Failed:
		name, limit := f.String(), f.Int()
		if err := f.Done(); err != nil {
			return err
		}
		return s.failed(c, name, limit)
	case link.RetryFailed:
		name, id := f.String(), f.String()
		if err := f.Done(); err != nil {
			return err
		}
		job, err := s.queue.RetryFailed(s.ctx, name, id)
		return s.answerJob(c, job, err)
	case link.ForgetFailed:
		name, id := f.String(), f.String()
		if err := f.Done(); err != nil {
			return err
		}
		n, err := s.queue.ForgetFailed(s.ctx, name, id)
		return s.answerCount(c, n, err)
	case link.PurgeFailed:
		name := f.String()
		if err := f.Done(); err != nil {
			return err
		}
		n, err := s.queue.PurgeFailed(s.ctx, name)
		return s.answerCount(c, n, err)
	case link.Next:
		worker, slot := f.String(), f.Int()
		if err := f.Done(); err != nil {
			return err
		}
		return s.threads.Next(c, worker, slot)
	case link.Ended:
		worker, _, lease, status, text := f.String(), f.Int(), f.Int(), f.Int(), f.String()
		if err := f.Done(); err != nil {
			return err
		}
		return s.threads.Ended(c, worker, uint64(lease), status, text)
	case link.Reserve:
		names, wait := f.String(), f.Int()
		if err := f.Done(); err != nil {
			return err
		}
		return s.reserve(c, names, wait)
	}
	if known, err := s.task(c, op, f); known {
		return err
	}
	if known, err := s.publish(c, op, f); known {
		return err
	}
	return fmt.Errorf("%w: operation %d", link.ErrFrame, op)
}

func seconds(n int64) time.Duration {
	if n < 0 || n > int64(maxDelay/time.Second) {
		return -1
	}
	return time.Duration(n) * time.Second
}

func check(f *link.Fields, delay time.Duration) error {
	if err := f.Done(); err != nil {
		return err
	}
	if delay < 0 {
		return fmt.Errorf("%w: a delay below 0 or over ten years", link.ErrFrame)
	}
	return nil
}

func (s *Server) settle(c *link.Conn, op link.Op, f *link.Fields) error {
	name, delivery := f.String(), f.String()
	var err error
	switch op {
	case link.Ack:
		if err := f.Done(); err != nil {
			return err
		}
		err = settle(name, delivery, func() error { return s.queue.Ack(s.ctx, name, delivery) })
	case link.Release:
		delay := seconds(f.Int())
		if err := check(f, delay); err != nil {
			return err
		}
		err = settle(name, delivery, func() error { return s.queue.Release(s.ctx, name, delivery, delay) })
	default:
		reason := f.String()
		if err := f.Done(); err != nil {
			return err
		}
		err = settle(name, delivery, func() error { return s.queue.Fail(s.ctx, name, delivery, reason) })
	}
	return c.Answer(int32(code(err)), nil)
}

// settle makes a settling call: an empty queue or id is 5 before anything else.
func settle(name, delivery string, call func() error) error {
	if name == "" || delivery == "" {
		return queue.ErrNotHeld
	}
	return call()
}

// code maps an error of the queue to its result code.
func code(err error) command.Code {
	switch {
	case err == nil:
		return command.Accepted
	case errors.Is(err, queue.ErrFull):
		return command.Full
	case errors.Is(err, queue.ErrPayloadTooLarge), errors.Is(err, command.ErrTooLarge):
		return command.TooLarge
	case errors.Is(err, queue.ErrShuttingDown):
		return command.ShuttingDown
	case errors.Is(err, queue.ErrUnknownQueue):
		return command.UnknownQueue
	}
	return command.Failure
}

// refusal is the JSON of every call that did not succeed.
type refusal struct {
	OK      bool   `json:"ok"`
	Code    int32  `json:"code"`
	Message string `json:"message"`
}

func (s *Server) refuse(c *link.Conn, err error) error {
	k := int32(code(err))
	return s.answer(c, k, refusal{Code: k, Message: err.Error()})
}

func (s *Server) answer(c *link.Conn, code int32, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it makes six bytes of one
	if err := e.Encode(v); err != nil {
		return err
	}
	err := c.Answer(code, bytes.TrimSuffix(b.Bytes(), []byte{'\n'}))
	if errors.Is(err, link.ErrTooLong) {
		return s.refuse(c, errors.New("the answer is too large: ask for fewer at once"))
	}
	return err
}

func (s *Server) answerJob(c *link.Conn, id command.JobID, err error) error {
	if err != nil {
		return s.refuse(c, err)
	}
	b := make([]byte, 0, 64)
	b = append(b, `{"ok":true,"id":"`...)
	b = id.Append(b)
	b = append(b, `","code":1}`...)
	return c.Answer(int32(command.Accepted), b)
}

func (s *Server) answerCount(c *link.Conn, n uint64, err error) error {
	if err != nil {
		return s.refuse(c, err)
	}
	b := append(make([]byte, 0, 48), `{"ok":true,"count":`...)
	b = strconv.AppendUint(b, n, 10)
	return c.Answer(int32(command.Accepted), append(b, `,"code":1}`...))
}

func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

func (s *Server) status(c *link.Conn, name string) error {
	all, err := s.queue.Stats(s.ctx, name)
	ready := s.ready()
	if err != nil {
		all, ready = nil, false // as when no node is reachable: status has one shape
	}
	doc := struct {
		Ready  bool           `json:"ready"`
		Queues []queue.Status `json:"queues"`
	}{ready, make([]queue.Status, 0, len(all))}
	for i := range all {
		doc.Queues = append(doc.Queues, all[i].Status(ready))
	}
	return s.answer(c, int32(command.Accepted), doc)
}

// failedJob is one entry of pogo_queue_failed.
type failedJob struct {
	ID         string `json:"id"`
	Queue      string `json:"queue"`
	OriginalID string `json:"original_id"` // the first of its chain of retries
	Payload    string `json:"payload"`
	Reason     string `json:"reason"`
	FailedAt   string `json:"failed_at"` // RFC 3339
	Attempts   uint64 `json:"attempts"`
	Output     string `json:"output"` // what its last attempt printed last
}

// maxFailed is the greatest limit of pogo_queue_failed.
const maxFailed = 1000

func (s *Server) failed(c *link.Conn, name string, limit int64) error {
	jobs, err := s.queue.Failed(s.ctx, name, int(min(max(limit, 1), maxFailed)))
	if err != nil {
		return s.refuse(c, err)
	}
	doc := struct {
		OK     bool        `json:"ok"`
		Queue  string      `json:"queue"`
		Failed []failedJob `json:"failed"`
		Code   int32       `json:"code"`
	}{true, name, make([]failedJob, 0, len(jobs)), int32(command.Accepted)}
	for _, j := range jobs {
		f := failedJob{
			ID: j.ID.String(), Queue: name, OriginalID: j.ID.String(), Payload: string(j.Payload),
			Reason: j.Reason, FailedAt: rfc3339(time.UnixMilli(j.FailedAt)), Attempts: j.Attempts,
			Output: j.Output,
		}
		if j.Origin != (command.JobID{}) {
			f.OriginalID = j.Origin.String()
		}
		doc.Failed = append(doc.Failed, f)
	}
	return s.answer(c, int32(command.Accepted), doc)
}
