package queue

import (
	"context"

	"pogod/storage"
)

// Peek lists the ready jobs that are next in line, limit at most, fewer when their payloads
// pass 8 MiB; suspects, which have a line of their own, are not among them. It takes
// nothing, waits for this node's own writes, and fails as Failed does.
func (c *Client) Peek(ctx context.Context, queue string, limit int) (jobs []*Job, err error) {
	if err := c.ownWrites(ctx); err != nil {
		return nil, err
	}
	id, known := c.reader.Queues().Number(queue)
	if !known {
		return nil, ErrUnknownQueue
	}
	err = c.reader.View(func(tx *storage.Tx) error {
		jobs, err = firstReady(tx, id, limit)
		return err
	})
	return jobs, err
}

// firstReady is Peek from a view, of the queue with that number.
func firstReady(tx *storage.Tx, id uint32, limit int) (jobs []*Job, err error) {
	b, err := jobBucket(tx, id, readyName)
	if err != nil {
		return nil, err
	}
	c := b.Cursor()
	size := 0
	k, v, err := c.First()
	for ; k != nil && err == nil && len(jobs) < limit && size < maxListed; k, v, err = c.Next() {
		j, _, err := decodeJob(v)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
		size += len(j.Payload)
	}
	return jobs, err
}
