package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
	"pogod/internal/datadir"
	"pogod/raftfsm"
	"pogod/raftfsm/disk"
	"pogod/storage"
)

// silentFor is how long a node may send nothing of a backup.
const silentFor = 30 * time.Second

// backupDoc is the JSON of backup and restore.
type backupDoc struct {
	File  string `json:"file"`  // absolute path
	Bytes int64  `json:"bytes"` // of the file
	raftfsm.BackupHeader
}

func (p *program) backup() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save all jobs of a running node to a file",
		Long: `backup asks a running node, any of a cluster, for all that it holds, and writes it to
FILE: jobs of every state, queues and their figures, cluster time. The node goes on
meanwhile; of a node that lags behind the others it is as old as that. It is checked
as it comes and once more when it is there, and has the name FILE only then. - writes
it to standard output.

The file has the payloads of all jobs: keep it as you keep those. It does not have the
keys of the cluster, nor the configuration. A token must have the role admin.`,
		Example: `  pogod backup pogod-monday.backup
  pogod backup --force /var/backups/pogod.backup
  pogod backup - | ssh vault 'cat > pogod.backup'
  pogod backup pogod.backup --json | jq .index`,
	}
	p.asking(cmd, []string{"a file"}, func(ctx context.Context, q *question, args []string) error {
		if args[0] != "-" {
			return q.backupTo(ctx, args[0], force)
		}
		if q.asJSON {
			return usage("--json writes to standard output, where the backup goes: name a file")
		}
		if q.screen(q.Stdout) {
			return usage("a backup is no text for a terminal: name a file, or send standard output to one")
		}
		return p.measured("backup", func(m *meter) error {
			_, err := q.receive(ctx, q.Stdout, m)
			return err
		})
	})
	cmd.ValidArgsFunction = nil // files
	cmd.Flags().BoolVar(&force, "force", false, "write over a file that is there")
	cmd.Flags().Lookup("json").Usage = "print a JSON document of what was saved"
	return cmd
}

// backupTo saves a backup at path, whole or not at all.
func (q *question) backupTo(ctx context.Context, path string, force bool) (err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	switch st, err := os.Lstat(path); {
	case err == nil && !force:
		return fmt.Errorf("%s is there already: name another file, or write over it with --force", path)
	case err == nil && !st.Mode().IsRegular():
		return fmt.Errorf("%s is no file: name another one", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close() // it is closed already when all is well
		if err != nil {
			_ = os.Remove(f.Name()) // the error says what is wrong
		}
	}()
	doc := backupDoc{File: path}
	err = q.measured("backup", func(m *meter) error {
		doc.BackupHeader, err = q.receive(ctx, &storage.Steady{File: f}, m)
		return err
	})
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	doc.Bytes = st.Size()
	err = q.measured("check", func(m *meter) error { return doc.Verify(f, m.set) })
	if err != nil {
		return fmt.Errorf("what the node at %s holds is not whole, and nothing was kept: %w; ask another node", q.u, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if err := datadir.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if q.asJSON {
		return q.print(doc)
	}
	_, err = fmt.Fprintf(q.Stdout, "saved entry %d of node %s to %s, %s\n", doc.Index, clean(doc.Node), path, disk.Size(doc.Bytes))
	return err
}

// receive writes the backup that the node sends to w, and checks it as it comes.
func (q *question) receive(ctx context.Context, w io.Writer, m *meter) (h raftfsm.BackupHeader, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(silentFor, func() { cancel(fmt.Errorf("it sent nothing for %s", silentFor)) })
	defer silent.Stop()
	r, err := request(ctx, q.u, http.MethodPost, admin.BackupPath, "", nil)
	if errors.Is(err, ErrUsage) {
		return h, err
	}
	if err != nil {
		return h, unanswered(q.u, false, err)
	}
	defer func() { _ = r.Body.Close() }() // it was read to its end, or failed
	if r.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(r.Body, maxAnswer)) // what has come of it
		return h, refused(q.u, r, body)
	}
	arrived := func(n int) {
		silent.Reset(silentFor)
		m.done.Add(int64(n))
	}
	h, err = raftfsm.RelayBackup(w, arriving{r.Body, arrived}, m.total.Store)
	switch {
	case err == nil:
		return h, nil
	case errors.Is(err, raftfsm.ErrNoBackup):
		return h, fmt.Errorf("what answers at %s is not pogod's admin endpoint: name that with --admin", q.u)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return h, errors.New("interrupted: nothing was saved")
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return h, fmt.Errorf("the backup from the node at %s broke off after %s, and nothing was kept: %w; ask again, or another node", q.u, disk.Size(m.done.Load()), err)
}

// arriving tells what is read.
type arriving struct {
	io.Reader
	told func(n int)
}

// Read implements io.Reader.
func (a arriving) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	a.told(n)
	return n, err
}
