//go:build seeded

package raftfsm

import (
	"context"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"

	"pogod/internal/clock"
	"pogod/internal/command"
)

// Seeded bugs, for the positive controls of cluster_test: a test of durability that
// cannot fail shows nothing. A build with the tag "seeded" has the bug that
// POGOD_SEEDED_BUG names, and is good for nothing else.
var seededBug = os.Getenv("POGOD_SEEDED_BUG")

const (
	bugAnswerBeforeCommit = "answer-before-commit" // a push is answered before its batch is submitted
	bugNoLogFsync         = "no-log-fsync"         // the log's segments are written and never synced
	bugDroppedDedupe      = "dropped-dedupe"       // a batch that was applied is applied again
	bugSnapshotRace       = "snapshot-race"        // a stream has the meta of the marker, not of what it holds
	bugRestoreSkipped     = "restore-skipped"      // a received file is not swapped in
	bugWallClock          = "wall-clock"           // the state machine takes the time from its node's clock
	// and "early-promotion", in internal/cluster
)

var earlyAnswers atomic.Uint64

// answerEarly answers a push with an id that is made up.
func answerEarly(c *command.Command) (r command.Result, early bool) {
	if seededBug != bugAnswerBeforeCommit || c.Op != command.Push {
		return r, false
	}
	return command.Result{Code: command.Accepted, Job: command.JobID{Millis: 1, Seq: earlyAnswers.Add(1)}}, true
}

// dedupes reports whether a batch is applied once.
func dedupes() bool { return seededBug != bugDroppedDedupe }

// logBytes is POGOD_SEEDED_LOG_BYTES: tests of members that lag behind the log want a short
// one. 0: the default.
func logBytes() int64 {
	n, _ := strconv.ParseInt(os.Getenv("POGOD_SEEDED_LOG_BYTES"), 10, 64)
	return n
}

// namesItself reports whether a stream is named by what it holds.
func namesItself() bool { return seededBug != bugSnapshotRace }

// restores reports whether a received file is swapped in.
func restores() bool { return seededBug != bugRestoreSkipped }

// seededTime returns the time of an entry that was stamped so.
func seededTime(stamp int64, c clock.Clock) int64 {
	if seededBug != bugWallClock {
		return stamp
	}
	return c.Now().UnixMilli()
}

// seededCommand reports whether a command is the one that only newer builds know.
func seededCommand(op command.Op) bool { return op == command.Probe }

// Probe proposes the command that only newer builds know.
func (p *Proposer) Probe(ctx context.Context) (done bool, err error) {
	if command.MaxLevel() < command.Probe.Level() || command.Probe.Level() == 1 {
		return false, nil
	}
	_, err = p.Propose(ctx, &command.Command{Op: command.Probe})
	return err == nil, err
}

// walFiles are raft-wal's own, or files that never sync.
func walFiles() types.VFS {
	if seededBug != bugNoLogFsync {
		return fs.New()
	}
	return unsynced{fs.New()}
}

// unsynced is raft-wal's file system without fsync.
type unsynced struct{ types.VFS }

func (u unsynced) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := u.VFS.Create(dir, name, size)
	return unsyncedFile{f}, err
}

func (u unsynced) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := u.VFS.OpenWriter(dir, name)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ types.WritableFile }

func (unsyncedFile) Sync() error { return nil }
