package api

import (
	"time"

	"pogod/internal/link"
)

// Tasks takes dispatched tasks and the threads that run them; *workers.Dispatch does.
type Tasks interface {
	Sizes() []link.PoolSize
	Dispatch(c *link.Conn, handle int64, pool string, message []byte) error
	Await(c *link.Conn, handle int64, timeout time.Duration) error
	Abandon(c *link.Conn)
	NextTask(c *link.Conn, pool string, slot int64, task uint64, outcome link.Outcome, result []byte) error
	TaskEnded(c *link.Conn, pool string, task uint64, outcome link.Outcome, result []byte, status int64) error
	Closed(c *link.Conn)
}

// ServeTasks serves the operations of dispatch, too. It is to be called before the link
// listens.
func (s *Server) ServeTasks(t Tasks) { s.tasks = t }

// Greeting implements link.Greeter: it names the pools.
func (s *Server) Greeting() []byte {
	if s.tasks == nil {
		return nil
	}
	return link.AppendGreeting(nil, s.tasks.Sizes())
}

// task serves the operations of dispatch; known is false for another one.
func (s *Server) task(c *link.Conn, op link.Op, f *link.Fields) (known bool, err error) {
	if s.tasks == nil {
		return false, nil
	}
	switch op {
	case link.Dispatch:
		handle, pool, message := f.Int(), f.String(), f.Bytes()
		if err := f.Done(); err != nil {
			return true, err
		}
		return true, s.tasks.Dispatch(c, handle, pool, message)
	case link.Await:
		handle, timeout := f.Int(), f.Int()
		if err := f.Done(); err != nil {
			return true, err
		}
		const most = int64(maxDelay / time.Microsecond)
		return true, s.tasks.Await(c, handle, time.Duration(min(max(timeout, 0), most))*time.Microsecond)
	case link.Abandon:
		if err := f.Done(); err != nil {
			return true, err
		}
		s.tasks.Abandon(c)
		return true, nil
	case link.NextTask:
		pool, slot, task, outcome, result := f.String(), f.Int(), f.Int(), f.Int(), f.Bytes()
		if err := f.Done(); err != nil {
			return true, err
		}
		return true, s.tasks.NextTask(c, pool, slot, uint64(task), link.Outcome(outcome), result)
	case link.TaskEnded:
		pool, _, task, outcome, result, status := f.String(), f.Int(), f.Int(), f.Int(), f.Bytes(), f.Int()
		if err := f.Done(); err != nil {
			return true, err
		}
		return true, s.tasks.TaskEnded(c, pool, uint64(task), link.Outcome(outcome), result, status)
	}
	return false, nil
}
