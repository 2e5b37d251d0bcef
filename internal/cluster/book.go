package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"pogod/internal/cluster/identity"
	"pogod/internal/datadir"
)

// book says where each node can be reached, by its own last word. Nodes tell each other
// all that they know whenever it changes, so all books become equal.
type book struct {
	self    string
	changed chan struct{} // holds one signal: something was learned
	gone    chan struct{} // closed when this node was removed

	mu    sync.Mutex // guards peers
	peers map[string]identity.Peer
}

func newBook(own identity.Peer) *book {
	return &book{self: own.ID, changed: make(chan struct{}, 1), gone: make(chan struct{}), peers: map[string]identity.Peer{own.ID: own}}
}

// learn takes what is newer than what is known. What others say of this node itself is
// never believed: a version that is not below its own, from before its directory was put
// back to an older copy, is overtaken.
func (b *book) learn(peers ...identity.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range peers {
		known, ok := b.peers[p.ID]
		switch {
		case p.ID == b.self && p.Version == removed:
			// That is not the node's own to say: nobody talks to it any more.
			if known.Version == removed {
				continue
			}
			close(b.gone)
		case p.ID == b.self:
			if p.Version < known.Version || p.Address == known.Address {
				continue
			}
			known.Version = p.Version + 1
			p = known
		case ok && p.Version <= known.Version, !ok && !b.roomLocked(p):
			continue
		}
		b.peers[p.ID] = p
		select {
		case b.changed <- struct{}{}:
		default:
		}
	}
}

// roomLocked reports whether there is room for one more node, and makes it for a member by
// forgetting one that was removed. mu is held.
func (b *book) roomLocked(p identity.Peer) bool {
	if len(b.peers) < maxPeers {
		return true
	}
	if p.Version == removed {
		return false
	}
	for id, o := range b.peers {
		if o.Version == removed && id != b.self {
			delete(b.peers, id)
			return true
		}
	}
	return false
}

// address of a node, "" for one that is not known.
func (b *book) address(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[id].Address
}

// all returns the nodes that are known, sorted by id.
func (b *book) all() []identity.Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Values(b.peers), func(x, y identity.Peer) int { return strings.Compare(x.ID, y.ID) })
}

// present is all but the nodes that were removed.
func (b *book) present() []identity.Peer {
	return slices.DeleteFunc(b.all(), func(p identity.Peer) bool { return p.Version == removed })
}

// peersFile is where a data directory keeps the book.
const peersFile = "cluster/peers.json"

type peersDoc struct {
	Peers []identity.Peer `json:"peers"`
}

// WritePeers keeps in a data directory where the members of its cluster are, for the
// next Open: those that identity.Join was told.
func WritePeers(dir *datadir.Dir, peers []identity.Peer) error {
	b, err := json.MarshalIndent(peersDoc{peers}, "", "  ")
	if err == nil {
		err = datadir.WriteFile(dir.File(peersFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write where the members are: %w", err)
	}
	return nil
}

// readPeers reads what WritePeers wrote; nothing when there is no file.
func readPeers(dir *datadir.Dir) ([]identity.Peer, error) {
	b, err := os.ReadFile(dir.File(peersFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc peersDoc
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	for _, p := range doc.Peers {
		if err := checkPeer(p); err != nil {
			return nil, err
		}
	}
	return doc.Peers, nil
}
