package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pogod/internal/admin"
	"pogod/internal/clock"
	"pogod/internal/datadir"
	"pogod/raftfsm"
)

// aBackup is one of a new node.
func aBackup(t *testing.T) []byte {
	t.Helper()
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	g, err := raftfsm.Open(t.Context(), raftfsm.Config{Dir: dir, Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := g.Backup(raftfsm.BackupHeader{Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// backedUp is a node whose backup is sent, of so many bytes.
type backedUp struct {
	source
	sent []byte
	size int
}

func (b backedUp) Backup() (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(b.sent)), int64(b.size), nil
}

func withBackup(t *testing.T, sent []byte, size int) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := admin.New(ln, backedUp{sent: sent, size: size}, nil, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- a.Serve() }() // ended by Shutdown
	t.Cleanup(func() {
		if err := errors.Join(a.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return a.Addr().String()
}

func TestBackup(t *testing.T) {
	t.Parallel()
	whole := aBackup(t)
	at := withBackup(t, whole, len(whole))
	dir := t.TempDir()
	file := filepath.Join(dir, "b")
	code, out, errs := run(Deps{}, "backup", "--admin", at, file)
	if code != 0 || errs != "" || !strings.HasPrefix(out, "saved entry ") || !strings.Contains(out, " to "+file+", ") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode() != 0o600 || st.Size() != int64(len(whole)) {
		t.Errorf("%v %v", st, err)
	}
	// What is there is not written over, unless that is asked for.
	if code, _, errs := run(Deps{}, "backup", "--admin", at, file); code != 1 || !strings.Contains(errs, "is there already: name another file, or write over it with --force") {
		t.Errorf("%d %s", code, errs)
	}
	code, out, errs = run(Deps{}, "backup", "--admin", at, file, "--force", "--json")
	var doc backupDoc
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil || doc.File != file || doc.Bytes != st.Size() || doc.Node == "" || doc.Version != "0.1.0" || doc.Format != 1 {
		t.Errorf("%d %s%s %v", code, out, errs, err)
	}
	if code, _, errs := run(Deps{}, "backup", "--admin", at, dir, "--force"); code != 1 || !strings.Contains(errs, "is no file") {
		t.Errorf("%d %s", code, errs)
	}
	if code, out, errs := run(Deps{}, "backup", "--admin", at, "-"); code != 0 || errs != "" || out != string(whole) {
		t.Errorf("%d %s", code, errs)
	}
	for _, args := range [][]string{{"backup"}, {"backup", ""}, {"backup", "-", "--json", "--admin", at}} {
		if code, _, errs := run(Deps{}, args...); code != 2 {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
	if code, _, errs := runOn(screens{stdout: true}, Deps{}, "backup", "--admin", at, "-"); code != 2 || !strings.Contains(errs, "no text for a terminal") {
		t.Errorf("%d %s", code, errs)
	}
	if names := files(t, dir); len(names) != 1 {
		t.Errorf("there is more in the directory: %q", names)
	}
}

// What breaks off, or is not what was sent, leaves nothing behind, nor does it touch what is
// there.
func TestBackupThatIsNotWhole(t *testing.T) {
	t.Parallel()
	whole := aBackup(t)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		sent []byte
		size int
		want string
	}{
		"cut off": {whole[:len(whole)/2], len(whole), "broke off after"},
		"short":   {whole[:len(whole)/2], len(whole) / 2, "broke off after"},
		"flipped": {flipped, len(whole), "the backup is damaged"},
		"another": {[]byte("hello, this is something else"), 29, "is not pogod's admin endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "b")
			if err := os.WriteFile(file, []byte("the one before"), 0o600); err != nil {
				t.Fatal(err)
			}
			code, out, errs := run(Deps{}, "backup", "--force", "--admin", withBackup(t, c.sent, c.size), file)
			if code != 1 || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
				t.Errorf("%d %s%s", code, out, errs)
			}
			if b, err := os.ReadFile(file); err != nil || string(b) != "the one before" || len(files(t, dir)) != 1 {
				t.Errorf("%q %v %q", b, err, files(t, dir))
			}
		})
	}
	if code, _, errs := run(Deps{}, "backup", "--admin", "127.0.0.1:1", filepath.Join(t.TempDir(), "b")); code != 3 {
		t.Errorf("%d %s", code, errs)
	}
}
