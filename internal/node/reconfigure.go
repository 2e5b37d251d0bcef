package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pogod/internal/admin"
	"pogod/internal/config"
	"pogod/workers"
)

// Reconfigure implements admin.Reconfigurer.
func (s source) Reconfigure(ctx context.Context) (admin.Reconfigured, error) {
	n := s.n
	n.reconfiguring.Lock()
	defer n.reconfiguring.Unlock()
	done, err := n.reconfigure(ctx)
	if err != nil {
		n.log.Error("the configuration was not reloaded, the old one goes on", "error", firstLine(err))
		return done, err
	}
	n.log.Info("the configuration was reloaded", "applied", strings.Join(done.Applied, ", "), "needs_restart", strings.Join(done.Restart, ", "))
	for _, note := range done.Notes {
		n.log.Warn(note)
	}
	return done, nil
}

// reconfigure reads the configuration again and goes over to it: what can fail first, and
// undone if it does. reconfiguring is held.
func (n *node) reconfigure(ctx context.Context) (done admin.Reconfigured, err error) {
	read, err := n.reread()
	if err != nil {
		return done, fmt.Errorf("%w: %s", admin.ErrConfig, firstLine(err))
	}
	before := n.now.Load()
	next, restart := read.Over(before)
	if err := webCertificate(next); n.build.PHP && err != nil {
		return done, fmt.Errorf("%w: %w", admin.ErrConfig, err)
	}
	known, err := bearers(next)
	if err != nil {
		return done, fmt.Errorf("%w: %w", admin.ErrConfig, err)
	}
	if err := n.redefine(ctx, next); err != nil {
		return done, fmt.Errorf("%w: the queues could not be defined: %w", admin.ErrConfig, err)
	}
	n.setPools(both(n.poolsOf(before), n.poolsOf(next), poolName), both(n.taskPoolsOf(before), n.taskPoolsOf(next), taskPoolName), before)
	if n.build.PHP {
		if err := n.hosts.Configure(ctx, hosts(next, n.webFile)); err != nil {
			n.setPools(n.poolsOf(before), n.taskPoolsOf(before), before)
			if undo := n.redefine(ctx, before); undo != nil {
				err = errors.Join(err, fmt.Errorf("the queues stay as the new configuration says: %w", undo))
			}
			return done, fmt.Errorf("%w: %w", admin.ErrConfig, err)
		}
	}
	n.setPools(n.poolsOf(next), n.taskPoolsOf(next), next)
	n.logging.set(next.Node.LogLevel, next.Node.LogFormat)
	n.proposer.SetTimeout(next.Node.PushTimeout)
	n.space.SetFloor(next.Node.MinFreeBytes)
	n.admin.SetBearers(known)
	n.now.Store(next)
	n.restartFor.Store(&restart)
	select {
	case n.rewatch <- struct{}{}:
	default:
	}

	done.Restart, done.Notes = restart, read.Inert
	for _, c := range config.Changes(before, next) {
		done.Applied = append(done.Applied, c.Name)
	}
	return done, nil
}

// setPools gives the pools to those who serve them.
func (n *node) setPools(jobs []workers.Pool, tasks []workers.TaskPool, cfg *config.Config) {
	n.pools.Configure(jobs, cfg.PHP.KillGrace)
	n.tasks.Configure(tasks)
}

func poolName(p workers.Pool) string         { return p.Name }
func taskPoolName(p workers.TaskPool) string { return p.Name }

// both returns the pools as they were, and those that are new.
func both[P any](before, after []P, name func(P) string) []P {
	all := slices.Clone(before)
	for _, p := range after {
		if !slices.ContainsFunc(before, func(old P) bool { return name(old) == name(p) }) {
			all = append(all, p)
		}
	}
	return all
}

// webCertificate returns nil when the web has a certificate and its key, or is to have none.
func webCertificate(cfg *config.Config) error {
	t := cfg.Web.TLS
	if t == (config.TLS{}) {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil { // each web host loads it
		return fmt.Errorf("[web] tls: no certificate and its key in %s and %s: %w", t.Cert, t.Key, err)
	}
	return nil
}

// firstLine is an error without the text of the file that it shows.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
