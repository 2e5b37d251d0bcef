package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// bbolt's file, little-endian on all machines that pogod runs on:
//
//	page     id 8 | flags 2 | count 2 | overflow 4 | elements, and what they point to
//	meta     magic 4 | version 4 | page size 4 | flags 4 | root 8 | sequence 8 | freelist 8 | pages 8 | transaction 8 | FNV-64a 8
//	branch   position 4 | key size 4 | page 8, for each element
//	leaf     flags 4 | position 4 | key size 4 | value size 4, for each element
//	bucket   root 8 | sequence 8 | a page, when root is 0        the value of a leaf element with flag 1
//	freelist ids of 8 bytes; when count is 0xffff the first is their number
//
// bbolt has no checksums but the meta pages'. It writes pages without gaps, though, and
// each page is either in the tree or free; so a flipped bit in what the values' CRC32C do
// not cover leaves a page that is not whole, a key out of order, or a page that is used
// twice or not at all.
const (
	pageHeader   = 16
	branchSize   = 16
	leafSize     = 16
	bucketSize   = 16
	headSize     = pageHeader + 64
	metaMagic    = 0xED0CDAED
	branchFlag   = 0x01
	leafFlag     = 0x02
	metaFlag     = 0x04
	freelistFlag = 0x10
	noFreelist   = 1<<64 - 1
	maxDepth     = 64
)

// Progress of a Verify: it is called for each page, from the same goroutine, with how many
// bytes were read for it. An error ends the Verify.
type Progress func(read int) error

// VerifyFile checks a file that is not open: see Store.Verify.
func VerifyFile(path string) error { return verifyFile(path, true) }

// VerifyPages checks the pages of any file of bbolt's that is not open, and not the values,
// which have sums in a data file alone.
func VerifyPages(path string) error { return verifyFile(path, false) }

func verifyFile(path string, values bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if err := verifyAt(f, values, func(int) error { return nil }); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// VerifyAt checks a data file that r reads at any place: see Store.Verify.
func VerifyAt(r io.ReaderAt, p Progress) error { return verifyAt(r, true, p) }

func verifyAt(f io.ReaderAt, values bool, p Progress) error {
	newest, err := readMeta(f, 0)
	size := os.Getpagesize()
	if err == nil {
		size = newest.pageSize
	}
	if m, err2 := readMeta(f, int64(size)); err2 == nil && (err != nil || m.tx > newest.tx) {
		newest = m
	}
	if newest == nil {
		return fmt.Errorf("%w: it has no whole meta page", ErrCorrupt)
	}
	return verify(f, newest, values, p)
}

// Verify reads everything that was committed last and checks it: each value's CRC32C,
// and that the pages are whole and make one tree. The writer goes on meanwhile. It fails
// with ErrCorrupt, and with the error of p.
func (s *Store) Verify(p Progress) error {
	tx, m, err := s.committed()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // only read
	return verify(s.file, m, true, p)
}

// committed begins a view and returns it with its meta page. The commit after the next one
// writes over that page, so it is read at once, and again from a newer view if that was
// not soon enough.
func (s *Store) committed() (*bolt.Tx, *meta, error) {
	const attempts = 100
	for i := 1; ; i++ {
		tx, err := s.db.Begin(false)
		if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			return nil, nil, ErrClosed
		}
		if err != nil {
			return nil, nil, err
		}
		m, err := readMeta(s.file, int64(tx.ID()%2)*int64(s.db.Info().PageSize))
		if err == nil && m.tx == uint64(tx.ID()) {
			return tx, m, nil
		}
		_ = tx.Rollback() // only read
		if i == attempts {
			return nil, nil, errors.Join(err, fmt.Errorf("%w: the meta page of the last commit is not there", ErrCorrupt))
		}
	}
}

type meta struct {
	pageSize                  int
	root, freelist, pages, tx uint64
}

func readMeta(r io.ReaderAt, at int64) (*meta, error) {
	b := make([]byte, headSize)
	if _, err := r.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("%w: a meta page: %w", ErrCorrupt, err)
	}
	p := b[pageHeader:]
	h := fnv.New64a()
	_, _ = h.Write(p[:56]) // never fails
	m := &meta{
		pageSize: int(binary.LittleEndian.Uint32(p[8:])), root: binary.LittleEndian.Uint64(p[16:]), freelist: binary.LittleEndian.Uint64(p[32:]),
		pages: binary.LittleEndian.Uint64(p[40:]), tx: binary.LittleEndian.Uint64(p[48:]),
	}
	switch {
	case binary.LittleEndian.Uint32(p) != metaMagic:
		return nil, fmt.Errorf("%w: it is no data file", ErrCorrupt)
	case binary.LittleEndian.Uint64(p[56:]) != h.Sum64():
		return nil, fmt.Errorf("%w: a meta page does not match its sum", ErrCorrupt)
	}
	return m, nil
}

// verifier walks the pages of one commit.
type verifier struct {
	r      io.ReaderAt
	m      *meta
	values bool // have sums
	p      Progress
	seen   []uint64 // a bit for each page
	pages  [][]byte // the last one read of each depth: a page is needed until what is below it was walked
}

func verify(r io.ReaderAt, m *meta, values bool, p Progress) error {
	v := &verifier{r: r, m: m, values: values, p: p, seen: make([]uint64, m.pages/64+1)}
	err := errors.Join(v.take(0, 0), v.take(1, 0))
	if err == nil {
		err = v.tree(m.root, nil, nil, nil, 0)
	}
	if err == nil && m.freelist != noFreelist {
		err = v.freelist()
	}
	if err != nil {
		return err
	}
	for id := range m.pages {
		if m.freelist != noFreelist && v.seen[id/64]&(1<<(id%64)) == 0 {
			return fmt.Errorf("%w: page %d is neither used nor free", ErrCorrupt, id)
		}
	}
	return nil
}

// take notes that a page, and overflow more behind it, are used.
func (v *verifier) take(id, overflow uint64) error {
	if id >= v.m.pages || overflow >= v.m.pages-id {
		return fmt.Errorf("%w: page %d with %d more is beyond the last, %d", ErrCorrupt, id, overflow, v.m.pages)
	}
	for i := id; i <= id+overflow; i++ {
		if v.seen[i/64]&(1<<(i%64)) != 0 {
			return fmt.Errorf("%w: page %d is used twice", ErrCorrupt, i)
		}
		v.seen[i/64] |= 1 << (i % 64)
	}
	return nil
}

// page reads a page with all that belongs to it. It is good until the next one of that depth.
func (v *verifier) page(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= v.m.pages {
		return nil, fmt.Errorf("%w: there is no page %d", ErrCorrupt, id)
	}
	for depth >= len(v.pages) {
		v.pages = append(v.pages, make([]byte, v.m.pageSize))
	}
	b, at := v.pages[depth][:v.m.pageSize], int64(id)*int64(v.m.pageSize)
	if _, err := v.r.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("%w: page %d: %w", ErrCorrupt, id, err)
	}
	if got := binary.LittleEndian.Uint64(b); got != id {
		return nil, fmt.Errorf("%w: page %d says that it is page %d", ErrCorrupt, id, got)
	}
	overflow := uint64(binary.LittleEndian.Uint32(b[12:]))
	if err := v.take(id, overflow); err != nil {
		return nil, err
	}
	if overflow > 0 {
		b = slices.Grow(b, int(overflow)*v.m.pageSize)[:int(overflow+1)*v.m.pageSize]
		v.pages[depth] = b
		if _, err := v.r.ReadAt(b[v.m.pageSize:], at+int64(v.m.pageSize)); err != nil {
			return nil, fmt.Errorf("%w: page %d: %w", ErrCorrupt, id, err)
		}
	}
	return b, v.p(len(b))
}

func flags(page []byte) uint16 { return binary.LittleEndian.Uint16(page[8:]) }
func count(page []byte) int    { return int(binary.LittleEndian.Uint16(page[10:])) }

// element is one of a page's, with its key and, in a leaf, its value.
type element struct {
	flags      uint32
	page       uint64
	key, value []byte
}

// elements of a branch or leaf. They are written without gaps: the first begins behind
// the last element, each one behind the one before. An inline page has nothing behind them;
// it, and the root of a new file, may have none.
func elements(id uint64, page []byte, inline, root bool) ([]element, error) {
	broken := func(i int) error { return fmt.Errorf("%w: element %d of page %d is not whole", ErrCorrupt, i, id) }
	all := make([]element, count(page))
	next := uint64(pageHeader + len(all)*leafSize)
	if next > uint64(len(page)) || len(all) == 0 && !inline && !root {
		return nil, broken(len(all))
	}
	for i := range all {
		at := uint64(pageHeader + i*leafSize)
		b := page[at:]
		e := &all[i]
		var position, key, value uint64
		if flags(page) == branchFlag {
			position, key, e.page = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:])), binary.LittleEndian.Uint64(b[8:])
		} else {
			e.flags = binary.LittleEndian.Uint32(b)
			position, key, value = uint64(binary.LittleEndian.Uint32(b[4:])), uint64(binary.LittleEndian.Uint32(b[8:])), uint64(binary.LittleEndian.Uint32(b[12:]))
		}
		if at+position != next || next+key+value > uint64(len(page)) || e.flags > 1 {
			return nil, broken(i)
		}
		e.key, e.value = page[next:next+key], page[next+key:next+key+value]
		next += key + value
		if i > 0 && bytes.Compare(all[i-1].key, e.key) >= 0 {
			return nil, fmt.Errorf("%w: the keys of page %d are out of order", ErrCorrupt, id)
		}
	}
	if inline && next != uint64(len(page)) {
		return nil, broken(len(all))
	}
	return all, nil
}

// tree walks the pages from one on, whose keys are from low up to, and without, high; nil:
// no bound. path names the bucket.
func (v *verifier) tree(id uint64, path [][]byte, low, high []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: the tree is too deep at page %d", ErrCorrupt, id)
	}
	page, err := v.page(id, depth)
	if err != nil {
		return err
	}
	all, err := elements(id, page, false, depth == 0)
	if err != nil {
		return err
	}
	return v.walk(id, flags(page), all, path, low, high, depth)
}

// walk checks the elements of a page.
func (v *verifier) walk(id uint64, kind uint16, all []element, path [][]byte, low, high []byte, depth int) (err error) {
	if kind != branchFlag && kind != leafFlag {
		return fmt.Errorf("%w: page %d is neither a branch nor a leaf", ErrCorrupt, id)
	}
	if n := len(all); n > 0 && (bytes.Compare(all[0].key, low) < 0 || high != nil && bytes.Compare(all[n-1].key, high) >= 0) {
		return fmt.Errorf("%w: page %d has keys that belong elsewhere", ErrCorrupt, id)
	}
	for i, e := range all {
		switch {
		case kind == branchFlag:
			to := high
			if i+1 < len(all) {
				to = all[i+1].key
			}
			err = v.tree(e.page, path, e.key, to, depth+1)
		case e.flags == 1:
			err = v.bucket(id, e, path, depth)
		case len(path) == 0:
			err = fmt.Errorf("%w: page %d has a value outside of all buckets", ErrCorrupt, id)
		case v.values && !bytes.Equal(path[0], formatBucket):
			_, err = open(e.key, e.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a bucket's name and walks it.
func (v *verifier) bucket(id uint64, e element, path [][]byte, depth int) error {
	if len(e.value) < bucketSize {
		return fmt.Errorf("%w: the bucket %x in page %d is not whole", ErrCorrupt, e.key, id)
	}
	root, sum := binary.LittleEndian.Uint64(e.value), binary.LittleEndian.Uint64(e.value[8:])
	if sum != 0 && sum != nameSum(e.key) { // 0: an earlier version made it
		return fmt.Errorf("%w: the name of the bucket %x in page %d does not match its CRC32C", ErrCorrupt, e.key, id)
	}
	path = append(path[:len(path):len(path)], e.key)
	if root != 0 {
		return v.tree(root, path, nil, nil, depth+1)
	}
	inline := e.value[bucketSize:]
	if len(inline) < pageHeader || flags(inline) != leafFlag {
		return fmt.Errorf("%w: the bucket %x in page %d is not whole", ErrCorrupt, e.key, id)
	}
	all, err := elements(id, inline, true, false)
	if err != nil {
		return err
	}
	return v.walk(id, leafFlag, all, path, nil, nil, depth+1)
}

// nameSum is what a bucket has in place of a sequence: the CRC32C of its name.
func nameSum(name []byte) uint64 { return uint64(crc32.Checksum(name, castagnoli)) }

// freelist takes the pages that are free.
func (v *verifier) freelist() error {
	page, err := v.page(v.m.freelist, 0)
	if err != nil {
		return err
	}
	n, ids := uint64(count(page)), page[pageHeader:]
	if n == 0xffff && len(ids) >= 8 {
		n, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if flags(page) != freelistFlag || n > uint64(len(ids)/8) {
		return fmt.Errorf("%w: the list of free pages is not whole", ErrCorrupt)
	}
	for i := range n {
		if err := v.take(binary.LittleEndian.Uint64(ids[8*i:]), 0); err != nil {
			return fmt.Errorf("a free page: %w", err)
		}
	}
	return nil
}
