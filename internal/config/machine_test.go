package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMissingPages looks for what the web side needs, as it comes to be there bit by bit.
func TestMissingPages(t *testing.T) {
	t.Parallel()
	app := t.TempDir()
	c := &Config{PHP: PHP{App: app}, Web: Web{Root: filepath.Join(app, "public"), Index: "index.php"}}
	worker := &Config{PHP: c.PHP, Web: c.Web}
	worker.Web.Worker = filepath.Join(app, "worker.php")
	says := func(when string, c *Config, want string) {
		t.Helper()
		got := ""
		if err := c.MissingPages(); err != nil {
			got = strings.ReplaceAll(err.Error(), app, "APP")
		}
		if got != want {
			t.Errorf("%s: it says %q, want %q", when, got, want)
		}
	}
	const noRoot = "no page can be answered: [web] root must be a directory, but there is no APP/public: make it, or name another"
	says("nothing", c, noRoot)
	says("nothing", worker, noRoot)
	if err := os.Mkdir(c.Web.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	says("a root", c, "paths that are no file are answered with 404: [web] index must be a PHP file, but there is no APP/public/index.php: write it, or name another")
	says("a root", worker, "no page can be answered: [web] worker must be a PHP file, but there is no APP/worker.php: write it, or name another")
	for _, file := range []string{filepath.Join(c.Web.Root, "index.php"), worker.Web.Worker} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	says("all", c, "")
	says("all", worker, "")
}
