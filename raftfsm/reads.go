package raftfsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"pogod/queue"
	"pogod/storage"
)

// What others read of the state machine.

// unreadable returns why the state cannot be shown. A disk that took no commit leaves what
// it had, and what is in memory. mu is held.
func (f *FSM) unreadable() error {
	if errors.Is(f.err, ErrDisk) {
		return nil
	}
	return f.err
}

// Queues lists the queues without waiting for the lock.
func (f *FSM) Queues() *queue.Table { return f.queue.Table() }

// Ready returns how many jobs of a queue may be reserved, without waiting for the lock.
func (f *FSM) Ready(name string) uint64 { return f.Queues().Ready(name) }

// Paused reports whether nothing is reserved from a queue, without waiting for the lock.
func (f *FSM) Paused(name string) bool { return f.Queues().Paused(name) }

// Inspect calls g with the state and the open transaction. g is short: nothing is
// applied meanwhile.
func (f *FSM) Inspect(g func(s *queue.State, tx *storage.Tx) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.unreadable(); err != nil {
		return err
	}
	err := storage.Guard(func() error {
		if f.store.Dirty() {
			tx, err := f.store.Tx()
			if err != nil {
				return err
			}
			return g(f.queue, tx)
		}
		return f.store.View(func(tx *storage.Tx) error { return g(f.queue, tx) })
	})
	if errors.Is(err, storage.ErrCorrupt) {
		f.stop(err)
	}
	return err
}

// View calls g with the data file, all that was applied included.
func (f *FSM) View(g func(tx *storage.Tx) error) error {
	for {
		f.mu.Lock()
		if f.err == nil {
			f.stop(f.commit())
		}
		err, store := f.unreadable(), f.store
		f.mu.Unlock()
		if err != nil {
			return err
		}
		err = storage.Guard(func() error { return store.View(g) })
		if errors.Is(err, storage.ErrClosed) {
			continue // Restore came between: there is another file
		}
		f.report(store, err)
		return err
	}
}

// report stops the state machine when err says that its data file is damaged.
func (f *FSM) report(store *storage.Store, err error) {
	if !errors.Is(err, storage.ErrCorrupt) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.store == store {
		f.stop(err)
	}
}

// Reserved appends the deliveries that a session holds to buf, oldest lease first,
// and returns the index up to which that is so.
func (f *FSM) Reserved(buf []queue.Delivery, session uint64) (deliveries []queue.Delivery, applied uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	deliveries = f.queue.Reserved(buf, session)
	for i := range deliveries[len(buf):] {
		d := &deliveries[len(buf)+i]
		d.Waited = time.Duration(f.now-d.ReservedAt) * time.Millisecond
	}
	return deliveries, f.applied.index
}

// NextTick returns when a Tick is wanted next, see queue.State.NextDue, and cluster
// time, both in unix milliseconds.
func (f *FSM) NextTick() (due, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queue.NextDue(), f.now
}

// Superseded reports whether the definitions with that hash were in force, and others came
// after them.
func (f *FSM) Superseded(hash string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queue.Superseded(hash)
}

// DefinitionsHash returns the hash of the definitions in force; "" before there are any.
func (f *FSM) DefinitionsHash() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queue.DefinitionsHash()
}

// Sessions returns the live sessions, with the node of each.
func (f *FSM) Sessions() map[uint64]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[uint64]string, len(f.sessions.byID))
	for id, n := range f.sessions.byID {
		all[id] = n.node
	}
	return all
}

// Applied returns the entry that was applied last.
func (f *FSM) Applied() uint64 { return f.lastIndex.Load() }

// WaitApplied waits until the entry with that index is applied here. It fails when ctx
// ends, or the state machine has stopped; in a halted group it waits for nothing.
func (f *FSM) WaitApplied(ctx context.Context, index uint64) error {
	if f.lastIndex.Load() >= index {
		return nil
	}
	applied := f.Watch()
	defer f.unwatch(applied)
	for f.lastIndex.Load() < index {
		select {
		case <-applied:
		case <-f.halted:
			return nil
		case <-f.failed:
			if err := f.Err(); !errors.Is(err, ErrDisk) {
				return err
			}
			select { // it is halted next
			case <-f.halted:
			case <-ctx.Done():
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("entry %d is not applied on this node yet, which is at %d: %w", index, f.lastIndex.Load(), ctx.Err())
		}
	}
	return nil
}

// Hash returns a SHA-256 of the replicated state and the entry up to which it is so:
// nodes at the same entry have the same. It reads everything, and nothing is applied
// before it has begun to.
func (f *FSM) Hash() (sum [sha256.Size]byte, applied uint64, err error) {
	h := sha256.New()
	err = f.View(func(tx *storage.Tx) error {
		meta, err := tx.Bucket(metaBucket)
		if err != nil {
			return err
		}
		v, err := meta.Get(keyApplied)
		if err != nil {
			return err
		}
		if len(v) == 8 { // else nothing was applied yet
			applied = binary.BigEndian.Uint64(v)
		}
		return tx.Walk(func(path [][]byte, key, value []byte) {
			if len(path) == 1 && bytes.Equal(path[0], metaBucket) && bytes.Equal(key, keyEpoch) {
				return // each file's own
			}
			for _, p := range append(path, key, value) {
				_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(p)))) // never fails
				_, _ = h.Write(p)
			}
		})
	})
	return [sha256.Size]byte(h.Sum(nil)), applied, err
}

// Indexes returns the last entry that was applied, and the last that the data file
// holds durably.
func (f *FSM) Indexes() (applied, committed uint64) { return f.lastIndex.Load(), f.committed.Load() }

// StoreStats returns the size of the data file.
func (f *FSM) StoreStats() (storage.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.store.Stats()
}

// Watch returns a channel that gets a signal after entries were applied. It holds one
// signal; more of them are one.
func (f *FSM) Watch() <-chan struct{} {
	c := make(chan struct{}, 1)
	f.watchMu.Lock()
	f.watchers = append(f.watchers, c)
	f.watchMu.Unlock()
	return c
}

func (f *FSM) unwatch(c <-chan struct{}) {
	f.watchMu.Lock()
	defer f.watchMu.Unlock()
	f.watchers = slices.DeleteFunc(f.watchers, func(w chan struct{}) bool { return w == c })
}

func (f *FSM) notify() {
	f.watchMu.Lock()
	defer f.watchMu.Unlock()
	for _, c := range f.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
