package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

// leaveWait is over what the node itself gives its jobs.
const leaveWait = 31 * time.Minute

func (p *program) clusterLeave() *cobra.Command {
	var force, yes bool
	cmd := &cobra.Command{
		Use:   "leave [NODE]",
		Short: "Take this node, or a dead one, out of the cluster",
		Long: `leave takes the node that is asked out of its cluster: it hands leadership over,
lets its jobs end within [node] shutdown_timeout and gives the rest back, is removed,
and ends. Its data directory is kept, but "pogod serve" refuses it: "pogod cluster
join" with a new token makes a new node of it.

With NODE, the id of a node that is dead, that one is removed. When it comes back it
is told so, and ends.

It is declined when fewer than a majority of the voters that are left would be up. A
node that is up is to be asked itself, and a removal after which no other node may
fail is declined, both unless --force is given: --force may cost running jobs their
attempt, or the cluster its majority. On a terminal it asks first.`,
		Example: `  pogod cluster leave
  pogod cluster leave 5bfe60e1a2c34d7f
  pogod cluster leave --yes --json`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, args []string) error {
		node := strings.Join(args, "")
		what := "take the node at " + q.u.String() + " out of the cluster for good, and end it?"
		if node != "" {
			what = "remove node " + clean(node) + " from the cluster for good?"
		}
		if !yes && q.screen(q.Stderr) {
			if err := q.agreed(ctx, what, "nothing was changed"); err != nil {
				return err
			}
		}
		query := ofNode(args)
		if force {
			query.Set("force", "1")
		}
		body, err := askWithin(ctx, leaveWait, q.u, http.MethodPost, admin.LeavePath, query.Encode())
		if err != nil {
			return err
		}
		var l admin.Left
		return q.answer(body, &l, func() error {
			text := "this node has left the cluster"
			if node != "" {
				text = "node " + clean(node) + " was removed from the cluster"
			}
			_, err := fmt.Fprintln(p.Stdout, text)
			return err
		})
	})
	cmd.Args = oneNode
	cmd.Flags().BoolVar(&force, "force", false, "even if the node is up, or no other one may fail afterwards")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
