package raftfsm

import (
	"encoding/binary"
	"fmt"

	"pogod/internal/command"
	"pogod/internal/tagged"
	"pogod/storage"
)

// session is what the state machine keeps of a node's session, one a node.
type session struct {
	node    string
	number  uint64 // of the opening
	id      uint64 // 0: ended
	last    uint64 // the batch that was applied last
	results []batchResults
	dirty   bool
}

// batchResults are kept until the node's watermark passes number.
type batchResults struct {
	number  uint64
	results []command.Result
}

// sessions of all nodes.
type sessions struct {
	byNode map[string]*session
	byID   map[uint64]*session // live ones
}

var sessionsBucket = []byte("sessions")

func newSessions() sessions {
	return sessions{map[string]*session{}, map[uint64]*session{}}
}

func (s *sessions) live(id uint64) bool { return s.byID[id] != nil }

// open opens a session for a node. An opening with a lower number than an earlier one
// comes late, from an earlier life of the node, and is refused; the same number again
// answers the session that it opened.
func (s *sessions) open(node string, number uint64, next func() uint64) (id uint64, ok bool) {
	old := s.byNode[node]
	if old != nil {
		if number < old.number || number == old.number && old.id == 0 {
			return 0, false
		}
		if number == old.number {
			return old.id, true
		}
		delete(s.byID, old.id)
	}
	n := &session{node: node, number: number, id: next(), dirty: true}
	s.byNode[node], s.byID[n.id] = n, n
	return n.id, true
}

func (s *sessions) end(id uint64) bool {
	n := s.byID[id]
	if n == nil {
		return false
	}
	delete(s.byID, id)
	n.id, n.results, n.dirty = 0, nil, true
	return true
}

// done notes that a batch was applied, and forgets what the node no longer wants.
func (n *session) done(b command.Batch, results []command.Result) {
	n.last, n.dirty = b.Number, true
	keep := n.results[:0]
	for _, r := range n.results {
		if r.number > b.Watermark {
			keep = append(keep, r)
		}
	}
	n.results = append(keep, batchResults{b.Number, results})
}

// stored returns the results of a batch that was applied.
func (n *session) stored(number uint64) ([]command.Result, bool) {
	for _, r := range n.results {
		if r.number == number {
			return r.results, true
		}
	}
	return nil, false
}

func (s *sessions) flush(tx *storage.Tx) error {
	for _, n := range s.byNode {
		if !n.dirty {
			continue
		}
		b, err := tx.Bucket(sessionsBucket)
		if err != nil {
			return err
		}
		if err := b.Put([]byte(n.node), n.encode()); err != nil {
			return err
		}
		n.dirty = false
	}
	return nil
}

func (s *sessions) load(tx *storage.Tx) error {
	*s = newSessions()
	b, err := tx.Bucket(sessionsBucket)
	if err != nil {
		return err
	}
	c := b.Cursor()
	for k, v, err := c.First(); k != nil; k, v, err = c.Next() {
		if err != nil {
			return err
		}
		n, err := decodeSession(v)
		if err != nil {
			return fmt.Errorf("the session of node %s: %w", k, err)
		}
		n.node = string(k)
		s.byNode[n.node] = n
		if n.id != 0 {
			s.byID[n.id] = n
		}
	}
	return nil
}

func (n *session) encode() []byte {
	b := tagged.Uint(nil, 1, n.number)
	b = tagged.Uint(b, 2, n.id)
	b = tagged.Uint(b, 3, n.last)
	var list []byte
	for _, r := range n.results {
		list = binary.AppendUvarint(list, r.number)
		list = binary.AppendUvarint(list, uint64(len(r.results)))
		for _, x := range r.results {
			list = command.AppendResult(list, x)
		}
	}
	return tagged.Bytes(b, 4, list)
}

func decodeSession(p []byte) (*session, error) {
	n := &session{}
	r := tagged.Read(p)
	for tag := range r.Tags() {
		switch tag {
		case 1:
			n.number = r.Uint()
		case 2:
			n.id = r.Uint()
		case 3:
			n.last = r.Uint()
		case 4:
			if err := n.decodeResults(r.Bytes()); err != nil {
				return nil, err
			}
		default:
			r.Unknown(tag)
		}
	}
	return n, r.Err()
}

func (n *session) decodeResults(p []byte) error {
	for len(p) > 0 {
		number, k := binary.Uvarint(p)
		if k <= 0 {
			return command.ErrMalformed
		}
		p = p[k:]
		count, k := binary.Uvarint(p)
		if k <= 0 || count > uint64(len(p)) {
			return command.ErrMalformed
		}
		p = p[k:]
		results := make([]command.Result, count)
		for i := range results {
			r, rest, err := command.DecodeResult(p)
			if err != nil {
				return err
			}
			results[i], p = r, rest
		}
		n.results = append(n.results, batchResults{number, results})
	}
	return nil
}
