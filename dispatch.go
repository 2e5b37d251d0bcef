package main

import (
	"context"
	"slices"
	"time"

	"pogod/internal/admin"
	"pogod/internal/clock"
	"pogod/internal/link"
	"pogod/workers"
)

// newDispatch makes the pools of the configuration.
func (n *node) newDispatch() *workers.Dispatch {
	all := make([]workers.TaskPool, 0, len(n.cfg.Pools))
	for _, p := range n.cfg.Pools {
		pool := workers.TaskPool{Name: p.Name, MaxWait: p.MaxWait, Threads: p.Threads}
		if hasPHP && p.Threads > 0 {
			pool.Script = p.Script
		}
		all = append(all, pool)
	}
	return workers.NewDispatch(workers.DispatchConfig{Pools: all, Processes: n.hosts, Clock: clock.System(), Log: n.log})
}

// drainTasks lets the tasks of the pools end, within ctx. Whatever may dispatch has ended
// before, but for the tasks themselves: jobs have, and hosts without a pool are waited for.
func (n *node) drainTasks(ctx context.Context) {
	if n.hosts != nil {
		n.hosts.WaitStopped(ctx, func(spec *link.HostSpec) bool {
			return !slices.ContainsFunc(spec.Jobs, func(w link.WorkerSpec) bool { return w.Dispatch })
		})
	}
	if !n.tasks.Drain(ctx) {
		n.tasks.Cut()
	}
}

// statusPools is the pools in /status.
func (n *node) statusPools() []admin.Pool {
	all := make([]admin.Pool, 0, len(n.cfg.Pools))
	for i, p := range n.tasks.Status() {
		pool := admin.Pool{
			Name: p.Name, Script: p.Script, Threads: p.Threads, Waiting: p.Waiting, Running: p.Running, Queued: p.Queued,
			Done: p.Done, Failed: p.Failed, TimedOut: p.TimedOut, Cancelled: p.Cancelled,
			WaitMS: milliseconds(p.Wait), RunMS: milliseconds(p.Run),
			Restarts: int64(p.Restarts), LastError: p.LastError, LastErrorAt: timeOrNil(p.LastErrorAt),
		}
		if pool.Script != "" {
			pool.Host = n.cfg.Pools[i].Host
		}
		all = append(all, pool)
	}
	return all
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
