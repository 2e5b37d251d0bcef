package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
	"pogod/internal/config"
	"pogod/internal/datadir"
	"pogod/raftfsm"
)

// recovery is the JSON of recover.
type recovery struct {
	Node       string   `json:"node"`
	Cluster    string   `json:"cluster,omitempty"` // id of the new one; absent: a node alone, or a dry run
	DataDir    string   `json:"data_dir"`          // absolute path
	DryRun     bool     `json:"dry_run"`           // nothing was changed
	Index      uint64   `json:"index"`             // of the last entry that is kept
	FromLog    uint64   `json:"from_log"`          // entries of the log that the data file did not hold
	LeftBehind []string `json:"left_behind"`       // ids of the other members
	LogLost    string   `json:"log_lost"`          // why the log, or the rest of it, could not be used; "": it could
}

func (p *program) clusterRecover() *cobra.Command {
	var o config.Options
	var dry, yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on with one node when a majority, or its log, is lost",
		Long: `recover is for when nothing else helps: most nodes of a cluster are gone for good, or
a node alone has lost its log. It makes this node alone the first of a new cluster (or
a node alone again), with all that its data file and its log hold, and says what may be
missing. Where two nodes or more are left, take the one with the highest entry:
--dry-run says it, and changes nothing.

The other members are left behind: they cannot reach this node any more. Never start
them again on their data, for two of them would go on without this one. Move their data
away, and let them join anew with "pogod cluster token" and "pogod cluster join".

It works on the data directory, so the node must not run. It needs room for a copy of
the data file. The log and the cluster's keys of before are kept, in log.replaced and
cluster.replaced.`,
		Example: `  pogod cluster recover --dry-run
  pogod cluster recover --yes --config /etc/pogod/pogod.toml`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			o := orDefault(o)
			r, err := p.recover(&o, dry || !yes)
			if err != nil {
				return err
			}
			r.DryRun = dry || !yes
			if asJSON {
				err = p.print(r)
			} else {
				err = p.recovered(r, &o)
			}
			if err == nil && !dry && !yes {
				err = errors.New("nothing was changed: recover it with --yes, when this is what you want")
			}
			return err
		},
	}
	dataFlags(cmd, &o)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be kept and what may be missing, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

// errDry ends a recovery in which nothing is to be changed.
var errDry = errors.New("nothing was changed")

func (p *program) recover(o *config.Options, dry bool) (*recovery, error) {
	c, err := loadPart(*o)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.Node.DataDir); err != nil { // to open it would make it
		return nil, fmt.Errorf("there is no node to recover: %w: name its data directory with --data", err)
	}
	dir, err := datadir.Open(c.Node.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // the lock ends with the process at the latest
	doc := &recovery{Node: dir.NodeID(), DataDir: dir.Path, LeftBehind: []string{}}
	undo := func() error { return nil }
	proceed := func(r raftfsm.Recovery) error {
		if r.LogLost == nil && len(r.Members) == 0 {
			return fmt.Errorf(`nothing is lost of node %s, which is alone: "pogod serve%s%s" starts it`, dir.NodeID(), asFlag("config", o.File), asFlag("data", o.Data))
		}
		if dry {
			return errDry
		}
		if identity.Exists(dir) {
			id, back, err := identity.Refound(dir)
			if err != nil {
				return err
			}
			doc.Cluster, undo = id.Cluster, back
		}
		return nil
	}
	var r raftfsm.Recovery
	err = p.measured("copy", func(m *meter) error {
		r, err = raftfsm.Recover(dir, clock.System(), proceed, m.set)
		return err
	})
	switch {
	case errors.Is(err, errDry):
	case errors.Is(err, raftfsm.ErrNotRecoverable):
		return nil, fmt.Errorf(`%w; nothing was changed: "pogod restore" begins with a backup, in another data directory`, err)
	case err != nil:
		return nil, errors.Join(err, undo())
	}
	doc.LeftBehind = append(doc.LeftBehind, r.Members...)
	doc.Index, doc.FromLog = r.Index, r.FromLog
	if r.LogLost != nil {
		doc.LogLost = clean(r.LogLost.Error())
	}
	return doc, nil
}

// recovered says what is kept, and what may be missing.
func (p *program) recovered(r *recovery, o *config.Options) error {
	var b strings.Builder
	word := "recovered"
	if r.DryRun {
		word = "would recover"
	}
	fmt.Fprintf(&b, "%s node %s up to entry %d, of which %d come from its log\n", word, r.Node, r.Index, r.FromLog)
	if r.LogLost != "" {
		fmt.Fprintf(&b, "may be missing: what was accepted after entry %d, for %s\n", r.Index, r.LogLost)
	}
	if len(r.LeftBehind) > 0 {
		fmt.Fprintf(&b, "may be missing: what the others had accepted and this node was not sent\nleft behind: %s; never start them again on their data\n", strings.Join(r.LeftBehind, ", "))
	}
	if !r.DryRun {
		file := asFlag("config", o.File)
		fmt.Fprintf(&b, "\nnext:\n  pogod serve%s%s\n", file, asFlag("data", o.Data))
		if r.Cluster != "" {
			fmt.Fprintf(&b, "  pogod cluster token%s   # the cluster is %s now: one for each node that joins anew\n", file, r.Cluster)
		}
	}
	_, err := p.Stdout.Write([]byte(b.String()))
	return err
}
