package phpwatch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// patience bounds a wait in a test that fails.
const patience = 20 * time.Second

// watch watches a new directory with these files until the test ends.
func watch(t *testing.T, files ...string) (root string, w *Watcher) {
	t.Helper()
	root = t.TempDir()
	for _, f := range files {
		write(t, filepath.Join(root, f))
	}
	w, err := New(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ended by cancel
		w.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return root, w
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("<?php\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, w *Watcher) string {
	t.Helper()
	select {
	case name := <-w.Changed():
		return name
	case <-time.After(patience):
		t.Fatal("no change was told")
		return ""
	}
}

func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	root, w := watch(t, "index.php", "src/a.php", "src/b.php")
	path := func(name string) string { return filepath.Join(root, name) }
	write(t, path("src/a.php"))
	if got := next(t, w); got != "src/a.php" {
		t.Error(got)
	}
	// As an editor does it: a new file in place of the old one.
	write(t, path("src/.b.php.swp"))
	if err := os.Rename(path("src/.b.php.swp"), path("src/b.php")); err != nil {
		t.Fatal(err)
	}
	if got := next(t, w); got != "src/b.php" {
		t.Error(got)
	}
	write(t, path("new/deep/c.php")) // in directories that were not there
	if got := next(t, w); got != "new/deep/c.php" {
		t.Error(got)
	}
	write(t, path("new/deep/c.php"))
	if got := next(t, w); got != "new/deep/c.php" {
		t.Error(got)
	}
	if err := os.Remove(path("index.php")); err != nil {
		t.Fatal(err)
	}
	if got := next(t, w); got != "index.php" {
		t.Error(got)
	}
}

// What is not the application's code is not told: the first that comes is another.
func TestOthersAreNotTold(t *testing.T) {
	t.Parallel()
	elsewhere := []string{"vendor/a.php", "node_modules/x/a.php", "storage/framework/views/a.php", "var/cache/a.php", ".git/a.php", "src/vendor/a.php"}
	root, w := watch(t, append([]string{"src/a.php"}, elsewhere...)...)
	for _, f := range append(elsewhere, "notes.txt", "database.sqlite", ".hidden.php", "later/var/x.php") {
		write(t, filepath.Join(root, f))
	}
	if err := os.Chmod(filepath.Join(root, "src/a.php"), 0o640); err != nil {
		t.Fatal(err)
	}
	// Events come in order, so all of these are seen before that one.
	write(t, filepath.Join(root, "src/z.php"))
	if got := next(t, w); got != "src/z.php" {
		t.Error(got)
	}
}

// Many changes at once are told once.
func TestChangesAreGathered(t *testing.T) {
	t.Parallel()
	root, w := watch(t, "a.php")
	for range 20 {
		for _, f := range []string{"a.php", "b.php", "c.php"} {
			write(t, filepath.Join(root, f))
		}
	}
	if got := next(t, w); got != "a.php" {
		t.Error(got)
	}
	write(t, filepath.Join(root, "last.php"))
	if got := next(t, w); got != "last.php" {
		t.Errorf("%s was told, too", got)
	}
}

func TestRootThatIsNotThere(t *testing.T) {
	t.Parallel()
	if _, err := New(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no error")
	}
}
