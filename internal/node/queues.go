package node

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

// List implements admin.Queues.
func (s source) List(ctx context.Context, name string, state queue.JobState, after queue.Position, limit int) ([]*queue.Job, queue.Position, error) {
	return s.n.queue.List(ctx, name, state, after, limit)
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

// RetryAll implements admin.Queues.
func (s source) RetryAll(ctx context.Context, name string, f queue.Filter) (uint64, error) {
	return s.n.queue.RetryAll(ctx, name, f)
}

// Pause implements admin.Queues.
func (s source) Pause(ctx context.Context, name string) error { return s.n.queue.Pause(ctx, name) }

// Resume implements admin.Queues.
func (s source) Resume(ctx context.Context, name string) error { return s.n.queue.Resume(ctx, name) }

// Clear implements admin.Queues.
func (s source) Clear(ctx context.Context, name string) (uint64, error) {
	return s.n.queue.Clear(ctx, name)
}

// Delete implements admin.Queues.
func (s source) Delete(ctx context.Context, name, id string) error {
	return s.n.queue.Delete(ctx, name, id)
}

var _ admin.Queues = source{}
