package node

import (
	"context"

	"pogod/internal/admin"
	"pogod/internal/clock"
	"pogod/wshub"
)

const socketsKey = "[websocket] listen"

// startHub starts the WebSocket hub, if there is an application.
func (n *node) startHub() error {
	w := n.cfg.Websocket
	if len(w.Apps) == 0 {
		return nil
	}
	apps := make([]wshub.App, 0, len(w.Apps))
	for _, a := range w.Apps {
		apps = append(apps, wshub.App{ID: a.ID, Key: a.Key, Secret: a.Secret, AllowedOrigins: a.AllowedOrigins})
	}
	ln, err := bind(w.Listen, socketsKey)
	if err != nil {
		return err
	}
	hub, err := wshub.New(wshub.Config{
		Apps: apps, Ping: w.Ping, MaxEventBytes: w.MaxEventBytes, MaxPendingBytes: w.MaxPendingBytes, MaxConnections: w.MaxConnections,
		Clock: clock.System(), Log: n.log,
	})
	if err != nil {
		_ = ln.Close() // nobody connected
		return err
	}
	n.hub, n.sockets = hub, ln.Addr()
	go func() { // ended by drainHub, or by Close
		if err := hub.Serve(ln); err != nil {
			n.log.Error("the WebSocket hub takes no more sockets", "error", err)
		}
	}()
	return nil
}

// drainHub closes the sockets over some seconds, while jobs and requests that run may still
// publish. The channel is closed when all were told.
func (n *node) drainHub(ctx context.Context) <-chan struct{} {
	drained := make(chan struct{})
	if n.hub == nil {
		close(drained)
		return drained
	}
	go func() { // ended by ctx at the latest
		defer close(drained)
		n.hub.Drain(ctx)
	}()
	return drained
}

// statusHub is the hub in /status.
func (n *node) statusHub() *admin.Hub {
	if n.hub == nil {
		return nil
	}
	s := n.hub.Status()
	return &admin.Hub{Listen: n.sockets.String(), Connections: s.Connections, Channels: s.Channels, Messages: s.Messages, SlowClosed: s.Slow}
}
