//go:build php

package cluster_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestE2EDoctor looks at applications before their node is started, with the PHP of the
// build, and at one with a broken script while it runs.
func TestE2EDoctor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deploy(t, dir, "app")
	app := filepath.Join(dir, "app")
	s := newSite(t, app, "[[worker]]\nname = \"d\"\nqueues = [\"d\"]\nscript = \"worker.php\"\nthreads = 1\n")
	examine := func(args ...string) (string, int) {
		t.Helper()
		cmd := exec.Command(s.bin, append([]string{"doctor", "--config", s.config()}, args...)...)
		cmd.Dir = s.home
		return doctor(t, cmd)
	}
	if found, code := examine(); code != 0 || strings.Contains(found, ": PHP:") || strings.Contains(found, "worker") {
		t.Errorf("%d\n%s", code, found)
	}
	out, err := exec.Command(s.bin, "doctor", "--config", s.config()).Output()
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{"ok       PHP ", ", thread-safe, with ", " pogo", "ok       [web] index", "ok       worker d", "worker.php can be compiled", "ok       [web] listen"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(app, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(filepath.Join(app, "worker.php"))
	if err != nil {
		t.Fatal(err)
	}
	write("worker.php", "<?php\nfoo(;\n")
	write("public/index.php", "<?php }\n")
	found, code := examine()
	for _, want := range []string{
		"problem: worker d: " + app + "/worker.php: Parse error:", "on line 2\n", "problem: [web] index: " + app + "/public/index.php: Parse error:",
	} {
		if code != 1 || !strings.Contains(found, want) {
			t.Errorf("code %d, no %q in\n%s", code, want, found)
		}
	}
	if err := os.Remove(filepath.Join(app, "public/index.php")); err != nil {
		t.Fatal(err)
	}
	if found, _ := examine(); !strings.Contains(found, "warning: [web] index: there is no "+app+"/public/index.php") {
		t.Error(found)
	}
	// What the node says of a script that it tries in vain.
	write("public/index.php", "<?php\n")
	write("worker.php", "<?php throw new LogicException('not today');\n")
	s.rewrite(t, "[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \""+freeAddress(t)+"\"")
	s.serve(t)
	eventually(t, "the script has failed", func() bool {
		found, code := examine()
		return code == 1 && strings.Contains(found, "problem: worker d: 0 of 1 threads work: LogicException: not today in ")
	})
	write("worker.php", string(good))
	if err := s.reload(t); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is well", func() bool { _, code := examine(); return code == 0 })
}
