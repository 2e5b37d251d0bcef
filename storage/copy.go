package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// ErrDamaged is returned when the bytes of a copy are not those that were sent.
var ErrDamaged = errors.New("storage: the copy does not match its CRC32C")

// Copy is the file as it was at one commit, to be written somewhere else while the
// writer goes on. Its pages are not reused before Close, so the file grows meanwhile.
//
// What it writes is a data file as Open takes it, and behind that the CRC32C of all its
// bytes, 4 of them, big-endian.
type Copy struct{ tx *bolt.Tx }

// copySum is what a copy has behind the file.
const copySum = 4

// Copy begins a copy of what was committed last. Close ends it.
func (s *Store) Copy() (*Copy, error) {
	tx, err := s.db.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return nil, ErrClosed
	}
	if err != nil {
		return nil, fmt.Errorf("begin a copy: %w", err)
	}
	return &Copy{tx}, nil
}

// View calls f with what the copy holds.
func (c *Copy) View(f func(tx *Tx) error) error { return f(&Tx{tx: c.tx}) }

// Size is exactly how many bytes WriteTo writes.
func (c *Copy) Size() int64 { return c.tx.Size() + copySum }

// WriteTo writes the file and its sum. It implements io.WriterTo.
func (c *Copy) WriteTo(w io.Writer) (int64, error) {
	sum := crc32.New(castagnoli)
	n, err := c.tx.WriteTo(io.MultiWriter(w, sum))
	if err != nil {
		return n, fmt.Errorf("copy the data file: %w", err)
	}
	m, err := w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	return n + int64(m), err
}

// Close ends the copy. It is idempotent.
func (c *Copy) Close() error {
	if err := c.tx.Rollback(); err != nil && !errors.Is(err, bolterrors.ErrTxClosed) {
		return err
	}
	return nil
}

// Relay passes a copy of that size, its sum included, from r to w, and checks the sum. It
// fails with ErrDamaged, also when r ends too soon, and with the errors of both.
func Relay(w io.Writer, r io.Reader, size int64) error {
	sum := crc32.New(castagnoli)
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(r, size-copySum))
	if err != nil {
		return err
	}
	last := make([]byte, copySum)
	if _, err := io.ReadFull(r, last); n != size-copySum || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too soon", ErrDamaged)
	} else if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(last) != sum.Sum32() {
		return ErrDamaged
	}
	_, err = w.Write(last)
	return err
}

// Steady is a file that is written from its beginning to its end, and goes to the disk on
// the way: a sync of all at the end would keep others' syncs on that disk waiting.
type Steady struct {
	File    *os.File // not embedded: its ReadFrom and Seek would go past Write
	n, sent int64    // bytes written, and of them on their way to the disk
}

// writeBack is after how many bytes the kernel is asked to begin to write them.
const writeBack = 8 << 20

// Write implements io.Writer.
func (s *Steady) Write(p []byte) (int, error) {
	n, err := s.File.Write(p)
	if s.n += int64(n); s.n-s.sent >= writeBack {
		// A hint: what fails is told by the sync at the end.
		_ = unix.SyncFileRange(int(s.File.Fd()), s.sent, s.n-s.sent, unix.SYNC_FILE_RANGE_WRITE)
		s.sent = s.n
	}
	return n, err
}

// Incoming is a copy that is being received into a file. It implements io.Writer.
type Incoming struct {
	f    Steady
	head []byte // the first page's, as far as Total needs it
	last []byte // the bytes seen last: the sum, if no more come
	sum  uint32 // of those before
}

// Receive begins a copy in the file at path, in place of what is there.
func Receive(path string) (*Incoming, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &Incoming{f: Steady{File: f}}, nil
}

// Write takes the next bytes. The file has the sum too, until Finish.
func (i *Incoming) Write(p []byte) (int, error) {
	if n := headSize - len(i.head); n > 0 {
		i.head = append(i.head, p[:min(n, len(p))]...)
	}
	n, err := i.f.Write(p)
	p = p[:n]
	keep := p[max(0, len(p)-copySum):]
	old := max(0, len(i.last)+len(keep)-copySum) // bytes of last that are of the file after all
	i.sum = crc32.Update(crc32.Update(i.sum, castagnoli, i.last[:old]), castagnoli, p[:len(p)-len(keep)])
	i.last = append(i.last[:copy(i.last, i.last[old:])], keep...)
	return n, err
}

// Received is how many bytes have come, the sum's included.
func (i *Incoming) Received() int64 { return i.f.n }

// Total is how many bytes come in all, by the first of them; 0: that is not known yet.
func (i *Incoming) Total() int64 {
	m, err := readMeta(bytes.NewReader(i.head), 0)
	if err != nil {
		return 0
	}
	return int64(m.pages)*int64(m.pageSize) + copySum
}

// Finish makes the file durable, and checks all of it: its sum, and what Verify looks
// at. It fails with ErrDamaged or ErrCorrupt; the file is there all the same, until
// Cancel.
func (i *Incoming) Finish() error {
	if err := errors.Join(i.sync(), i.f.File.Close()); err != nil {
		return fmt.Errorf("write %s: %w", i.f.File.Name(), err)
	}
	if len(i.last) != copySum || binary.BigEndian.Uint32(i.last) != i.sum {
		return fmt.Errorf("%w: %s", ErrDamaged, i.f.File.Name())
	}
	return VerifyFile(i.f.File.Name())
}

func (i *Incoming) sync() error {
	return errors.Join(i.f.File.Truncate(max(0, i.f.n-copySum)), i.f.File.Sync())
}

// Cancel removes the file.
func (i *Incoming) Cancel() error {
	_ = i.f.File.Close() // it may be closed already
	return os.Remove(i.f.File.Name())
}
