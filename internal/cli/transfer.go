package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

// transferWait is over what the node gives a hand-over.
const transferWait = 15 * time.Second

func (p *program) clusterTransfer() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer [NODE]",
		Short: "Have another node lead",
		Long: `transfer hands leadership to the node with the id NODE, or to the follower that has
most of the log, and prints the id of the node that leads then. It can be asked of
any node. No call fails for it: what is under way goes to the new leader.`,
		Example: `  pogod cluster transfer
  pogod cluster transfer 5bfe60e1a2c34d7f
  pogod cluster transfer --json | jq -r .leader`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, args []string) error {
		body, err := askWithin(ctx, transferWait, q.u, http.MethodPost, admin.TransferPath, ofNode(args).Encode())
		if err != nil {
			return err
		}
		var t admin.Transferred
		return q.answer(body, &t, func() error {
			if t.Leader == "" {
				return unreadable(q.u, nil)
			}
			_, err := fmt.Fprintln(p.Stdout, clean(t.Leader))
			return err
		})
	})
	cmd.Args = oneNode
	return cmd
}

// ofNode is the query that names the node of the arguments, if they name one.
func ofNode(args []string) url.Values {
	q := url.Values{}
	if len(args) > 0 {
		q.Set("node", args[0])
	}
	return q
}

// oneNode wants the id of a node, or nothing.
func oneNode(cmd *cobra.Command, args []string) error {
	if len(args) > 1 || len(args) == 1 && args[0] == "" {
		return usage(`%s takes the id of one node at most: "pogod cluster members" lists them`, cmd.CommandPath())
	}
	return nil
}
