package node

import (
	"context"

	"golang.org/x/sys/unix"

	"pogod/internal/admin"
	"pogod/raftfsm"
)

// unserving shows a node that does not serve yet to its admin endpoint.
type unserving struct {
	n       *node
	role    string
	reason  func() error
	storage func() admin.Storage
}

// showRebuilding answers at the admin endpoint while another node's data file is fetched.
// The endpoint is opened anew when the node serves.
func (n *node) showRebuilding(reason error, running func() []raftfsm.Stream) {
	n.showUnserving(unserving{n, "rebuilding", func() error { return reason }, func() admin.Storage {
		return admin.Storage{Damage: reason.Error(), Streams: streams(running())}
	}})
}

func (n *node) showUnserving(u unserving) {
	ln, err := bind(n.cfg.Admin.Listen, "[admin] listen")
	if err != nil {
		n.log.Warn("the admin endpoint does not tell why the node does not serve", "error", err)
		return
	}
	n.admin = admin.New(ln, u, nil, n.log)
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
func (u unserving) Ready() error { return u.reason() }

// Status implements admin.Source: nothing but this is known yet.
func (u unserving) Status(_ context.Context, o admin.StatusOptions) (*admin.Status, error) {
	if o.Consistent || o.Hash {
		return nil, u.reason()
	}
	n, id, dir := u.n, "", u.n.cfg.Node.DataDir
	if n.dir != nil {
		id, dir = n.dir.NodeID(), n.dir.Path
	}
	return &admin.Status{
		Node: admin.Node{
			ID: id, Role: u.role, Mode: n.cfg.Node.Mode, Version: n.build.Version,
			StartedAt: n.started, PID: unix.Getpid(), DataDir: dir,
		},
		Read:    admin.Read{Node: id},
		Raft:    admin.Raft{State: "Shutdown"}, // raft does not run
		Storage: u.storage(),
		Build:   admin.ReadBuild(n.build.Version, n.build.PHP),
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
