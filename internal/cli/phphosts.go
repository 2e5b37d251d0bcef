package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

// reloadTimeout is how long an answer to a reload is waited for: as long as the node
// waits for its hosts, and some.
const reloadTimeout = 130 * time.Second

func (p *program) phpReload() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Put new code into service without losing a request or a job",
		Long: `reload has the node start a new PHP host beside each that runs, and returns when
the new ones have taken over. Requests and jobs that run end in the old ones.
Paths are resolved anew, symlinks too. If a new host does not start, the old one
goes on and the command fails. "pogod config reload" does the same, and reads the
configuration again.

In a cluster it concerns the node that is asked, alone.`,
		Example: `  ln -sfn releases/42 current && pogod php reload
  pogod php reload --config /etc/pogod/pogod.toml
  pogod php reload --json`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		begin := p.now()
		body, err := askWithin(ctx, reloadTimeout, q.u, http.MethodPost, admin.ReloadPath, "")
		if err != nil {
			return err
		}
		var r admin.Reloaded
		return q.answer(body, &r, func() error {
			if !r.Reloaded {
				return unreadable(q.u, nil)
			}
			_, err := fmt.Fprintf(p.Stdout, "reloaded in %s\n", p.now().Sub(begin).Round(10*time.Millisecond))
			return err
		})
	})
	return cmd
}

func (p *program) phpStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the PHP hosts, pages and workers of a running node",
		Long: `status shows each PHP host, a process; the pages with their threads, in worker mode
with the ends of their script; and each worker with its threads: those
that wait for a job, those that run one, and why its script last ended badly. A
host that is being replaced has two lines or more, first that of the process
that new work goes to.`,
		Example: `  pogod php status
  pogod php status --json | jq '.workers[] | {name, host, last_error}'`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		body, err := ask(ctx, q.u, http.MethodGet, "/status", "")
		if err != nil {
			return err
		}
		if q.asJSON {
			var parts struct { // as the node sent them
				PHP     json.RawMessage `json:"php"`
				Web     json.RawMessage `json:"web"`
				Workers json.RawMessage `json:"workers"`
			}
			if err := json.Unmarshal(body, &parts); err != nil {
				return unreadable(q.u, err)
			}
			out, err := json.Marshal(parts)
			if err == nil {
				_, err = fmt.Fprintln(p.Stdout, string(out))
			}
			return err
		}
		var v admin.Status
		if err := json.Unmarshal(body, &v); err != nil {
			return unreadable(q.u, err)
		}
		now, paint := p.now(), p.colours()
		hosts(p.Stdout, &v, now, paint)
		fmt.Fprintln(p.Stdout)
		if v.Web.Mode != "" {
			web(p.Stdout, &v.Web, now, paint)
			fmt.Fprintln(p.Stdout)
		}
		workers(p.Stdout, v.Workers, now, paint)
		return nil
	})
	cmd.Flags().Lookup("json").Usage = "print the parts php, web and workers of the node's status"
	return cmd
}
