package raftfsm

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"
)

// Peers are the other members, before raft runs.
type Peers interface {
	// Fetch asks a member for its data file, another one with each call, and hands what
	// it sends, which is what Group.SendState writes, to take. It returns take's error.
	Fetch(ctx context.Context, take func(node string, r io.Reader) error) error
}

// A state on its way between two nodes:
//
//	length 4, little-endian | header, JSON | a copy as storage writes it
type stateHeader struct {
	Meta raft.SnapshotMeta `json:"meta"`
}

const (
	maxStateHeader = 1 << 20
	rebuildPause   = time.Second // before another member is asked
)

// errNotYet is returned for a data file that this node cannot go on from.
var errNotYet = errors.New("its data file does not reach this node's log yet")

// SendState writes this node's data file for another one, whose own cannot be used.
func (g *Group) SendState(node string, w io.Writer) error {
	if err := g.Err(); err != nil {
		return err
	}
	g.FSM.flush()
	c, meta, err := g.snaps.copy()
	if err != nil {
		return err
	}
	out := g.streams.send(c)
	defer func() { _ = out.Close() }() // it ends the copy, too
	if meta.Index == 0 {
		return fmt.Errorf("node %s has applied nothing yet", g.cfg.Dir.NodeID())
	}
	g.streams.to(out.t, node)
	b, err := json.Marshal(stateHeader{*meta})
	if err != nil {
		return err
	}
	if _, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		return err
	}
	_, err = io.Copy(w, out)
	return err
}

// rebuild puts the data file of another member in place of this node's, which cannot be
// used. The log is whole, so the node keeps its id and its votes: raft is not running
// yet, and the leader would never send a file to a node that has the entries.
func (g *Group) rebuild(ctx context.Context, reason error) error {
	g.cfg.Log.Error("this node does not serve: it fetches the data file of another one", "reason", reason)
	if g.cfg.Rebuilding != nil {
		g.cfg.Rebuilding(reason, func() []Stream {
			running, _, _ := g.streams.all()
			return running
		})
	}
	for last := ""; ; {
		err := g.cfg.Peers.Fetch(ctx, g.fetch)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w; no other node's took its place: %w", reason, errors.Join(ctx.Err(), err))
		}
		if last != err.Error() {
			last = err.Error()
			g.cfg.Log.Warn("no data file from another node yet", "reason", err)
		}
		over := make(chan struct{})
		t := g.cfg.Clock.AfterFunc(rebuildPause, func() { close(over) })
		select {
		case <-over:
		case <-ctx.Done():
		}
		t.Stop()
	}
	if err := os.Remove(g.cfg.Dir.File(damagedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	g.cfg.Log.Info("the data file of another node took the place of this one's")
	return nil
}

// fetch takes a member's data file, if this node can go on from it.
func (g *Group) fetch(node string, r io.Reader) error {
	meta, err := readStateHeader(r)
	if err != nil {
		return err
	}
	if err := g.reaches(meta); err != nil {
		return err
	}
	m := marker{Meta: *meta, Received: receivedName()}
	m.Meta.ID += "-received"
	in, err := g.streams.receive(g.snaps.path(m.Received))
	if err != nil {
		return err
	}
	g.streams.from(in.t, node)
	n, err := io.Copy(in, io.LimitReader(r, meta.Size))
	if err == nil && n != meta.Size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = g.snaps.take(in, &m)
	}
	if err != nil {
		return errors.Join(err, in.drop(err))
	}
	return g.snaps.swap()
}

// reaches says whether this node can go on from another one's data file: it ends behind
// the own log, or at an entry that the own log has, of the same term. The log is then the
// same up to there, and what follows in it stays, for others may count on it.
func (g *Group) reaches(meta *raft.SnapshotMeta) error {
	first, last, err := g.log.indexes()
	if err != nil {
		return err
	}
	if m := g.snaps.marker(); m != nil && meta.Index < m.Meta.Index {
		return fmt.Errorf("%w: it ends at entry %d, and the last snapshot here at %d", errNotYet, meta.Index, m.Meta.Index)
	}
	if meta.Index > last {
		return nil
	}
	if meta.Index >= first {
		var l raft.Log
		if err := g.log.GetLog(meta.Index, &l); err != nil {
			return err
		}
		if l.Term == meta.Term {
			return nil
		}
	}
	return fmt.Errorf("%w: it ends at entry %d, and the log at %d", errNotYet, meta.Index, last)
}

func readStateHeader(r io.Reader) (*raft.SnapshotMeta, error) {
	b := make([]byte, 4)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("it sent no data file: %w", err)
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxStateHeader {
		return nil, fmt.Errorf("%w: a header of %d bytes", ErrForeignStream, n)
	}
	b = make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("it sent no data file: %w", err)
	}
	var h stateHeader
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForeignStream, err)
	}
	if h.Meta.Index == 0 || h.Meta.Size <= 0 {
		return nil, fmt.Errorf("%w: its header names nothing", ErrForeignStream)
	}
	return &h.Meta, nil
}
