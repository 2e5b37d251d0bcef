package raftfsm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"pogod/storage"
)

// A backup is one file:
//
//	"pogod backup" 12 | version 4 | length 4 | header, JSON | CRC32C of all before it 4 | a copy as storage writes it
//
// Numbers are little-endian. The copy is the data file and its own CRC32C.
const (
	backupMagic   = "pogod backup"
	backupVersion = 1
	backupHead    = len(backupMagic) + 4 + 4
)

var (
	// ErrNoBackup is returned for bytes that do not begin as a backup does.
	ErrNoBackup = errors.New("this is not a backup that \"pogod backup\" made")
	// ErrNewerBackup is returned for a backup that only a later version of pogod reads.
	ErrNewerBackup = errors.New("a newer pogod made the backup: restore it with that one")
	// ErrBackupDamaged is returned for a backup that is not as it was made.
	ErrBackupDamaged = errors.New("the backup is damaged or not whole")
)

// BackupHeader says what a backup is. It stands at its beginning.
type BackupHeader struct {
	Index   uint64    `json:"index"`             // of the log's last entry that it holds
	Term    uint64    `json:"term"`              // of that entry
	TakenAt time.Time `json:"taken_at"`          // by the clock of the node that made it, UTC
	Cluster string    `json:"cluster,omitempty"` // id of the cluster; "": a node alone
	Node    string    `json:"node"`              // id of the node that made it
	Version string    `json:"version"`           // of that pogod
	Format  int       `json:"format"`            // of the data file: storage.FormatVersion
	Size    int64     `json:"size"`              // of the copy that follows, in bytes

	begin int64 // bytes before the copy
}

// Backup makes a backup of what this node has applied, from one read transaction: the
// node goes on meanwhile. about has Cluster and Version. The reader has exactly size bytes;
// whoever reads it closes it, and pages of the data file are not reused before.
func (g *Group) Backup(about BackupHeader) (r io.ReadCloser, size int64, err error) {
	if err := g.Err(); err != nil {
		return nil, 0, err
	}
	g.FSM.flush()
	c, meta, err := g.snaps.copy()
	if err != nil {
		return nil, 0, err
	}
	h := about
	h.Index, h.Term, h.TakenAt = meta.Index, meta.Term, g.cfg.Clock.Now().UTC().Truncate(time.Second)
	h.Node, h.Format, h.Size = g.cfg.Dir.NodeID(), storage.FormatVersion, c.Size()
	head, err := h.encode()
	if err != nil {
		return nil, 0, errors.Join(err, c.Close())
	}
	out, in := io.Pipe()
	go func() { // ended by the end of the copy, or by Close
		_, err := in.Write(head)
		if err == nil {
			_, err = c.WriteTo(in)
		}
		_ = in.CloseWithError(errors.Join(err, c.Close())) // nil: the end; never fails
	}()
	return out, int64(len(head)) + h.Size, nil
}

func (h *BackupHeader) encode() ([]byte, error) {
	doc, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b := binary.LittleEndian.AppendUint32([]byte(backupMagic), backupVersion)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(doc))), doc...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// readBackupHeader reads a header, and returns its bytes too.
func readBackupHeader(r io.Reader) (h BackupHeader, raw []byte, err error) {
	whole := func(n int) error {
		old := len(raw)
		raw = append(raw, make([]byte, n)...)
		if _, err := io.ReadFull(r, raw[old:]); err != nil {
			return fmt.Errorf("%w: its header ends too soon: %w", ErrBackupDamaged, err)
		}
		return nil
	}
	if err := whole(backupHead); err != nil || !bytes.HasPrefix(raw, []byte(backupMagic)) {
		return h, nil, ErrNoBackup
	}
	if v := binary.LittleEndian.Uint32(raw[len(backupMagic):]); v > backupVersion {
		return h, nil, fmt.Errorf("%w (version %d of backups, this one reads up to %d)", ErrNewerBackup, v, backupVersion)
	}
	n := binary.LittleEndian.Uint32(raw[backupHead-4:])
	if n > maxStateHeader {
		return h, nil, fmt.Errorf("%w: a header of %d bytes", ErrBackupDamaged, n)
	}
	if err := whole(int(n) + 4); err != nil {
		return h, nil, err
	}
	end := len(raw) - 4
	if crc32.Checksum(raw[:end], castagnoli) != binary.LittleEndian.Uint32(raw[end:]) {
		return h, nil, fmt.Errorf("%w: its header does not match its CRC32C", ErrBackupDamaged)
	}
	if err := json.Unmarshal(raw[backupHead:end], &h); err != nil || h.Size <= 0 {
		return h, nil, fmt.Errorf("%w: its header cannot be read", ErrBackupDamaged)
	}
	if h.Format > storage.FormatVersion {
		return h, nil, fmt.Errorf("%w (format %d of the data file, this one reads up to %d)", ErrNewerBackup, h.Format, storage.FormatVersion)
	}
	h.begin = int64(len(raw))
	return h, raw, nil
}

// RelayBackup passes a backup from r to w and checks its sums as it comes. told is called
// with how much of it there is in all, once that is known. It fails with ErrNoBackup,
// ErrNewerBackup or ErrBackupDamaged.
func RelayBackup(w io.Writer, r io.Reader, told func(total int64)) (BackupHeader, error) {
	h, raw, err := readBackupHeader(r)
	if err != nil {
		return h, err
	}
	told(h.begin + h.Size)
	if _, err := w.Write(raw); err != nil {
		return h, err
	}
	if err := storage.Relay(w, r, h.Size); err != nil {
		return h, backupDamaged(err)
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("%w: there is more behind its end", ErrBackupDamaged)
	}
	return h, nil
}

// VerifyBackup reads all that a backup of size bytes holds and checks it: its sums, and the
// pages and values of the data file. read is called with how many bytes were read of how
// many; each is read twice. It fails as RelayBackup does.
func VerifyBackup(f io.ReaderAt, size int64, read func(done, total int64)) (BackupHeader, error) {
	m := &metered{read: read, total: 2 * size}
	h, err := RelayBackup(m, io.NewSectionReader(f, 0, size), func(int64) {})
	if err != nil {
		return h, err
	}
	return h, h.verify(f, m)
}

// Verify checks the pages and values of the data file in a backup whose header this is and
// whose sums were checked. read is called with how many bytes were read of how many. It fails
// with ErrBackupDamaged.
func (h *BackupHeader) Verify(f io.ReaderAt, read func(done, total int64)) error {
	return h.verify(f, &metered{read: read, total: h.Size})
}

func (h *BackupHeader) verify(f io.ReaderAt, m *metered) error {
	return backupDamaged(storage.VerifyAt(io.NewSectionReader(f, h.begin, h.Size), func(n int) error {
		m.add(n)
		return nil
	}))
}

func backupDamaged(err error) error {
	if errors.Is(err, storage.ErrDamaged) || errors.Is(err, storage.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrBackupDamaged, err)
	}
	return err
}

// metered counts what is read.
type metered struct {
	read        func(done, total int64)
	done, total int64
}

// Write implements io.Writer.
func (m *metered) Write(p []byte) (int, error) {
	m.add(len(p))
	return len(p), nil
}

func (m *metered) add(n int) {
	m.done += int64(n)
	m.read(m.done, m.total)
}
