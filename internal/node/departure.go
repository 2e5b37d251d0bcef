package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pogod/internal/cluster"
	"pogod/internal/cluster/identity"
)

// departWithin is how long a node that leaves its cluster tries to be removed from it, once
// its own work has ended.
const departWithin = 15 * time.Second

// departure of a node from its cluster: asked for at the admin endpoint, done by stop.
type departure struct {
	once  *sync.Once
	asked chan struct{} // closed when the node is to leave
	force bool          // set before that
	done  chan struct{} // closed when it has left, or has not
	err   error         // set before that: why it has not
}

func newDeparture() departure {
	return departure{once: &sync.Once{}, asked: make(chan struct{}), done: make(chan struct{})}
}

// Leave implements admin.Cluster.
func (v view) Leave(ctx context.Context, node string, force bool) error {
	n, d := v.n, &v.n.departure
	if node != "" && node != n.dir.NodeID() {
		return changed(n.cluster.Remove(ctx, cluster.Removal{Node: node, Force: force}))
	}
	// Before any work is ended for it.
	bounded, cancel := context.WithTimeout(ctx, departWithin)
	defer cancel()
	if err := n.cluster.Remove(bounded, cluster.Removal{Check: true, Force: force}); err != nil {
		return changed(err)
	}
	// Who leads then is known before the session is to be ended there.
	if n.leader.Leading() {
		if _, err := n.cluster.Transfer(bounded, ""); err != nil {
			return changed(err)
		}
	}
	d.once.Do(func() {
		d.force = force
		close(d.asked)
	})
	select {
	case <-d.done:
		return changed(d.err)
	case <-ctx.Done():
		return fmt.Errorf("the node is leaving, and has not come to the end of it: %w", ctx.Err())
	}
}

// depart removes a node that was asked to leave from its cluster, once its session has
// ended.
func (n *node) depart() {
	d := &n.departure
	select {
	case <-d.asked:
	default:
		return
	}
	defer close(d.done)
	ctx, cancel := context.WithTimeout(context.Background(), departWithin)
	defer cancel()
	if d.err = n.cluster.Remove(ctx, cluster.Removal{Force: d.force}); d.err != nil {
		n.log.Error("the node ends but is still a member; start it again, and let it leave once more", "error", d.err)
		d.err = fmt.Errorf("the node has ended, but is still a member; start it again, and let it leave once more: %w", d.err)
		return
	}
	if d.err = identity.MarkLeft(n.dir); d.err != nil {
		n.log.Error("the node has left its cluster", "error", d.err)
		return
	}
	n.log.Info("the node has left its cluster; its data is kept", "data", n.dir.Path)
}

// removed returns a channel that is closed when the node was removed by others; one that
// leaves by itself does not look.
func (n *node) removed() <-chan struct{} {
	if n.cluster == nil {
		return nil
	}
	return n.cluster.Removed()
}

// wasRemoved marks the directory, and returns why the node ends.
func (n *node) wasRemoved() error {
	err := fmt.Errorf("%w: it was removed by another one", identity.ErrLeft)
	return errors.Join(err, identity.MarkLeft(n.dir))
}
