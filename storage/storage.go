// Package storage is the node's data file: one bbolt file, written through one open
// transaction that is committed, always with fsync, every so often, and read
// through snapshots of what was committed.
//
// Every value carries a CRC32C over its key and itself, because bbolt's pages carry
// none. The file carries a format version; a newer one is refused. NoSync is never
// used: after a power loss such a file can be unreadable. DESIGN.md says why the
// transaction stays open.
//
// The writer's side (Tx, Commit, Rollback, Close) belongs to one goroutine at a
// time: raftfsm holds it under its lock. Views may be opened from anywhere.
package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// FormatVersion of the data file. A file with a greater one is refused.
const FormatVersion = 1

// mmapSize is address space, not memory: bbolt cannot grow its map while a read
// transaction is open, so the map is made large enough for good.
const mmapSize = 64 << 30

var (
	// ErrNewerFormat is returned when a later version of pogod wrote the file.
	ErrNewerFormat = errors.New("storage: the data file was written by a newer pogod")
	// ErrCorrupt is returned when a value does not match its CRC32C.
	ErrCorrupt = errors.New("storage: corrupt value")
	// ErrClosed is returned by a View after Close.
	ErrClosed = errors.New("storage: the data file is closed")
	// ErrLocked is returned when another process has the file open.
	ErrLocked = errors.New("storage: the data file is in use by another process")
)

var (
	formatBucket = []byte("format")
	versionKey   = []byte("version")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// Store is an open data file.
type Store struct {
	db   *bolt.DB
	file *os.File // the db's, which its path may not name any more
	tx   *Tx      // the open transaction; nil before the first write after a commit
}

// Open opens the file at path, or makes it with mode 0600.
func Open(path string) (*Store, error) {
	s := &Store{}
	err := Guard(func() (err error) {
		s.db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:         time.Second,
			InitialMmapSize: mmapSize,
			FreelistType:    bolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
				s.file, err = os.OpenFile(name, flag, mode)
				return s.file, err
			},
		})
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrChecksum) || errors.Is(err, bolterrors.ErrVersionMismatch) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := Guard(func() error { return checkFormat(s.db) }); err != nil {
		if !errors.Is(err, ErrCorrupt) { // else it may hold its locks
			err = errors.Join(err, s.db.Close())
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

// checkFormat reads the format version, or writes it into a new file.
func checkFormat(db *bolt.DB) error {
	var stored []byte
	if err := db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(formatBucket); b != nil {
			stored = append(stored, b.Get(versionKey)...)
		}
		return nil
	}); err != nil {
		return err
	}
	if stored == nil {
		return db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(formatBucket)
			if err != nil {
				return err
			}
			return b.Put(versionKey, binary.BigEndian.AppendUint32(nil, FormatVersion))
		})
	}
	if len(stored) != 4 {
		return fmt.Errorf("%w: the format version has %d bytes", ErrCorrupt, len(stored))
	}
	if v := binary.BigEndian.Uint32(stored); v > FormatVersion {
		return fmt.Errorf("%w: format %d, this one reads up to %d; run the pogod that wrote it, or name another data directory", ErrNewerFormat, v, FormatVersion)
	}
	return nil
}

// Tx returns the open write transaction, begun when there is none.
func (s *Store) Tx() (*Tx, error) {
	if s.tx == nil {
		tx, err := s.db.Begin(true)
		if err != nil {
			return nil, fmt.Errorf("begin: %w", err)
		}
		s.tx = &Tx{tx: tx}
	}
	return s.tx, nil
}

// Dirty reports whether a write transaction is open.
func (s *Store) Dirty() bool { return s.tx != nil }

// Commit writes the open transaction to the disk and waits for fsync; nothing to
// do without one. After an error the file must not be written again.
func (s *Store) Commit() error {
	if s.tx == nil {
		return nil
	}
	tx := s.tx.tx
	s.tx = nil
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Rollback drops the open transaction.
func (s *Store) Rollback() error {
	if s.tx == nil {
		return nil
	}
	tx := s.tx.tx
	s.tx = nil
	return tx.Rollback()
}

// View calls f with what was committed last. Keep it short: pages that it can see
// are not reused meanwhile. Byte slices from tx are valid until f returns.
func (s *Store) View(f func(tx *Tx) error) error {
	err := s.db.View(func(tx *bolt.Tx) error { return f(&Tx{tx: tx}) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// Path returns the name under which the file was opened.
func (s *Store) Path() string { return s.db.Path() }

// Close drops the open transaction, waits for views and closes the file. It does
// not commit.
func (s *Store) Close() error { return errors.Join(s.Rollback(), s.db.Close()) }

// Stats says how large the file is.
type Stats struct {
	FileBytes int64 // on disk; bbolt files do not shrink
	FreeBytes int64 // of it, in pages that the next writes reuse
}

// Stats of the file, as of the last commit.
func (s *Store) Stats() (Stats, error) {
	st, err := s.file.Stat()
	if err != nil {
		return Stats{}, err
	}
	b := s.db.Stats()
	return Stats{FileBytes: st.Size(), FreeBytes: int64(b.FreePageN+b.PendingPageN) * int64(s.db.Info().PageSize)}, nil
}

// Tx is the open write transaction, or a view.
type Tx struct{ tx *bolt.Tx }

// Bucket returns the bucket at path, nested ones behind their parents; in a write
// transaction it is made when it is missing, in a view a missing one is nil, and a
// nil Bucket is empty.
func (t *Tx) Bucket(path ...[]byte) (*Bucket, error) {
	if !t.tx.Writable() {
		b := t.tx.Bucket(path[0])
		for _, name := range path[1:] {
			if b != nil {
				b = b.Bucket(name)
			}
		}
		if b == nil {
			return nil, nil //nolint:nilnil // a nil *Bucket is an empty bucket
		}
		return &Bucket{b}, nil
	}
	var b *bolt.Bucket
	for i, name := range path {
		var err error
		if i == 0 {
			b, err = t.tx.CreateBucketIfNotExists(name)
		} else {
			b, err = b.CreateBucketIfNotExists(name)
		}
		if err == nil && b.Sequence() == 0 {
			err = b.SetSequence(nameSum(name)) // for Verify: bbolt has no sum of it
		}
		if err != nil {
			return nil, fmt.Errorf("bucket %s: %w", path, err)
		}
	}
	return &Bucket{b}, nil
}

// Walk calls f with every value, in the order of buckets and keys; path names the
// bucket. The format's version is left out. What f is given is valid during the call.
func (t *Tx) Walk(f func(path [][]byte, key, value []byte)) error {
	return t.tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if bytes.Equal(name, formatBucket) {
			return nil
		}
		return walk([][]byte{name}, b, f)
	})
}

func walk(path [][]byte, b *bolt.Bucket, f func(path [][]byte, key, value []byte)) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return walk(append(path[:len(path):len(path)], k), b.Bucket(k), f)
		}
		value, err := open(k, v)
		if err != nil {
			return err
		}
		f(path, k, value)
		return nil
	})
}

// Bucket is a sorted map of sealed values.
type Bucket struct{ b *bolt.Bucket }

// Put stores value under key. It takes value over: leave SealSize bytes of capacity
// free to spare a copy, and do not use it again, for bbolt keeps it until commit.
func (b *Bucket) Put(key, value []byte) error {
	if err := b.b.Put(key, seal(key, value)); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	return nil
}

// Get returns the value under key, nil when there is none. It is valid until the
// transaction ends and must not be changed.
func (b *Bucket) Get(key []byte) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	v := b.b.Get(key)
	if v == nil {
		return nil, nil
	}
	return open(key, v)
}

// Delete removes key, if it is there.
func (b *Bucket) Delete(key []byte) error {
	if err := b.b.Delete(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// Cursor returns a cursor over b in the order of keys. Do not change the bucket
// while using it: gather first.
func (b *Bucket) Cursor() *Cursor {
	if b == nil {
		return &Cursor{}
	}
	return &Cursor{c: b.b.Cursor()}
}

// Cursor moves over a bucket. Its methods return a nil key at the end; key and
// value are valid until the transaction ends.
type Cursor struct{ c *bolt.Cursor }

// First moves to the smallest key.
func (c *Cursor) First() (key, value []byte, err error) {
	if c.c == nil {
		return nil, nil, nil
	}
	return opened(c.c.First())
}

// Last moves to the greatest key. In a view only: in the write transaction bbolt can
// go round for ever in pages that were emptied and not yet committed.
func (c *Cursor) Last() (key, value []byte, err error) {
	if c.c == nil {
		return nil, nil, nil
	}
	return opened(c.c.Last())
}

// Seek moves to the first key at or after key.
func (c *Cursor) Seek(key []byte) (k, value []byte, err error) {
	if c.c == nil {
		return nil, nil, nil
	}
	return opened(c.c.Seek(key))
}

// Next moves on.
func (c *Cursor) Next() (key, value []byte, err error) {
	if c.c == nil {
		return nil, nil, nil
	}
	return opened(c.c.Next())
}

// Prev moves back. In a view only, see Last.
func (c *Cursor) Prev() (key, value []byte, err error) {
	if c.c == nil {
		return nil, nil, nil
	}
	return opened(c.c.Prev())
}

// SealSize is what sealing adds to a value, in bytes.
const SealSize = 4

func seal(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return binary.LittleEndian.AppendUint32(value, sum)
}

func opened(key, sealed []byte) (k, value []byte, err error) {
	if key == nil {
		return nil, nil, nil
	}
	value, err = open(key, sealed)
	return key, value, err
}

func open(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - SealSize
	if n < 0 {
		return nil, fmt.Errorf("%w: key %x has %d bytes", ErrCorrupt, key, len(sealed))
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, sealed[:n])
	if sum != binary.LittleEndian.Uint32(sealed[n:]) {
		return nil, fmt.Errorf("%w: key %x does not match its CRC32C", ErrCorrupt, key)
	}
	return sealed[:n:n], nil
}
