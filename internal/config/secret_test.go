package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secrets lays files with these modes in a directory.
func secrets(t *testing.T, files map[string]string, modes map[string]os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if m, ok := modes[name]; ok {
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// app decodes a [[websocket.app]] of the file DIR/pogod.toml with a secret.
func app(t *testing.T, dir, text string, o Options) (secret string, err error) {
	t.Helper()
	c := defaults(true)
	c.File = filepath.Join(dir, "pogod.toml")
	doc := &document{name: "pogod.toml", data: []byte(text)}
	root, err := parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	d := &decoder{doc: doc, cfg: c, at: map[string]span{}, noted: map[string]bool{}, said: map[place]source{}, look: o.Env, unset: o.Unset, dir: dir}
	if err := d.expand(root); err != nil {
		return "", err
	}
	known := fields{"secret": textField(&secret), "id": textField(new(string))}
	err = d.table("[[websocket.app]]", root, known)
	if list := d.listed(table{"[[websocket.app]]", known}, 1, ""); err == nil && secret != "" {
		for _, s := range list {
			if s.Key == "secret" && (s.Value != Redacted || !s.Redacted || s.From != FromFile || s.Where != "pogod.toml:1") {
				t.Errorf("%+v", s)
			}
		}
	}
	return secret, err
}

func textField(to *string) field { return text(to, func(string) error { return nil }) }

func TestSecretFile(t *testing.T) {
	t.Parallel()
	dir := secrets(t, map[string]string{
		"plain": "s3cret", "line": "s3cret\n", "crlf": "s3cret\r\n", "two": "a\n\n", "group": "s3cret\n", "all": "x", "write": "x", "empty": "\n",
		"huge": strings.Repeat("x", maxSecretFile+1),
	}, map[string]os.FileMode{"group": 0o640, "all": 0o644, "write": 0o602})
	env := vars{"CREDENTIALS_DIRECTORY": dir}
	for line, want := range map[string]string{
		`secret_file = "plain"`:                              "s3cret",
		`secret_file = "line"`:                               "s3cret",
		`secret_file = "crlf"`:                               "s3cret",
		`secret_file = "two"`:                                "a\n",
		`secret_file = "group"`:                              "s3cret",
		`secret_file = "${CREDENTIALS_DIRECTORY}/line"`:      "s3cret",
		`secret_file = "` + filepath.Join(dir, "line") + `"`: "s3cret",
		`secret = "inline"`:                                  "inline",
		`secret = "${CREDENTIALS_DIRECTORY}"`:                dir,
	} {
		if got, err := app(t, dir, line, Options{Env: env.lookup}); err != nil || got != want {
			t.Errorf("%s: %q %v", line, got, err)
		}
	}
	for line, want := range map[string]string{
		`secret_file = "all"`:                         "must be a file that not everybody can read or write, but DIR/all has mode 0644: say chmod o= DIR/all",
		`secret_file = "write"`:                       "must be a file that not everybody can read or write, but DIR/write has mode 0602: say chmod o= DIR/write",
		`secret_file = "empty"`:                       "must be a file with a secret, but DIR/empty is empty",
		`secret_file = "huge"`:                        "must be a file with a secret, but DIR/huge is larger than 64 KiB: name another",
		`secret_file = "nowhere"`:                     "must be a file that can be read, but: open DIR/nowhere: no such file or directory",
		`secret_file = "."`:                           "must be a file, but DIR is none: name another",
		`secret_file = ""`:                            "must not be empty",
		`secret_file = 5`:                             "must be a path in quotes, not an integer",
		"secret_file = \"line\"\nsecret = \"inline\"": "must not be beside secret: take one out",
	} {
		_, err := app(t, dir, line, Options{Env: env.lookup})
		if err == nil {
			t.Errorf("%s: accepted", line)
			continue
		}
		first, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), dir, "DIR"), "\n")
		var e *Error
		if !errors.As(err, &e) || e.Line == 0 || !strings.HasSuffix(first, ": [[websocket.app]] secret_file "+want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	// A command that only looks for its node does without the file.
	if _, err := app(t, dir, `secret_file = "nowhere"`, Options{Env: env.lookup, Unset: true}); err != nil {
		t.Error(err)
	}
	// Only a secret can be in a file.
	if _, err := app(t, dir, `id_file = "line"`, Options{Env: env.lookup}); err == nil || !strings.Contains(err.Error(), `unknown key "id_file"`) {
		t.Error(err)
	}
}

func TestSecretFileOfWebsocketApp(t *testing.T) {
	t.Parallel()
	dir := secrets(t, map[string]string{"open": "x", "good": "x", "pogod.toml": ""}, map[string]os.FileMode{"open": 0o644})
	for name, want := range map[string]string{"good": "", "open": "has mode 0644"} {
		text := "[[websocket.app]]\nid = \"a\"\nkey = \"k\"\nsecret_file = \"" + name + "\"\n"
		c, err := build(Options{File: "pogod.toml", Dir: dir, Env: vars{}.lookup}, &document{name: "pogod.toml", data: []byte(text)})
		if err == nil && c.Websocket.Apps[0].Secret != "x" {
			t.Errorf("%s: %+v", name, c.Websocket.Apps)
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A line that is shown with its fault does not show a secret.
func TestFaultsMaskSecrets(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`secret = "hidden" x`:                              `secret = "******" x`,
		`secret = "hid\"den`:                               `secret = "****"***`,
		`secret_file = "shown" x`:                          `secret_file = "shown" x`,
		`env = { DB_PASSWORD = 'hid den', A = "shown" } x`: `env = { DB_PASSWORD = '*** ***', A = "shown" } x`,
		`"api_key" = "hidden"`:                             `"api_key" = "******"`,
		`tokens = ["hidden"]`:                              `tokens = ["******"]`,
		`script = "shown" x`:                               `script = "shown" x`,
	} {
		if got := masked(line); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", line, got, want)
		}
	}
	_, err := build(Options{File: "f", Dir: "/srv", Env: vars{}.lookup}, &document{name: "f", data: []byte("[[websocket.app]]\nsecret = \"hidden\" x\n")})
	if err == nil || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "2 | secret = \"******\" x") {
		t.Error(err)
	}
}
