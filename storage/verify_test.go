package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// varied makes a file with all that a file can have: nested buckets, large and small
// ones, branches, values over several pages, and free pages.
func varied(t *testing.T, path string) {
	t.Helper()
	s := open1(t, path)
	fill := func(n, size int, bucket ...[]byte) {
		tx, err := s.Tx()
		if err != nil {
			t.Fatal(err)
		}
		b, err := tx.Bucket(bucket...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := b.Put(binary.BigEndian.AppendUint64(nil, uint64(i)), bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	fill(400, 60, []byte("jobs"), []byte("one"))
	fill(3, 10, []byte("jobs"), []byte("two")) // inline
	fill(4, 9000, []byte("large"))
	fill(300, 60, []byte("gone"))
	tx, _ := s.Tx()
	b, _ := tx.Bucket([]byte("gone"))
	for i := range 290 {
		if err := b.Delete(binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	// A copy has no room behind its last page.
	c, err := s.Copy()
	if err != nil {
		t.Fatal(err)
	}
	to := path + ".copy"
	in, err := Receive(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo(in); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Finish(), c.Close(), s.Close(), os.Rename(to, path)); err != nil {
		t.Fatal(err)
	}
}

// content is a sum of what a file holds.
func content(path string) (sum [32]byte, err error) {
	err = Guard(func() error {
		s, err := Open(path)
		if err != nil {
			return err
		}
		h := sha256.New()
		err = s.View(func(tx *Tx) error {
			return tx.Walk(func(path [][]byte, key, value []byte) { fmt.Fprintf(h, "%q %q %q\n", path, key, value) })
		})
		sum = [32]byte(h.Sum(nil))
		return errors.Join(err, s.Close())
	})
	return sum, err
}

// Every damaged byte of a file is noticed, or changes nothing.
func TestVerifyFindsEveryFlipThatMatters(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	varied(t, path)
	if err := VerifyFile(path); err != nil {
		t.Fatal("the whole file:", err)
	}
	want, err := content(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	put := func(at int, b byte) {
		if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	found, harmless := 0, 0
	for at := range raw {
		// All of each page's header and first elements, and some of the rest.
		if at%page > 56 && at%199 != 0 {
			continue
		}
		put(at, raw[at]^1<<(at%8))
		err := VerifyFile(path)
		if errors.Is(err, ErrCorrupt) {
			found++
			put(at, raw[at])
			continue
		}
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		got, err := content(path)
		put(at, raw[at])
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
			t.Errorf("byte %d of page %d: it is whole, says Verify, and cannot be read: %v", at%page, at/page, err)
		}
		if err == nil && got != want {
			t.Errorf("byte %d of page %d: it holds something else, and Verify does not see it", at%page, at/page)
		}
		harmless++
	}
	t.Logf("%d found, %d harmless", found, harmless)
	if found < harmless/4 || harmless == 0 {
		t.Error("that is no measure of anything")
	}
}

// Verify looks at one commit while others are made.
func TestVerifyBesideTheWriter(t *testing.T) {
	t.Parallel()
	s := open1(t, filepath.Join(t.TempDir(), "f"))
	round := 0
	write := func() {
		for i := range 50 {
			put(t, s, fmt.Sprint(i), fmt.Sprint(round))
		}
		round++
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	write()
	for range 10 {
		read := 0
		if err := s.Verify(func(n int) error {
			if read += n; read <= 3*os.Getpagesize() {
				write()
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if read < os.Getpagesize() {
			t.Fatal("it has read", read)
		}
	}
	enough := errors.New("enough")
	if err := s.Verify(func(int) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
}

// A damaged page makes bbolt panic, or the kernel; both are ErrCorrupt, and a panic of
// others is theirs.
func TestGuard(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	varied(t, path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	spoil := func(what string, kind uint16, change func(page []byte)) {
		t.Helper()
		b, n := bytes.Clone(raw), 0
		for at := 2 * page; at < len(b); at += page {
			if flags(b[at:]) == kind {
				change(b[at:])
				n++
			}
		}
		if n == 0 {
			t.Fatal("the file has no page of that kind")
		}
		to := filepath.Join(t.TempDir(), "g") // the one before may be open still
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := content(to); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	spoil("a page that is not there", branchFlag, func(p []byte) { p[pageHeader+8+4]++ }) // the first child's is 2^32 further on
	spoil("a page of no kind, of which bbolt says so", leafFlag, func(p []byte) { p[8] = 0x40 })
	defer func() {
		if p := recover(); p != "mine" {
			t.Error(p)
		}
	}()
	_ = Guard(func() error { panic("mine") })
}

// A name of a bucket has a sum, too; what earlier versions made has none.
func TestNamesOfBuckets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	varied(t, path)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	set := func(v uint64) {
		t.Helper()
		if err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("large")).SetSequence(v) }); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	if err := VerifyFile(path); err != nil {
		t.Error("one without a sum:", err)
	}
	set(nameSum([]byte("larga")))
	if err := VerifyFile(path); !errors.Is(err, ErrCorrupt) {
		t.Error("the name of another:", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
