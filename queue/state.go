package queue

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"pogod/internal/tagged"
	"pogod/storage"
)

// Env is all that a command may know of the world.
type Env struct {
	Tx      *storage.Tx
	Now     int64   // cluster time, unix milliseconds; goes back only when it is set, see State.MoveLeases
	Counter *uint64 // the state's counter: one step per id, lease or place in line
	Live    func(session uint64) bool
}

// next is the next step of the counter. A place in line or in the list of failed
// jobs takes one too: with the last step it would tie with the job that got it.
func (e *Env) next() uint64 {
	*e.Counter++
	return *e.Counter
}

// State is the state machine. It is not safe for concurrent use: raftfsm calls it
// under its lock. Ready, delayed and failed jobs are in the transaction; reserved
// jobs and the figures of the queues are in memory and exact there, and written
// into the transaction by Flush, before each commit.
type State struct {
	byName   map[string]*queueState
	byID     []*queueState // index: id - 1
	reserved map[uint64]*Job
	dropped  []uint64 // jobs that are stored as reserved and no longer are

	defaults   Definition
	autoCreate bool
	defHash    string
	superseded []string // hashes of earlier definitions, oldest first
	defDirty   bool

	firstDeadline int64 // no lease of a reserved job ends before; a lower bound
	orphans       bool  // a session ended and some of its jobs are still reserved

	table atomic.Pointer[Table]
}

// Gauges count the jobs of a queue by state.
type Gauges struct {
	Ready, Delayed, Reserved, Failed uint64
	Bytes                            uint64 // payload bytes of ready, delayed and reserved jobs
	Suspects                         uint64 // of the ready jobs, those that run alone next
}

// Counters of a queue since it was made; they survive restarts.
type Counters struct {
	Enqueued, ReservedTotal, Acked, Released, FailedTotal               uint64
	DroppedFull, DroppedPayloadTooLarge, DroppedShutdown, BackendErrors uint64
	Deleted                                                             uint64 // jobs deleted while they waited
	Purged, Retried                                                     uint64 // of the failed, those deleted and those made fresh jobs
}

type queueState struct {
	id       uint32
	name     string
	def      Definition
	declared bool // takes pushes
	auto     bool // was made by a push
	paused   bool // nothing is reserved from it
	gauges   Gauges
	counters Counters
	dirty    bool

	// How many may be reserved from each line, for Table.
	readyNow, suspectsNow atomic.Uint64

	nextDue int64  // no delayed job is due before; a lower bound
	head    []byte // no ready key is below

	tx                                          *storage.Tx // of the buckets below
	ready, suspects, delayed, failed, failedIDs *storage.Bucket
}

var (
	queuesBucket   = []byte("queues")
	jobsBucket     = []byte("jobs")
	reservedBucket = []byte("reserved")
	settingsBucket = []byte("queue-settings")
	settingsKey    = []byte("settings")

	readyName     = []byte("ready")
	suspectsName  = []byte("suspects")
	delayedName   = []byte("delayed")
	failedName    = []byte("failed")
	failedIDsName = []byte("failed-ids")
)

// defaultPriority of a job, from 0 to 9, larger first.
const defaultPriority = 4

// ErrInconsistent is returned when the stored state contradicts itself. The node
// must stop.
var ErrInconsistent = errors.New("queue: inconsistent state")

// NewState returns an empty state.
func NewState() *State {
	s := &State{}
	s.reset()
	return s
}

func (s *State) reset() {
	s.byName, s.byID, s.reserved, s.dropped = map[string]*queueState{}, nil, map[uint64]*Job{}, nil
	s.defaults, s.autoCreate, s.defHash, s.superseded, s.defDirty = Definition{}, false, "", nil, false
	s.firstDeadline, s.orphans = math.MaxInt64, false
	s.publish()
}

// Load reads what Flush wrote. live tells which sessions are.
func (s *State) Load(tx *storage.Tx, live func(session uint64) bool) error {
	s.reset()
	settings, err := tx.Bucket(settingsBucket)
	if err != nil {
		return err
	}
	p, err := settings.Get(settingsKey)
	if err != nil {
		return err
	}
	if err := s.decodeSettings(p); err != nil {
		return err
	}
	queues, err := tx.Bucket(queuesBucket)
	if err != nil {
		return err
	}
	c := queues.Cursor()
	for k, v, err := c.First(); k != nil; k, v, err = c.Next() {
		if err != nil {
			return err
		}
		q, err := decodeQueueState(v)
		if err != nil {
			return err
		}
		if q.id = binary.BigEndian.Uint32(k); int(q.id) != len(s.byID)+1 {
			return fmt.Errorf("%w: queue %d follows %d", ErrInconsistent, q.id, len(s.byID))
		}
		s.byID = append(s.byID, q)
		s.byName[q.name] = q // nextDue 0: the first Tick looks
		q.show()
	}
	reserved, err := tx.Bucket(reservedBucket)
	if err != nil {
		return err
	}
	c = reserved.Cursor()
	for k, v, err := c.First(); k != nil; k, v, err = c.Next() {
		if err != nil {
			return err
		}
		j, id, err := decodeJob(v)
		if err != nil {
			return err
		}
		if id < 1 || id > uint64(len(s.byID)) {
			return fmt.Errorf("%w: a reserved job of queue %d", ErrInconsistent, id)
		}
		j.queue, j.stored = s.byID[id-1], true
		s.reserved[j.ID.Seq] = j
		s.firstDeadline = min(s.firstDeadline, j.Deadline)
		s.orphans = s.orphans || !live(j.Session)
	}
	s.publish()
	return nil
}

// Flush writes what is kept in memory into tx, which is about to be committed.
func (s *State) Flush(tx *storage.Tx) error {
	if s.defDirty {
		b, err := tx.Bucket(settingsBucket)
		if err != nil {
			return err
		}
		if err := b.Put(settingsKey, s.encodeSettings()); err != nil {
			return err
		}
		s.defDirty = false
	}
	for _, q := range s.byID {
		if !q.dirty {
			continue
		}
		b, err := tx.Bucket(queuesBucket)
		if err != nil {
			return err
		}
		if err := b.Put(binary.BigEndian.AppendUint32(nil, q.id), q.encode()); err != nil {
			return err
		}
		q.dirty = false
	}
	return s.flushReserved(tx)
}

// flushReserved brings the stored reserved jobs up to date. Most jobs are reserved
// and acked between two commits and never get here.
func (s *State) flushReserved(tx *storage.Tx) error {
	b, err := tx.Bucket(reservedBucket)
	if err != nil {
		return err
	}
	for _, seq := range s.dropped {
		if err := b.Delete(seqKey(seq)); err != nil {
			return err
		}
	}
	s.dropped = s.dropped[:0]
	var fresh []*Job
	for _, j := range s.reserved {
		if !j.stored {
			fresh = append(fresh, j)
		}
	}
	slices.SortFunc(fresh, func(a, b *Job) int { return cmp.Compare(a.ID.Seq, b.ID.Seq) })
	for _, j := range fresh {
		j.stored = true
		if err := b.Put(seqKey(j.ID.Seq), j.encode()); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) encodeSettings() []byte {
	b := tagged.Bytes(nil, 1, s.defaults.encode())
	if s.autoCreate {
		b = tagged.Uint(b, 2, 1)
	}
	b = tagged.Bytes(b, 3, s.defHash)
	return tagged.Bytes(b, 4, strings.Join(s.superseded, " "))
}

func (s *State) decodeSettings(p []byte) (err error) {
	r := tagged.Read(p)
	for tag := range r.Tags() {
		switch tag {
		case 1:
			if s.defaults, err = decodeDefinition(r.Bytes()); err != nil {
				return err
			}
		case 2:
			s.autoCreate = r.Uint() == 1
		case 3:
			s.defHash = string(r.Bytes())
		case 4:
			s.superseded = strings.Fields(string(r.Bytes()))
		default:
			r.Unknown(tag)
		}
	}
	return r.Err()
}

func (q *queueState) encode() []byte {
	b := tagged.Bytes(make([]byte, 0, 160), 1, q.name)
	b = tagged.Bytes(b, 2, q.def.encode())
	if q.declared {
		b = tagged.Uint(b, 3, 1)
	}
	if q.auto {
		b = tagged.Uint(b, 4, 1)
	}
	if q.paused {
		b = tagged.Uint(b, 5, 1)
	}
	for i, v := range q.figures() {
		b = tagged.Uint(b, uint64(16+i), *v)
	}
	return b
}

// figures lists the stored numbers in the order of their tags, 16 and up.
// Append-only.
func (q *queueState) figures() []*uint64 {
	g, c := &q.gauges, &q.counters
	return []*uint64{
		&g.Ready, &g.Delayed, &g.Reserved, &g.Failed, &g.Bytes,
		&c.Enqueued, &c.ReservedTotal, &c.Acked, &c.Released, &c.FailedTotal,
		&c.DroppedFull, &c.DroppedPayloadTooLarge, &c.DroppedShutdown, &c.BackendErrors,
		&g.Suspects,
		&c.Deleted, &c.Purged, &c.Retried,
	}
}

func decodeQueueState(p []byte) (*queueState, error) {
	q := &queueState{}
	figures := q.figures()
	r := tagged.Read(p)
	for tag := range r.Tags() {
		switch {
		case tag == 1:
			q.name = string(r.Bytes())
		case tag == 2:
			def, err := decodeDefinition(r.Bytes())
			if err != nil {
				return nil, err
			}
			q.def = def
		case tag == 3:
			q.declared = r.Uint() == 1
		case tag == 4:
			q.auto = r.Uint() == 1
		case tag == 5:
			q.paused = r.Uint() == 1
		case tag >= 16 && tag-16 < uint64(len(figures)):
			*figures[tag-16] = r.Uint()
		default:
			r.Unknown(tag)
		}
	}
	if r.Err() != nil {
		return nil, fmt.Errorf("a stored queue: %w", r.Err())
	}
	return q, nil
}

// bucket returns one of the queue's buckets in tx, *cached when it is of tx.
func (q *queueState) bucket(tx *storage.Tx, name []byte) (*storage.Bucket, error) {
	if q.tx != tx {
		q.tx, q.ready, q.suspects, q.delayed, q.failed, q.failedIDs = tx, nil, nil, nil, nil, nil
	}
	var cached **storage.Bucket
	switch &name[0] {
	case &readyName[0]:
		cached = &q.ready
	case &suspectsName[0]:
		cached = &q.suspects
	case &delayedName[0]:
		cached = &q.delayed
	case &failedName[0]:
		cached = &q.failed
	default:
		cached = &q.failedIDs
	}
	if *cached == nil {
		b, err := jobBucket(tx, q.id, name)
		if err != nil {
			return nil, err
		}
		*cached = b
	}
	return *cached, nil
}

func jobBucket(tx *storage.Tx, id uint32, name []byte) (*storage.Bucket, error) {
	return tx.Bucket(jobsBucket, binary.BigEndian.AppendUint32(nil, id), name)
}
