package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/config"
)

const (
	defaultAdmin = "http://127.0.0.1:8082"
	adminEnv     = "POGOD_ADMIN"
	caEnv        = "POGOD_ADMIN_CA"
	tokenEnv     = "POGOD_TOKEN"
	tokenFileEnv = "POGOD_TOKEN_FILE"
	askTimeout   = 10 * time.Second
	maxAnswer    = 64 << 20 // bytes of an answer
)

// endpoint is how a command is told which node to ask, and who asks.
type endpoint struct{ admin, file, ca, token, tokenFile string }

// target is the endpoint to ask.
type target struct {
	*url.URL
	token string      // "": none
	tls   *tls.Config // nil: as the system has it
}

func (e *endpoint) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&e.admin, "admin", "", "`URL` of the node's admin endpoint (default $"+adminEnv+", or "+defaultAdmin+")")
	cmd.Flags().StringVar(&e.file, "config", "", "configuration `file` of the node, for its [admin] listen; --admin goes over it")
	cmd.Flags().StringVar(&e.ca, "admin-ca", "", "`file` of the authority of the endpoint's certificate, PEM (default $"+caEnv+")")
	cmd.Flags().StringVar(&e.tokenFile, "token-file", "", "`file` with the token that the endpoint wants (default $"+tokenFileEnv+")")
	cmd.Flags().StringVar(&e.token, "token", "", "the `token` itself, which others on this machine may see (default $"+tokenEnv+")")
	_ = cmd.MarkFlagFilename("config", "toml") // fails only for a flag that does not exist
	for _, flag := range []string{"admin-ca", "token-file"} {
		_ = cmd.MarkFlagFilename(flag) // likewise
	}
}

// url returns where to ask: the flags say, or the environment, or it is the default.
func (e *endpoint) url(cmd *cobra.Command) (*target, error) {
	address, from := defaultAdmin, ""
	switch env := os.Getenv(adminEnv); {
	case cmd.Flags().Changed("admin"):
		address, from = e.admin, "--admin"
	case e.file != "":
		c, err := loadPart(config.Options{File: e.file})
		if err != nil {
			return nil, err
		}
		if _, port, _ := net.SplitHostPort(c.Admin.Listen); port == "0" {
			return nil, fmt.Errorf("[admin] listen = %q in %s takes any free port: name the address that \"pogod serve\" printed with --admin", c.Admin.Listen, e.file)
		}
		return e.local(cmd, c.Admin)
	case env != "":
		address, from = env, "the environment's "+adminEnv
	}
	authority, err := e.authority(cmd)
	if err != nil {
		return nil, err
	}
	if authority != nil && !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := adminURL(address)
	if err != nil {
		return nil, usage("%s %v", from, err)
	}
	t := &target{URL: u, tls: authority}
	t.token, err = e.bearer(cmd)
	return t, err
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

// ask returns the document with which the endpoint at base answers.
func ask(ctx context.Context, base *target, method, path, query string) ([]byte, error) {
	return askWithin(ctx, askTimeout, base, method, path, query)
}

// askWithin is ask for what may take longer.
func askWithin(ctx context.Context, timeout time.Duration, base *target, method, path, query string) ([]byte, error) {
	return send(ctx, timeout, base, method, path, query, nil)
}

// send is askWithin with a body. A problem that the node answers is a refusal.
func send(ctx context.Context, timeout time.Duration, base *target, method, path, query string, sent []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	changes := method != http.MethodGet
	r, err := request(ctx, base, method, path, query, sent)
	if errors.Is(err, ErrUsage) {
		return nil, err
	}
	if err != nil {
		return nil, unanswered(base, changes, err)
	}
	defer func() { _ = r.Body.Close() }() // it was read to its end, or failed
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	if err != nil {
		return nil, unanswered(base, changes, err)
	}
	if r.StatusCode == http.StatusOK && json.Valid(body) {
		return body, nil
	}
	return nil, refused(base, r, body)
}

// refused is the error of an answer that is not what was asked for.
func refused(base *target, r *http.Response, body []byte) error {
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
		return &refusal{base.String(), r.StatusCode, clean(problem.Detail)}
	}
	return fmt.Errorf("what answers at %s (%s) is not pogod's admin endpoint: name that with --admin", base, clean(r.Status))
}

// request sends a question and returns the answer, whatever it is. Its body is to be
// closed.
func request(ctx context.Context, base *target, method, path, query string, sent []byte) (*http.Response, error) {
	u := base.JoinPath(path)
	u.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(sent))
	if err != nil {
		return nil, usage("%v", err)
	}
	req.Header.Set("Accept", "application/json")
	if base.token != "" {
		req.Header.Set("Authorization", "Bearer "+base.token)
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		DialContext:       (&net.Dialer{Timeout: askTimeout}).DialContext,
		TLSClientConfig:   base.tls,
		DisableKeepAlives: true, // so that no connection outlives the question
	}}
	return client.Do(req)
}

// refusal is a problem that a node answers.
type refusal struct {
	base   string
	status int
	detail string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the node at %s answers %d: %s", r.base, r.status, r.detail)
}

// unanswered is the error of a question without an answer. One that was to change
// something, and may have come to the node, may be done.
func unanswered(base *target, changes bool, err error) error {
	var dial *net.OpError
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("the certificate of the node at %s is not trusted (%s): name its authority with --admin-ca, or the name that it is for with --admin", base, clean(untrusted.Err.Error()))
	}
	if changes && !(errors.As(err, &dial) && dial.Op == "dial") {
		return fmt.Errorf("the node at %s was asked and did not answer (%s): it may have done it, or do it yet; look before you ask again", base, clean(cause(err).Error()))
	}
	return unreachable(base, err)
}

// cause is an error of the HTTP client without the question.
func cause(err error) error {
	if u, ok := err.(*url.Error); ok { //nolint:errorlint // client.Do returns just that
		return u.Err
	}
	return err
}

// unreachable is the error of a node that does not answer.
func unreachable(base *target, err error) error {
	return &fault{fmt.Sprintf(`no node answers at %s (%s): start one with "pogod serve", or name its admin address with --admin`,
		base, clean(cause(err).Error())), ErrUnreachable}
}
