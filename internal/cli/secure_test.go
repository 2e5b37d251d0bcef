package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pogod/internal/admin"
	"pogod/internal/certificate"
	"pogod/internal/certificate/certtest"
	"pogod/internal/config"
)

// guarded serves a node over TLS to who has the token, and writes its configuration.
func guarded(t *testing.T) (address, token, dir string) {
	t.Helper()
	dir = t.TempDir()
	cert, key := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	certtest.Issue(t, 1, cert, key)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := certificate.Load("the test", cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a := admin.New(ln, &queued{}, nil, slog.New(slog.DiscardHandler))
	token, hash := admin.NewToken()
	b, err := admin.NewBearer("ada", "read", hash)
	if err != nil {
		t.Fatal(err)
	}
	a.SetBearers([]admin.Bearer{b})
	a.Secure(c.Get)
	served := make(chan error, 1)
	go func() { served <- a.Serve() }() // ended by Shutdown
	t.Cleanup(func() {
		if err := errors.Join(a.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	_, port, _ := net.SplitHostPort(a.Addr().String())
	for name, text := range map[string]string{
		"token": token + "\n", "empty": "\n", "two": "a b", "wrong": "pogod_wrong",
		"pogod.toml": "[admin]\nlisten = \"0.0.0.0:" + port + "\"\ntls = { cert = \"a.crt\", key = \"a.key\" }\n[[admin.tokens]]\nname = \"ada\"\nrole = \"read\"\nhash = \"" + hash + "\"\n",
		"other.toml": "[admin]\nlisten = \"127.0.0.1:" + port + "\"\ntls = { cert = \"other.crt\", key = \"a.key\" }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certtest.Issue(t, 2, filepath.Join(dir, "other.crt"), "")
	return a.Addr().String(), token, dir
}

// A command has a token and trusts a certificate as it is told.
func TestAsksSecurely(t *testing.T) {
	address, token, dir := guarded(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	https := []string{"--admin", "https://" + address, "--admin-ca", in("a.crt")}
	with := func(more ...string) []string { return append(append([]string{"queue", "ls"}, https...), more...) }
	const ls = "QUEUE "
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		code int
		want string // in what it says
	}{
		"file":                {nil, with("--token-file", in("token")), 0, ls},
		"flag":                {nil, with("--token", token), 0, ls},
		"environment":         {map[string]string{"POGOD_TOKEN": token}, with(), 0, ls},
		"file of environment": {map[string]string{"POGOD_TOKEN_FILE": in("token")}, with(), 0, ls},
		"flag over all":       {map[string]string{"POGOD_TOKEN": "wrong"}, with("--token-file", in("token")), 0, ls},
		"all of environment":  {map[string]string{"POGOD_TOKEN": token, "POGOD_ADMIN": "https://" + address, "POGOD_ADMIN_CA": in("a.crt")}, []string{"queue", "ls"}, 0, ls},
		"no scheme":           {nil, []string{"queue", "ls", "--admin", address, "--admin-ca", in("a.crt"), "--token", token}, 0, ls},
		"configuration":       {nil, []string{"queue", "ls", "--config", in("pogod.toml"), "--token", token}, 0, ls},
		"another's":           {nil, []string{"queue", "ls", "--config", in("other.toml"), "--token", token}, 1, "is not trusted (it is not the one in " + in("other.crt") + "): name its authority with --admin-ca"},
		"no certificate":      {nil, []string{"queue", "ls", "--config", in("other.toml"), "--admin-ca", in("token")}, 2, "there is no certificate in " + in("token")},
		"not trusted":         {nil, []string{"queue", "ls", "--admin", "https://" + address, "--token", token}, 1, "certificate signed by unknown authority): name its authority with --admin-ca"},
		"no authority":        {nil, []string{"queue", "ls", "--admin-ca", in("none")}, 2, "--admin-ca: open "},
		"none":                {nil, with(), 1, "answers 401: a token is needed, as Authorization: Bearer TOKEN; the command line takes one from --token-file or POGOD_TOKEN"},
		"wrong":               {nil, with("--token-file", in("wrong")), 1, "answers 401: this token is not known here"},
		"role":                {nil, append([]string{"queue", "push", "mail", "a", "--token", token}, https...), 1, "answers 403: the token ada has the role read, and this takes operate"},
		"two":                 {nil, with("--token", "a", "--token-file", "b"), 2, "--token and --token-file name a token each: name one"},
		"empty":               {nil, with("--token-file", in("empty")), 2, "--token-file " + in("empty") + ` has no token: it is one word, as "pogod admin token" prints it`},
		"two words":           {nil, with("--token-file", in("two")), 2, "has no token: it is one word"},
		"no file":             {nil, with("--token-file", in("none")), 2, "--token-file: open "},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			code, out, errs := run(Deps{}, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.want) || strings.Contains(errs, token) {
				t.Errorf("%d %q %q", code, out, errs)
			}
		})
	}
}

// What admin token prints is what a configuration takes and a node knows.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	code, out, errs := run(Deps{}, "admin", "token", "ada \"x\"", "--role", "operate")
	if code != ExitUsage || out != "" || !strings.Contains(errs, "the name of a token must have no '/', no space") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, out, errs = run(Deps{}, "admin", "token", `a"b`, "--role", "operate")
	shown, lines, ok := strings.Cut(out, "[[admin.tokens]]\n")
	if code != 0 || errs != "" || !ok {
		t.Fatalf("%d %q %q", code, out, errs)
	}
	token := strings.Fields(shown)[7]
	if !strings.HasPrefix(token, "pogod_") || len(token) != 6+43 || strings.Contains(lines, token) {
		t.Errorf("%q", out)
	}
	file := filepath.Join(t.TempDir(), "pogod.toml")
	if err := os.WriteFile(file, []byte("[[admin.tokens]]\n"+lines), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Options{File: file})
	if err != nil || len(c.Admin.Tokens) != 1 || c.Admin.Tokens[0].Name != `a"b` {
		t.Fatal(err)
	}
	k := c.Admin.Tokens[0]
	if b, err := admin.NewBearer(k.Name, k.Role, k.Hash); err != nil || b.Role != admin.RoleOperate {
		t.Error(b, err)
	}
	code, out, _ = run(Deps{}, "admin", "token", "ada", "--json")
	if code != 0 || !strings.HasPrefix(out, `{"name":"ada","role":"read","token":"pogod_`) || strings.Count(out, "\n") != 1 {
		t.Errorf("%d %q", code, out)
	}
	for args, want := range map[string]string{
		"token": "takes a name", "token a b": "takes a name", "token a --role root": `--role: a role is read, operate or admin, not "root"`, "tokens": `did you mean "admin token"?`,
	} {
		if code, out, errs := run(Deps{}, append([]string{"admin"}, strings.Fields(args)...)...); code != ExitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %q %q", args, code, out, errs)
		}
	}
}
