package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"pogod/internal/admin"
	"pogod/internal/clock"
	"pogod/internal/cluster"
	"pogod/internal/cluster/identity"
	"pogod/raftfsm"
)

// sessionTTL is how long a node's jobs stay its own when nothing is heard of it: well
// over an election.
const sessionTTL = 6 * time.Second

// openCluster opens the cluster port, over which the group talks.
func (n *node) openCluster(group *raftfsm.Config) error {
	id, err := identity.Load(n.dir)
	if err != nil {
		return err
	}
	ln, err := bind(n.cfg.Cluster.Listen, "[cluster] listen")
	if err != nil {
		return err
	}
	start, err := n.dir.NextOpening()
	if err != nil {
		return err
	}
	n.id = id
	n.tokens = identity.NewTokens(id, time.Now)
	n.cluster, err = cluster.Open(cluster.Config{
		Identity: id, Tokens: n.tokens, Listener: ln, Advertise: n.cfg.Cluster.Advertise, Start: start,
		Seeds: n.cfg.Cluster.Join, Dir: n.dir, Clock: clock.System(), Log: n.log,
	})
	if err != nil {
		return err
	}
	group.Transport, group.Joins, group.Peers = n.cluster.Transport(), id.Joined, n.cluster
	return nil
}

// serveCluster lets the node forward to the leader, and be forwarded to.
func (n *node) serveCluster() {
	n.cluster.Serve(cluster.Services{
		Raft: n.group.Raft, Leader: n.leader, Applied: n.group.FSM.Applied,
		Level: n.group.FSM.Level, Raise: n.leader.Raise,
		LeaderChanged: n.proposer.Nudge, SendState: n.group.SendState, Reaches: n.group.Reaches, Measured: n.clocks.Measured,
		Tight: n.space.Tight,
	})
}

// knowsLeader reports whether the node knows who leads.
func (n *node) knowsLeader() bool {
	_, id := n.group.Raft.LeaderWithID()
	return id != ""
}

// clusterView shows the cluster to the admin endpoint; nil: there is none.
func (n *node) clusterView() admin.Cluster {
	if n.cluster == nil {
		return nil
	}
	return view{n}
}

// view implements admin.Cluster.
type view struct{ n *node }

// NewToken implements admin.Cluster.
func (v view) NewToken(worker bool) (token string, expires time.Time, err error) {
	issue := v.n.tokens.Issue
	if worker {
		issue = v.n.tokens.IssueWorker
	}
	token, expires = issue()
	return token, expires, nil
}

// Members implements admin.Cluster.
func (v view) Members(context.Context) ([]admin.Member, error) { return v.n.members(), nil }

// Transfer implements admin.Cluster.
func (v view) Transfer(ctx context.Context, node string) (string, error) {
	leads, err := v.n.cluster.Transfer(ctx, node)
	return leads, changed(err)
}

// changed gives the class of an error of the cluster its name at the admin endpoint.
func changed(err error) error {
	if errors.Is(err, cluster.ErrDeclined) {
		_, reason, _ := strings.Cut(err.Error(), cluster.ErrDeclined.Error()+": ") // whichever node said it
		return fmt.Errorf("%w: %s", admin.ErrDeclined, reason)
	}
	return err
}

// members of the group, as this node sees them.
func (n *node) members() []admin.Member {
	if n.cluster == nil {
		return []admin.Member{{ID: n.dir.NodeID(), Voter: true, Leader: n.leader.Leading(), Self: true, Up: true, AppliedIndex: n.group.FSM.Applied()}}
	}
	known := n.cluster.Members()
	var head uint64
	for _, m := range known {
		head = max(head, m.Applied)
	}
	all := make([]admin.Member, 0, len(known))
	for _, m := range known {
		all = append(all, admin.Member{
			ID: m.ID, Address: m.Address, Voter: m.Voter, Worker: m.Worker, Leader: m.Leader, Self: m.Self, Up: m.Up,
			LastHeardAt: timeOrNil(m.LastHeard), AppliedIndex: m.Applied, Lag: head - m.Applied,
			RoundTripMS: float64(m.RoundTrip.Microseconds()) / 1000,
		})
	}
	return all
}
