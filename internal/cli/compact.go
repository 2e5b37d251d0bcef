package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"pogod/internal/config"
	"pogod/internal/datadir"
	"pogod/raftfsm"
	"pogod/raftfsm/disk"
)

// compacted is the JSON of compact.
type compacted struct {
	DataDir string `json:"data_dir"` // absolute path
	Before  int64  `json:"before_bytes"`
	After   int64  `json:"after_bytes"`
}

func (p *program) compact() *cobra.Command {
	var o config.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Make the data file of a stopped node small again",
		Long: `compact writes the data file anew without its free pages. The file never gets smaller
by itself: what jobs leave is used for the next ones. "pogod status" shows how much is
free. It works on the data directory, so the node must not run, and needs room for what
is left. Until it is done, the file of before stays.`,
		Example: `  pogod compact
  pogod compact --config /etc/pogod/pogod.toml --json`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			doc, err := p.compactData(orDefault(o))
			switch {
			case err != nil:
				return err
			case asJSON:
				return p.print(doc)
			}
			_, err = fmt.Fprintf(p.Stdout, "%s: %s before, %s now\n", filepath.Join(doc.DataDir, "state.db"), disk.Size(doc.Before), disk.Size(doc.After))
			return err
		},
	}
	dataFlags(cmd, &o)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

func (p *program) compactData(o config.Options) (*compacted, error) {
	c, err := loadPart(o)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(filepath.Join(c.Node.DataDir, "state.db")) // as raftfsm names it
	if err != nil {
		return nil, fmt.Errorf("there is nothing to compact: %w: name the data directory with --data", err)
	}
	dir, err := datadir.Open(c.Node.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // the lock ends with the process at the latest
	doc := &compacted{DataDir: dir.Path}
	var to atomic.Value // a string
	err = p.while(func() (err error) {
		doc.Before, doc.After, err = raftfsm.Compact(dir, func(path string) { to.Store(path) })
		return err
	}, func(l *line) {
		path, _ := to.Load().(string)
		if made, err := os.Stat(path); err == nil {
			l.write("compact: %s of at most %s", disk.Size(made.Size()), disk.Size(st.Size()))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	return doc, nil
}
