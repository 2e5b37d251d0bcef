package raftfsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/datadir"
	"pogod/raftfsm/disk"
	"pogod/storage"
)

// Config of a node's member of the group.
type Config struct {
	Dir   *datadir.Dir // locked; holds state.db, snapshot.json and log/
	Clock clock.Clock
	Log   *slog.Logger

	// Transport to the other members, whose addresses are their ids. nil: there are
	// none, and will be none; the node is alone.
	Transport raft.Transport
	// Joins says that a new node waits for the group that it was admitted to; otherwise
	// it begins a group of one.
	Joins bool
	// Peers have a data file when this node's cannot be used. nil: Open fails then.
	Peers Peers
	// Rebuilding is called when a data file is fetched from them, before Open returns, with
	// the reason, and how to see how far it is. nil: nobody wants to know.
	Rebuilding func(reason error, running func() []Stream)
	// LogBytes of log since the last snapshot ask for the next one, and as many are kept
	// behind it for members that were away. 0: 64 MiB.
	LogBytes int64
}

// The times of a group with a transport. An election takes between one and three of the
// first; a session lives six seconds, and so through an election.
const (
	electionTimeout = 500 * time.Millisecond
	leaderLease     = 250 * time.Millisecond
	// commitTimeout is when raft tells idle followers that an entry is committed; the
	// announcer does it sooner.
	commitTimeout = 50 * time.Millisecond
)

// Group is this node's member of the Raft group.
type Group struct {
	FSM  *FSM
	Raft *raft.Raft

	cfg     Config
	log     *logStore
	snaps   *snapshotStore
	streams *streams
	scrub   scrub
	quit    chan struct{}
	loops   sync.WaitGroup // snapshotLoop and scrubLoop
}

// The files in the data directory.
const (
	stateFile    = "state.db"
	damagedFile  = "state.db.damaged" // is there when the data file must not be used, and says why
	snapshotFile = "snapshot.json"
	logDir       = "log"
)

// Open opens data file, snapshot marker and log, refuses what does not belong
// together, and starts raft: a new node becomes a group of one. A data file that cannot
// be used while the log is whole is replaced by that of another node, which may take as
// long as there is none: ctx ends that. It fails with ErrFileDamaged, storage.ErrCorrupt,
// ErrLogLost or ErrLogDamaged, and says what to do.
func Open(ctx context.Context, cfg Config) (*Group, error) {
	g := &Group{cfg: cfg, quit: make(chan struct{}), streams: newStreams(cfg.Clock, cfg.Log)}
	err := g.open(ctx)
	if err == nil {
		err = g.resync()
	}
	if err == nil {
		err = g.log.opened()
	}
	if err == nil {
		err = g.start()
	}
	if err != nil {
		_ = g.closeFiles() // would often fail for the same reason
		return nil, g.advise(err)
	}
	g.loops.Go(g.snapshotLoop) // ended by Close
	g.loops.Go(g.scrubLoop)    // as well
	return g, nil
}

// advise adds to an error of the start what to do.
func (g *Group) advise(err error) error {
	file := errors.Is(err, ErrFileDamaged) || errors.Is(err, storage.ErrCorrupt)
	log := errors.Is(err, ErrLogLost) || errors.Is(err, ErrLogDamaged)
	switch {
	case log && g.cfg.Transport != nil:
		return fmt.Errorf("%w; node %s cannot come back under its id, for it may have forgotten what it accepted: move %s away, and bring the node in anew with `pogod cluster token` on another node and `pogod cluster join` here",
			err, g.cfg.Dir.NodeID(), g.cfg.Dir.Path)
	case log:
		return fmt.Errorf("%w; `pogod cluster recover` goes on with what there is, and says what may be missing", err)
	case file:
		return fmt.Errorf("%w; restore the whole directory %s from a copy", err, g.cfg.Dir.Path)
	}
	return err
}

func (g *Group) open(ctx context.Context) error {
	limit := cmp.Or(g.cfg.LogBytes, logBytes(), defaultLogBytes)
	var damage, err error
	if g.snaps, damage = openSnapshotStore(g.cfg.Dir.Path, g.streams); g.snaps == nil {
		return damage
	}
	if g.log, err = openLog(g.cfg.Dir.File(logDir), limit, hcLogger(g.cfg.Log, "log")); err != nil {
		return err
	}
	after := uint64(0)
	if m := g.snaps.marker(); m != nil {
		after = m.Meta.Index
	}
	if err := errors.Join(g.log.belongs(g.cfg.Dir), g.snaps.swap()); err != nil {
		return err
	}
	if err := g.log.check(after); err != nil {
		return err
	}
	if damage == nil {
		damage = g.openState()
	}
	if g.cfg.Peers != nil && (errors.Is(damage, ErrFileDamaged) || errors.Is(damage, storage.ErrCorrupt)) {
		if err := g.rebuild(ctx, damage); err != nil {
			return err
		}
		damage = g.openState()
	}
	return damage
}

// verifiedAtStart is how large a data file is verified whole at each start; a larger one
// is by the scrubber.
const verifiedAtStart = 64 << 20

// openState opens the data file, if it belongs to marker and log.
func (g *Group) openState() error {
	path := g.cfg.Dir.File(stateFile)
	if why, err := os.ReadFile(g.cfg.Dir.File(damagedFile)); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fmt.Errorf("%w: %s", ErrFileDamaged, strings.TrimSpace(string(why))), err)
	}
	st, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f := found{marker: g.snaps.marker(), fresh: err != nil}
	if f.first, f.last, err = g.log.indexes(); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if f.fresh {
		// Before a file is made: a refused directory is left as it was.
		if _, err := f.fits(); err != nil {
			return err
		}
	} else if st.Size() <= verifiedAtStart {
		if err := storage.VerifyFile(path); err != nil {
			return err
		}
	}
	store, err := storage.Open(path)
	if err != nil {
		return err
	}
	if g.FSM, err = OpenFSM(store, g.cfg.Clock); err != nil {
		if !errors.Is(err, storage.ErrCorrupt) { // else bbolt may hold its locks
			err = errors.Join(err, store.Close())
		}
		return err
	}
	f.file, f.epoch = g.FSM.applied, g.FSM.epoch
	cut, err := f.fits()
	if err != nil {
		err = errors.Join(err, g.FSM.Close())
		g.FSM = nil
		return err
	}
	if cut {
		if err := g.log.DeleteRange(f.first, f.last); err != nil {
			return fmt.Errorf("empty the log: %w", err)
		}
	}
	g.snaps.fsm = g.FSM
	g.FSM.hold, g.FSM.last, g.FSM.damaged = g.streams.holding, g.snaps.marker, g.noteDamage
	return nil
}

// noteDamage keeps the data file from being used again.
func (g *Group) noteDamage(err error) {
	if err := datadir.WriteFile(g.cfg.Dir.File(damagedFile), []byte(err.Error()+"\n")); err != nil {
		g.cfg.Log.Error("that the data file is damaged could not be noted: do not start this node again with it", "error", err)
	}
}

func (g *Group) start() (err error) {
	defer func() { // raft panics when it cannot read its log
		if r := recover(); r != nil {
			err = fmt.Errorf("start raft: %v", r)
		}
	}()
	id := raft.ServerID(g.cfg.Dir.NodeID())
	transport := g.cfg.Transport
	c := raft.DefaultConfig()
	c.LocalID = id
	c.Logger = hcLogger(g.cfg.Log, "raft")
	c.NoSnapshotRestoreOnStart = true // the data file is the state
	c.BatchApplyCh = true
	c.MaxAppendEntries = 64
	c.SnapshotThreshold = math.MaxUint64 // snapshotLoop decides, by bytes
	c.SnapshotInterval = time.Hour
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = electionTimeout, electionTimeout, leaderLease
	c.CommitTimeout = commitTimeout
	if transport == nil {
		_, transport = raft.NewInmemTransport(raft.ServerAddress(id))
		// There is nobody to wait for.
		const soon = 50 * time.Millisecond
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = soon, soon, soon, soon
	} else if m, ok := transport.(memberTransport); ok {
		a := newAnnouncer(streamed{m, g.streams}, g.cfg.Clock)
		transport, g.FSM.announce = a, a.applied
	}
	exists, err := raft.HasExistingState(g.log, g.log, g.snaps)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	one := raft.Configuration{Servers: []raft.Server{{ID: id, Address: raft.ServerAddress(id)}}}
	switch {
	case g.cfg.Joins: // the leader will send everything
	case exists:
		err = g.finishBootstrap(one)
	default:
		err = raft.BootstrapCluster(c, g.log, g.log, g.snaps, transport, one)
	}
	if err != nil {
		return fmt.Errorf("begin a new group: %w", err)
	}
	cache, err := raft.NewLogCache(64, g.log)
	if err != nil {
		return err
	}
	if g.Raft, err = raft.NewRaft(c, g.FSM, cache, g.log, g.snaps, transport); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	return nil
}

// currentTerm is raft's key of the term in its stable store.
var currentTerm = []byte("CurrentTerm")

// finishBootstrap does what a node that was killed in its very first start had not: raft
// writes term 1 and then the group's configuration as entry 1, and without the entry the
// node would never lead. An empty log of a later term has been lost.
func (g *Group) finishBootstrap(one raft.Configuration) error {
	_, last, err := g.log.indexes()
	if err != nil || last > 0 || g.snaps.marker() != nil {
		return err
	}
	term, err := g.log.GetUint64(currentTerm)
	if err != nil {
		return err
	}
	if term > 1 {
		return fmt.Errorf("%w: it is empty, but raft was in term %d", ErrLogLost, term)
	}
	return g.log.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(one)})
}

// snapshotLoop takes a snapshot when the log has grown enough, so that it stays bounded
// whatever the size of its entries.
func (g *Group) snapshotLoop() {
	for {
		select {
		case <-g.quit:
			return
		case <-g.log.full:
		}
		err := g.Snapshot()
		if err == nil || errors.Is(err, raft.ErrRaftShutdown) {
			continue
		}
		if !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			g.cfg.Log.Warn("snapshot failed, the log grows on", "error", err)
		}
		again := make(chan struct{}) // the next entry would ask at once
		t := g.cfg.Clock.AfterFunc(snapshotPause, func() { close(again) })
		select {
		case <-g.quit:
		case <-again:
			signal(g.log.full)
		}
		t.Stop()
	}
}

// snapshotPause is how long after a snapshot that was not taken the next one is tried.
const snapshotPause = time.Second

// Snapshot makes the data file the new beginning of the log. It fails with
// raft.ErrNothingNewToSnapshot when there is nothing to do, and while a member needs the
// log as it is.
func (g *Group) Snapshot() error {
	c := g.Raft.ReloadableConfig()
	c.TrailingLogs = g.log.trailing(g.log.limit)
	if g.cfg.Transport == nil {
		c.TrailingLogs = g.log.trailing(g.log.limit / 4)
	}
	if err := g.Raft.ReloadConfig(c); err != nil {
		return err
	}
	if err := g.Raft.Snapshot().Error(); err != nil {
		return err
	}
	g.log.snapshotTaken()
	return nil
}

// Streams returns the data files that are on their way from or to this node, and how many
// it has sent and received whole since its start.
func (g *Group) Streams() (running []Stream, sent, received uint64) { return g.streams.all() }

// Syncs returns how long the syncs of the log take.
func (g *Group) Syncs() disk.SyncStanding { return g.log.syncs.Standing() }

// Failed returns a channel that is closed when the node must end: its log or its state
// machine cannot go on. Err says why.
func (g *Group) Failed() <-chan struct{} {
	c := make(chan struct{})
	go func() { // ended by the failure, or by Close
		select {
		case <-g.FSM.Failed():
		case <-g.log.failed:
		case <-g.quit:
			return
		}
		close(c)
	}()
	return c
}

// Err returns why the node must end, nil if it need not. Such a node is not closed: raft
// may wait for ever for a disk that failed. Its process ends, and the next start goes on
// from the log.
func (g *Group) Err() error { return errors.Join(g.FSM.Err(), g.log.firstErr()) }

// Reaches reports whether a member that has applied so far gets the rest from the log.
func (g *Group) Reaches(applied uint64) bool {
	first, _, err := g.log.indexes()
	return err == nil && applied+1 >= first
}

// LogStats says how long the log is.
type LogStats struct {
	First, Last   uint64 // indexes of the entries it holds, 0 for none
	SnapshotIndex uint64 // where the snapshot ends
	Bytes         int64  // of the log's files
}

// LogStats of now.
func (g *Group) LogStats() (LogStats, error) {
	first, last, err := g.log.indexes()
	st := LogStats{First: first, Last: last}
	if m := g.snaps.marker(); m != nil {
		st.SnapshotIndex = m.Meta.Index
	}
	files, err2 := filepath.Glob(filepath.Join(g.cfg.Dir.File(logDir), "*"))
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil {
			st.Bytes += fi.Size()
		}
	}
	return st, errors.Join(err, err2)
}

// Close stops raft, commits the data file and closes everything. It is to be called
// once.
func (g *Group) Close() error {
	close(g.quit)
	g.loops.Wait()
	return errors.Join(g.Raft.Shutdown().Error(), g.closeFiles())
}

func (g *Group) closeFiles() error {
	var err error
	if g.FSM != nil {
		err = g.FSM.Close()
	}
	if g.log != nil {
		err = errors.Join(err, g.log.close())
	}
	return err
}

// hcLogger hands raft's log lines to ours. Its information is our debugging, and so are
// its warnings: in a group of one they tell of the election at the start.
func hcLogger(log *slog.Logger, name string) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: name, Level: hclog.Info, Output: discard{}})
	l.RegisterSink(sinkAdapter{log})
	return l
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

type sinkAdapter struct{ log *slog.Logger }

// unreached begin raft's errors about a member that is not there, of which it has many a
// second, and the cluster's links tell once; or that lags behind the log, which streams
// tells.
var unreached = []string{
	"failed to get log",
	"failed to appendEntries to", "failed to heartbeat to", "failed to make requestVote RPC", "failed to pipeline appendEntries",
	"failed to start pipeline replication to",
}

// Accept implements hclog.SinkAdapter.
func (s sinkAdapter) Accept(name string, level hclog.Level, msg string, args ...any) {
	known := slices.ContainsFunc(unreached, func(begin string) bool { return strings.HasPrefix(msg, begin) })
	msg = name + ": " + msg
	switch {
	case level >= hclog.Error && !known:
		s.log.Error(msg, args...)
	default:
		s.log.Debug(msg, args...)
	}
}
