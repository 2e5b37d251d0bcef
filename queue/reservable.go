package queue

import (
	"context"
	"fmt"
)

// Reservable reports whether jobs may be reserved from these queues: each is known, or
// would be made by a push. It waits for this node's own writes, so that a job which its
// caller has pushed is ready here, and fails with ErrUnknownQueue and the queue's name,
// or when the node does not catch up.
func (c *Client) Reservable(ctx context.Context, queues []string) error {
	if err := c.ownWrites(ctx); err != nil {
		return err
	}
	table := c.reader.Queues()
	for _, name := range queues {
		if _, known := table.Number(name); known {
			continue
		}
		if _, open := table.Declared(name); !open {
			return fmt.Errorf("%q: %w", name, ErrUnknownQueue)
		}
	}
	return nil
}
