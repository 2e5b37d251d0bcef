//go:build !seeded

package raftfsm

import (
	"context"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"

	"pogod/internal/clock"
	"pogod/internal/command"
)

// The seeded bugs of seeded.go are not in this build: these functions compile away.

func answerEarly(*command.Command) (r command.Result, early bool) { return r, false }

// dedupes reports that a batch is applied once.
func dedupes() bool { return true }

// logBytes returns 0: the default.
func logBytes() int64 { return 0 }

// namesItself reports that a stream is named by what it holds.
func namesItself() bool { return true }

// restores reports that a received file is swapped in.
func restores() bool { return true }

// seededTime returns the stamp.
func seededTime(stamp int64, _ clock.Clock) int64 { return stamp }

// seededCommand reports that there is no such command.
func seededCommand(command.Op) bool { return false }

// Probe does nothing: only builds for tests have something to probe with.
func (p *Proposer) Probe(context.Context) (done bool, err error) { return false, nil }

// walFiles are raft-wal's own.
func walFiles() types.VFS { return fs.New() }
