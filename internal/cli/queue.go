package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
	"pogod/raftfsm/disk"
)

// changeTimeout is how long an answer to a change is waited for: as long as a node takes at
// most, and some.
const changeTimeout = 130 * time.Second

func (p *program) queue() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Show the queues of a running node, push, pause and clear them, and deal with failed jobs",
		Long: `These commands ask the admin endpoint of a running node. In a cluster any node will
do: what is changed is changed for all, and what is shown is that node's state,
with all that it answered before.`,
		Example: `  pogod queue ls
  pogod queue push mail '{"to":"ada@example.org"}'
  pogod queue failed mail
  pogod queue retry mail --all`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	group(cmd)
	cmd.AddCommand(p.queueLs(), p.queueShow(), p.queuePeek(), p.queueFailed(), p.queuePush(), p.queueRetry(), p.queueForget(), p.queuePurge(),
		p.queuePause(), p.queueResume(), p.queueClear(), p.queueDelete(), p.queueDrain())
	return cmd
}

func (p *program) queueLs() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the queues",
		Long: `ls lists the queues that are declared or hold a job: how many jobs are ready, not due
yet, with a worker, failed and acked, and since when the oldest ready one waits.`,
		Example: `  pogod queue ls
  pogod queue ls --json | jq -r '.queues[] | select(.failed > 0) | .queue'`,
	}
	p.asking(cmd, nil, func(ctx context.Context, q *question, _ []string) error {
		body, err := ask(ctx, q.u, http.MethodGet, admin.QueuesPath, "")
		if err != nil {
			return err
		}
		var doc struct{ Queues *[]admin.Queue }
		return q.answer(body, &doc, func() error {
			if doc.Queues == nil {
				return unreadable(q.u, nil)
			}
			queues(q.Stdout, *doc.Queues, q.now(), q.colours())
			return nil
		})
	})
	return cmd
}

func (p *program) queueShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show QUEUE",
		Short: "Show one queue with all its figures",
		Long: `show shows what is in a queue now, and what became of its jobs since it was made. Its
name is one that "pogod queue ls" lists.`,
		Example: `  pogod queue show mail
  pogod queue show mail --json | jq .pending`,
	}
	p.asking(cmd, []string{queueArg}, func(ctx context.Context, q *question, args []string) error {
		body, err := ask(ctx, q.u, http.MethodGet, admin.QueuePath(args[0]), "")
		if err != nil {
			return err
		}
		var doc admin.Queue
		return q.answer(body, &doc, func() error {
			if doc.Queue != args[0] {
				return unreadable(q.u, nil)
			}
			oneQueue(q.Stdout, &doc, q.now(), q.colours())
			return nil
		})
	})
	return cmd
}

// oneQueue prints a queue for people.
func oneQueue(w io.Writer, q *admin.Queue, now time.Time, p paint) {
	label := func(name, text string) { fmt.Fprintf(w, "%s  %s\n", p.the(dim, fmt.Sprintf("%-8s", name)), text) }
	name := p.the(bold, clean(q.Queue))
	if !q.Ready {
		name += p.the(yellow, " (not ready)")
	}
	if q.Paused {
		name += p.the(yellow, " (paused: no job is handed out)")
	}
	label("queue", name)
	ready := fmt.Sprintf("%d ready", q.Pending)
	if q.OldestPendingAt != nil {
		ready += fmt.Sprintf(" (the next one since %s)", age(now, q.OldestPendingAt))
	}
	failed := fmt.Sprintf("%d failed", q.Failed)
	if q.Failed > 0 {
		failed = p.the(red, failed)
	}
	label("now", fmt.Sprintf("%s, %d delayed, %d reserved, %s", ready, q.Delayed, q.Reserved, failed))
	label("so far", fmt.Sprintf("%d pushed, %d delivered, %d acked, %d released, %d failed", q.Enqueued, q.ReservedTotal, q.Acked, q.Released, q.FailedTotal))
	if q.Deleted+q.Purged+q.Retried > 0 {
		label("operated", fmt.Sprintf("%d deleted while they waited, %d failed ones deleted, %d retried", q.Deleted, q.Purged, q.Retried))
	}
	label("refused", fmt.Sprintf("%d full, %d too large, %d while shutting down, %d for the node's own reasons", q.DroppedFull, q.DroppedPayloadTooLarge, q.DroppedShutdown, q.BackendErrors))
	limit := "no limit of its own"
	if q.MaxPayloadBytes > 0 {
		limit = "at most " + disk.Size(int64(q.MaxPayloadBytes))
	}
	label("payload", limit)
	if q.Suspects > 0 {
		label("suspects", p.the(yellow, fmt.Sprintf("%d of the ready jobs ran in a PHP host that crashed: each runs next alone, in quarantine", q.Suspects)))
	}
}

func (p *program) queuePeek() *cobra.Command {
	var limit int
	var state, cursor string
	cmd := &cobra.Command{
		Use:   "peek QUEUE",
		Short: "List the ready jobs of a queue, the next one first",
		Long: `peek lists jobs that wait for a worker, in the order in which they will be taken, and
takes none. Payloads are cut to a line; --json has them whole. --state suspect lists
those that ran in a PHP host that crashed, which wait in a line of their own; delayed
those that are not due, the first due first; reserved those that a worker has, the
oldest first. A page says how to get the next one. Pages are smaller when jobs are large.`,
		Example: `  pogod queue peek mail
  pogod queue peek mail --state delayed
  pogod queue peek mail --limit 1 --json | jq -r '.jobs[0].payload'`,
	}
	p.asking(cmd, []string{queueArg}, func(ctx context.Context, q *question, args []string) error {
		query := url.Values{"limit": {strconv.Itoa(limit)}, "state": {state}}
		if cmd.Flags().Changed("cursor") {
			query.Set("cursor", cursor)
		}
		body, err := ask(ctx, q.u, http.MethodGet, admin.QueuePath(args[0], "jobs"), query.Encode())
		if err != nil {
			return err
		}
		var page admin.JobPage
		return q.answer(body, &page, func() error {
			if page.Queue != args[0] {
				return unreadable(q.u, nil)
			}
			listedJobs(q.Stdout, &page, q.now(), q.colours())
			return nil
		})
	})
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many `jobs`, 1 to 1000")
	cmd.Flags().StringVar(&state, "state", "ready", "`which` jobs: ready, suspect, delayed or reserved")
	cmd.Flags().StringVar(&cursor, "cursor", "", "where the page before ended, as it says")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"ready", "suspect", "delayed", "reserved"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
	return cmd
}

// listedJobs prints a page for people.
func listedJobs(w io.Writer, page *admin.JobPage, now time.Time, p paint) {
	state := clean(page.State)
	if len(page.Jobs) == 0 {
		fmt.Fprintln(w, p.the(dim, "no "+state+" job"))
		return
	}
	header, extra := []string{"JOB", ">PUSHED", ">ATTEMPTS", "PAYLOAD"}, ""
	switch state {
	case "delayed":
		extra = ">DUE"
	case "reserved":
		extra = ">RESERVED"
	}
	if extra != "" {
		header = slices.Insert(header, 2, extra)
	}
	var rows [][]cell
	for _, j := range page.Jobs {
		row := []cell{plain(j.ID), plain(age(now, &j.PushedAt) + " ago"), count(j.Attempts, yellow), plain(dash(cut(clean(j.Payload), 80)))}
		switch {
		case extra == ">DUE" && j.DueAt != nil:
			row = slices.Insert(row, 2, plain("in "+age(*j.DueAt, &now)))
		case extra == ">RESERVED" && j.ReservedAt != nil:
			row = slices.Insert(row, 2, plain(age(now, j.ReservedAt)+" ago, by "+clean(j.Worker)))
		case extra != "":
			row = slices.Insert(row, 2, plain("-"))
		}
		rows = append(rows, row)
	}
	table(w, p, header, rows)
	if page.NextCursor != nil {
		fmt.Fprintln(w, p.the(dim, "there are more: add --cursor "+clean(*page.NextCursor)))
	}
}

func (p *program) queueFailed() *cobra.Command {
	var limit int
	var cursor string
	cmd := &cobra.Command{
		Use:   "failed QUEUE",
		Short: "List the failed jobs of a queue, the newest first",
		Long: `failed lists jobs that failed, the newest first, with why and when. Payloads and
reasons are cut to a line; --json has them whole, with what the job printed last.
A page says how to get the next one, which goes on behind its last job whatever
fails or is retried meanwhile. Pages are smaller when jobs are large.`,
		Example: `  pogod queue failed mail
  pogod queue failed mail --limit 1000
  pogod queue failed mail --json | jq '.failed[0]'`,
	}
	p.asking(cmd, []string{queueArg}, func(ctx context.Context, q *question, args []string) error {
		query := url.Values{"limit": {strconv.Itoa(limit)}}
		if cmd.Flags().Changed("cursor") {
			query.Set("cursor", cursor)
		}
		body, err := ask(ctx, q.u, http.MethodGet, admin.QueuePath(args[0], "failed"), query.Encode())
		if err != nil {
			return err
		}
		var page admin.FailedPage
		return q.answer(body, &page, func() error {
			if page.Queue != args[0] {
				return unreadable(q.u, nil)
			}
			failedJobs(q.Stdout, &page, q.now(), q.colours())
			return nil
		})
	})
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many `jobs`, 1 to 1000")
	cmd.Flags().StringVar(&cursor, "cursor", "", "where the page before ended, as it says")
	return cmd
}

// failedJobs prints a page for people.
func failedJobs(w io.Writer, page *admin.FailedPage, now time.Time, p paint) {
	if len(page.Failed) == 0 {
		fmt.Fprintln(w, p.the(dim, "no failed job"))
		return
	}
	var rows [][]cell
	for _, j := range page.Failed {
		rows = append(rows, []cell{
			plain(j.ID), plain(age(now, &j.FailedAt) + " ago"), count(j.Attempts, ""),
			plain(dash(cut(clean(j.Reason), 60))), plain(dash(cut(clean(j.Payload), 60))),
		})
	}
	table(w, p, []string{"JOB", ">FAILED", ">ATTEMPTS", "REASON", "PAYLOAD"}, rows)
	if page.NextCursor != nil {
		fmt.Fprintln(w, p.the(dim, "there are older ones: add --cursor "+clean(*page.NextCursor)))
	}
}
