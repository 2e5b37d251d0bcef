package queue

import (
	"context"
	"errors"
	"time"

	"pogod/internal/command"
	"pogod/storage"
)

var (
	// ErrReserved is returned for a job that cannot be deleted because its attempt runs.
	ErrReserved = errors.New("the job is reserved: a worker has it; delete it when it is back in line or has failed, or let it end")
	// ErrNoJob is returned for a job to delete that is not there.
	ErrNoJob = errors.New("there is no job with this id: it is done or deleted, it was retried with another id, or it never was")
)

// Pause has nothing more reserved from the queue, on any node, until Resume. Attempts that
// run go on, pushes are accepted. It fails with ErrUnknownQueue, or an error of Proposer.
func (c *Client) Pause(ctx context.Context, queue string) error {
	return c.onQueue(ctx, command.Pause, queue)
}

// Resume ends a Pause. Errors as with Pause.
func (c *Client) Resume(ctx context.Context, queue string) error {
	return c.onQueue(ctx, command.Resume, queue)
}

func (c *Client) onQueue(ctx context.Context, op command.Op, queue string) error {
	_, err := c.operate(ctx, &command.Command{Op: op, Queue: queue})
	return err
}

func (c *Client) operate(ctx context.Context, cmd *command.Command) (command.Result, error) {
	r, err := c.proposer.Propose(ctx, cmd)
	if err == nil && r.Code == command.UnknownQueue {
		err = ErrUnknownQueue
	}
	return r, err
}

// Clear deletes the jobs of a queue that wait (ready ones, suspects and delayed ones) and
// returns how many, with an error too. Reserved and failed ones stay; what is pushed while it
// goes on may go or stay, and does not prolong it. It takes command.MaxRecords at a time. Errors as with Pause.
func (c *Client) Clear(ctx context.Context, queue string) (n uint64, err error) {
	cmd := command.Command{Op: command.Clear, Queue: queue}
	for {
		each := cmd // Propose may keep it when it fails
		r, err := c.operate(ctx, &each)
		if err != nil {
			return n, err
		}
		if n += r.Count; !r.More {
			return n, nil
		}
		cmd.From = r.Next
	}
}

// Filter says which failed jobs are meant; zero: all.
type Filter struct {
	Reason string        // is a part of the job's reason, as it is written
	Age    time.Duration // at least so long ago it failed, to the millisecond
}

// RetryAll makes fresh jobs of failed ones, the oldest first, and returns how many, with
// an error too. Those that fail again meanwhile are not retried again. It looks at
// command.MaxRecords at a time. Errors: ErrUnknownQueue, ErrFull, those of Proposer.
func (c *Client) RetryAll(ctx context.Context, queue string, f Filter) (n uint64, err error) {
	cmd := command.Command{Op: command.RetryAll, Queue: queue, Reason: f.Reason, Delay: uint64(f.Age.Milliseconds())}
	for {
		each := cmd // Propose may keep it when it fails
		r, err := c.operate(ctx, &each)
		if err != nil {
			return n, err
		}
		n += r.Count
		switch {
		case r.Code == command.Full:
			return n, ErrFull
		case !r.More:
			return n, nil
		}
		cmd.From, cmd.To = r.Next, r.To
	}
}

// looks is how often Delete looks for a job that is elsewhere when it is to go.
const looks = 5

// Delete deletes one job that waits or has failed. It fails with ErrUnknownQueue,
// ErrReserved, ErrNoJob, or an error of Proposer. A job that is not where it was pushed to
// is looked for among all that wait in the queue.
func (c *Client) Delete(ctx context.Context, queue, id string) error {
	job, ok := command.ParseJobID(id)
	if !ok {
		if _, known := c.reader.Queues().Number(queue); !known {
			return ErrUnknownQueue
		}
		return ErrNoJob
	}
	for look := range looks {
		place, found, err := c.find(ctx, queue, job)
		if err != nil {
			return err
		}
		r, err := c.operate(ctx, &command.Command{Op: command.Delete, Queue: queue, Job: job, From: place})
		switch {
		case err != nil:
			return err
		case r.Code == command.Failure:
			return ErrReserved
		case r.Count > 0:
			return nil
		case !found && look > 0: // with all that the first try was applied to
			return ErrNoJob
		}
	}
	return ErrNoJob
}

// find returns where a job waits on this node, with this node's own writes.
func (c *Client) find(ctx context.Context, queue string, job command.JobID) (place uint64, found bool, err error) {
	if err := c.ownWrites(ctx); err != nil {
		return 0, false, err
	}
	number, known := c.reader.Queues().Number(queue)
	if !known {
		return 0, false, nil // the state machine knows better
	}
	err = c.reader.View(func(tx *storage.Tx) error {
		place, found, err = FindWaiting(tx, number, job)
		return err
	})
	return place, found, err
}
