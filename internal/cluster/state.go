package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"pogod/internal/cluster/identity"
)

// sends is how many data files are sent at once; who asks for one more asks another node.
const sends = 2

var errNoState = errors.New("no member has sent its data file")

// Fetch asks the members, one after the other, for a data file, until take is content with
// what one of them sends. It returns the errors of all else. It needs no Serve. It
// implements raftfsm.Peers.
func (c *Cluster) Fetch(ctx context.Context, take func(node string, r io.Reader) error) error {
	own := c.cfg.Identity.Node
	asked := slices.DeleteFunc(c.book.present(), func(p identity.Peer) bool { return p.ID == own })
	for _, address := range c.cfg.Seeds {
		asked = append(asked, identity.Peer{Address: address})
	}
	err := errNoState
	for _, p := range asked {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		one := c.fetchFrom(ctx, p, take)
		if one == nil {
			return nil
		}
		if !errors.Is(one, errSelf) {
			err = fmt.Errorf("%w; at %s: %w", err, p.Address, one)
		}
	}
	return err
}

func (c *Cluster) fetchFrom(ctx context.Context, p identity.Peer, take func(node string, r io.Reader) error) error {
	k, err := c.dial(p.Address, p.ID, identity.ProtoState, dialFor)
	if err != nil {
		return err
	}
	defer func() { _ = k.Close() }()
	if k.node == c.cfg.Identity.Node {
		return errSelf
	}
	defer context.AfterFunc(ctx, func() { _ = k.Close() })()
	return take(k.node, paced{k})
}

// sendState sends the data file to a member that has asked for it.
func (c *Cluster) sendState(k *conn) {
	defer func() { _ = k.Close() }()
	if !c.pause(silence, c.serving) || c.services.SendState == nil {
		return
	}
	select {
	case c.sending <- struct{}{}:
		defer func() { <-c.sending }()
	default:
		return
	}
	if err := c.services.SendState(k.node, paced{k}); err != nil && c.ctx.Err() == nil {
		c.cfg.Log.Warn("the data file was not sent", "node", k.node, "error", err)
		return
	}
	_ = k.CloseWrite() // the other side reads what is under way, and then the end
}
