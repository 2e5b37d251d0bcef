package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pogod/raftfsm"
)

// The first node of a cluster takes a backup, one that has joined gets everything from the
// others.
func TestRestoreInACluster(t *testing.T) {
	t.Parallel()
	b := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(b, aBackup(t), 0o600); err != nil {
		t.Fatal(err)
	}
	first := t.TempDir()
	if code, _, errs := run(Deps{}, "cluster", "init", "--data", first); code != 0 {
		t.Fatal(errs)
	}
	code, out, errs := run(Deps{}, "restore", b, "--data", first)
	if code != 0 || errs != "" || !strings.Contains(out, `start it with "pogod serve --data `+first) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if _, err := os.Stat(filepath.Join(first, "state.db")); err != nil {
		t.Error(err)
	}
	f := found(t, time.Now)
	joined := t.TempDir()
	if code, _, errs := run(Deps{}, "cluster", "join", f.addr, f.token(), "--data", joined); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := run(Deps{}, "restore", b, "--data", joined); code != 1 || !strings.Contains(errs, "this node has joined the cluster "+f.id.Cluster+", whose members send it their jobs") {
		t.Errorf("%d %s", code, errs)
	}
	if err := raftfsm.Vacant(joined); err != nil {
		t.Error(err)
	}
}
