package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func open1(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *Store, key, value string) {
	t.Helper()
	tx, err := s.Tx()
	if err != nil {
		t.Fatal(err)
	}
	b, err := tx.Bucket([]byte("a"), []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put([]byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Store, key string) (v string, err error) {
	t.Helper()
	err = s.View(func(tx *Tx) error {
		b, err := tx.Bucket([]byte("a"), []byte("b"))
		if err != nil {
			return err
		}
		p, err := b.Get([]byte(key))
		v = string(p)
		return err
	})
	return v, err
}

func TestViewSeesOnlyCommitted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	s := open1(t, path)
	if v, err := get(t, s, "k"); v != "" || err != nil {
		t.Fatal("an empty file has", v, err)
	}
	put(t, s, "k", "1")
	if v, _ := get(t, s, "k"); v != "" {
		t.Error("a view saw the open transaction")
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", "2")
	if err := s.Rollback(); err != nil || s.Dirty() {
		t.Fatal(err)
	}
	if v, _ := get(t, s, "k"); v != "1" {
		t.Errorf("k is %q", v)
	}
	put(t, s, "k", "3")
	if err := s.Close(); err != nil { // does not commit
		t.Fatal(err)
	}
	if v, _ := get(t, open1(t, path), "k"); v != "1" {
		t.Errorf("after reopening k is %q", v)
	}
}

func TestCursorOrder(t *testing.T) {
	t.Parallel()
	s := open1(t, filepath.Join(t.TempDir(), "f"))
	for _, k := range []string{"b", "a", "d"} {
		put(t, s, k, "v"+k)
	}
	tx, _ := s.Tx()
	b, _ := tx.Bucket([]byte("a"), []byte("b"))
	c := b.Cursor()
	var got []byte
	for k, v, err := c.First(); k != nil; k, v, err = c.Next() {
		if err != nil || string(v) != "v"+string(k) {
			t.Fatal(string(k), string(v), err)
		}
		got = append(got, k...)
	}
	if k, _, _ := c.Seek([]byte("c")); string(k) != "d" {
		t.Error("Seek went to", string(k))
	}
	if k, _, _ := c.Prev(); string(k) != "b" {
		t.Error("Prev went to", string(k))
	}
	if k, _, _ := c.Last(); string(k) != "d" || string(got) != "abd" {
		t.Error(string(k), string(got))
	}
	if k, _, err := (*Bucket)(nil).Cursor().First(); k != nil || err != nil {
		t.Error("a missing bucket is not empty")
	}
}

// Every flipped byte of a value, and a value moved to another key, is noticed.
func TestCorruptValueIsNoticed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	s := open1(t, path)
	put(t, s, "key", "a payload that matters")
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, []byte("a payload that matters"))
	for i := range len("a payload that matters") + SealSize {
		flipped := bytes.Clone(raw)
		flipped[at+i] ^= 0x40
		other := filepath.Join(t.TempDir(), "g")
		if err := os.WriteFile(other, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open1(t, other)
		if v, err := get(t, s, "key"); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %q %v", i, v, err)
		}
		_ = s.Close()
	}
	if _, err := open([]byte("other"), seal([]byte("key"), []byte("v"))); !errors.Is(err, ErrCorrupt) {
		t.Error("a value under another key:", err)
	}
}

func TestFormatAndLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	s := open1(t, path)
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Error("a second Open:", err)
	}
	_ = s.Close()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(formatBucket).Put(versionKey, binary.BigEndian.AppendUint32(nil, FormatVersion+1))
	})
	_ = db.Close()
	if _, err := Open(path); !errors.Is(err, ErrNewerFormat) {
		t.Error("a newer file:", err)
	}
}
