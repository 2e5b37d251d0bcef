package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A copy is the file of one commit, whatever is written meanwhile, however its bytes
// come, and even when the file's name has become another one's.
func TestCopyIsOneCommit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	s := open1(t, path)
	for i := range 1000 {
		put(t, s, fmt.Sprint("k", i), "before")
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	c, err := s.Copy()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		put(t, s, fmt.Sprint("k", i), "after")
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, []byte("another file"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	n, err := c.WriteTo(&sent)
	if err != nil || n != c.Size() || int64(sent.Len()) != n {
		t.Fatal(n, c.Size(), err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "to")
	in, err := Receive(to)
	if err != nil {
		t.Fatal(err)
	}
	for p := sent.Bytes(); len(p) > 0; {
		n := min(len(p), 1+rand.IntN(9000)/(1+rand.IntN(3000)))
		if _, err := in.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	if err := in.Finish(); err != nil || in.Received() != n {
		t.Fatal(err, in.Received())
	}
	got := open1(t, to)
	for i := range 1000 {
		if v, err := get(t, got, fmt.Sprint("k", i)); v != "before" || err != nil {
			t.Fatal(i, v, err)
		}
	}
}

// A copy of which a byte was changed, or some are missing, is refused.
func TestDamagedCopiesAreRefused(t *testing.T) {
	t.Parallel()
	s := open1(t, filepath.Join(t.TempDir(), "f"))
	for i := range 100 {
		put(t, s, fmt.Sprint("k", i), "value")
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	c, err := s.Copy()
	if err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	if _, err := c.WriteTo(&sent); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	receive := func(p []byte) error {
		t.Helper()
		in, err := Receive(filepath.Join(t.TempDir(), "to"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(p); err != nil {
			t.Fatal(err)
		}
		err = in.Finish()
		if err2 := in.Cancel(); err2 != nil {
			t.Error(err2)
		}
		return err
	}
	for _, n := range []int{0, 3, 4, 5000, sent.Len() - 1} {
		if err := receive(sent.Bytes()[:n]); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	for at := 0; at < sent.Len(); at += 997 {
		p := bytes.Clone(sent.Bytes())
		p[at] ^= 4
		if err := receive(p); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	if err := receive(sent.Bytes()); err != nil {
		t.Error(err)
	}
}
