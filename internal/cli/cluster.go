package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pogod/internal/cluster"
	"pogod/internal/cluster/identity"
	"pogod/internal/config"
	"pogod/internal/datadir"
)

const clusterPort = "8083" // of an address that says none

func (p *program) cluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Make a cluster of several nodes, and show it",
		Long: `A cluster is several nodes that hold the same jobs: any of them takes pushes and
runs workers, and none is lost with a machine. Three nodes go on without one of
them. They talk on [cluster] listen, TLS both ways; every node must be reachable
for the others at [cluster] advertise.`,
		Example: `  node1$ pogod cluster init                       a cluster of one node; its jobs are kept
  node1$ pogod serve
  node1$ pogod cluster token                      good for one node, for 15 minutes
  node2$ pogod cluster join node1:8083 TOKEN
  node2$ pogod serve
  node2$ pogod cluster members`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	group(cmd)
	cmd.AddCommand(p.clusterInit(), p.clusterToken(), p.clusterJoin(), p.clusterMembers(), p.clusterClock(), p.clusterTransfer(), p.clusterLeave(), p.clusterRecover())
	return cmd
}

// membership is the JSON of init and join.
type membership struct {
	Cluster  string          `json:"cluster"`
	Node     string          `json:"node"`
	Address  string          `json:"address"`            // where the other nodes reach it
	DataDir  string          `json:"data_dir"`           // absolute path
	Members  []identity.Peer `json:"members"`            // the others
	Replaces []string        `json:"replaces,omitempty"` // nodes that were at the same address: they are removed
	Worker   bool            `json:"worker"`             // it never has a vote
	HasJobs  bool            `json:"has_jobs"`           // of the time when it was a node alone
}

func (p *program) clusterInit() *cobra.Command {
	var o config.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make this node the first one of a new cluster",
		Long: `init makes a cluster with this node as its only member: an authority for
certificates, the cluster's id and this node's certificate, in data_dir/cluster.
It works on the data directory, so the node must not run. The jobs of a node that
was alone until now are kept.

The directory data_dir/cluster holds the keys of the cluster: whoever can read it
can pass for any of its nodes. Keep it as you keep a password.`,
		Example: `  pogod cluster init
  pogod cluster init --config /etc/pogod/pogod.toml
  pogod cluster init --data /srv/pogod --json`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			o := orDefault(o)
			c, err := loadPart(o)
			if err != nil {
				return err
			}
			dir, err := datadir.Open(c.Node.DataDir)
			if err != nil {
				return err
			}
			defer func() { _ = dir.Close() }() // the lock ends with the process at the latest
			id, err := identity.Init(dir)
			if errors.Is(err, identity.ErrExists) {
				return fmt.Errorf(`%w; "pogod serve" starts it, "pogod cluster token" lets one more node join`, err)
			}
			if err != nil {
				return err
			}
			m := &membership{Cluster: id.Cluster, Node: id.Node, Address: c.Cluster.Advertise, DataDir: dir.Path, Members: []identity.Peer{}}
			_, err = os.Stat(dir.File("state.db")) // as raftfsm names it
			m.HasJobs = err == nil
			if asJSON {
				return p.print(m)
			}
			return p.initiated(m, &o)
		},
	}
	dataFlags(cmd, &o)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document instead of the next steps")
	return cmd
}

// initiated says what was made, and what comes next.
func (p *program) initiated(m *membership, o *config.Options) error {
	var b strings.Builder
	fmt.Fprintf(&b, "made cluster %s with this node, %s, in %s\n", m.Cluster, m.Node, filepath.Join(m.DataDir, "cluster"))
	if m.HasJobs {
		fmt.Fprintln(&b, "the jobs of this node are kept")
	}
	if host, _, _ := net.SplitHostPort(m.Address); host == "localhost" || net.ParseIP(host).IsLoopback() {
		fmt.Fprintf(&b, "only this machine reaches it at %s: for nodes elsewhere, set [cluster] listen before it starts\n", m.Address)
	}
	file := asFlag("config", o.File)
	fmt.Fprintf(&b, "\nnext:\n  pogod serve%s%s\n  pogod cluster token%s   # while it runs: prints a TOKEN for one more node\n  pogod cluster join %s TOKEN   # on that node\n",
		file, asFlag("data", o.Data), file, m.Address)
	_, err := p.Stdout.Write([]byte(b.String()))
	return err
}

func (p *program) clusterJoin() *cobra.Command {
	var o config.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "join ADDRESS TOKEN",
		Short: "Bring this node into a cluster",
		Long: `join makes this node a member of the cluster that the node at ADDRESS, its
[cluster] advertise, is part of. Without a port it is asked at 8083. TOKEN is what
"pogod cluster token" printed there: it proves to each of both that the other is
the right one, and is good once, for 15 minutes.

It works on the data directory, which must not have jobs. If it fails, nothing of
the cluster is left there, and it can be run again.

A node whose log was lost or is damaged comes back this way, too: end it, move its
data directory away, and join with the same address. It is a new node then; the one
that was at the address is removed, and the jobs come from the others.`,
		Example: `  pogod cluster join node1 TOKEN
  pogod cluster join --config /etc/pogod/pogod.toml 10.0.0.1:8083 TOKEN
  pogod cluster join node1:8083 TOKEN --advertise node2.example:8083`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(`%s takes an address and a token, as "%[1]s node1:8083 TOKEN": "pogod cluster token" prints one on a member`, cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			address := withPort(args[0])
			if err := config.CheckAddress(address); err != nil {
				return usage("ADDRESS %v", err)
			}
			o := orDefault(o)
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			m, err := p.join(ctx, &o, address, args[1])
			if err != nil {
				return err
			}
			if asJSON {
				return p.print(m)
			}
			as := "node"
			if m.Worker {
				as = "worker node"
			}
			_, err = fmt.Fprintf(p.Stdout, "joined cluster %s as %s %s; start it with \"pogod serve%s%s\"\n",
				m.Cluster, as, m.Node, asFlag("config", o.File), asFlag("data", o.Data))
			if err == nil && len(m.Replaces) > 0 {
				_, err = fmt.Fprintf(p.Stdout, "it takes the place of node %s, which was at %s and is removed from the cluster\n", strings.Join(m.Replaces, ", "), m.Address)
			}
			return err
		},
	}
	dataFlags(cmd, &o)
	cmd.Flags().StringVar(&o.Advertise, "advertise", "", "`address` at which the other nodes reach this one, over [cluster] advertise")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	_ = cmd.RegisterFlagCompletionFunc("advertise", cobra.NoFileCompletions) // fails only for a flag that does not exist
	return cmd
}

func (p *program) join(ctx context.Context, o *config.Options, address, token string) (*membership, error) {
	c, err := loadPart(*o)
	if err != nil {
		return nil, err
	}
	if err := config.CheckAddress(c.Cluster.Advertise); err != nil { // port 0 of [cluster] listen
		return nil, fmt.Errorf("[cluster] advertise %w: set it, or give --advertise", err)
	}
	dir, err := datadir.Open(c.Node.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // the lock ends with the process at the latest
	if p.screen(p.Stderr) {
		fmt.Fprintf(p.Stderr, "asking %s to let node %s in, which is at %s\n", address, dir.NodeID(), c.Cluster.Advertise)
	}
	id, members, err := identity.Join(ctx, dir, address, token, c.Cluster.Advertise)
	var dial *net.OpError
	switch {
	case err == nil:
		// Should it fail, the members that know this node now will find it.
		if err := cluster.WritePeers(dir, members); err != nil {
			fmt.Fprintf(p.Stderr, "pogod: %v; the node is a member all the same\n", err)
		}
	case ctx.Err() != nil:
		return nil, errors.New("interrupted: this node has not joined; run it again, with a new token if this one is refused")
	case errors.Is(err, identity.ErrExists):
		return nil, fmt.Errorf("%w; a node is in one cluster: name another directory with --data to make a new node", err)
	case errors.As(err, &dial) && dial.Op == "dial":
		return nil, &fault{fmt.Sprintf("no node is reached at %s (%s): start it there with \"pogod serve\", and see that its [cluster] listen is reachable from here",
			address, clean(err.Error())), ErrUnreachable}
	default:
		return nil, &fault{clean(err.Error()), err} // it may have words of the other side
	}
	if o.Advertise != "" {
		p.remind(o)
	}
	m := &membership{Cluster: id.Cluster, Node: id.Node, Address: c.Cluster.Advertise, DataDir: dir.Path, Members: []identity.Peer{}, Worker: id.Worker}
	for _, o := range members {
		switch {
		case o.ID == m.Node:
		case o.Address == m.Address:
			m.Replaces = append(m.Replaces, o.ID)
		default:
			m.Members = append(m.Members, o)
		}
	}
	return m, nil
}

// remind says that the server has no --advertise, where it would say another address.
func (p *program) remind(o *config.Options) {
	without := *o
	without.Advertise = ""
	if c, err := loadPart(without); err != nil || c.Cluster.Advertise != o.Advertise {
		fmt.Fprintf(p.Stderr, "pogod: before it is started, set [cluster] advertise = %q in its configuration, or POGOD_CLUSTER_ADVERTISE: it tells the other nodes where it is at each start\n", o.Advertise)
	}
}

// withPort adds the port that an address leaves out.
func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), clusterPort)
}

// print writes a JSON document.
func (p *program) print(v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintln(p.Stdout, string(text))
	}
	return err
}

// asFlag writes a flag as a shell takes it, with a space before; an empty one is none.
func asFlag(name, value string) string {
	if value == "" {
		return ""
	}
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:+,@%"
	if strings.Trim(value, safe) != "" {
		value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
	}
	return " --" + name + " " + value
}
