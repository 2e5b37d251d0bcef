package main

import (
	"context"

	"golang.org/x/sys/unix"

	"pogod/internal/admin"
	"pogod/raftfsm"
)

// rebuilding shows a node that does not serve yet, because its data file cannot be used,
// to its admin endpoint.
type rebuilding struct {
	n       *node
	reason  error
	running func() []raftfsm.Stream
}

// showRebuilding answers at the admin endpoint while another node's data file is fetched.
// The endpoint is opened anew when the node serves.
func (n *node) showRebuilding(reason error, running func() []raftfsm.Stream) {
	ln, err := bind(n.cfg.Admin.Listen, "[admin] listen")
	if err != nil {
		n.log.Warn("the admin endpoint does not tell that the data file is fetched from another node", "error", err)
		return
	}
	n.admin = admin.New(ln, rebuilding{n, reason, running}, nil, n.log)
	go func() { // ended by Shutdown
		if err := n.admin.Serve(); err != nil {
			n.log.Error("the admin endpoint ended", "error", err)
		}
	}()
}

// rebuilt ends what showRebuilding began.
func (n *node) rebuilt(ctx context.Context) {
	if n.admin == nil {
		return
	}
	if err := n.admin.Shutdown(ctx); err != nil {
		n.log.Debug("the admin endpoint did not close", "error", err)
	}
	n.admin = nil
}

// Ready implements admin.Source.
func (r rebuilding) Ready() error { return r.reason }

// Status implements admin.Source: nothing but this is known yet.
func (r rebuilding) Status(_ context.Context, o admin.StatusOptions) (*admin.Status, error) {
	if o.Consistent || o.Hash {
		return nil, r.reason
	}
	n := r.n
	return &admin.Status{
		Node: admin.Node{
			ID: n.dir.NodeID(), Role: "rebuilding", Mode: n.cfg.Node.Mode, Version: version,
			StartedAt: n.started, PID: unix.Getpid(), DataDir: n.dir.Path,
		},
		Read:    admin.Read{Node: n.dir.NodeID()},
		Raft:    admin.Raft{State: "Shutdown"}, // raft does not run
		Storage: admin.Storage{Damage: r.reason.Error(), Streams: streams(r.running())},
		Build:   admin.ReadBuild(version, hasPHP),
	}, nil
}

// streams are data files on their way.
func streams(all []raftfsm.Stream) []admin.Stream {
	doc := make([]admin.Stream, 0, len(all))
	for _, s := range all {
		doc = append(doc, admin.Stream{Node: s.Peer, Sending: s.Sending, Bytes: s.Bytes, Total: s.Total, Since: s.Since})
	}
	return doc
}
