package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

// completeWithin is how long a shell waits for names: a node that is slower, or none, has
// none to offer.
const completeWithin = 300 * time.Millisecond

// listed returns what a node lists, for a queue.
type listed func(ctx context.Context, t *target, queue string) []string

// completes offers the queues for the first argument, and what of returns for the second.
func (q *question) completes(of ...listed) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) (found []string, d cobra.ShellCompDirective) {
		d = cobra.ShellCompDirectiveNoFileComp
		if len(args) > 1 || len(args) == 1 && len(of) == 0 {
			return nil, d
		}
		t, err := q.from.url(cmd)
		if err != nil {
			return nil, d
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		lists, queue := []listed{queueNames}, ""
		if len(args) == 1 {
			lists, queue = of, args[0]
		}
		for _, list := range lists {
			for _, name := range list(ctx, t, queue) {
				if strings.HasPrefix(name, typed) && clean(name) == name {
					found = append(found, name)
				}
			}
		}
		return found, d
	}
}

func queueNames(ctx context.Context, t *target, _ string) (names []string) {
	var doc admin.QueueList
	get(ctx, t, admin.QueuesPath, "", &doc)
	for _, q := range doc.Queues {
		names = append(names, q.Queue)
	}
	return names
}

func failedIDs(ctx context.Context, t *target, queue string) (ids []string) {
	var doc admin.FailedPage
	get(ctx, t, admin.QueuePath(queue, "failed"), "limit=50", &doc)
	for _, j := range doc.Failed {
		ids = append(ids, j.ID)
	}
	return ids
}

func readyIDs(ctx context.Context, t *target, queue string) (ids []string) {
	var doc admin.JobPage
	get(ctx, t, admin.QueuePath(queue, "jobs"), "limit=50", &doc)
	for _, j := range doc.Jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

// get reads a document, and nothing when there is none.
func get(ctx context.Context, t *target, path, query string, into any) {
	if body, err := ask(ctx, t, http.MethodGet, path, query); err == nil {
		_ = json.Unmarshal(body, into) // what cannot be read offers nothing
	}
}
