package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// ErrLogDamaged is returned when the log on this node's disk is not what was written: an
// entry does not match its CRC32C, its end is missing, or it is another node's.
var ErrLogDamaged = errors.New("the log is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entrySum is the CRC32C of an entry: raft-wal looks at its own sums when it opens the
// tail of the log, and at no other time. It stands in the entry's Extensions, which
// nothing else uses.
func entrySum(l *raft.Log) []byte {
	head := make([]byte, 17)
	binary.LittleEndian.PutUint64(head, l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return binary.LittleEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, l.Data))
}

// sealed are the entries as they are stored.
func sealed(logs []*raft.Log) []*raft.Log {
	stored := make([]raft.Log, len(logs))
	all := make([]*raft.Log, len(logs))
	for i, l := range logs {
		stored[i] = *l
		stored[i].Extensions = entrySum(l)
		all[i] = &stored[i]
	}
	return all
}

// GetLog reads an entry and checks it. A damaged one is final for the process: it must
// not be sent to others, nor applied.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	err := s.read(index, l)
	if errors.Is(err, ErrLogDamaged) {
		s.fail(err)
	}
	return err
}

func (s *logStore) read(index uint64, l *raft.Log) (err error) {
	defer func() { // raft-wal panics on some lengths that cannot be
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: entry %d cannot be read: %v", ErrLogDamaged, index, p)
		}
	}()
	if err := s.WAL.GetLog(index, l); err != nil {
		if errors.Is(err, raft.ErrLogNotFound) {
			return err
		}
		return fmt.Errorf("%w: entry %d cannot be read: %w", ErrLogDamaged, index, err)
	}
	sum := l.Extensions
	l.Extensions = nil
	// An earlier version stored entries without.
	if l.Index != index || len(sum) > 0 && string(sum) != string(entrySum(l)) {
		return fmt.Errorf("%w: entry %d does not match its CRC32C", ErrLogDamaged, index)
	}
	return nil
}
