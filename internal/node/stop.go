package node

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/config"
)

// How a node leaves.

// stop leaves well: no new work, what runs may end until ctx does, the rest is given
// back, and the rooms are closed from the top down. It takes a node that is only half
// started.
func (n *node) stop(ctx context.Context) {
	n.leaving.Store(true)
	n.handOver()
	if n.web != nil {
		// New connections are refused once the host, which has a handle of its own, has
		// drained. These only watch over a socket; nothing can be lost in them.
		_ = n.web.Close()
		_ = n.webFile.Close()
	}
	if n.hosts != nil {
		n.hosts.Drain()
		if n.cfg.Node.Mode == config.ModeDevelopment {
			n.hosts.Hurry() // whoever develops waits for it; their browser keeps connections
		}
	}
	drained := n.drainHub(ctx)
	if n.pools != nil && !n.pools.Drain(ctx) {
		n.outlived(ctx)
	}
	if n.tasks != nil {
		n.drainTasks(ctx)
	}
	if n.hosts != nil {
		n.hosts.Stop(ctx)
	}
	if n.queue != nil {
		n.queue.Drain()
	}
	if n.link != nil { // pushes that were taken before are answered
		answered, cancel := context.WithTimeout(context.WithoutCancel(ctx), answeredWithin)
		n.link.Shutdown(answered)
		cancel()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	n.cancel()
	n.reporter.Wait()
	n.background.Wait()
	if n.queue != nil && n.group.Err() == nil {
		if err := n.queue.Report(last); err != nil {
			n.log.Warn("counters were not reported", "error", err)
		}
	}
	if n.link != nil {
		n.link.Close()
	}
	<-drained
	if n.hub != nil {
		n.hub.Close()
	}
	if n.pools != nil {
		n.pools.Close()
	}
	if n.tasks != nil {
		n.tasks.Close()
	}
	if n.proposer != nil {
		if err := n.proposer.Close(last); err != nil {
			n.log.Warn("the session was not ended", "error", err)
		}
	}
	n.handOver() // it may have been elected meanwhile
	n.depart()
	if n.leader != nil {
		n.leader.Close()
	}
	if n.admin != nil {
		answered, cancel := context.WithTimeout(context.WithoutCancel(ctx), answeredWithin)
		defer cancel()
		if err := n.admin.Shutdown(answered); err != nil {
			n.log.Warn("the admin endpoint did not close", "error", err)
		}
	}
	if n.group != nil {
		if err := n.group.Close(); err != nil {
			n.log.Error("the data was not closed well; the log has what the file lacks", "error", err)
		}
	}
	if n.cluster != nil {
		if err := n.cluster.Close(); err != nil {
			n.log.Warn("the cluster port did not close", "error", err)
		}
	}
	if n.dir != nil {
		_ = n.dir.Close() // the lock ends with the process at the latest
	}
}

// handOver has another member lead, when this one does.
func (n *node) handOver() {
	if n.cluster == nil || n.group == nil || n.leader == nil || n.group.Raft.State() != raft.Leader {
		return
	}
	if err := n.group.Raft.LeadershipTransfer().Error(); err != nil {
		n.log.Info("leadership was not handed over", "reason", err)
	}
}

// outlived ends jobs that outlive shutdown_timeout: their pushes answer 4 for a while,
// then they are interrupted and given back.
func (n *node) outlived(ctx context.Context) {
	n.queue.Drain()
	grace := refusedFor
	if errors.Is(ctx.Err(), context.Canceled) {
		grace = 0 // a second signal hurries
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if !n.pools.Drain(wait) {
		n.pools.Cut()
	}
	n.tasks.Cut()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), interruptedFor)
	defer cancel()
	n.hosts.Stop(end)
}
