package raftfsm

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/command"
	"pogod/queue"
	"pogod/storage"
)

// When the open transaction is committed: whichever comes first.
const (
	commitCommands = 4096
	commitBytes    = 8 << 20
	commitDelay    = 100 * time.Millisecond
)

// Status of a batch when it met the state machine.
type Status uint8

// The statuses.
const (
	Applied Status = iota // now, or before: Results are those of then
	Gap                   // an earlier batch is missing: send it first, from Last + 1
	Ended                 // the session is not live: nothing was applied
	Passed                // applied before, its results were given up by the watermark
)

// Outcome is what one log entry did.
type Outcome struct {
	Index   uint64 // of the entry in the log
	Status  Status
	Last    uint64           // of Gap: the batch that was applied last
	Results []command.Result // of the batch's commands
	Leader  []command.Result // of the leader's own commands
	Err     error            // the node must stop
}

// ErrStopped is returned when the state machine met an error that it must not go on
// after, other than ErrDisk; Failed tells which.
var ErrStopped = errors.New("the state machine has stopped")

// FSM is the replicated state: queues, sessions, the counter, cluster time. It
// implements raft.BatchingFSM.
type FSM struct {
	clock clock.Clock

	mu       sync.Mutex // guards what follows, and the writing side of store. Held across the commit's fsync: nothing can be applied meanwhile anyway
	store    *storage.Store
	queue    *queue.State
	sessions sessions
	counter  uint64
	now      int64 // cluster time of the last entry, unix milliseconds
	applied  position
	epoch    []byte // of the file's content: new when it is made or rebased
	confIdx  uint64 // of the last raft configuration
	cmds     int    // since the last commit
	bytes    int
	pending  clock.Timer // commits after commitDelay; nil when nothing is open
	err      error       // the first error that stops the state machine

	announce  func(index uint64, urgent bool) // after entries were applied, urgent if one has jobs for a node; set before raft runs, nil: nobody is told
	handedOut bool                            // since the last announcement
	hold      func() bool                     // no snapshot is taken now; set before raft runs, nil: never
	last      func() *marker                  // the snapshot that there is; likewise
	damaged   func(err error)                 // the data file is; likewise
	closing   sync.WaitGroup                  // files that Restore replaced

	failed    chan struct{} // closed with err set
	halted    chan struct{} // closed by halt
	committed atomic.Uint64 // the index that the file holds durably
	lastIndex atomic.Uint64 // applied.index, without the lock
	level     atomic.Uint64 // the cluster's feature level; written under mu
	env       queue.Env     // reused for every command, under mu

	watchMu  sync.Mutex // guards watchers
	watchers []chan struct{}
}

// position names an entry of the log.
type position struct{ index, term uint64 }

var (
	metaBucket  = []byte("raft")
	keyApplied  = []byte("applied")
	keyTerm     = []byte("term")
	keyCounter  = []byte("counter")
	keyNow      = []byte("now")
	keyEpoch    = []byte("epoch")
	keyConf     = []byte("configuration")
	keyConfIdx  = []byte("configuration-index")
	keyLevel    = []byte("feature-level")
	errBatchFSM = errors.New("raftfsm: entries come through ApplyBatch")
)

var _ raft.BatchingFSM = (*FSM)(nil)

// OpenFSM reads the state that store holds, or begins a new one.
func OpenFSM(store *storage.Store, c clock.Clock) (*FSM, error) {
	f := &FSM{clock: c, store: store, queue: queue.NewState(), failed: make(chan struct{}), halted: make(chan struct{})}
	if err := storage.Guard(f.load); err != nil {
		return nil, fmt.Errorf("read the data file: %w", err)
	}
	return f, nil
}

func (f *FSM) load() error {
	tx, err := f.store.Tx()
	if err != nil {
		return err
	}
	meta, err := tx.Bucket(metaBucket)
	if err != nil {
		return err
	}
	var bad error
	read := func(key []byte) uint64 {
		v, err := meta.Get(key)
		if err == nil && v != nil && len(v) != 8 {
			err = fmt.Errorf("%w: %s has %d bytes", storage.ErrCorrupt, key, len(v))
		}
		bad = errors.Join(bad, err)
		if err != nil || v == nil {
			return 0
		}
		return binary.BigEndian.Uint64(v)
	}
	f.applied = position{read(keyApplied), read(keyTerm)}
	f.counter, f.now, f.confIdx = read(keyCounter), int64(read(keyNow)), read(keyConfIdx)
	f.level.Store(max(read(keyLevel), 1)) // none is stored before the first was raised
	epoch, err := meta.Get(keyEpoch)
	if bad = errors.Join(bad, err); bad != nil {
		return bad
	}
	if err := command.CheckLevel(f.level.Load()); err != nil {
		return err
	}
	f.epoch = bytes.Clone(epoch)
	if f.epoch == nil {
		f.epoch = make([]byte, 16)
		_, _ = rand.Read(f.epoch) // never fails
		if err := meta.Put(keyEpoch, append(make([]byte, 0, 16+storage.SealSize), f.epoch...)); err != nil {
			return err
		}
	}
	if err := f.sessions.load(tx); err != nil {
		return err
	}
	if err := f.queue.Load(tx, f.sessions.live); err != nil {
		return err
	}
	if err := f.store.Commit(); err != nil {
		return err
	}
	f.committed.Store(f.applied.index)
	f.lastIndex.Store(f.applied.index)
	f.env = queue.Env{Counter: &f.counter, Live: f.sessions.live}
	return nil
}

// Apply is not used: raft calls ApplyBatch.
func (f *FSM) Apply(*raft.Log) any { return &Outcome{Err: errBatchFSM} }

// ApplyBatch applies entries that are committed in the log. It answers an *Outcome
// for each.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	f.mu.Lock()
	for i, l := range logs {
		o := &Outcome{Index: l.Index}
		if f.err == nil {
			f.stop(storage.Guard(func() error { return f.applyEntry(l, o) }))
		}
		o.Err = f.err
		out[i] = o
	}
	f.lastIndex.Store(f.applied.index)
	index, urgent := f.applied.index, f.handedOut
	f.handedOut = false
	f.mu.Unlock()
	f.notify()
	if f.announce != nil {
		f.announce(index, urgent)
	}
	return out
}

func (f *FSM) applyEntry(l *raft.Log, o *Outcome) error {
	if l.Index <= f.applied.index {
		// Replayed after a restart: the file has it. Terms never fall along a log, so a
		// greater one means that the log below the file was written anew.
		if l.Term > f.applied.term {
			return fmt.Errorf("the data file is at entry %d of term %d, but the log has term %d at %d: the file and the log do not belong together",
				f.applied.index, f.applied.term, l.Term, l.Index)
		}
		return nil
	}
	tx, err := f.store.Tx()
	if err != nil {
		return err
	}
	if f.pending == nil {
		f.pending = f.clock.AfterFunc(commitDelay, f.flush)
	}
	switch l.Type {
	case raft.LogCommand:
		err = f.applyCommands(tx, l, o)
	case raft.LogConfiguration:
		err = f.storeConfiguration(tx, l)
	}
	if err != nil {
		return fmt.Errorf("apply entry %d: %w", l.Index, err)
	}
	f.applied = position{l.Index, l.Term}
	f.bytes += len(l.Data)
	if f.cmds >= commitCommands || f.bytes >= commitBytes {
		return f.commit()
	}
	return nil
}

func (f *FSM) storeConfiguration(tx *storage.Tx, l *raft.Log) error {
	meta, err := tx.Bucket(metaBucket)
	if err != nil {
		return err
	}
	f.confIdx = l.Index
	return meta.Put(keyConf, bytes.Clone(l.Data))
}

func (f *FSM) applyCommands(tx *storage.Tx, l *raft.Log, o *Outcome) error {
	e, err := command.DecodeEntry(l.Data)
	if err != nil {
		return err
	}
	f.now = max(f.now, seededTime(e.Time, f.clock))
	f.env.Tx, f.env.Now = tx, f.now
	if len(e.Batch) > 0 {
		if err := f.applyBatch(e.Batch, o); err != nil {
			return err
		}
	}
	o.Leader, err = f.applyAll(e.Commands, nil)
	return err
}

// applyBatch applies a node's batch once: in order, whatever was sent how often.
func (f *FSM) applyBatch(p []byte, o *Outcome) error {
	b, err := command.DecodeBatch(p)
	if err != nil {
		return err
	}
	n := f.sessions.byID[b.Session]
	switch {
	case n == nil:
		o.Status = Ended
	case b.Number > n.last+1:
		o.Status, o.Last = Gap, n.last
	case b.Number <= n.last && dedupes():
		var ok bool
		if o.Results, ok = n.stored(b.Number); !ok {
			o.Status = Passed
		}
	default:
		if o.Results, err = f.applyAll(b.Commands, make([]command.Result, 0, 64)); err != nil {
			return err
		}
		n.done(b, o.Results)
	}
	return nil
}

func (f *FSM) applyAll(p []byte, results []command.Result) ([]command.Result, error) {
	var c command.Command
	for len(p) > 0 {
		rest, err := c.Decode(p)
		if err != nil {
			return nil, err
		}
		r, err := f.applyOne(&c)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
		f.handedOut = f.handedOut || c.Op == command.Reserve && r.Count > 0
		p = rest
		f.cmds++
	}
	return results, nil
}

func (f *FSM) applyOne(c *command.Command) (command.Result, error) {
	switch c.Op {
	case command.OpenSession:
		id, ok := f.sessions.open(c.Node, c.Number, func() uint64 { f.counter++; return f.counter })
		if !ok {
			return command.Result{Code: command.Failure}, nil
		}
		return command.Result{Code: command.Accepted, Session: id}, f.queue.EndSession(&f.env)
	case command.EndSession:
		if !f.sessions.end(c.Session) {
			return command.Result{Code: command.Failure}, nil
		}
		return command.Result{Code: command.Accepted}, f.queue.EndSession(&f.env)
	case command.SetLevel:
		return command.Result{Code: command.Accepted}, f.setLevel(c.Number)
	case command.SetTime:
		f.queue.MoveLeases(c.Time - f.now)
		f.now, f.env.Now = c.Time, c.Time
		return command.Result{Code: command.Accepted}, nil
	}
	if seededCommand(c.Op) {
		return command.Result{Code: command.Accepted}, nil
	}
	return f.queue.Apply(&f.env, c)
}

// commit writes everything applied so far to the disk. mu is held.
func (f *FSM) commit() error { return storage.Guard(f.write) }

func (f *FSM) write() error {
	if !f.store.Dirty() {
		return nil
	}
	if f.pending != nil {
		f.pending.Stop()
		f.pending = nil
	}
	tx, err := f.store.Tx()
	if err != nil {
		return err
	}
	meta, err := tx.Bucket(metaBucket)
	if err != nil {
		return err
	}
	for _, kv := range []struct {
		key   []byte
		value uint64
	}{{keyApplied, f.applied.index}, {keyTerm, f.applied.term}, {keyCounter, f.counter}, {keyNow, uint64(f.now)}, {keyConfIdx, f.confIdx}} {
		if err := meta.Put(kv.key, binary.BigEndian.AppendUint64(make([]byte, 0, 8+storage.SealSize), kv.value)); err != nil {
			return err
		}
	}
	if err := errors.Join(f.sessions.flush(tx), f.queue.Flush(tx)); err != nil {
		return err
	}
	if err := f.store.Commit(); err != nil {
		return diskFailed(fmt.Errorf("%s: %w", f.store.Path(), err))
	}
	f.cmds, f.bytes = 0, 0
	f.committed.Store(f.applied.index)
	return nil
}

// flush commits when commitDelay has passed.
func (f *FSM) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.stop(f.commit())
	}
}

// stop keeps the first error and says so. mu is held.
func (f *FSM) stop(err error) {
	if err != nil && f.err == nil {
		if f.err = err; !errors.Is(err, ErrDisk) {
			f.err = fmt.Errorf("%w: %w", ErrStopped, err)
		}
		if errors.Is(err, storage.ErrCorrupt) && f.damaged != nil {
			f.damaged(err)
		}
		close(f.failed)
	}
}

// Failed is closed when the state machine met an error that the node must end for;
// Err returns it.
func (f *FSM) Failed() <-chan struct{} { return f.failed }

// Err returns the error that stopped the state machine, nil while it runs.
func (f *FSM) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// halt says that nothing more will be applied: reads are given what there is.
func (f *FSM) halt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.halted:
	default:
		close(f.halted)
	}
}

// reference is a snapshot: the name of what the data file holds.
type reference struct {
	index uint64 // what the state machine saw last; raft's own may be greater
	epoch []byte
}

// Snapshot makes everything applied so far durable. raft then drops the log up to
// here; nothing is copied. It fails with raft.ErrNothingNewToSnapshot when there is
// nothing, and while the log is to be kept, see streams.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.hold != nil && f.hold() {
		return nil, raft.ErrNothingNewToSnapshot
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != nil {
		if m := f.last(); m != nil && f.applied.index <= m.FSMIndex {
			return nil, raft.ErrNothingNewToSnapshot
		}
	}
	if f.err == nil {
		f.stop(f.commit())
	}
	if f.err != nil {
		return nil, f.err
	}
	return &reference{f.applied.index, f.epoch}, nil
}

// Persist hands the reference to the sink, which writes the marker when raft closes
// it.
func (r *reference) Persist(s raft.SnapshotSink) error {
	s.(*sink).ref = r
	return nil
}

// Release has nothing to free.
func (r *reference) Release() {}

// Close commits what is open and closes the data file, unless that is damaged: bbolt may
// hold its locks then.
func (f *FSM) Close() error {
	f.mu.Lock()
	if f.err == nil {
		f.stop(f.commit())
	}
	err := f.err
	if f.err == nil {
		f.err = ErrStopped // whoever still calls is told
	}
	f.mu.Unlock()
	f.closing.Wait()
	if errors.Is(err, storage.ErrCorrupt) {
		return err
	}
	return errors.Join(err, f.store.Close())
}
