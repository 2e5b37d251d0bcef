package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"pogod/internal/admin"
	"pogod/raftfsm"
)

const (
	tryDiskEvery  = time.Second     // while it cannot be written
	abandonWithin = 5 * time.Second // for PHP hosts and calls under way, before the process is replaced
)

// failure is why the node cannot go on, nil while it can.
func (n *node) failure() error {
	err := n.group.Err()
	if !errors.Is(err, raftfsm.ErrDisk) {
		return err
	}
	return n.waits(err)
}

// waits adds to what the disk refused how that ends.
func (n *node) waits(err error) error {
	if why := n.unwritable.Load(); why != nil {
		err = fmt.Errorf("%w; the last attempt to write to it: %s", err, *why)
	}
	return fmt.Errorf("%w; this node takes nothing until its disk can be written, and starts anew by itself then", err)
}

// outlast is the rest of the process's life after its disk refused a write or a sync. The
// node takes no part in raft and answers 5; what it has can be read. When the disk can be
// written again the process executes itself anew: raft-wal cannot be opened twice.
func (n *node) outlast(ctx context.Context) error {
	n.proposer.Fail(n.failure())
	n.log.Error(n.failure().Error())
	n.tell(n.manager.Status("not ready: " + n.failure().Error()))
	n.group.Halt()
	if !n.repaired(ctx, n.group.Repair) {
		n.abandon()
		return nil
	}
	n.abandon()
	return n.executeAnew()
}

// outlastedEnv is set for a process that took the place of one whose disk had failed.
const outlastedEnv = "POGOD_OUTLASTED"

// outlastStart is the rest of such a process's life when the disk refuses its start, too: no
// supervisor knows of either. The first start of all ends with an error instead, which
// whoever began it sees.
func (n *node) outlastStart(ctx context.Context, why error) error {
	if !errors.Is(why, raftfsm.ErrDisk) {
		why = fmt.Errorf("%w: %w", raftfsm.ErrDisk, why)
	}
	n.log.Error(n.waits(why).Error())
	n.tell(n.manager.Status("not ready: " + n.waits(why).Error()))
	n.showUnserving(unserving{n, "waiting", func() error { return n.waits(why) }, func() admin.Storage {
		return admin.Storage{Failure: n.waits(why).Error()}
	}})
	repair := func() error { return raftfsm.Repair(n.cfg.Node.DataDir, why) }
	if n.group != nil && n.group.Err() != nil {
		n.group.Halt()
		repair = n.group.Repair
	}
	if !n.repaired(ctx, repair) {
		return nil
	}
	return n.executeAnew()
}

// repaired waits until the disk can be written again; false: the node is to end.
func (n *node) repaired(ctx context.Context, repair func() error) bool {
	t := time.NewTicker(tryDiskEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
		n.tell(n.manager.Ping()) // nobody else does for a start that waits
		err := repair()
		if err == nil {
			n.log.Info("the disk can be written again: pogod executes itself anew")
			return true
		}
		why := err.Error()
		if last := n.unwritable.Swap(&why); last == nil || *last != why {
			n.log.Warn("the disk cannot be written yet", "error", err)
		}
	}
}

// abandon ends what the node began, but for the group: PHP would outlive it as children
// that nobody knows, and calls that came get their answers.
func (n *node) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), abandonWithin)
	defer cancel()
	n.leaving.Store(true)
	n.hosts.Drain()
	drained := n.drainHub(ctx)
	now, cancel := context.WithCancel(ctx)
	cancel()
	n.pools.Drain(now)
	n.pools.Cut() // what runs cannot be settled any more
	n.tasks.Cut()
	n.hosts.Stop(ctx)
	n.link.Shutdown(ctx)
	<-drained
}

// executeAnew replaces the process by a new one of the same id, which opens everything
// again: files and listeners of this one are closed by that. It returns only when that fails.
func (n *node) executeAnew() error {
	self, err := os.Executable()
	if err == nil {
		err = os.Setenv(outlastedEnv, "1")
	}
	if err == nil {
		err = syscall.Exec(self, os.Args, append(os.Environ(), n.manager.Environment()...))
	}
	return fmt.Errorf("pogod could not execute itself anew: %w", err)
}
