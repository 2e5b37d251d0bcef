package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

func (p *program) status() *cobra.Command {
	var watch, consistent bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running node does",
		Long: `status asks a node's admin endpoint and shows the node, its queues, workers, pools,
PHP hosts and storage. Numbers of queues are jobs: ready, delayed until later,
reserved by an attempt that runs, failed, and acked since the queue was first
used; OLDEST is how long the oldest ready job has waited. Those of pools count what
was dispatched since the node started; WAIT and RUN are averages. SOCKETS is the
WebSocket hub.

In a cluster every node answers for itself: "state" says whose view it is, and how
old it may be. --consistent waits until the node has caught up with the leader.`,
		Example: `  pogod status
  pogod status --watch
  pogod status --consistent --config /etc/pogod/pogod.toml
  pogod status --json | jq '.queues[] | {queue, pending}'
  pogod status --admin http://127.0.0.1:9082`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		v := &viewer{program: p, url: q.u, json: q.asJSON, screen: p.screen(p.Stdout), paint: p.colours()}
		if consistent {
			v.query = "consistent=1"
		}
		if watch {
			return v.watch(ctx)
		}
		text, err := v.look(ctx)
		if err == nil {
			_, err = p.Stdout.Write(text)
		}
		return err
	})
	cmd.Flags().BoolVar(&watch, "watch", false, "look again each second, until interrupted")
	cmd.Flags().BoolVar(&consistent, "consistent", false, "with all that any node of the cluster has answered before; fails without a leader")
	return cmd
}

// colours says whether stdout takes colours.
func (p *program) colours() paint {
	return paint(p.screen(p.Stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

// viewer shows a node's status.
type viewer struct {
	*program
	url    *target
	query  string // of the question
	json   bool   // the document as it came
	screen bool   // stdout is a terminal
	paint  paint
}

// look asks once and returns what to print.
func (v *viewer) look(ctx context.Context) ([]byte, error) {
	body, err := ask(ctx, v.url, http.MethodGet, "/status", v.query)
	if err != nil {
		return nil, err
	}
	if v.json {
		return append(bytes.TrimSuffix(body, []byte("\n")), '\n'), nil
	}
	var s admin.Status
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, unreadable(v.url, err)
	}
	var b bytes.Buffer
	view(&b, &s, v.now(), v.paint)
	return b.Bytes(), nil
}

// Sequences of a terminal.
const (
	clearScreen = "\x1b[2J"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watch looks each second until the context ends, which is no error. A node
// that answered once may go away and come back meanwhile.
func (v *viewer) watch(ctx context.Context) error {
	ticks, stop := v.tick()
	defer stop()
	for first := true; ; first = false {
		text, err := v.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil && v.screen && !v.json:
			text = fmt.Appendf(nil, "%v\n\ntrying again each second, until interrupted\n", err)
		case err != nil:
			fmt.Fprintln(v.Stderr, "pogod:", err)
		}
		if v.screen && !v.json { // drawn over the last view, without flicker
			text = append(bytes.ReplaceAll(text, []byte("\n"), []byte(clearLine+"\n")), clearBelow...)
			text = append([]byte(home), text...)
			if first {
				text = append([]byte(clearScreen), text...)
			}
		} else if !v.json && !first && len(text) > 0 {
			text = append([]byte("\n"), text...)
		}
		if _, err := v.Stdout.Write(text); err != nil {
			return err
		}
		select {
		case <-ticks:
		case <-ctx.Done():
			return nil
		}
	}
}
