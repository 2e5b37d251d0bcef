package wshub

import (
	"encoding/json"
	"errors"
	"math/bits"
	"sync"
	"unicode/utf8"
)

// What Publish returns, in the order of its checks.
var (
	// ErrNoApp is returned when no application of the hub has the id.
	ErrNoApp = errors.New("no such application")
	// ErrChannelTooLong is returned for a channel of over MaxChannel characters.
	ErrChannelTooLong = errors.New("channel name too long")
	// ErrEventTooLong is returned for an event of over MaxEvent characters.
	ErrEventTooLong = errors.New("event name too long")
	// ErrTooLarge is returned for data of over Config.MaxEventBytes.
	ErrTooLarge = errors.New("data too large")
	// ErrNotJSON is returned for data that is not JSON in UTF-8.
	ErrNotJSON = errors.New("data is not JSON")
	// ErrClosed is returned when the hub has closed.
	ErrClosed = errors.New("hub closed")
	// ErrHubFull is returned when the shards together have no room for the event.
	ErrHubFull = errors.New("hub queue full")
	// ErrShardFull is returned when a shard has none.
	ErrShardFull = errors.New("shard queue full")
)

// Message is one event for the subscribers of channels. Publish keeps none of its bytes.
type Message struct {
	App      []byte   // an App's ID
	Channels [][]byte // any name within the limit is taken
	Event    []byte
	Data     []byte // JSON; clients get it as a string
	Except   []byte // a socket id: that socket does not get it; anything else excepts nobody
}

// Has reports whether an application has the id.
func (h *Hub) Has(app []byte) bool { return h.apps[string(app)] != nil }

// maxShards is how many bits channel.on has.
const maxShards = 64

// target is one channel that has subscribers.
type target struct {
	channel *channel
	on      uint64 // the shards that it is for
	frame   []byte
}

// scratch is memory of one Publish.
type scratch struct {
	frames  []byte
	targets []target
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Publish hands an event to all shards that have subscribers to its channels, or, with an
// error, to none. It does not wait for a socket.
func (h *Hub) Publish(m Message) error {
	a := h.apps[string(m.App)]
	if a == nil {
		return ErrNoApp
	}
	for _, c := range m.Channels {
		if longer(c, MaxChannel) {
			return ErrChannelTooLong
		}
	}
	if longer(m.Event, MaxEvent) {
		return ErrEventTooLong
	}
	if len(m.Data) > h.cfg.MaxEventBytes {
		return ErrTooLarge
	}
	if !json.Valid(m.Data) || !utf8.Valid(m.Data) {
		return ErrNotJSON
	}
	if h.closed.Load() {
		return ErrClosed
	}
	s := scratches.Get().(*scratch)
	err := h.hand(a, m, s)
	if cap(s.frames) <= maxBatch {
		clear(s.targets)
		s.frames, s.targets = s.frames[:0], s.targets[:0]
		scratches.Put(s)
	}
	if err == nil {
		h.messages.Add(uint64(len(m.Channels)))
	}
	return err
}

func (h *Hub) hand(a *app, m Message, s *scratch) error {
	for _, name := range m.Channels {
		c := a.find(name)
		if c == nil {
			continue
		}
		on := c.on.Load()
		if on == 0 {
			continue
		}
		from := len(s.frames)
		s.frames = appendEvent(s.frames, m.Event, name, m.Data)
		s.targets = append(s.targets, target{c, on, s.frames[from:]}) // the bytes stay when s.frames moves
	}
	if len(s.targets) == 0 {
		return nil
	}
	if err := h.reserve(s.targets); err != nil {
		return err
	}
	var except uint64
	if len(m.Except) > 0 {
		except, _ = parseSocketID(m.Except)
	}
	for _, t := range s.targets {
		for on := t.on; on != 0; on &= on - 1 {
			h.shards[bits.TrailingZeros64(on)].put(t.channel, t.frame, except)
		}
	}
	return nil
}

// reserve counts the frames as queued, in every shard that they are for or in none.
func (h *Hub) reserve(targets []target) error {
	var need [maxShards]int64
	var total int64
	for _, t := range targets {
		n := int64(len(t.frame))
		for on := t.on; on != 0; on &= on - 1 {
			need[bits.TrailingZeros64(on)] += n
			total += n
		}
	}
	if h.queued.Add(total) > h.cfg.MaxPendingBytes {
		h.queued.Add(-total)
		return ErrHubFull
	}
	for i, s := range h.shards {
		if need[i] > 0 && s.queued.Add(need[i]) > h.cfg.MaxPendingBytes/2 {
			for j, s := range h.shards[:i+1] {
				s.queued.Add(-need[j])
			}
			h.queued.Add(-total)
			return ErrShardFull
		}
	}
	return nil
}
