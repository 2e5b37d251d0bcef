package identity

import (
	"errors"
	"os"
	"strings"
	"testing"

	"pogod/internal/datadir"
)

// The directory of a node that has left is refused, keeps what it had, and becomes that of a
// new node, also after a crash in the middle.
func TestANodeThatHasLeftBecomesANewOne(t *testing.T) {
	t.Parallel()
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	if _, err := Init(dir); err != nil {
		t.Fatal(err)
	}
	if err := putAway(dir); err != nil || !Exists(dir) {
		t.Fatal("that of a member was put away", err)
	}
	if err := os.WriteFile(dir.File("state.db"), []byte("jobs"), 0o600); err != nil {
		t.Fatal(err)
	}
	former := dir.NodeID()
	if err := MarkLeft(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrLeft) || !strings.Contains(err.Error(), "pogod cluster join") {
		t.Error(err)
	}
	if err := dir.Renew(); err != nil { // and the crash
		t.Fatal(err)
	}
	renewed := dir.NodeID()
	if err := putAway(dir); err != nil {
		t.Fatal(err)
	}
	if dir.NodeID() == former || dir.NodeID() != renewed {
		t.Errorf("node %s became %s, and then %s", former, renewed, dir.NodeID())
	}
	if b, err := os.ReadFile(dir.File("left-" + former + "/state.db")); string(b) != "jobs" {
		t.Error("its data is gone:", err)
	}
	if err := errors.Join(joinable(dir), empty(dir)); err != nil {
		t.Error(err)
	}
}
