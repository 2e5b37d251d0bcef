package raftfsm

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pogod/internal/clock"
	"pogod/internal/datadir"
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

	cfg   Config
	log   *logStore
	snaps *snapshotStore
	quit  chan struct{}
	done  chan struct{} // closed when snapshotLoop has ended
}

// The files in the data directory.
const (
	stateFile    = "state.db"
	snapshotFile = "snapshot.json"
	logDir       = "log"
)

// Open opens data file, snapshot marker and log, refuses what does not belong
// together, and starts raft: a new node becomes a group of one.
func Open(cfg Config) (*Group, error) {
	g := &Group{cfg: cfg, quit: make(chan struct{}), done: make(chan struct{})}
	if err := g.open(); err != nil {
		return nil, errors.Join(err, g.closeFiles())
	}
	if err := g.start(); err != nil {
		return nil, errors.Join(err, g.closeFiles())
	}
	go g.snapshotLoop() // ended by Close
	return g, nil
}

func (g *Group) open() error {
	statePath := g.cfg.Dir.File(stateFile)
	_, err := os.Stat(statePath)
	isNew := errors.Is(err, os.ErrNotExist)
	if g.snaps, err = openSnapshotStore(g.cfg.Dir.File(snapshotFile)); err != nil {
		return err
	}
	if g.log, err = openLog(g.cfg.Dir.File(logDir), hcLogger(g.cfg.Log, "log")); err != nil {
		return err
	}
	first, last, err := g.log.indexes()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	m := g.snaps.marker()
	if isNew {
		// Before a file is made: a refused directory is left as it was.
		if _, err := fits(m, position{}, nil, true, first, last); err != nil {
			return err
		}
	}
	store, err := storage.Open(statePath)
	if err != nil {
		return err
	}
	if g.FSM, err = OpenFSM(store, g.cfg.Clock); err != nil {
		return errors.Join(err, store.Close())
	}
	cut, err := fits(m, g.FSM.applied, g.FSM.epoch, isNew, first, last)
	if err != nil {
		return err
	}
	if cut {
		if err := g.log.DeleteRange(first, last); err != nil {
			return fmt.Errorf("empty the log: %w", err)
		}
		return nil
	}
	if last == 0 {
		return nil
	}
	after := first - 1
	if m != nil {
		after = max(after, m.Meta.Index)
	}
	return g.log.count(after, last)
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
		a := newAnnouncer(m, g.cfg.Clock)
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
		return fmt.Errorf("the log is empty but raft was in term %d: the log is lost; restore the whole directory from a copy, or remove it to begin anew", term)
	}
	return g.log.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(one)})
}

// snapshotLoop takes a snapshot when the log has grown by snapshotBytes, so that the
// log stays bounded whatever the size of its entries.
func (g *Group) snapshotLoop() {
	defer close(g.done)
	for {
		select {
		case <-g.quit:
			return
		case <-g.log.full:
		}
		if err := g.Snapshot(); err != nil && !errors.Is(err, raft.ErrRaftShutdown) {
			g.cfg.Log.Warn("snapshot failed, the log grows on", "error", err)
		}
	}
}

// Snapshot makes the data file the new beginning of the log.
func (g *Group) Snapshot() error {
	c := g.Raft.ReloadableConfig()
	c.TrailingLogs = g.log.trailing(trailingMembers)
	if g.cfg.Transport == nil {
		c.TrailingLogs = g.log.trailing(trailingAlone)
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
	<-g.done
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

// unreached begin raft's errors about a member that is not there: it has many a second,
// and the cluster's links tell of it once.
var unreached = []string{
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
