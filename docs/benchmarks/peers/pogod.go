package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// pogod is the product's side.
type pogod struct {
	bin, home string
	nodes     []*pogodNode
}

type pogodNode struct {
	id                     string
	home, admin, advertise string
	process                *process
}

func (n *pogodNode) config() string { return filepath.Join(n.home, "pogod.toml") }
func (n *pogodNode) socket() string { return filepath.Join(n.home, "s") }

// pogodStatus is what is read of /status.
type pogodStatus struct {
	Node struct{ ID string }
	Raft struct {
		Leader  string
		Commit  uint64 `json:"commit_index"`
		Members []struct{ Voter, Up bool }
	}
}

func (n *pogodNode) status(ctx context.Context) (*pogodStatus, error) {
	s := &pogodStatus{}
	return s, getJSON(ctx, "http://"+n.admin+"/status", s)
}

// newPogod writes the configuration of the nodes. The worker of each cycle and wake-up has no threads of the node's own.
func newPogod(o *options, home string) (cluster, error) {
	bin, err := filepath.Abs(o.pogod)
	if err != nil {
		return nil, err
	}
	c := &pogod{bin: bin, home: home}
	var workers strings.Builder
	for _, g := range groups(o) {
		for _, w := range g {
			if w.kind == kindCycle || w.kind == kindWake {
				fmt.Fprintf(&workers, "[[worker]]\nname = %q\nqueues = [%q]\nthreads = 0\n", w.id, w.id)
			}
		}
	}
	for i := range o.nodes {
		n := &pogodNode{home: filepath.Join(home, fmt.Sprint(i))}
		web := ""
		for _, a := range []*string{&n.admin, &n.advertise, &web} {
			if *a, err = freeAddress(); err != nil {
				return nil, err
			}
		}
		public := filepath.Join(n.home, "public") // a node with PHP wants one
		if err := os.MkdirAll(public, 0o700); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("[node]\ndata_dir = \"data\"\nsocket = \"s\"\nlog_level = \"warn\"\n[web]\nlisten = %q\nthreads = 1\n"+
			"[admin]\nlisten = %q\n[cluster]\nlisten = %q\n[queue]\nauto_create = true\n%s", web, n.admin, n.advertise, workers.String())
		err := errors.Join(os.WriteFile(filepath.Join(public, "index.php"), []byte("<?php\n"), 0o600), os.WriteFile(n.config(), []byte(text), 0o600))
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// start makes the first node's cluster and has the others join it.
func (c *pogod) start(ctx context.Context) error {
	for i, n := range c.nodes {
		var err error
		switch {
		case len(c.nodes) == 1: // alone, as by default
		case i == 0:
			_, err = c.command(ctx, "init", "--config", n.config())
		default:
			var token string
			if token, err = c.command(ctx, "token", "--config", c.nodes[0].config()); err == nil {
				_, err = c.command(ctx, "join", c.nodes[0].advertise, token, "--config", n.config())
			}
		}
		if err != nil {
			return err
		}
		if n.process, err = startProcess(filepath.Join(n.home, "log"), c.bin, "serve", "--config", n.config()); err != nil {
			return err
		}
		if err := until(ctx, "node "+n.home, func() error { return getJSON(ctx, "http://"+n.admin+"/readyz", nil) }); err != nil {
			return err
		}
		s, err := n.status(ctx)
		if err != nil {
			return err
		}
		n.id = s.Node.ID
	}
	if len(c.nodes) == 1 {
		return nil
	}
	return until(ctx, "all are voters", func() error {
		for _, n := range c.nodes {
			s, err := n.status(ctx)
			if err != nil {
				return err
			}
			voters := 0
			for _, m := range s.Raft.Members {
				if m.Voter && m.Up {
					voters++
				}
			}
			if voters != len(c.nodes) {
				return fmt.Errorf("node %s sees %+v", n.id, s.Raft.Members)
			}
		}
		return nil
	})
}

// command runs `pogod cluster` and returns the last line of its output.
func (c *pogod) command(ctx context.Context, arg ...string) (string, error) {
	out, err := exec.CommandContext(ctx, c.bin, append([]string{"cluster"}, arg...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("pogod cluster %s: %w", arg[0], err)
	}
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:], nil
}

func (c *pogod) prepare(ctx context.Context, _ *work) ([]node, error) {
	s, err := c.nodes[0].status(ctx)
	if err != nil {
		return nil, err
	}
	var leader, others []node
	for _, n := range c.nodes {
		known := node{n.socket(), n.process.pid()}
		if n.id == s.Raft.Leader {
			leader = append(leader, known)
		} else {
			others = append(others, known)
		}
	}
	if len(leader) != 1 {
		return nil, fmt.Errorf("the leader %q is none of the nodes", s.Raft.Leader)
	}
	return append(leader, others...), nil
}

func (c *pogod) entries(ctx context.Context, _ *work) uint64 {
	s, err := c.nodes[0].status(ctx)
	if err != nil {
		return 0
	}
	return s.Raft.Commit
}

func (c *pogod) stop() {
	var all []*process
	for _, n := range c.nodes {
		if n.process != nil {
			all = append(all, n.process)
		}
	}
	endAll(all)
}
