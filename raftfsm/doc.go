// Package raftfsm is the node's member of the Raft group: the state machine over the
// data file (FSM), the log, snapshots that are references to that file, and the
// Proposer, through which the node's own commands go to the leader in numbered
// batches, so that none is applied twice however often it is sent.
//
// The way of a command: Proposer.Propose gathers, one batch travels at a time;
// Submitter takes it to the leader (raftfsm/leader, here or on another node), which
// stamps the time and gives the entry to raft; the log is fsynced; FSM.ApplyBatch
// applies the entry to the open transaction of the data file, and the results go back
// the same way. The data file is committed, with fsync, every so often; after a crash
// raft replays what it lacks from the log.
//
// DESIGN.md says why, and which rules a restart follows.
package raftfsm
