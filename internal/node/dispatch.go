package node

import (
	"context"
	"slices"
	"time"

	"pogod/internal/admin"
	"pogod/internal/config"
	"pogod/internal/link"
	"pogod/workers"
)

// taskPoolsOf returns the pools of pogo_dispatch in a configuration.
func (n *node) taskPoolsOf(cfg *config.Config) []workers.TaskPool {
	all := make([]workers.TaskPool, 0, len(cfg.Pools))
	for _, p := range cfg.Pools {
		pool := workers.TaskPool{Name: p.Name, MaxWait: p.MaxWait, Threads: p.Threads}
		if n.build.PHP && p.Threads > 0 {
			pool.Script = p.Script
		}
		all = append(all, pool)
	}
	return all
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
	var all []admin.Pool
	configured := n.now.Load().Pools
	for _, p := range n.tasks.Status() {
		pool := admin.Pool{
			Name: p.Name, Script: p.Script, Threads: p.Threads, Waiting: p.Waiting, Running: p.Running, Queued: p.Queued,
			Done: p.Done, Failed: p.Failed, TimedOut: p.TimedOut, Cancelled: p.Cancelled,
			WaitMS: milliseconds(p.Wait), RunMS: milliseconds(p.Run),
			Restarts: int64(p.Restarts), LastError: p.LastError, LastErrorAt: timeOrNil(p.LastErrorAt),
		}
		if pool.Script != "" {
			if i := slices.IndexFunc(configured, func(c config.Pool) bool { return c.Name == p.Name }); i >= 0 {
				pool.Host = configured[i].Host
			}
		}
		all = append(all, pool)
	}
	return all
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
