package identity

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pogod/internal/datadir"
)

var allFiles = []string{caKeyFile, caFile, clusterFile, nodeKeyFile, nodeFile}

func names(t *testing.T, path string) (l []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		l = append(l, e.Name())
	}
	return l
}

func TestInitAndLoad(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	if _, err := Load(dir); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "pogod cluster init") || Exists(dir) {
		t.Error("before:", err)
	}
	for _, name := range []string{"state.db", "log"} { // of a single node
		if err := os.WriteFile(dir.File(name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := Init(dir)
	if err != nil || !Exists(dir) || i.Node != dir.NodeID() || !validID(i.Cluster) {
		t.Fatal(i, err)
	}
	for _, name := range []string{"state.db", "log"} {
		if b, err := os.ReadFile(dir.File(name)); string(b) != name || err != nil {
			t.Errorf("%s after: %q %v", name, b, err)
		}
	}
	if got := names(t, dir.Path); !slices.Equal(got, []string{folder, "lock", "log", "node.json", "state.db"}) {
		t.Error(got)
	}
	if got := names(t, dir.File(folder)); !slices.Equal(got, allFiles) {
		t.Error(got)
	}
	err = filepath.Walk(dir.File(folder), func(path string, st fs.FileInfo, err error) error {
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[st.IsDir()]; st.Mode().Perm() != want {
			t.Errorf("%s has mode %04o", path, st.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}

	j, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if j.Cluster != i.Cluster || j.Node != i.Node || i.Joined || j.Joined || !j.key.Equal(i.key) || !j.leaf.Equal(i.leaf) || !j.ca.key.Equal(i.ca.key) || !j.ca.cert.Equal(i.ca.cert) {
		t.Errorf("loaded %+v, made %+v", j, i)
	}
	if _, err := Init(dir); !errors.Is(err, ErrExists) {
		t.Error("again:", err)
	}
	if k, err := Load(dir); err != nil || k.Cluster != i.Cluster {
		t.Error("after a second Init:", k, err)
	}
}

// A crash leaves cluster.tmp, whole or not.
func TestLeftOver(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	tmp, err := stage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := found(t).write(tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrNone) || Exists(dir) {
		t.Error(err)
	}
	i, err := Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir.Path); slices.Contains(got, unfinished) {
		t.Error(got)
	}
	if got := names(t, dir.File(folder)); !slices.Equal(got, allFiles) {
		t.Error(got)
	}
	if j, err := Load(dir); err != nil || j.Cluster != i.Cluster {
		t.Error(j, err)
	}
}

func TestFailedWriteLeavesNoCluster(t *testing.T) {
	t.Parallel()
	dir, i := newDir(t), found(t)
	tmp, err := stage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tmp, clusterFile), 0o700); err != nil { // the last one cannot be written
		t.Fatal(err)
	}
	if err := i.store(dir, tmp); err == nil || Exists(dir) {
		t.Error(err, Exists(dir))
	}
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	other := newDir(t) // of another cluster
	if _, err := Init(other); err != nil {
		t.Fatal(err)
	}
	damages := map[string]func(path string, content []byte) error{
		"missing":   func(path string, _ []byte) error { return os.Remove(path) },
		"empty":     func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"truncated": func(path string, b []byte) error { return os.Truncate(path, int64(len(b)/2)) },
		"lengthened": func(path string, b []byte) error {
			return os.WriteFile(path, append(b, "and more"...), 0o600)
		},
		"garbled": func(path string, b []byte) error {
			// Inside of what is encoded: the frame is whole.
			return os.WriteFile(path, bytes.Replace(b, b[len(b)/2:len(b)/2+4], []byte("!!!!"), 1), 0o600)
		},
		"of another cluster": func(path string, _ []byte) error {
			b, err := os.ReadFile(filepath.Join(other.File(folder), filepath.Base(path)))
			if err != nil {
				return err
			}
			return os.WriteFile(path, b, 0o600)
		},
	}
	dir := newDir(t)
	if _, err := Init(dir); err != nil {
		t.Fatal(err)
	}
	for _, file := range allFiles {
		path := filepath.Join(dir.File(folder), file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, damage := range damages {
			if err := damage(path, bytes.Clone(b)); err != nil {
				t.Fatal(err)
			}
			want := path
			if name == "of another cluster" {
				want = dir.File(folder) // which of two files that do not fit is wrong, nobody knows
			}
			if i, err := Load(dir); err == nil || i != nil || errors.Is(err, ErrNone) || !strings.HasPrefix(err.Error(), want+" is damaged: ") {
				t.Errorf("%s %s: %v", file, name, err)
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := Load(dir); err != nil {
		t.Error("restored:", err)
	}
}

func TestKeysThatOthersCanUse(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	if _, err := Init(dir); err != nil {
		t.Fatal(err)
	}
	for _, file := range allFiles {
		path := filepath.Join(dir.File(folder), file)
		for _, mode := range []fs.FileMode{0o640, 0o620, 0o604, 0o602, 0o666} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := Load(dir)
			isKey := file == caKeyFile || file == nodeKeyFile
			if isKey && (err == nil || !strings.Contains(err.Error(), "`chmod 600 "+path+"`")) || !isKey && err != nil {
				t.Errorf("%s with mode %04o: %v", file, mode, err)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir); err != nil {
		t.Error(err)
	}
}

func TestCopiedFolder(t *testing.T) {
	t.Parallel()
	from, to := newDir(t), newDir(t)
	if _, err := Init(from); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to.File(folder), os.DirFS(from.File(folder))); err != nil {
		t.Fatal(err)
	}
	for _, file := range allFiles {
		if err := os.Chmod(filepath.Join(to.File(folder), file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Load(to)
	if err == nil || !strings.Contains(err.Error(), from.NodeID()) || !strings.Contains(err.Error(), to.NodeID()) || !strings.Contains(err.Error(), "pogod cluster join") {
		t.Error(err)
	}
}

func TestOddNodeID(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "node.json"), []byte(`{"id":"../../etc/passwd"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := Init(dir); err == nil || !strings.Contains(err.Error(), "node.json is damaged") || Exists(dir) {
		t.Error(err)
	}
}
