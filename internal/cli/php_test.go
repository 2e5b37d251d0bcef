package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// become is a call of exec.
type become struct {
	path      string
	argv, env []string
}

func (b *become) variable(name string) string {
	for _, kv := range b.env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// runPHP executes a command line of a binary with PHP, whose php is not started.
func runPHP(args ...string) (b *become, code int, errs string) {
	var out, stderr bytes.Buffer
	p := newProgram(Deps{
		HasPHP: true, Stdout: &out, Stderr: &stderr,
		PHP: func() (CommandLine, error) {
			return CommandLine{Binary: "/opt/php", Extension: "/opt/pogo.so", Name: "/opt/pogod-php"}, nil
		},
	})
	p.exec = func(path string, argv, env []string) error {
		b = &become{path, argv, env}
		return nil
	}
	code = p.execute(context.Background(), args)
	return b, code, out.String() + stderr.String()
}

func TestPHPGetsAllThatIsBehindIt(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("POGOD_SOCKET", "/run/a.sock")
	t.Setenv("PHP_BINARY", "/usr/bin/php")
	for _, args := range [][]string{
		nil,
		{"-v"},
		{"--help"},
		{"-d", "a=b", "-r", "echo 1;"},
		{"--config", "x"},
		{"artisan", "status", "--config=x", "--", "-d"},
		{"-r", "serve"},
	} {
		b, code, errs := runPHP(append([]string{"php"}, args...)...)
		if code != ExitDone || errs != "" {
			t.Fatalf("%q: %d %s", args, code, errs)
		}
		want := append([]string{"/opt/pogod-php", "-d", "extension=/opt/pogo.so"}, args...)
		if b.path != "/opt/php" || !slices.Equal(b.argv, want) {
			t.Errorf("%s %q, want %q", b.path, b.argv, want)
		}
		if b.variable("POGOD_SOCKET") != "/run/a.sock" || b.variable("PHP_BINARY") != "/opt/pogod-php" || b.variable("PATH") != os.Getenv("PATH") {
			t.Errorf("%q", b.env)
		}
	}
}

func TestPHPSocketOfTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	named := filepath.Join(dir, "named.toml")
	for path, text := range map[string]string{config1: "[node]\ndata_dir = \"here\"\n", named: "[node]\nsocket = \"s\"\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		env, want string
		args      []string
	}{
		{"", filepath.Join(dir, "here", "pogod.sock"), nil},
		{"/env", "/env", nil},
		{"/env", filepath.Join(dir, "s"), []string{"--config", named}},
		{"/env", filepath.Join(dir, "s"), []string{"--config=" + named}},
		{"/env", filepath.Join(dir, "d", "pogod.sock"), []string{"--data", "d"}},
		{"", filepath.Join(dir, "php", "pogod.sock"), []string{"--data", "php"}},
	} {
		t.Setenv("POGOD_SOCKET", c.env)
		b, code, errs := runPHP(append(c.args, "php", "-v")...)
		if code != ExitDone || b.variable("POGOD_SOCKET") != c.want {
			t.Errorf("%+v: %d %s %+v", c, code, errs, b)
		}
	}
	if b, code, errs := runPHP("--config", "gone.toml", "php"); b != nil || code != ExitFailed || !strings.Contains(errs, "gone.toml") {
		t.Error(b, code, errs)
	}
}

const config1 = "pogod.toml"

func TestPHPThatIsNotThere(t *testing.T) {
	t.Setenv("POGOD_SOCKET", "/run/a.sock")
	if code, _, errs := run(Deps{}, "php", "-v"); code != ExitFailed || !strings.Contains(errs, "built without PHP") {
		t.Error(code, errs)
	}
	missing := Deps{HasPHP: true, PHP: func() (CommandLine, error) { return CommandLine{}, errors.New("pogo.so is gone") }}
	if code, _, errs := run(missing, "php", "-v"); code != ExitFailed || errs != "pogod: pogo.so is gone\n" {
		t.Error(code, errs)
	}
}

func TestPHPHelpIsPogods(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"help", "php"}, {"--data"}, {"--config", "x", "php2"}} {
		if b, _, _ := runPHP(args...); b != nil {
			t.Errorf("%q became php", args)
		}
	}
	if code, out, _ := run(Deps{}, "help", "php"); code != ExitDone || !strings.Contains(out, "PHP_BINARY") {
		t.Error(code, out)
	}
}

// A command of pogod's own under php is not PHP's.
func TestPHPOwnCommands(t *testing.T) {
	t.Parallel()
	p := newProgram(Deps{})
	root, php := p.root(), p.php()
	for _, c := range root.Commands() {
		if c.Name() == "php" {
			root.RemoveCommand(c)
		}
	}
	php.AddCommand(&cobra.Command{Use: "reload"})
	root.AddCommand(php)
	for arg, want := range map[string]bool{"reload": true, "reloads": false, "-r": false} {
		if got := ownPHP(root, []string{arg, "reload"}); got != want {
			t.Errorf("%s: %v", arg, got)
		}
	}
	if ownPHP(root, nil) {
		t.Error("php alone")
	}
}
