package cli

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pogod/internal/config"
)

// laid makes files in a new directory, which becomes the working directory; a name
// that ends with a slash is a directory.
func laid(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	return dir
}

// tree lists all that is in a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		b.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestConfigCheck(t *testing.T) { // not parallel: it changes the working directory
	dir := laid(t, map[string]string{
		"pogod.toml":      "[[worker]]\nscript = \"work.php\"\n[[pool]]\nthreads = 0\nscript = \"outside.php\"\n[queue.mail]\n",
		"missing.toml":    "[[worker]]\nscript = \"work.php\"\n[[worker]]\nname = \"b\"\nscript = \"wrok.php\"\n[[pool]]\n[web]\nroot = \"pub\"\n[php]\nextension_dir = \"ext\"\n",
		"directory.toml":  "[node]\ndata_dir = \"work.php/data\"\nsocket = \"run/s\"\n[[worker]]\nscript = \"public\"\n[web]\naccess_log = \"log/a\"\n",
		"pages.toml":      "[web]\nworker = \"wrok.php\"\n",
		"app.toml":        "[php]\napp = \"nowhere\"\n[[worker]]\n",
		"unknown.toml":    "[web]\nthread = 3\n",
		"schedule.toml":   "[[schedule]]\n",
		"work.php":        "<?php\n",
		"public/":         "",
		"bare/README":     "",
		"sub/public/":     "",
		"sub/app/public/": "",
	})
	before := tree(t, dir)
	for _, c := range []struct {
		args []string
		code int
		want string // of both streams; DIR for the directory
	}{
		{nil, 0, "DIR/pogod.toml is good: production mode, 2 queues, 1 worker, 1 pool\n"},
		{[]string{"--config", "pogod.toml", "--data", "new/deep"}, 0, "DIR/pogod.toml is good: production mode, 2 queues, 1 worker, 1 pool\n"},
		{[]string{"schedule.toml"}, 0, "pogod: schedule.toml:1: [[schedule]] is not built yet and has no effect\nDIR/schedule.toml is good: production mode, 1 queue, 0 workers, 0 pools\n"},
		{[]string{"nowhere.toml"}, 1, "pogod: the configuration cannot be read: open DIR/nowhere.toml: no such file or directory: name a file that exists, or leave it out to read none\n"},
		{[]string{"unknown.toml"}, 1, "pogod: unknown.toml:2:1: unknown key \"thread\" in [web]: did you mean \"threads\"?\n  2 | thread = 3\n    | ^^^^^^\n"},
		{[]string{"missing.toml"}, 1, `pogod: missing.toml:8:8: [web] root must be a directory, but there is no DIR/pub: make it, or name another
  8 | root = "pub"
    |        ^^^^^
missing.toml:10:17: [php] extension_dir must be a directory, but there is no DIR/ext: make it, or name another
  10 | extension_dir = "ext"
     |                 ^^^^^
missing.toml:5:10: [[worker]] script must be a PHP file, but there is no DIR/wrok.php: write it, or name another
  5 | script = "wrok.php"
    |          ^^^^^^^^^^
[[pool]] script must be a PHP file, but there is no DIR/dispatch-worker.php: write it, or name another
`},
		{[]string{"directory.toml"}, 1, `pogod: directory.toml:2:12: [node] data_dir must be a directory, but DIR/work.php is none: name another
  2 | data_dir = "work.php/data"
    |            ^^^^^^^^^^^^^^^
directory.toml:3:10: [node] socket must be a directory, but there is no DIR/run: make it, or name another
  3 | socket = "run/s"
    |          ^^^^^^^
directory.toml:7:14: [web] access_log must be a directory, but there is no DIR/log: make it, or name another
  7 | access_log = "log/a"
    |              ^^^^^^^
directory.toml:5:10: [[worker]] script must be a PHP file, but DIR/public is none: name another
  5 | script = "public"
    |          ^^^^^^^^
`},
		{[]string{"pages.toml"}, 1, "pogod: pages.toml:2:10: [web] worker must be a PHP file, but there is no DIR/wrok.php: write it, or name another\n  2 | worker = \"wrok.php\"\n    |          ^^^^^^^^^^\n"},
		{[]string{"app.toml"}, 1, "pogod: app.toml:2:7: [php] app must be a directory, but there is no DIR/nowhere: make it, or name another\n  2 | app = \"nowhere\"\n    |       ^^^^^^^^^\n"},
		{[]string{"pogod.toml", "--app", "sub"}, 1, "pogod: pogod.toml:2:10: [[worker]] script must be a PHP file, but there is no DIR/sub/work.php: write it, or name another\n  2 | script = \"work.php\"\n    |          ^^^^^^^^^^\n"},
		{[]string{"schedule.toml", "--app", "gone"}, 1, "pogod: schedule.toml:1: [[schedule]] is not built yet and has no effect\npogod: [php] app must be a directory, but there is no DIR/gone: make it, or name another (--app says so)\n"},
	} {
		code, out, errs := run(Deps{}, append([]string{"config", "check"}, c.args...)...)
		if got := strings.ReplaceAll(errs+out, dir, "DIR"); code != c.code || got != c.want || code == 0 && out == "" || code != 0 && out != "" {
			t.Errorf("%q: %d\n%s\nwant %d\n%s", c.args, code, got, c.code, c.want)
		}
	}
	if after := tree(t, dir); after != before {
		t.Errorf("a check changed\n%s\nto\n%s", before, after)
	}
	// Without a file.
	laid(t, map[string]string{"public/": "", "queue-worker.php": ""})
	if code, out, errs := run(Deps{}, "config", "check"); code != 0 || out != "the configuration without a file is good: development mode, 1 queue, 1 worker, 0 pools\n" {
		t.Error(code, out, errs)
	}
	if os.Geteuid() == 0 {
		return // who may write everywhere
	}
	locked := laid(t, map[string]string{"public/": "", "locked/": ""})
	if err := os.Chmod("locked", 0o500); err != nil {
		t.Fatal(err)
	}
	want := "pogod: [node] data_dir must be a directory that can be written to, but this user cannot make it in " + locked +
		"/locked (permission denied): change its rights, or name another (--data says so)\n"
	if code, _, errs := run(Deps{}, "config", "check", "--data", "locked/data"); code != 1 || errs != want {
		t.Error(code, errs)
	}
}

func TestConfigShow(t *testing.T) { // not parallel: it changes the working directory
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := laid(t, map[string]string{"pogod.toml": `[node]
mode = "development"
[web]
threads = 3
[queue]
max_attempts = 5
[queue."mail.a"]
backoff = []
[[worker]]
name = "a"
queues = ["mail.a", "x"]
env = { B = "1", PASSWORD = "hidden", "C \u0007" = "\" $${X} \\ ü" }
[[worker]]
[[pool]]
max_wait = "1m"
[php.ini]
date.timezone = "${ZONE}"
`})
	t.Setenv("ZONE", "UTC")
	t.Setenv("POGOD_LOG_LEVEL", "debug")
	code, out, errs := run(Deps{}, "config", "show", "--data", "d")
	if code != 0 || errs != "" || strings.Contains(out, "hidden") {
		t.Fatal(code, out, errs)
	}
	// How far a comment is from a path depends on the directory's length.
	shown := regexp.MustCompile(`(?m)^(.*DIR.*?") +#`).ReplaceAllString(strings.ReplaceAll(out, dir, "DIR"), "$1 #")
	// It is a configuration itself, which comes to the same.
	if err := os.WriteFile("shown.toml", []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	code, again, errs := run(Deps{}, "config", "show", "shown.toml")
	if strip(again) != strip(out) || code != 0 {
		t.Errorf("%d %s shown again:\n%s\nwas\n%s", code, errs, again, out)
	}
	code, out, errs = run(Deps{}, "config", "show", "--json")
	var doc struct {
		File     string
		Settings []config.Setting
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 || errs != "" || doc.File != dir+"/pogod.toml" || len(doc.Settings) < 50 {
		t.Fatal(code, out, errs, err)
	}
	for _, s := range doc.Settings {
		if s.Table == "[web]" && s.Key == "threads" && (s.Value != 3.0 || s.From != "file" || s.Where != "pogod.toml:4") {
			t.Errorf("%+v", s)
		}
	}
	if code, out, errs := run(Deps{}, "config", "show", "shown.tml"); code != 1 || out != "" || strings.Count(errs, "\n") != 1 {
		t.Error(code, out, errs)
	}
	t.Chdir(here)
	golden(t, "config_show.txt", shown)
}

// strip leaves the comments out, which name other sources.
func strip(shown string) string {
	var b strings.Builder
	for line := range strings.Lines(shown) {
		value, _, _ := strings.Cut(line, " # ")
		if !strings.HasPrefix(value, "#") {
			b.WriteString(strings.TrimSpace(value) + "\n")
		}
	}
	return b.String()
}

// A shell without the node's secrets can ask the node, but not start it.
func TestSecretsOfTheNode(t *testing.T) { // not parallel: it changes the working directory
	laid(t, map[string]string{"pogod.toml": "[admin]\nlisten = \"127.0.0.1:1\"\n[[worker]]\nenv = { P = \"${SECRET_OF_THE_NODE}\" }\n"})
	if code, _, errs := run(Deps{}, "status", "--config", "pogod.toml"); code != ExitUnreachable {
		t.Error(code, errs)
	}
	for _, command := range []string{"serve", "config check", "config show"} {
		if code, _, errs := run(Deps{}, strings.Fields(command)...); code != ExitFailed || !strings.Contains(errs, "the environment has no variable SECRET_OF_THE_NODE") {
			t.Error(command, code, errs)
		}
	}
}

func TestConfigDocs(t *testing.T) {
	t.Parallel()
	code, out, errs := run(Deps{}, "config", "docs")
	if code != 0 || errs != "" {
		t.Fatal(code, errs)
	}
	golden(t, "config_docs.txt", out)
	code, out, errs = run(Deps{}, "config", "docs", "--json")
	var keys []config.Key
	if err := json.Unmarshal([]byte(out), &keys); err != nil || code != 0 || errs != "" || len(keys) != len(config.Keys()) {
		t.Error(code, out, errs, err)
	}
}
