package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

const (
	defaultAdmin = "http://127.0.0.1:8082"
	adminEnv     = "POGOD_ADMIN"
	askTimeout   = 10 * time.Second
	maxAnswer    = 64 << 20 // bytes of a status document
)

func (p *program) status() *cobra.Command {
	var asJSON, watch bool
	var address string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running node does",
		Long: `status asks a node's admin endpoint and shows the node, its queues, workers, PHP
hosts and storage. Numbers of queues are jobs: ready, delayed until later,
reserved by an attempt that runs, failed, and acked since the queue was first
used; OLDEST is how long the oldest ready job has waited.`,
		Example: `  pogod status
  pogod status --watch
  pogod status --json | jq '.queues[] | {queue, pending}'
  pogod status --admin http://127.0.0.1:9082`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from := "--admin"
			if !cmd.Flags().Changed("admin") {
				address = defaultAdmin
				if e := os.Getenv(adminEnv); e != "" {
					address, from = e, "the environment's "+adminEnv
				}
			}
			u, err := adminURL(address)
			if err != nil {
				return usage("%s %v", from, err)
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			v := &viewer{program: p, url: u, json: asJSON, screen: terminal(p.Stdout)}
			v.paint = paint(v.screen && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
			if watch {
				return v.watch(ctx)
			}
			text, err := v.look(ctx)
			if err == nil {
				_, err = p.Stdout.Write(text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the document as the node sent it")
	cmd.Flags().BoolVar(&watch, "watch", false, "look again each second, until interrupted")
	cmd.Flags().StringVar(&address, "admin", "", "`URL` of the node's admin endpoint (default $"+adminEnv+", or "+defaultAdmin+")")
	return cmd
}

// adminURL reads an admin address; its scheme may be left out.
func adminURL(address string) (*url.URL, error) {
	full := address
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("must be a URL, as %s, not %q", defaultAdmin, address)
	}
	return u, nil
}

// viewer shows a node's status.
type viewer struct {
	*program
	url    *url.URL
	json   bool // the document as it came
	screen bool // stdout is a terminal
	paint  paint
}

// look asks once and returns what to print.
func (v *viewer) look(ctx context.Context) ([]byte, error) {
	body, err := ask(ctx, v.url)
	if err != nil {
		return nil, err
	}
	if v.json {
		return append(bytes.TrimSuffix(body, []byte("\n")), '\n'), nil
	}
	var s admin.Status
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("the node at %s sent a status that this pogod cannot read (%w): use one of the same version, or --json", v.url, err)
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

// ask gets the status document.
func ask(ctx context.Context, base *url.URL) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("status").String(), nil)
	if err != nil {
		return nil, usage("%v", err)
	}
	req.Header.Set("Accept", "application/json")
	client := &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		DialContext:       (&net.Dialer{Timeout: askTimeout}).DialContext,
		DisableKeepAlives: true, // so that no connection outlives the question
	}}
	r, err := client.Do(req)
	if err != nil {
		return nil, unreachable(base, err)
	}
	defer func() { _ = r.Body.Close() }() // it was read to its end, or failed
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	if err != nil {
		return nil, unreachable(base, err)
	}
	if r.StatusCode == http.StatusOK && json.Valid(body) {
		return body, nil
	}
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
		return nil, fmt.Errorf("the node at %s answers %d: %s", base, r.StatusCode, clean(problem.Detail))
	}
	return nil, fmt.Errorf("what answers at %s (%s) is not pogod's admin endpoint: name that with --admin", base, clean(r.Status))
}

// unreachable is the error of a node that does not answer.
func unreachable(base *url.URL, err error) error {
	if u, ok := err.(*url.Error); ok { //nolint:errorlint // client.Do returns just that
		err = u.Err
	}
	return &fault{fmt.Sprintf(`no node answers at %s (%s): start one with "pogod serve", or name its admin address with --admin`,
		base, clean(err.Error())), ErrUnreachable}
}
