package raftfsm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"time"

	"pogod/raftfsm"
)

// takeBackup returns a backup of n, read through the checks that whoever receives it makes.
func takeBackup(t *testing.T, n *node) (raftfsm.BackupHeader, []byte) {
	t.Helper()
	r, size, err := n.group.Backup(raftfsm.BackupHeader{Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	total := int64(0)
	h, err := raftfsm.RelayBackup(&b, r, func(n int64) { total = n })
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != size || total != size {
		t.Fatalf("%d bytes of %d, %d were told", b.Len(), size, total)
	}
	return h, b.Bytes()
}

func verifyBackup(b []byte) error {
	_, err := raftfsm.VerifyBackup(bytes.NewReader(b), int64(len(b)), func(int64, int64) {})
	return err
}

// A backup names what it holds, and is of one moment while the node goes on.
func TestBackupIsOfOneEntry(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	defer n.stop(t)
	for i := range 100 {
		n.push(t, strings.Repeat(fmt.Sprint(i), 500))
	}
	r, size, err := n.group.Backup(raftfsm.BackupHeader{Version: "1.2.3", Cluster: "c"})
	if err != nil {
		t.Fatal(err)
	}
	applied := n.group.FSM.Applied()
	for range 100 {
		n.push(t, "after")
	}
	var b bytes.Buffer
	h, err := raftfsm.RelayBackup(&b, r, func(int64) {})
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if h.Index != applied || h.Term == 0 || h.Node != n.dir.NodeID() || h.Cluster != "c" || h.Version != "1.2.3" || h.Format != 1 || time.Since(h.TakenAt) > time.Minute {
		t.Errorf("%+v, and %d is applied", h, applied)
	}
	if int64(b.Len()) != size || bytes.Contains(b.Bytes(), []byte("after")) {
		t.Errorf("%d bytes of %d, or it holds what came after it", b.Len(), size)
	}
	if err := verifyBackup(b.Bytes()); err != nil {
		t.Error(err)
	}
}

// A backup that is cut off, changed or longer is refused, and so are one of a later version
// and what is none.
func TestDamagedBackupsAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	defer n.stop(t)
	n.push(t, "x")
	_, b := takeBackup(t, n)
	for _, cut := range []int{0, 5, 19, 25, 300, 4096, len(b) / 2, len(b) - 4, len(b) - 1} {
		if err := verifyBackup(b[:cut]); !errors.Is(err, raftfsm.ErrBackupDamaged) && !(cut < 20 && errors.Is(err, raftfsm.ErrNoBackup)) {
			t.Errorf("the first %d bytes: %v", cut, err)
		}
	}
	if err := verifyBackup(append(bytes.Clone(b), 0)); !errors.Is(err, raftfsm.ErrBackupDamaged) {
		t.Errorf("a longer one: %v", err)
	}
	for at := 0; at < len(b); at += 1 + at/100 {
		p := bytes.Clone(b)
		p[at] ^= 4
		if err := verifyBackup(p); err == nil {
			t.Errorf("byte %d: it is not found", at)
		}
	}
	end := bytes.IndexByte(b, '}') + 1
	head := bytes.Replace(b[:end], []byte(`"format":1`), []byte(`"format":2`), 1)
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, crc32.MakeTable(crc32.Castagnoli)))
	if err := verifyBackup(append(head, b[end+4:]...)); !errors.Is(err, raftfsm.ErrNewerBackup) {
		t.Errorf("a newer format of the data file: %v", err)
	}
	p := bytes.Clone(b)
	p[12] = 2
	if err := verifyBackup(p); !errors.Is(err, raftfsm.ErrNewerBackup) {
		t.Errorf("a newer version of backups: %v", err)
	}
	if err := verifyBackup([]byte("this is quite another file, of somebody else")); !errors.Is(err, raftfsm.ErrNoBackup) {
		t.Error(err)
	}
}

// Whoever gives a backup up in its middle leaves nothing open.
func TestBackupThatIsGivenUp(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	n.push(t, "x")
	r, _, err := n.group.Backup(raftfsm.BackupHeader{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, r, 100); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	n.stop(t) // waits for readers of the data file
}
