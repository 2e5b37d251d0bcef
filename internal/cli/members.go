package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

func (p *program) clusterToken() *cobra.Command {
	var worker bool
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token with which one more node may join",
		Long: `token asks a running node for a token and prints it, alone. One node can join with
it, at the node that made it, within 15 minutes and until that node restarts. It
opens the whole cluster: give it to nobody else.

With --worker it lets in a worker: a node that pushes and runs jobs as the others do,
has a copy of the data, and never votes nor leads. The others go on when it is gone.`,
		Example: `  pogod cluster token
  pogod cluster token --worker
  pogod cluster token --config /etc/pogod/pogod.toml
  pogod cluster token --json`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		query := ""
		if worker {
			query = "worker=1"
		}
		body, err := ask(ctx, q.u, http.MethodPost, admin.TokensPath, query)
		if err != nil {
			return err
		}
		var t admin.Token
		return q.answer(body, &t, func() error {
			if t.Token == "" {
				return unreadable(q.u, nil)
			}
			if _, err := fmt.Fprintln(p.Stdout, clean(t.Token)); err != nil {
				return err
			}
			// Who pipes the token does not want to see it too.
			if now := p.now(); p.screen(p.Stdout) && p.screen(p.Stderr) {
				fmt.Fprintf(p.Stderr, "\non the new node, within %s:\n  pogod cluster join %s %s\n", age(t.ExpiresAt, &now), advertised(ctx, q.u), clean(t.Token))
			}
			return nil
		})
	})
	cmd.Flags().BoolVar(&worker, "worker", false, "for a node that never has a vote")
	return cmd
}

// advertised returns the address at which the node that is asked can be joined at.
func advertised(ctx context.Context, u *target) string {
	var m admin.Members
	if body, err := ask(ctx, u, http.MethodGet, admin.MembersPath, ""); err == nil && json.Unmarshal(body, &m) == nil {
		for _, k := range m.Members {
			if k.Self && k.Address != "" {
				return clean(k.Address)
			}
		}
	}
	return "ADDRESS" // whoever reads it knows the machine
}

func (p *program) clusterMembers() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the members of the cluster, as a node sees them",
		Long: `members asks a running node which nodes are in its cluster: who leads, who votes,
which of them it reaches, how many entries of the log each is behind, and when it
last heard of each. A node that has just joined votes once it has caught up, a worker
never.`,
		Example: `  pogod cluster members
  pogod cluster members --admin http://127.0.0.1:9082
  pogod cluster members --json | jq '.members[] | select(.up | not) | .id'`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		body, err := ask(ctx, q.u, http.MethodGet, admin.MembersPath, "")
		if err != nil {
			return err
		}
		var m admin.Members
		return q.answer(body, &m, func() error {
			members(p.Stdout, m.Members, p.now(), p.colours())
			return nil
		})
	})
	return cmd
}

// unreadable is the error of an answer that is not as this program knows it.
func unreadable(u *target, err error) error {
	if err == nil {
		err = errors.New("it is empty")
	}
	return fmt.Errorf("the node at %s sent an answer that this pogod cannot read (%w): use one of the same version, or --json", u, err)
}

func members(w io.Writer, list []admin.Member, now time.Time, p paint) {
	var rows [][]cell
	for _, m := range list {
		role := plain("voter")
		switch {
		case m.Leader:
			role = cell{"leader", bold}
		case m.Worker:
			role = plain("worker")
		case !m.Voter:
			role = cell{"non-voter", yellow}
		}
		up := cell{"no", red}
		if m.Up {
			up = cell{"yes", green}
		}
		heard := age(now, m.LastHeardAt)
		switch {
		case m.Self:
			heard = "this node"
		case heard != "-":
			heard += " ago"
		}
		rows = append(rows, []cell{plain(m.ID), plain(dash(m.Address)), role, up, count(m.Lag, yellow), plain(heard)})
	}
	table(w, p, []string{"MEMBER", "ADDRESS", "ROLE", "UP", ">LAG", "LAST HEARD"}, rows)
}
