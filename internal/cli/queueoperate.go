package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

func (p *program) queuePause() *cobra.Command {
	return p.pausing(&cobra.Command{
		Use:   "pause QUEUE",
		Short: "Hand out no more jobs of a queue",
		Long: `pause has nothing more handed to workers from a queue, on any node, until it is
resumed. Jobs that run go on, pushes are accepted, delayed jobs become ready. It
stays paused through restarts.`,
		Example: `  pogod queue pause mail`,
	}, "paused")
}

func (p *program) queueResume() *cobra.Command {
	return p.pausing(&cobra.Command{
		Use:     "resume QUEUE",
		Short:   "Hand out the jobs of a paused queue again",
		Long:    `resume ends a pause. A queue that is not paused stays as it is.`,
		Example: `  pogod queue resume mail`,
	}, "resumed")
}

// pausing makes of cmd one that asks for what it is called.
func (p *program) pausing(cmd *cobra.Command, done string) *cobra.Command {
	verb := cmd.Name()
	p.asking(cmd, []string{queueArg}, func(ctx context.Context, q *question, args []string) error {
		body, err := askWithin(ctx, changeTimeout, q.u, http.MethodPost, admin.QueuePath(args[0], verb), "")
		if err != nil {
			return err
		}
		var r admin.Paused
		return q.answer(body, &r, func() error {
			if r.Queue != args[0] {
				return unreadable(q.u, nil)
			}
			_, err := fmt.Fprintf(q.Stdout, "%s is %s\n", clean(r.Queue), done)
			return err
		})
	})
	return cmd
}

func (p *program) queueClear() *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{
		Use:   "clear QUEUE",
		Short: "Delete all jobs that wait in a queue",
		Long: `clear deletes the jobs of a queue that wait, ready or delayed, for good, and prints how
many. Jobs that run stay, and so do failed ones, which purge deletes. What is pushed
meanwhile may go or stay. On a terminal it asks first, unless it is told --yes.`,
		Example: `  pogod queue clear mail --dry-run
  pogod queue clear mail
  pogod queue clear mail --yes --json`,
	}
	p.asking(cmd, []string{queueArg}, func(ctx context.Context, q *question, args []string) error {
		if dry {
			return q.wouldClear(ctx, args[0])
		}
		if !yes && q.screen(q.Stderr) {
			err := q.sure(ctx, args[0], func(d *admin.Queue) string {
				return fmt.Sprintf("delete the jobs that wait in queue %s, %d ready and %d delayed now", clean(d.Queue), d.Pending, d.Delayed)
			})
			if err != nil {
				return err
			}
		}
		body, err := q.progress(ctx, args[0], "jobs left", func(d *admin.Queue) uint64 { return d.Pending + d.Delayed }, func() ([]byte, error) {
			return askWithin(ctx, changeTimeout, q.u, http.MethodDelete, admin.QueuePath(args[0], "jobs"), "")
		})
		if err != nil {
			return err
		}
		return q.removed(body, "job", "deleted")
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say how many it would be, and delete none")
	return cmd
}

// wouldClear says what clear would do.
func (q *question) wouldClear(ctx context.Context, name string) error {
	doc, err := q.look(ctx, name)
	if err != nil {
		return err
	}
	if q.asJSON {
		return printJSON(q.Stdout, struct {
			admin.Removed
			DryRun bool `json:"dry_run"`
		}{admin.Removed{Queue: name, Count: doc.Pending + doc.Delayed}, true})
	}
	_, err = fmt.Fprintf(q.Stdout, "%s: %d ready, %d delayed\n", jobs(doc.Pending+doc.Delayed, "job", "would be deleted"), doc.Pending, doc.Delayed)
	return err
}

func (p *program) queueDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete QUEUE ID",
		Short: "Delete a job",
		Long: `delete deletes one job that is ready, delayed or failed, for good. One that a worker
has is refused: it goes on, and can be deleted when it is back in line or has failed.
A job that was put back is looked for among all that wait, which takes a moment in a
long queue.`,
		Example: `  pogod queue delete mail 1763849472123-57`,
	}
	q := p.asking(cmd, []string{queueArg, anyJobArg}, func(ctx context.Context, q *question, args []string) error {
		body, err := askWithin(ctx, changeTimeout, q.u, http.MethodDelete, admin.QueuePath(args[0], "jobs", args[1]), "")
		if err != nil {
			return err
		}
		return q.removed(body, "job", "deleted")
	})
	cmd.ValidArgsFunction = q.completes(readyIDs, failedIDs)
	return cmd
}

func (p *program) queueDrain() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "drain QUEUE",
		Short: "Wait until a queue is empty",
		Long: `drain waits until no job of a queue is ready, delayed or with a worker, as all nodes see
it; failed jobs do not count. It changes nothing: stop what pushes before. With
--timeout it fails when the queue is not empty by then. A paused queue does not get
empty and is refused.`,
		Example: `  pogod queue drain mail
  pogod queue drain mail --timeout 10m && pogod queue pause mail`,
	}
	p.asking(cmd, []string{queueArg}, func(ctx context.Context, q *question, args []string) error {
		if timeout < 0 {
			return usage("--timeout must not be below 0")
		}
		return q.drain(ctx, args[0], timeout)
	})
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "the longest `time` to wait, as 90s or 10m; 0: as long as it takes")
	cmd.Flags().Lookup("json").Usage = "print the queue as it is then, as show does"
	return cmd
}

// drain waits until a queue is empty. A node that answered once may go away and come back
// meanwhile.
func (q *question) drain(ctx context.Context, name string, timeout time.Duration) error {
	ticks, stop := q.tick()
	defer stop()
	begin, line := q.now(), q.newLine()
	defer line.end()
	var last *admin.Queue
	for {
		doc, err := q.waiting(ctx, name)
		var refused *refusal
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted: the queue is not empty")
		case err != nil && (last == nil || errors.As(err, &refused) && refused.status < http.StatusInternalServerError):
			return err
		case err != nil:
			line.write("%v", err)
		case left(doc) == 0:
			line.end()
			return q.empty(doc)
		case doc.Paused:
			return fmt.Errorf(`queue %s is paused and does not get empty: "pogod queue resume %s" has its %d jobs handed out, "pogod queue clear %s" deletes those that wait`, clean(name), clean(name), left(doc), clean(name))
		default:
			last = doc
			line.write("%s: %d ready, %d delayed, %d reserved, after %s", clean(name), doc.Pending, doc.Delayed, doc.Reserved, q.now().Sub(begin).Round(time.Second))
		}
		if timeout > 0 && q.now().Sub(begin) >= timeout {
			return fmt.Errorf("queue %s is not empty after %s: %d ready, %d delayed, %d reserved", clean(name), timeout, last.Pending, last.Delayed, last.Reserved)
		}
		select {
		case <-ticks:
		case <-ctx.Done():
		}
	}
}

func left(d *admin.Queue) uint64 { return d.Pending + d.Delayed + d.Reserved }

// waiting looks at a queue; one that this node sees empty is looked at again with all that
// any node has answered.
func (q *question) waiting(ctx context.Context, name string) (*admin.Queue, error) {
	doc, err := q.look(ctx, name)
	if err != nil || left(doc) > 0 {
		return doc, err
	}
	body, err := ask(ctx, q.u, http.MethodGet, "/status", "consistent=1")
	if err != nil {
		return nil, err
	}
	var all admin.Status
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, unreadable(q.u, err)
	}
	for i := range all.Queues {
		if all.Queues[i].Queue == name {
			return &all.Queues[i], nil
		}
	}
	return doc, nil // no longer declared, and empty
}

// empty says that a queue is.
func (q *question) empty(doc *admin.Queue) error {
	if q.asJSON {
		return printJSON(q.Stdout, doc)
	}
	_, err := fmt.Fprintf(q.Stdout, "%s is empty: %d acked, %d failed so far\n", clean(doc.Queue), doc.Acked, doc.FailedTotal)
	return err
}
