package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/config"
	"pogod/internal/systemd"
	"pogod/queue"
	"pogod/workers"
)

// configuration reads a text as a file of dir.
func configuration(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	path := filepath.Join(dir, "pogod.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Options{File: path, Env: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// derived is all that a node makes of a configuration and can make anew while it runs.
func derived(t *testing.T, c *config.Config) string {
	t.Helper()
	n := &node{build: Build{PHP: true}}
	all, err := json.Marshal(struct {
		Hosts       []workers.Host
		Pools       []workers.Pool
		Tasks       []workers.TaskPool
		Definitions queue.Definitions
		Grace       time.Duration
		Watch       bool
		Node        config.Node
		Tokens      []config.AdminToken
	}{hosts(c, nil), n.poolsOf(c), n.taskPoolsOf(c), definitions(c), c.PHP.KillGrace, c.PHP.Watch, c.Node, c.Admin.Tokens})
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// Every key that counts without a restart is in what a reload gives to the running node, and
// none that needs one is.
func TestKeysReachWhatTheyChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	samples := map[string]string{
		"[node] mode": `"development"`, "[node] log_level": `"warn"`, "[node] log_format": `"json"`,
		"[node] shutdown_timeout": `"7s"`, "[node] push_timeout": `"7s"`, "[node] min_free_bytes": `7`,
		"[php] app": `"sub"`, "[php] memory_limit": `"77M"`, "[php] extension_dir": `"e"`, "[php] kill_grace": `"7s"`, "[php] watch": `false`, "[php] ini": `{ precision = 7 }`,
		"[web] worker": `"w.php"`, "[web] root": `"pub"`, "[web] index": `"i.php"`, "[web] threads": `77`, "[web] access_log": `"log"`, "[web] trusted_proxies": `["10.0.0.0/8"]`,
		"[web] tls":            `{ cert = "c", key = "k" }`,
		"[queue] auto_create":  `true`,
		"[queue] max_attempts": `7`, "[queue] max_crashes": `7`, "[queue] max_messages": `7`, "[queue] max_bytes": `7`, "[queue] max_payload_bytes": `7`,
		"[queue] visibility_timeout": `"7s"`, "[queue] backoff": `["7s"]`,
		"[[worker]] name": `"w"`, "[[worker]] script": `"w.php"`, "[[worker]] queues": `["q"]`, "[[worker]] threads": `7`, "[[worker]] env": `{ A = "7" }`,
		"[[worker]] host": `"h"`, "[[worker]] max_jobs": `7`, "[[worker]] memory_limit": `"77M"`, "[[worker]] ini": `{ precision = 7 }`,
		"[[pool]] name": `"p"`, "[[pool]] script": `"p.php"`, "[[pool]] threads": `7`, "[[pool]] max_wait": `"7s"`, "[[pool]] env": `{ A = "7" }`,
		"[admin] tokens": `[{ name = "a", role = "read", hash = "sha256:` + strings.Repeat("7", 64) + `" }]`,
		"[[pool]] host":  `"h"`, "[[pool]] memory_limit": `"77M"`, "[[pool]] ini": `{ precision = 7 }`,
	}
	tables := []string{"[node]", "[php]", "[web]", "[queue]", "[[worker]]", "[[pool]]", "[admin]"}
	text := func(key string) string {
		var b strings.Builder
		for _, table := range tables {
			b.WriteString(table + "\n")
			if name, ok := strings.CutPrefix(key, table+" "); ok {
				b.WriteString(name + " = " + samples[key] + "\n")
			}
		}
		return b.String()
	}
	base := derived(t, configuration(t, dir, text("")))
	for _, k := range config.Keys() {
		key := k.Table + " " + k.Name
		if k.Effect == config.Restart {
			continue
		}
		if _, ok := samples[key]; !ok {
			t.Errorf("%s counts at a reload, and has no sample here", key)
			continue
		}
		if derived(t, configuration(t, dir, text(key))) == base {
			t.Errorf("%s changes nothing", key)
		}
	}
}

func TestLoggingIsSwitched(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log, l := newLogger(&b, "warn", "text")
	child := log.With("who", "child").WithGroup("g")
	child.Info("unseen")
	l.set("debug", "json")
	child.Debug("seen", "n", 1)
	l.set("info", "text")
	child.Debug("unseen")
	child.Info("text")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	var record map[string]any
	if len(lines) != 2 || json.Unmarshal([]byte(lines[0]), &record) != nil || record["msg"] != "seen" || record["who"] != "child" ||
		fmt.Sprint(record["g"]) != "map[n:1]" || !strings.Contains(lines[1], "level=INFO msg=text who=child") {
		t.Error(b.String())
	}
}

// startNode starts a node in this process, whose log the test shuts down.
func startNode(t *testing.T, dir, text string) (n *node, rewrite func(text string)) {
	t.Helper()
	head := fmt.Sprintf("[admin]\nlisten = \"127.0.0.1:0\"\n[node]\nsocket = %q\n", filepath.Join(dir, "s"))
	cfg := configuration(t, dir, head+text)
	n = &node{
		cfg: cfg, log: slog.New(slog.DiscardHandler), logging: &logging{}, manager: &systemd.Notifier{}, started: time.Now(),
		hangups: make(chan os.Signal, 1), rewatch: make(chan struct{}, 1),
		reread: func() (*config.Config, error) { return config.Load(config.Options{File: cfg.File}) },
	}
	n.now.Store(cfg)
	if err := n.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // without a log nothing can be closed well, see serve
		n.cancel()
		n.reporter.Wait()
		n.background.Wait()
		n.link.Close()
		n.pools.Close()
		n.tasks.Close()
		if err := errors.Join(n.admin.Shutdown(context.Background()), n.dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return n, func(text string) {
		t.Helper()
		if err := os.WriteFile(cfg.File, []byte(head+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// short makes a directory whose path leaves room for a socket's.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// The push time-out of the new configuration is that of a push which finds no leader.
func TestReconfiguredPushTimeout(t *testing.T) {
	t.Parallel()
	n, rewrite := startNode(t, short(t), "push_timeout = \"10m\"\n")
	rewrite("push_timeout = \"100ms\"\n")
	done, err := source{n}.Reconfigure(t.Context())
	if err != nil || fmt.Sprint(done.Applied) != "[[node] push_timeout]" {
		t.Fatal(done, err)
	}
	if err := n.group.Raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.queue.Push(t.Context(), "default", []byte("x"), 0); !errors.Is(err, command.ErrNotAccepted) && !errors.Is(err, command.ErrOutcomeUnknown) {
		t.Error(err)
	}
}
