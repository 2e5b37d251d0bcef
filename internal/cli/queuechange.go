package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

func (p *program) queuePush() *cobra.Command {
	var delay time.Duration
	cmd := &cobra.Command{
		Use:   "push QUEUE PAYLOAD",
		Short: "Push a job, and print its id",
		Long: `push adds a job and prints its id once it is durable: in a cluster, on most nodes. A
payload that is - is read from standard input to its end, and pushed as it is,
line end included. It must be UTF-8.

When the node answers 504, or not at all, the job may have been accepted: look at
the queue before you push it again. Put -- before a payload that begins with a
dash.`,
		Example: `  pogod queue push mail '{"to":"ada@example.org"}'
  pogod queue push mail --delay 5m '{"to":"ada@example.org"}'
  printf %s "$payload" | pogod queue push mail -`,
	}
	p.asking(cmd, []string{queueArg, payloadArg}, func(ctx context.Context, q *question, args []string) error {
		if delay < 0 {
			return usage("--delay must not be below 0")
		}
		payload := []byte(args[1])
		if args[1] == "-" {
			var err error
			payload, err = q.input(ctx, func(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, admin.MaxPush+1)) })
			if err != nil {
				return err
			}
		}
		sent, err := pushBody(payload, delay)
		if err != nil {
			return err
		}
		body, err := send(ctx, changeTimeout, q.u, http.MethodPost, admin.QueuePath(args[0], "jobs"), "", sent)
		if err != nil {
			return err
		}
		return q.newJob(body)
	})
	cmd.Flags().DurationVar(&delay, "delay", 0, "`time` until it is ready, as 5s or 1h30m, to the millisecond")
	return cmd
}

// newJob prints the answer to a push or a retry.
func (q *question) newJob(body []byte) error {
	var job admin.Pushed
	return q.answer(body, &job, func() error {
		if job.ID == "" {
			return unreadable(q.u, nil)
		}
		_, err := fmt.Fprintln(q.Stdout, clean(job.ID))
		return err
	})
}

// input reads standard input. The end of ctx ends it, which a terminal does not wait for.
func (q *question) input(ctx context.Context, read func(io.Reader) ([]byte, error)) ([]byte, error) {
	var text []byte
	var err error
	done := make(chan struct{}) // closed when they are written
	go func() {                 // ended by what is typed, or with the process
		text, err = read(q.Stdin)
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, errors.New("interrupted: nothing was changed")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return text, nil
}

// pushBody makes the body of a push.
func pushBody(payload []byte, delay time.Duration) ([]byte, error) {
	if !utf8.Valid(payload) { // the encoder would put other characters there
		return nil, errors.New("the payload is not UTF-8: encode it, with base64 for example")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it would be longer, and may be too long then
	if err := e.Encode(admin.Job{Payload: string(payload), Delay: delay.Seconds()}); err != nil {
		return nil, err
	}
	if b.Len() > admin.MaxPush {
		return nil, errors.New("the payload is over 16 MiB as a JSON string: no queue takes it")
	}
	return b.Bytes(), nil
}

func (p *program) queueRetry() *cobra.Command {
	var all bool
	var filter admin.Retry
	var before time.Duration
	cmd := &cobra.Command{
		Use:   "retry QUEUE ID",
		Short: "Make fresh jobs of failed ones",
		Long: `retry makes a fresh job of a failed one and prints its id: it is ready at once and has
all its attempts again, and the failed one is gone. --all does it for all that have
failed by now, the oldest first, and prints how many; --error and --before choose
among them. It ends when the queue is full, and can be called again. Jobs that fail
again meanwhile are not retried again.`,
		Example: `  pogod queue retry mail 1763849472123-57
  pogod queue retry mail --all
  pogod queue retry mail --all --error 'timed out' --before 1h`,
	}
	q := p.asking(cmd, nil, func(ctx context.Context, q *question, args []string) error {
		if all {
			filter.Before = before.Seconds()
			return q.retryAll(ctx, args[0], filter)
		}
		body, err := askWithin(ctx, changeTimeout, q.u, http.MethodPost, admin.QueuePath(args[0], "failed", args[1], "retry"), "")
		if err != nil {
			return err
		}
		return q.newJob(body)
	})
	cmd.Flags().BoolVar(&all, "all", false, "all failed jobs of the queue; no ID then")
	cmd.Flags().StringVar(&filter.Error, "error", "", "with --all: those whose reason has this `text` in it, as it is written")
	cmd.Flags().DurationVar(&before, "before", 0, "with --all: those that failed at least this `time` ago, as 30m or 24h")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch chosen := cmd.Flags().Changed("error") || cmd.Flags().Changed("before"); {
		case before < 0:
			return usage("--before must not be below 0")
		case all:
			cmd.Use = "retry QUEUE --all" // for the error
			return q.takes([]string{queueArg})(cmd, args)
		case chosen:
			return usage("--error and --before choose among all failed jobs: add --all, and no ID")
		}
		return q.takes([]string{queueArg, jobArg})(cmd, args)
	}
	cmd.ValidArgsFunction = q.completes(failedIDs)
	return cmd
}

// retryAll retries failed jobs of a queue, all in one request.
func (q *question) retryAll(ctx context.Context, name string, f admin.Retry) error {
	sent, err := json.Marshal(f)
	if err != nil {
		return err
	}
	body, err := q.progress(ctx, name, "failed jobs left", func(d *admin.Queue) uint64 { return d.Failed }, func() ([]byte, error) {
		return send(ctx, changeTimeout, q.u, http.MethodPost, admin.QueuePath(name, "failed", "retry"), "", sent)
	})
	if err != nil {
		return err
	}
	return q.removed(body, "failed job", "retried")
}

// jobs says of how many jobs something was done.
func jobs(n uint64, kind, what string) string {
	if n == 1 {
		return "1 " + kind + " " + what
	}
	return fmt.Sprintf("%d %ss %s", n, kind, what)
}

// removed prints an answer that is a number of jobs.
func (q *question) removed(body []byte, kind, what string) error {
	var r admin.Removed
	return q.answer(body, &r, func() error {
		if r.Queue == "" {
			return unreadable(q.u, nil)
		}
		_, err := fmt.Fprintln(q.Stdout, jobs(r.Count, kind, what))
		return err
	})
}

func (p *program) queueForget() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "forget QUEUE ID",
		Short:   "Delete a failed job",
		Long:    `forget deletes one failed job, for good.`,
		Example: `  pogod queue forget mail 1763849472123-57`,
	}
	q := p.asking(cmd, []string{queueArg, jobArg}, func(ctx context.Context, q *question, args []string) error {
		body, err := askWithin(ctx, changeTimeout, q.u, http.MethodDelete, admin.QueuePath(args[0], "failed", args[1]), "")
		if err != nil {
			return err
		}
		return q.removed(body, "failed job", "deleted")
	})
	cmd.ValidArgsFunction = q.completes(failedIDs)
	return cmd
}

func (p *program) queuePurge() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge QUEUE",
		Short: "Delete all failed jobs of a queue",
		Long: `purge deletes all failed jobs of a queue, for good, and prints how many. On a terminal
it asks first, unless it is told --yes. Other jobs stay.`,
		Example: `  pogod queue purge mail
  pogod queue purge mail --yes`,
	}
	p.asking(cmd, []string{queueArg}, func(ctx context.Context, q *question, args []string) error {
		if !yes && q.screen(q.Stderr) {
			err := q.sure(ctx, args[0], func(d *admin.Queue) string {
				return fmt.Sprintf("delete the failed jobs of queue %s, %d now", clean(d.Queue), d.Failed)
			})
			if err != nil {
				return err
			}
		}
		body, err := askWithin(ctx, changeTimeout, q.u, http.MethodDelete, admin.QueuePath(args[0], "failed"), "")
		if err != nil {
			return err
		}
		return q.removed(body, "failed job", "deleted")
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// look returns a queue as the node sees it.
func (q *question) look(ctx context.Context, name string) (*admin.Queue, error) {
	body, err := ask(ctx, q.u, http.MethodGet, admin.QueuePath(name), "")
	if err != nil {
		return nil, err
	}
	var doc admin.Queue
	if err := json.Unmarshal(body, &doc); err != nil || doc.Queue != name {
		return nil, unreadable(q.u, err)
	}
	return &doc, nil
}

// sure asks a person whether that is to be done to a queue; an error: it is not.
func (q *question) sure(ctx context.Context, name string, what func(*admin.Queue) string) error {
	doc, err := q.look(ctx, name)
	if err != nil {
		return err
	}
	return q.agreed(ctx, what(doc)+"?", "nothing was deleted")
}

// agreed asks a person; an error, in these words for a no: nothing is to be done.
func (q *question) agreed(ctx context.Context, what, otherwise string) error {
	fmt.Fprint(q.Stderr, what, " [y/N] ")
	line, err := q.input(ctx, func(r io.Reader) ([]byte, error) { return bufio.NewReader(r).ReadBytes('\n') })
	if err != nil {
		return err
	}
	switch strings.ToLower(string(bytes.TrimSpace(line))) {
	case "y", "yes":
		return nil
	}
	return errors.New(otherwise)
}
