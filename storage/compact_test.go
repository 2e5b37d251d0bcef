package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A compacted file has every value of the one before, in buckets with their sums, and no
// free pages to speak of.
func TestCompact(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "f"), filepath.Join(t.TempDir(), "to")
	s := open1(t, from)
	for i := range 4000 {
		put(t, s, fmt.Sprint("k", i), strings.Repeat("x", 1000))
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	tx, err := s.Tx()
	if err != nil {
		t.Fatal(err)
	}
	nested, err := tx.Bucket([]byte("outer"), []byte("inner"))
	if err != nil {
		t.Fatal(err)
	}
	if err := nested.Put([]byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	b, err := tx.Bucket([]byte("a"), []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3990 {
		if err := b.Delete([]byte(fmt.Sprint("k", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	want := walked(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Compact(from, to); err != nil {
		t.Fatal(err)
	}
	before, err1 := os.Stat(from)
	after, err2 := os.Stat(to)
	if err1 != nil || err2 != nil || after.Size()*10 > before.Size() || after.Mode() != 0o600 {
		t.Errorf("%d bytes became %d, %v", before.Size(), after.Size(), after.Mode())
	}
	got := open1(t, to)
	if w := walked(t, got); w != want || !strings.Contains(w, "inner") {
		t.Errorf("it holds %.200s, and before %.200s", w, want)
	}
}

// A damaged file is not made to look whole: not one of which a value was changed, nor one
// whose page has forgotten its last one, which bbolt reads without a word.
func TestCompactRefusesADamagedFile(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "f")
	s := open1(t, from)
	for i := range 200 {
		put(t, s, fmt.Sprint("k", i), "the value")
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(b []byte){
		"value": func(b []byte) { b[bytes.LastIndex(b, []byte("the value"))] ^= 1 },
		"count": func(b []byte) {
			for at := 0; at < len(b); at += os.Getpagesize() {
				if flags(b[at:]) == leafFlag && count(b[at:]) > 10 {
					b[at+10]--
				}
			}
		},
	} {
		b := bytes.Clone(whole)
		damage(b)
		if err := os.WriteFile(from, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Compact(from, from+".to"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func walked(t *testing.T, s *Store) string {
	t.Helper()
	var b strings.Builder
	if err := s.View(func(tx *Tx) error {
		return tx.Walk(func(path [][]byte, k, v []byte) { fmt.Fprintf(&b, "%q %q %q\n", path, k, v) })
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
