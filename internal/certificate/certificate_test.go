package certificate

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pogod/internal/certificate/certtest"
)

// pemFiles names the files of a certificate in a directory.
func pemFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	t.Parallel()
	cert, key := pemFiles(t.TempDir())
	certtest.Issue(t, 1, cert, key)
	c, err := Load("the test", cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if c.every != lookEvery {
		t.Error(c.every)
	}
	c.every = 0
	serial := func() int64 {
		t.Helper()
		got, err := c.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.SerialNumber.Int64()
	}
	loaded, _ := c.Get(nil)
	if again, _ := c.Get(nil); again != loaded || serial() != 1 {
		t.Error("it was loaded again, though nothing has changed")
	}
	certtest.Issue(t, 2, cert, key)
	if got := serial(); got != 2 {
		t.Error(got)
	}
	next := filepath.Join(t.TempDir(), "key") // a renewal writes one file after the other
	certtest.Issue(t, 3, cert, next)
	if got := serial(); got != 2 {
		t.Error("a certificate whose key is another's:", got)
	}
	if err := os.Rename(next, key); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 3 {
		t.Error(got)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 3 {
		t.Error(got)
	}
	certtest.Issue(t, 4, cert, key)
	if got := serial(); got != 4 {
		t.Error(got)
	}
	c.every = time.Hour
	certtest.Issue(t, 5, cert, key)
	if got := serial(); got != 4 {
		t.Error("it looks more often than it should:", got)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	cert, key := pemFiles(t.TempDir())
	if _, err := Load("the test", cert, key, slog.New(slog.DiscardHandler)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	certtest.Issue(t, 1, cert, key)
	certtest.Issue(t, 2, "", key)
	if _, err := Load("the test", cert, key, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), cert) {
		t.Error(err)
	}
}
