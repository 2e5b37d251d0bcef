package node

import (
	"context"
	"time"

	"pogod/queue"
	"pogod/storage"
)

// How often a service manager is told of the node, and for how long it is asked to wait.
const (
	lookEvery   = 100 * time.Millisecond // before it is ready
	tellEvery   = 2 * time.Second
	waitFurther = 30 * time.Second // for a node that is not ready yet, but alive
)

// supervised tells the service manager when the node is ready first, what it waits for
// until then, and later what it does. One that answers nobody says nothing, and is ended by
// the manager in time.
func (n *node) supervised(life context.Context) {
	if !n.manager.Enabled() {
		return
	}
	n.background.Go(func() { // ended by life
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		ready, last, told := false, "", time.Time{}
		for {
			status := "serving"
			err := n.ready()
			if err != nil {
				status = "not ready: " + err.Error()
			}
			switch {
			case !ready && err == nil:
				ready = true
				t.Reset(tellEvery)
				n.tell(n.manager.Ready(status))
			case !ready && (status != last || time.Since(told) > waitFurther/3):
				n.tell(n.manager.Waiting(status, waitFurther))
				told = time.Now()
			case !ready:
			case status != last:
				n.tell(n.manager.Status(status))
			}
			last = status
			select {
			case <-t.C:
			case <-life.Done():
				return
			}
		}
	})
	if every := n.manager.Watchdog() / 3; every > 0 {
		go n.ping(life, every) // ended by life, or with the process: what it asks may hang
	}
}

// ping tells the watchdog that the node is alive as long as that is true: raft's loop and
// the state machine have answered since the last time.
func (n *node) ping(life context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		_ = n.group.Raft.VerifyLeader().Error()                                       // any answer is one: a follower is alive too
		_ = n.group.FSM.Inspect(func(*queue.State, *storage.Tx) error { return nil }) // under its lock
		if life.Err() != nil {
			return
		}
		n.tell(n.manager.Ping())
		select {
		case <-t.C:
		case <-life.Done():
			return
		}
	}
}

// reloadOnHangup is a reload that the service manager may have asked for.
func (n *node) reloadOnHangup(ctx context.Context) {
	n.log.Info("SIGHUP: the configuration is read again, and new PHP hosts are started")
	n.tell(n.manager.Reloading("reading the configuration again"))
	status := "serving"
	if _, err := (source{n}).Reconfigure(ctx); err != nil { // which has logged it
		status = "serving; " + firstLine(err)
	}
	n.tell(n.manager.Ready(status))
}

func (n *node) tell(err error) {
	if err != nil {
		n.log.Debug("the service manager was not told", "error", err)
	}
}
