package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/clock"
	"pogod/internal/cluster/identity"
	"pogod/internal/config"
	"pogod/internal/datadir"
	"pogod/raftfsm"
)

// restored is the JSON of restore.
type restored struct {
	backupDoc
	DataDir string `json:"data_dir"` // absolute path
	DryRun  bool   `json:"dry_run"`  // nothing was written
}

func (p *program) restore() *cobra.Command {
	var o config.Options
	var dry, asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Begin a new node with the jobs of a backup",
		Long: `restore makes what "pogod backup" saved the beginning of a new node, whose data
directory must not hold data. All of the backup is checked before anything is written.
Jobs are as they were: delayed ones keep their time, and those that ran when it was
taken are ready again, with no attempt spent. What happened after the backup is not in
it: jobs that were acked since then run again.

It works on the data directory, so the node must not run. For a new cluster, restore on
its first node, before or after "pogod cluster init", and let the others join empty:
they get everything from it.`,
		Example: `  pogod restore pogod.backup --dry-run       checks the backup and the directory, and changes nothing
  pogod restore pogod.backup --config /etc/pogod/pogod.toml
  pogod restore pogod.backup --data /srv/pogod --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usage(`%s takes a file, as "%[1]s pogod.backup": "%[1]s --help" has examples`, cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o := orDefault(o)
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			doc, err := p.restoreFrom(ctx, args[0], &o, dry)
			if err != nil {
				return err
			}
			if asJSON {
				return p.print(doc)
			}
			is := fmt.Sprintf("entry %d of node %s, saved %s by pogod %s", doc.Index, clean(doc.Node), doc.TakenAt.Format(time.RFC3339), clean(doc.Version))
			if dry {
				_, err = fmt.Fprintf(p.Stdout, "%s is whole: %s\n%s is empty: it can be restored there\n", doc.File, is, doc.DataDir)
				return err
			}
			_, err = fmt.Fprintf(p.Stdout, "restored %s into %s; start it with \"pogod serve%s%s\"\n", is, doc.DataDir, asFlag("config", o.File), asFlag("data", o.Data))
			return err
		},
	}
	dataFlags(cmd, &o)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check the backup and the data directory, and change nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

func (p *program) restoreFrom(ctx context.Context, path string, o *config.Options, dry bool) (*restored, error) {
	c, err := loadPart(*o)
	if err != nil {
		return nil, err
	}
	doc := &restored{DryRun: dry}
	if doc.DataDir, err = filepath.Abs(c.Node.DataDir); err != nil {
		return nil, err
	}
	if doc.File, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	doc.Bytes = st.Size()
	if err := vacant(doc.DataDir); err != nil {
		return nil, err
	}
	err = p.measured("check", func(m *meter) (err error) {
		doc.BackupHeader, err = raftfsm.VerifyBackup(f, doc.Bytes, m.set)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w; nothing was changed", path, err)
	}
	if dry || ctx.Err() != nil {
		return doc, ctx.Err()
	}
	dir, err := datadir.Open(c.Node.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // the lock ends with the process at the latest
	if identity.Exists(dir) {
		id, err := identity.Load(dir)
		if err != nil {
			return nil, err
		}
		if id.Joined {
			return nil, fmt.Errorf("this node has joined the cluster %s, whose members send it their jobs: restore on the first node of a new cluster, or name another directory with --data", id.Cluster)
		}
	}
	err = p.measured("restore", func(m *meter) error {
		_, err := raftfsm.RestoreBackup(dir, clock.System(), f, doc.Bytes, m.set)
		return err
	})
	return doc, err
}

// vacant says why a directory cannot take what is restored.
func vacant(dir string) error {
	err := raftfsm.Vacant(dir)
	if errors.Is(err, raftfsm.ErrHasData) {
		return fmt.Errorf("%w; a backup is restored into an empty data directory: name another one with --data, or move %s away", err, dir)
	}
	return err
}
