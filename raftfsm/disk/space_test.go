package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSpace fills a file system of 16 MiB, and empties it again.
func TestSpace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skip("needs the right to mount a tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := NewSpace(dir, 8<<20)
	if err := s.Room(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fill int
		low  bool
	}{{7, false}, {9, true}, {8, true}, {7, true}, {5, false}, {8, false}} {
		if err := os.WriteFile(filepath.Join(dir, "x"), make([]byte, c.fill<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Look()
		if got := s.Standing(); got.Low != c.low || got.Floor != 8<<20 {
			t.Errorf("%d of 16 MiB used: %+v", c.fill, got)
		}
		err := s.Room()
		if errors.Is(err, ErrLow) != c.low {
			t.Errorf("%d of 16 MiB used: %v", c.fill, err)
		}
		if c.low && err != nil && (!strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "min_free_bytes is 8.0 MiB")) {
			t.Error(err)
		}
	}
	s.SetFloor(12 << 20)
	if s.Room() == nil {
		t.Error("a floor that was raised does not count")
	}
	s.SetFloor(0)
	if err := s.Room(); err != nil {
		t.Error(err)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 102400: "100 KiB",
		1048575: "1.0 MiB", 1 << 20: "1.0 MiB", 5 << 40: "5.0 TiB", 1 << 62: "4096 PiB",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d: %s, not %s", n, got, want)
		}
	}
}
