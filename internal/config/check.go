package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The checks of single values. Their errors begin with a verb, so that the name
// of the key goes before: "[web] listen" + " must be host:port".

// CheckName returns nil for a good name of a queue or a worker: 1 to MaxName
// bytes of UTF-8 without control characters, spaces and '/'.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("must not be empty")
	case len(name) > MaxName:
		return fmt.Errorf("must be at most %d bytes, not %d", MaxName, len(name))
	case !utf8.ValidString(name):
		return errors.New("must be UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("must have no '/', no space and no control character, but is %q", name)
	}
	return nil
}

func checkListen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf(`must be host:port, as "127.0.0.1:8080", not %q`, addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("must have a port from 0 to 65535, not %q", port)
	} else if strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("must have a plain port number, not %q", port)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == '/' || !unicode.IsPrint(r) }) {
		return fmt.Errorf("must have a host name or an IP address, not %q", host)
	}
	return nil
}

// checkExposed keeps the admin endpoint on loopback, unless it serves over TLS and asks for
// a token.
func checkExposed(a *Admin) error {
	host, _, _ := net.SplitHostPort(a.Listen)
	if ip, err := netip.ParseAddr(host); a.Insecure || host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	if a.TLS != (TLS{}) && len(a.Tokens) > 0 {
		return nil
	}
	missing := "tls and tokens"
	switch {
	case a.TLS != (TLS{}):
		missing = "tokens"
	case len(a.Tokens) > 0:
		missing = "tls"
	}
	return fmt.Errorf(`is %q, which others can reach: set [admin] %s ("pogod admin token NAME" makes a token), or take an address of this machine alone, as "127.0.0.1:8082"; --insecure does without`, a.Listen, missing)
}

var tokenHash = regexp.MustCompile(`^sha256:[0-9a-fA-F]{64}$`)

var tokenRole = oneOf("read", "operate", "admin")

func checkHash(hash string) error {
	if tokenHash.MatchString(hash) {
		return nil
	}
	return errors.New(`must be "sha256:" and 64 hexadecimal digits, as "pogod admin token" prints it; the token itself does not belong here`)
}

func checkTokens(all []AdminToken) error {
	for i, t := range all {
		if err := cmp.Or(CheckName(t.Name), tokenRole(t.Role), checkHash(t.Hash)); err != nil {
			return err
		}
		if slices.ContainsFunc(all[:i], func(o AdminToken) bool { return o.Name == t.Name }) {
			return fmt.Errorf("must have each name once, not %q twice", t.Name)
		}
	}
	return nil
}

// CheckAddress returns nil for host:port that another node can connect to.
func CheckAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || everywhere(host) || port == "0" {
		return fmt.Errorf(`must be an address that other nodes connect to, as "node1:8083", not %q`, addr)
	}
	return checkListen(addr)
}

// checkOwn is the check of [cluster] listen where nothing else says at which
// address the other nodes reach this one.
func checkOwn(addr string) error {
	if host, _, _ := net.SplitHostPort(addr); everywhere(host) {
		return fmt.Errorf(`is %q, which is every address of this machine and names none: set [cluster] advertise to the one at which the other nodes reach it, as "node1:8083"`, addr)
	}
	return nil
}

// everywhere says whether a host is all addresses of a machine.
func everywhere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}

func checkJoin(addrs []string) error {
	for i, a := range addrs {
		if err := CheckAddress(a); err != nil {
			return err
		}
		if slices.Contains(addrs[:i], a) {
			return fmt.Errorf("must name each address once, not %q twice", a)
		}
	}
	return nil
}

func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(words, s) {
			return nil
		}
		err := fmt.Errorf("must be %s, not %q", quotedList(words), s)
		if w := nearest(s, slices.Clone(words)); w != "" {
			err = fmt.Errorf("%w: did you mean %q?", err, w)
		}
		return err
	}
}

func quotedList(words []string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(w))
	}
	return b.String()
}

func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("must not be empty")
	case strings.ContainsRune(path, 0):
		return errors.New("must have no NUL character")
	case path == "~" || strings.HasPrefix(path, "~/"):
		return fmt.Errorf("must be a plain path, not %q: write the home directory out", path)
	}
	return nil
}

func checkIndex(path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if !filepath.IsLocal(path) || path == "." {
		return fmt.Errorf("must be a file in [web] root, not %q", path)
	}
	return nil
}

// checkAccessLog takes no bare word but its own two for a path: it is a mistake.
func checkAccessLog(to string) error {
	if to == AccessOff || to == AccessLog {
		return nil
	}
	if err := checkPath(to); err != nil {
		return err
	}
	if !strings.ContainsAny(to, "/.") {
		return fmt.Errorf(`must be "off", "log" for the node's log, or the path of a file, as "log/access.jsonl", not %q`, to)
	}
	return nil
}

// memoryLimit is PHP's shorthand for bytes.
var memoryLimit = regexp.MustCompile(`^(-1|[0-9]{1,15}[KMGkmg]?)$`)

func checkMemoryLimit(s string) error {
	if memoryLimit.MatchString(s) {
		return nil
	}
	return fmt.Errorf(`must be PHP's memory_limit, as "256M", or "-1" for no limit, not %q`, s)
}

func checkIni(name, text string) error {
	switch {
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '=' || r == ';' || !unicode.IsPrint(r) }):
		return fmt.Errorf("must have names of php.ini settings, not %q", name)
	case strings.ContainsAny(text, "\x00\r\n"):
		return fmt.Errorf("must have values of one line, but that of %q has more", name)
	}
	return nil
}

func checkEnv(name, text string) error {
	switch {
	case name == "" || strings.ContainsAny(name, "=\x00"):
		return fmt.Errorf("must have names of variables, not %q", name)
	case strings.ContainsRune(text, 0):
		return fmt.Errorf("must have values without NUL, but that of %q has one", name)
	}
	return nil
}

// bounds of a number, both included.
type bounds struct{ least, most int64 }

func (b bounds) check(n int64) error {
	if n < b.least || n > b.most {
		return fmt.Errorf("must be %d to %d, not %d", b.least, b.most, n)
	}
	return nil
}

// stretch is the bounds of a duration, both included.
type stretch struct{ least, most time.Duration }

func (s stretch) check(d time.Duration) error {
	if d < s.least || d > s.most {
		return fmt.Errorf("must be %s to %s, not %s", short(s.least), short(s.most), short(d))
	}
	return nil
}

// short writes a duration as one would write it into the file: 1h, not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

var (
	pageThreads    = bounds{1, MaxThreads}
	workerThreads  = bounds{0, MaxThreads}
	attemptBounds  = bounds{0, 1_000_000}
	countBounds    = bounds{0, 1 << 60}
	shutdownBounds = stretch{0, time.Hour}
	graceBounds    = stretch{0, time.Hour}
	pushBounds     = stretch{100 * time.Millisecond, 10 * time.Minute}
	attemptTime    = stretch{100 * time.Millisecond, 8760 * time.Hour}
	backoffTime    = stretch{0, 8760 * time.Hour}
	poolWait       = stretch{time.Millisecond, time.Hour}
)

const maxBackoff = 100 // entries

func checkPayloadBytes(n int64) error {
	if n < 1 || n > MaxPayloadBytes {
		return fmt.Errorf("must be 1 to %d (15 MiB, so that a job fits into one entry of the log), not %d: keep larger things in a file or an object store and push their name", MaxPayloadBytes, n)
	}
	return nil
}

// Validate checks every value again, and those that depend on each other.
// Load has called it: a Config that Load returned is valid until it is changed.
func (c *Config) Validate() error {
	var all checks
	all.add("[node] data_dir", checkAbs(c.Node.DataDir))
	all.add("[node] socket", checkAbs(c.Node.Socket), checkSocket(c.Node.Socket))
	all.add("[node] mode", oneOf(ModeDevelopment, ModeProduction)(c.Node.Mode))
	all.add("[node] log_level", logLevel(c.Node.LogLevel))
	all.add("[node] log_format", logFormat(c.Node.LogFormat))
	all.add("[node] shutdown_timeout", shutdownBounds.check(c.Node.ShutdownTimeout))
	all.add("[node] push_timeout", pushBounds.check(c.Node.PushTimeout))
	all.add("[node] min_free_bytes", countBounds.check(c.Node.MinFreeBytes))
	all.add("[php] app", checkAbs(c.PHP.App))
	for k, v := range c.PHP.Ini {
		all.add("[php] ini", checkIni(k, v))
	}
	if c.PHP.MemoryLimit != "" {
		all.add("[php] memory_limit", checkMemoryLimit(c.PHP.MemoryLimit))
	}
	if c.PHP.ExtensionDir != "" {
		all.add("[php] extension_dir", checkAbs(c.PHP.ExtensionDir))
	}
	all.add("[php] kill_grace", graceBounds.check(c.PHP.KillGrace))
	all.add("[web] listen", checkListen(c.Web.Listen))
	all.add("[web] root", checkAbs(c.Web.Root), checkWithin(c.PHP.App, c.Web.Root))
	all.add("[web] index", checkIndex(c.Web.Index))
	if c.Web.Worker != "" {
		all.add("[web] worker", checkAbs(c.Web.Worker), checkWithin(c.PHP.App, c.Web.Worker))
	}
	all.add("[web] threads", pageThreads.check(int64(c.Web.Threads)))
	all.add("[web] access_log", checkAccessLog(c.Web.AccessLog))
	all.add("[web] trusted_proxies", checkProxies(c.Web.TrustedProxies))
	if c.Web.TLS != (TLS{}) {
		all.add("[web] tls", checkAbs(c.Web.TLS.Cert), checkAbs(c.Web.TLS.Key))
	}
	if c.Admin.TLS != (TLS{}) {
		all.add("[admin] tls", checkAbs(c.Admin.TLS.Cert), checkAbs(c.Admin.TLS.Key))
	}
	all.add("[admin] tokens", checkTokens(c.Admin.Tokens))
	all.add("[admin] listen", checkListen(c.Admin.Listen), checkExposed(&c.Admin), checkApart(c.Admin.Listen, "[web] listen", c.Web.Listen))
	all.websocket(c)
	all.add("[cluster] listen", checkListen(c.Cluster.Listen), checkClusterApart(c))
	if c.Cluster.Advertise == c.Cluster.Listen {
		all.add("[cluster] listen", checkOwn(c.Cluster.Listen))
	} else {
		all.add("[cluster] advertise", CheckAddress(c.Cluster.Advertise))
	}
	all.add("[cluster] join", checkJoin(c.Cluster.Join))
	all.queue("[queue]", c.Queue.Defaults)
	for i, q := range c.Queue.Declared {
		all.add("[queue] the name of a queue", CheckName(q.Name))
		if i > 0 && q.Name <= c.Queue.Declared[i-1].Name {
			all.add("[queue]", fmt.Errorf("must be sorted and have no queue twice, not %q", q.Name))
		}
		all.queue("[queue."+q.Name+"]", q)
	}
	if _, ok := c.Queue.Lookup(defaultName); !ok {
		all.add("[queue]", fmt.Errorf("must have the queue %q", defaultName))
	}
	names := map[string]bool{}
	for _, w := range c.Workers {
		all.add("[[worker]] name", CheckName(w.Name))
		if names[w.Name] {
			all.add("[[worker]] name", fmt.Errorf("must be unique, not %q twice", w.Name))
		}
		names[w.Name] = true
		all.add("[[worker]] script", checkAbs(w.Script))
		all.add("[[worker]] threads", workerThreads.check(int64(w.Threads)))
		all.add("[[worker]] queues", checkQueues(w.Queues))
		for _, q := range w.Queues {
			if _, ok := c.Queue.Lookup(q); !ok {
				all.add("[queue]", fmt.Errorf("must have the queue %q of worker %q", q, w.Name))
			}
		}
		for k, v := range w.Env {
			all.add("[[worker]] env", checkEnv(k, v))
		}
		all.add("[[worker]] host", checkHost(w.Host))
		all.add("[[worker]] max_jobs", attemptBounds.check(int64(w.MaxJobs)))
		if w.MemoryLimit != "" {
			all.add("[[worker]] memory_limit", checkMemoryLimit(w.MemoryLimit))
		}
		for k, v := range w.Ini {
			all.add("[[worker]] ini", checkWorkerIni(k, v))
		}
	}
	all.pools(c.Pools)
	return all.first
}

// checks keeps the first error of many checks.
type checks struct{ first error }

func (a *checks) add(key string, errs ...error) {
	for _, err := range errs {
		if err != nil && a.first == nil {
			a.first = (*document)(nil).fault(span{}, "%s %v", key, err)
		}
	}
}

func (a *checks) queue(table string, q Queue) {
	a.add(table+" max_payload_bytes", checkPayloadBytes(int64(q.MaxPayloadBytes)))
	a.add(table+" visibility_timeout", attemptTime.check(q.VisibilityTimeout))
	a.add(table+" max_attempts", attemptBounds.check(int64(q.MaxAttempts)))
	a.add(table+" max_crashes", attemptBounds.check(int64(q.MaxCrashes)))
	a.add(table+" max_messages", countBounds.check(q.MaxMessages))
	a.add(table+" max_bytes", countBounds.check(q.MaxBytes))
	if len(q.Backoff) > maxBackoff {
		a.add(table+" backoff", fmt.Errorf("must have at most %d entries, not %d", maxBackoff, len(q.Backoff)))
	}
	for _, d := range q.Backoff {
		a.add(table+" backoff", backoffTime.check(d))
	}
}

func (a *checks) pools(list []Pool) {
	names := map[string]bool{}
	for _, p := range list {
		a.add("[[pool]] name", CheckName(p.Name))
		if names[p.Name] {
			a.add("[[pool]] name", fmt.Errorf("must be unique, not %q twice", p.Name))
		}
		names[p.Name] = true
		a.add("[[pool]] script", checkAbs(p.Script))
		a.add("[[pool]] threads", workerThreads.check(int64(p.Threads)))
		a.add("[[pool]] max_wait", poolWait.check(p.MaxWait))
		for k, v := range p.Env {
			a.add("[[pool]] env", checkEnv(k, v))
		}
		a.add("[[pool]] host", checkHost(p.Host))
		if p.MemoryLimit != "" {
			a.add("[[pool]] memory_limit", checkMemoryLimit(p.MemoryLimit))
		}
		for k, v := range p.Ini {
			a.add("[[pool]] ini", checkWorkerIni(k, v))
		}
	}
}

var (
	logLevel  = oneOf("debug", "info", "warn", "error")
	logFormat = oneOf("text", "json")
)

func checkAbs(path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("must be an absolute path by now, not %q", path)
	}
	return nil
}

func checkSocket(path string) error {
	if len(path) > MaxSocketPath {
		return fmt.Errorf(`must be at most %d bytes, the longest path of a unix socket, but %s has %d: set [node] socket to a shorter path, as "/run/pogod/pogod.sock", or move data_dir`, MaxSocketPath, path, len(path))
	}
	return nil
}

func checkWithin(app, root string) error {
	if rel, err := filepath.Rel(app, root); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("must be in the application, %s, but is %s: move it there, or set [php] app", app, root)
	}
	return nil
}

func checkApart(listen, other, address string) error {
	if listen == address && !strings.HasSuffix(listen, ":0") {
		return fmt.Errorf("must not be %s, %s: give one of them another port", other, address)
	}
	return nil
}

// checkClusterApart lets the default pass: a node without a cluster, whose
// configuration says nothing of one, does not listen there.
func checkClusterApart(c *Config) error {
	if c.Cluster.Listen == defaultCluster {
		return nil
	}
	return cmp.Or(checkApart(c.Cluster.Listen, "[web] listen", c.Web.Listen), checkApart(c.Cluster.Listen, "[admin] listen", c.Admin.Listen))
}

func checkQueues(names []string) error {
	if len(names) == 0 {
		return errors.New("must name a queue: leave the key out for the queue \"default\"")
	}
	for i, n := range names {
		if err := CheckName(n); err != nil {
			return err
		}
		if slices.Contains(names[:i], n) {
			return fmt.Errorf("must name each queue once, not %q twice", n)
		}
	}
	return nil
}
