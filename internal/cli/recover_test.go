package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

// What is not to be recovered is left alone.
func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	if code, _, errs := run(Deps{}, "cluster", "recover", "--data", dir, "--yes"); code != 1 || !strings.Contains(errs, "there is no node to recover") {
		t.Errorf("%d %s", code, errs)
	}
	if names := files(t, filepath.Dir(dir)); len(names) > 0 {
		t.Errorf("it made %q", names)
	}
	if code, _, errs := run(Deps{}, "restore", "nowhere", "--data", dir); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("%d %s", code, errs)
	}
	// A node alone that has all it had.
	b := filepath.Join(t.TempDir(), "b")
	whole := aBackup(t)
	if code, _, errs := run(Deps{}, "backup", "--admin", withBackup(t, whole, len(whole)), b); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := run(Deps{}, "restore", b, "--data", dir); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := run(Deps{}, "cluster", "recover", "--data", dir, "--yes"); code != 1 || !strings.Contains(errs, "nothing is lost of node") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := run(Deps{}, "restore", b, "--data", dir); code != 1 || !strings.Contains(errs, "there is a node's data already") {
		t.Errorf("%d %s", code, errs)
	}
}
