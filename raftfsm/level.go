package raftfsm

import (
	"encoding/binary"

	"pogod/internal/command"
	"pogod/storage"
)

// Level is the cluster's feature level, without waiting for the lock: commands up to it may
// be proposed, for all members know them.
func (f *FSM) Level() uint64 { return f.level.Load() }

// setLevel raises the level; a lower one changes nothing. A level that this version does
// not know stops it here, before the first command that it would not know. mu is held.
func (f *FSM) setLevel(level uint64) error {
	if err := command.CheckLevel(level); err != nil {
		return err
	}
	if level <= f.level.Load() {
		return nil
	}
	meta, err := f.env.Tx.Bucket(metaBucket)
	if err != nil {
		return err
	}
	f.level.Store(level)
	return meta.Put(keyLevel, binary.BigEndian.AppendUint64(make([]byte, 0, 8+storage.SealSize), level))
}
