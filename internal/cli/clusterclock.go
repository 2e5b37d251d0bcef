package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

func (p *program) clusterClock() *cobra.Command {
	var reset bool
	cmd := &cobra.Command{
		Use:   "clock",
		Short: "Show cluster time and the nodes' clocks, or set the time back to them",
		Long: `clock asks a running node for cluster time, which says when jobs are due, and for the
clocks of the nodes: time is the median of the voters', so that one wrong clock does
not matter, and never goes back. While it is ahead of the clocks, because one was
wrong for a time on a node alone, or most were, it goes on at half speed until they
have caught up.

--reset sets it back to the clocks at once. Jobs that run may run on for as long as
before. Jobs that are delayed stay due at the time that they were due at: one that
was delayed while time was a year ahead waits for a year.`,
		Example: `  pogod cluster clock
  pogod cluster clock --json | jq '.nodes[] | {node, offset_ms}'
  pogod cluster clock --reset`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		if reset {
			body, err := askWithin(ctx, changeTimeout, q.u, http.MethodPost, admin.ClockResetPath, "")
			if err != nil {
				return err
			}
			var r admin.ClockReset
			return q.answer(body, &r, func() error {
				if r.Time.IsZero() {
					return unreadable(q.u, nil)
				}
				_, err := fmt.Fprintf(p.Stdout, "cluster time was set back by %s, to %s\n", time.Duration(r.BackMS)*time.Millisecond, instant(&r.Time))
				return err
			})
		}
		body, err := ask(ctx, q.u, http.MethodGet, admin.ClockPath, "")
		if err != nil {
			return err
		}
		var c admin.Clock
		return q.answer(body, &c, func() error {
			showClock(p.Stdout, &c, p.colours())
			return nil
		})
	})
	cmd.Flags().BoolVar(&reset, "reset", false, "set cluster time back to the median of the clocks; refused when it is not ahead of it")
	return cmd
}

// instant prints a time to the millisecond.
func instant(t *time.Time) string {
	if t == nil {
		return "not known"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

func showClock(w io.Writer, c *admin.Clock, p paint) {
	label := func(name, text string) { fmt.Fprintf(w, "%s  %s\n", p.the(dim, fmt.Sprintf("%-6s", name)), text) }
	at := instant(c.Time)
	if ahead := time.Duration(c.AheadMS) * time.Millisecond; ahead >= admin.ClockOff {
		at += p.the(yellow, fmt.Sprintf("  %s ahead of the clocks: it goes on at half speed until they have caught up", ahead))
	}
	label("time", at)
	median := instant(c.Median) + ", of the voters' clocks"
	if c.Median == nil {
		median = p.the(yellow, "not known: the clocks of a majority of the voters were not measured lately")
	}
	label("median", median)
	fmt.Fprintln(w)
	var rows [][]cell
	for _, n := range c.Nodes {
		vote, offset, err, measured := plain("voter"), cell{"-", dim}, plain("-"), plain("not lately")
		if !n.Voter {
			vote = cell{"does not count", dim}
		}
		if n.OffsetMS != nil {
			d := millis(*n.OffsetMS)
			offset = plain(fmt.Sprintf("%+.3f s", d.Seconds()))
			if d.Abs()-millis(n.ErrorMS) > admin.ClockOff {
				offset.style = red
			}
			err = plain(fmt.Sprintf("%.3f s", millis(n.ErrorMS).Seconds()))
		}
		switch {
		case n.Self:
			err, measured = plain("-"), plain("this node")
		case n.AgeMS != nil:
			measured = plain(fmt.Sprintf("%.1f s ago", (time.Duration(*n.AgeMS) * time.Millisecond).Seconds()))
		}
		rows = append(rows, []cell{plain(n.Node), vote, offset, err, measured})
	}
	table(w, p, []string{"NODE", "CLOCK", ">OFF BY", ">PRECISE TO", "MEASURED"}, rows)
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
