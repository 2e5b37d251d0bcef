package api

import (
	"encoding/json"
	"errors"

	"pogod/internal/link"
	"pogod/wshub"
)

// Hub takes events for sockets; *wshub.Hub does.
type Hub interface {
	Has(app []byte) bool
	Publish(wshub.Message) error
}

// ServeHub serves the operations of the WebSocket functions, which answer 1 without a hub.
// It is to be called before the link listens.
func (s *Server) ServeHub(h Hub) { s.hub = h }

// The codes of the WebSocket functions (docs/php-api.md).
const (
	published      int32 = 0
	noHub          int32 = 1
	channelTooLong int32 = 2
	eventTooLong   int32 = 3
	eventTooLarge  int32 = 4
	eventNotJSON   int32 = 5
	publishFailed  int32 = 6
	listNotJSON    int32 = 7
	hubFull        int32 = 8
	shardFull      int32 = 9
)

// publish serves the operations of the WebSocket functions; known is false for another one.
func (s *Server) publish(c *link.Conn, op link.Op, f *link.Fields) (known bool, err error) {
	if op != link.Publish && op != link.Broadcast && op != link.PublishWith {
		return false, nil
	}
	m := wshub.Message{App: f.Bytes()}
	to := f.Bytes()
	m.Event, m.Data = f.Bytes(), f.Bytes()
	if op == link.PublishWith {
		m.Except = f.Bytes()
	}
	if err := f.Done(); err != nil {
		return true, err
	}
	return true, c.Answer(s.published(m, op, to), nil)
}

func (s *Server) published(m wshub.Message, op link.Op, to []byte) int32 {
	if s.hub == nil || !s.hub.Has(m.App) {
		return noHub
	}
	if op == link.Publish {
		one := [1][]byte{to}
		m.Channels = one[:]
		return publishCode(s.hub.Publish(m))
	}
	var list []*string // a null is no name
	if err := json.Unmarshal(to, &list); err != nil || list == nil {
		return listNotJSON
	}
	for _, name := range list {
		if name == nil {
			return listNotJSON
		}
		m.Channels = append(m.Channels, []byte(*name))
	}
	return publishCode(s.hub.Publish(m))
}

func publishCode(err error) int32 {
	switch {
	case err == nil:
		return published
	case errors.Is(err, wshub.ErrNoApp):
		return noHub
	case errors.Is(err, wshub.ErrChannelTooLong):
		return channelTooLong
	case errors.Is(err, wshub.ErrEventTooLong):
		return eventTooLong
	case errors.Is(err, wshub.ErrTooLarge):
		return eventTooLarge
	case errors.Is(err, wshub.ErrNotJSON):
		return eventNotJSON
	case errors.Is(err, wshub.ErrHubFull):
		return hubFull
	case errors.Is(err, wshub.ErrShardFull):
		return shardFull
	}
	return publishFailed
}
