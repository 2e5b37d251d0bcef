package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// What arguments are called.
const (
	queueArg   = "a queue"
	jobArg     = "the id of a failed job"
	anyJobArg  = "the id of a job"
	payloadArg = "a payload"
)

// question is a command that asks the admin endpoint.
type question struct {
	*program
	cmd    *cobra.Command
	from   endpoint
	asJSON bool
	u      *target // once it runs
}

// asking makes of cmd one that runs f, with its arguments checked: what names them, each
// must not be empty.
func (p *program) asking(cmd *cobra.Command, what []string, f func(ctx context.Context, q *question, args []string) error) *question {
	q := &question{program: p, cmd: cmd}
	cmd.Args = q.takes(what)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	if len(what) > 0 && what[0] == queueArg {
		cmd.ValidArgsFunction = q.completes()
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if q.u, err = q.from.url(cmd); err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		return f(ctx, q, args)
	}
	cmd.Flags().BoolVar(&q.asJSON, "json", false, "print the document as the node sent it")
	q.from.flags(cmd)
	return q
}

// takes checks that there are just these arguments, and that those which are part of an
// address, all but a payload, say something.
func (q *question) takes(what []string) cobra.PositionalArgs {
	if len(what) == 0 {
		return noArgs
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(what) {
			return usage(`%s takes %s, as "%s": "%[1]s --help" has examples`, cmd.CommandPath(), strings.Join(what, " and "), cmd.Parent().CommandPath()+" "+cmd.Use)
		}
		for i, arg := range args {
			if arg == "" && what[i] != payloadArg {
				return usage("%s must not be empty", what[i])
			}
		}
		return nil
	}
}

// answer prints the document when that is wanted, and otherwise reads it for text.
func (q *question) answer(body []byte, into any, text func() error) error {
	if q.asJSON {
		_, err := fmt.Fprintln(q.Stdout, strings.TrimSpace(string(body)))
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return unreadable(q.u, err)
	}
	return text()
}
