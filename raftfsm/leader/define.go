package leader

import (
	"context"
	"errors"
	"fmt"

	"pogod/internal/command"
	"pogod/raftfsm"
)

// Define makes definitions, with their hash, those of this node's configuration, which it
// was told to read again. A node that leads proposes them, unless they are in force, and
// Define returns when they are applied. On another node leads is false: Redefine, of the
// one that leads, is to be told.
func (l *Leader) Define(definitions []byte, hash string) (leads bool, err error) {
	l.mu.Lock()
	l.cfg.Definitions, l.cfg.Hash = definitions, hash
	leads = l.leading
	l.mu.Unlock()
	if !leads {
		return false, nil
	}
	return true, l.define(definitions, hash)
}

// Redefine puts definitions in force that somebody asks for who has just read them, on
// whichever node, and returns when they are applied; those that were superseded too. This
// node's own stay what they are. An error that wraps raftfsm.ErrNotSent says that another
// leader is to be asked.
func (l *Leader) Redefine(_ context.Context, definitions []byte, hash string) error {
	if !l.Leading() {
		return fmt.Errorf("%w: node %s, which was asked, does not lead", raftfsm.ErrNotSent, l.cfg.Node)
	}
	return l.define(definitions, hash)
}

// errRedefined has taking over begin anew.
var errRedefined = errors.New("the queues were defined anew meanwhile")

// define proposes definitions that are not in force.
func (l *Leader) define(definitions []byte, hash string) error {
	if l.cfg.State.DefinitionsHash() == hash {
		return nil
	}
	_, err := l.command(&command.Command{Op: command.Define, Definitions: definitions, Hash: hash})
	return err
}

// defineOwn proposes this node's definitions when they are new. Superseded ones are a file
// that others have changed and this node has not yet: were they proposed with each change
// of the leader, the queues would flip between the two. A node alone has nobody to differ
// from: its file was changed back. It returns the hash of those it looked at.
func (l *Leader) defineOwn() (hash string, err error) {
	l.mu.Lock()
	definitions, hash := l.cfg.Definitions, l.cfg.Hash
	l.mu.Unlock()
	if l.cfg.SessionTTL > 0 && l.cfg.State.Superseded(hash) {
		return hash, nil
	}
	return hash, l.define(definitions, hash)
}

// Differs reports whether the definitions in force are others than this node's
// configuration has. Before the node knows any they are not.
func (l *Leader) Differs() bool {
	l.mu.Lock()
	own := l.cfg.Hash
	l.mu.Unlock()
	in := l.cfg.State.DefinitionsHash()
	return in != "" && in != own
}
