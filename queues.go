package main

import (
	"context"
	"time"

	"pogod/internal/admin"
	"pogod/internal/command"
	"pogod/queue"
)

// Queues implements admin.Queues.
func (s source) Queues(ctx context.Context) ([]queue.Status, error) {
	all, err := s.n.queue.Stats(ctx, "")
	if err != nil {
		return nil, err
	}
	ready := s.n.ready() == nil
	list := make([]queue.Status, 0, len(all))
	for i := range all {
		list = append(list, all[i].Status(ready))
	}
	return list, nil
}

// Queue implements admin.Queues.
func (s source) Queue(ctx context.Context, name string) (queue.Status, error) {
	all, err := s.n.queue.Stats(ctx, name)
	if err != nil {
		return queue.Status{}, err
	}
	st := all[0]
	if g := st.Gauges; !st.Declared && g.Ready+g.Delayed+g.Reserved+g.Failed == 0 {
		return queue.Status{}, queue.ErrUnknownQueue
	}
	return st.Status(s.n.ready() == nil), nil
}

// FailedPage implements admin.Queues.
func (s source) FailedPage(ctx context.Context, name string, before uint64, limit int) ([]*queue.Job, uint64, error) {
	return s.n.queue.FailedPage(ctx, name, before, limit)
}

// Peek implements admin.Queues.
func (s source) Peek(ctx context.Context, name string, limit int) ([]*queue.Job, error) {
	jobs, _, err := s.n.queue.List(ctx, name, queue.IsReady, queue.Position{}, limit)
	return jobs, err
}

// Push implements admin.Queues.
func (s source) Push(ctx context.Context, name string, payload []byte, delay time.Duration) (command.JobID, error) {
	return s.n.queue.Push(ctx, name, payload, delay)
}

// RetryFailed implements admin.Queues.
func (s source) RetryFailed(ctx context.Context, name, id string) (command.JobID, error) {
	return s.n.queue.RetryFailed(ctx, name, id)
}

// ForgetFailed implements admin.Queues.
func (s source) ForgetFailed(ctx context.Context, name, id string) (uint64, error) {
	return s.n.queue.ForgetFailed(ctx, name, id)
}

// PurgeFailed implements admin.Queues.
func (s source) PurgeFailed(ctx context.Context, name string) (uint64, error) {
	return s.n.queue.PurgeFailed(ctx, name)
}

var _ admin.Queues = source{}
