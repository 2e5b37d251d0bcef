package datadir

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestIdentityAndLock(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/a/b"
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	id := d.NodeID()
	first, err := d.NextOpening()
	if err != nil || len(id) != 16 {
		t.Fatal(id, err)
	}
	_, err = Open(path)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Error("a second Open:", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if n, err := d.NextOpening(); d.NodeID() != id || n <= first || err != nil {
		t.Error("after reopening:", d.NodeID(), n, err)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o700 {
		t.Error("mode", st.Mode())
	}
}

func TestDamagedIdentityIsRefused(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.WriteFile(path+"/node.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "node.json") {
		t.Error(err)
	}
}
