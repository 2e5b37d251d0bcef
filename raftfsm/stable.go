package raftfsm

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"pogod/storage"
)

// Term and vote are what a node has promised, as its log is. Each ends in a CRC32C of its
// key and itself:
//
//	value ... | CRC32C (4, little-endian)
//
// An earlier version stored them without: a number of 8 bytes, or an id of 16.

// raft panics when it cannot write them. Here the failure is told, the node ends for it,
// and raft waits for that.

// Set implements raft.StableStore.
func (s *logStore) Set(key, value []byte) error {
	if err := s.put(key, value); err != nil {
		s.fail(diskFailed(err))
		select {} // the process ends, or is replaced
	}
	return nil
}

// SetUint64 implements raft.StableStore.
func (s *logStore) SetUint64(key []byte, value uint64) error { return s.Set(key, number(value)) }

func number(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func (s *logStore) put(key, value []byte) error {
	err := storage.Guard(func() error {
		return s.WAL.Set(key, binary.LittleEndian.AppendUint32(value[:len(value):len(value)], stableSum(key, value)))
	})
	if err != nil {
		return fmt.Errorf("write term or vote: %w", err)
	}
	return nil
}

func stableSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// Get implements raft.StableStore; nil for a key that is not there. It fails with
// ErrLogDamaged.
func (s *logStore) Get(key []byte) (value []byte, err error) {
	err = storage.Guard(func() error {
		value, err = s.WAL.Get(key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: read term or vote: %w", ErrLogDamaged, err)
	}
	n := len(value) - 4
	switch len(value) {
	case 0, 8, 16:
		return value, nil
	}
	if n < 0 || binary.LittleEndian.Uint32(value[n:]) != stableSum(key, value[:n]) {
		return nil, fmt.Errorf("%w: %s does not match its CRC32C", ErrLogDamaged, key)
	}
	return value[:n], nil
}

// GetUint64 implements raft.StableStore; 0 for a key that is not there. It fails with
// ErrLogDamaged.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil || len(b) == 0 {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: %s has %d bytes", ErrLogDamaged, key, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}
