package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

func (p *program) configReload() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have a running node take its configuration anew",
		Long: `reload has the node read the configuration that it was started with again: file,
environment and flags, of which only the file can have changed. It is checked first;
if it is wrong the node goes on as it was, and the command ends with 1. Otherwise it
prints what has changed and counts now, and what counts when the node is started
again, which its status shows until then. New PHP hosts are started in any case, as
by "pogod php reload": requests and jobs that run end in the old ones. SIGHUP to the
node does the same.

In a cluster it concerns the node that is asked, but for the queues, which are as
the configuration of the node says that leads.`,
		Example: `  pogod config check && pogod config reload
  pogod config reload --config /etc/pogod/pogod.toml
  pogod config reload --json | jq -e '.restart == []'`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		body, err := askWithin(ctx, reloadTimeout, q.u, http.MethodPost, admin.ConfigReloadPath, "")
		if err != nil {
			return err
		}
		var r admin.Reconfigured
		return q.answer(body, &r, func() error {
			if r.Applied == nil || r.Restart == nil {
				return unreadable(q.u, nil)
			}
			for _, note := range r.Notes {
				fmt.Fprintln(p.Stderr, "pogod:", clean(note))
			}
			if len(r.Applied)+len(r.Restart) == 0 {
				_, err := fmt.Fprintln(p.Stdout, "nothing has changed; the PHP hosts were reloaded")
				return err
			}
			for _, key := range r.Applied {
				fmt.Fprintln(p.Stdout, "applied      ", clean(key))
			}
			for _, key := range r.Restart {
				fmt.Fprintln(p.Stdout, p.colours().the(yellow, "needs restart"), clean(key))
			}
			return nil
		})
	})
	return cmd
}
