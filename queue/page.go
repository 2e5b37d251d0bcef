package queue

import (
	"context"

	"pogod/storage"
)

// FailedPage lists failed jobs as Failed does, from where the page before ended: before is
// its next, 0 for the newest. next is 0 when there are no older ones. Jobs that fail or
// go between two pages shift nothing: each page begins behind the last job of the one
// before, whether that is still there or not.
func (c *Client) FailedPage(ctx context.Context, queue string, before uint64, limit int) (jobs []*Job, next uint64, err error) {
	if err := c.ownWrites(ctx); err != nil {
		return nil, 0, err
	}
	id, known := c.reader.Queues().Number(queue)
	if !known {
		return nil, 0, ErrUnknownQueue
	}
	err = c.reader.View(func(tx *storage.Tx) error {
		jobs, next, err = failedPage(tx, id, before, limit)
		return err
	})
	return jobs, next, err
}

// failedPage is FailedPage from a view, of the queue with that number. A position is the
// place in the order of failing, by which the jobs are kept.
func failedPage(tx *storage.Tx, id uint32, before uint64, limit int) (jobs []*Job, next uint64, err error) {
	b, err := jobBucket(tx, id, failedName)
	if err != nil {
		return nil, 0, err
	}
	c := b.Cursor()
	k, v, err := older(c, before)
	size := 0
	for ; k != nil && err == nil && len(jobs) < limit && size < maxListed; k, v, err = c.Prev() {
		j, _, err := decodeJob(v)
		if err != nil {
			return nil, 0, err
		}
		jobs = append(jobs, j)
		size += len(j.Payload) + len(j.Output)
		next = failedOrder(k)
	}
	if k == nil {
		next = 0
	}
	return jobs, next, err
}

// older moves to the newest job that failed before that position; 0: to the newest.
func older(c *storage.Cursor, before uint64) (key, value []byte, err error) {
	if before == 0 {
		return c.Last()
	}
	k, _, err := c.Seek(pairKey(before, 0))
	switch {
	case err != nil:
		return nil, nil, err
	case k == nil:
		return c.Last()
	}
	return c.Prev()
}
