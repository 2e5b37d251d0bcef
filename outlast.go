package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

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
	t := time.NewTicker(tryDiskEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			n.abandon()
			return nil
		case <-t.C:
		}
		err := n.group.Repair()
		if err == nil {
			break
		}
		why := err.Error()
		if last := n.unwritable.Swap(&why); last == nil || *last != why {
			n.log.Warn("the disk cannot be written yet", "error", err)
		}
	}
	n.log.Info("the disk can be written again: pogod executes itself anew")
	n.abandon()
	return n.executeAnew()
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
		err = syscall.Exec(self, os.Args, append(os.Environ(), n.manager.Environment()...))
	}
	return fmt.Errorf("pogod could not execute itself anew: %w", err)
}
