package wshub

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxBatch bounds a batch, in bytes, so that a long burst on one channel neither starves the
// others nor meets a socket as one block that is larger than its backlog may be. A single
// event may be larger.
const maxBatch = 128 << 10

// shard is a share of the sockets.
type shard struct {
	hub    *Hub
	index  int
	queued atomic.Int64 // bytes in the batches
	kick   chan struct{}
	stop   chan struct{}

	poll *os.File        // the epoll instance; Go's own poller waits for it
	raw  syscall.RawConn // of poll
	epfd int

	mu      sync.Mutex // guards the rest
	conns   map[uint64]*conn
	rosters map[*channel]*roster
	dirty   []*roster // from first on: those with batches, each once
	first   int
	closed  bool
}

// roster are the subscribers of a channel in one shard, and what is to be written to them.
type roster struct {
	members []*subscription
	batches []*batch
	dirty   bool
}

// batch are whole frames that all subscribers get, but for skips.
type batch struct {
	frames []byte
	skips  []skip
}

// skip is a part of a batch that one socket does not get.
type skip struct {
	id       uint64
	from, to int
}

var batches = sync.Pool{New: func() any { return new(batch) }}

func newShard(h *Hub, index int) (*shard, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // so that Go polls it
		return nil, errors.Join(err, unix.Close(epfd))
	}
	poll := os.NewFile(uintptr(epfd), "epoll")
	raw, err := poll.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, poll.Close())
	}
	return &shard{
		hub: h, index: index, kick: make(chan struct{}, 1), stop: make(chan struct{}), poll: poll, raw: raw, epfd: epfd,
		conns: map[uint64]*conn{}, rosters: map[*channel]*roster{},
	}, nil
}

// ---- sockets ----

// add takes a socket and greets it; leftover is what its client has sent already. It closes
// it when the hub has closed or the client has gone.
func (s *shard) add(c *conn, leftover []byte) {
	s.hub.connections.Add(1) // before its client knows
	c.write(s.hub.greeting(c.socketID()))
	c.consume(leftover) // the reader does not know the socket yet: this is its reader
	if c.gone || !s.meet(c) {
		s.remove(c)
	}
}

// meet hands the socket to the reader.
func (s *shard) meet(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.conns[c.id] != nil { // 64 random bits are not drawn twice; if they are, one must go
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	events := uint32(unix.EPOLLIN | unix.EPOLLRDHUP)
	if len(c.backlog) > 0 {
		events |= unix.EPOLLOUT
	}
	if unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, c.fd, s.event(c, events)) != nil {
		return false
	}
	s.conns[c.id] = c
	return true
}

// event carries the socket's id through epoll.
func (s *shard) event(c *conn, events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(uint32(c.id)), Pad: int32(uint32(c.id >> 32))}
}

// watch changes what the reader waits for. The caller holds c.mu. Before meet has made the
// socket known to epoll it does nothing: meet looks at the backlog itself.
func (s *shard) watch(c *conn, events uint32) {
	_ = unix.EpollCtl(s.epfd, unix.EPOLL_CTL_MOD, c.fd, s.event(c, events))
}

// read serves the sockets until poll is closed.
func (s *shard) read() {
	events := make([]unix.EpollEvent, 128)
	buf := make([]byte, 2*maxMessage) // a frame that is too large is known by its header
	n := 0
	wait := func(fd uintptr) bool {
		var err error
		for {
			if n, err = unix.EpollWait(int(fd), events, 0); err != unix.EINTR {
				break
			}
		}
		return n != 0
	}
	for s.raw.Read(wait) == nil {
		for i := range max(n, 0) {
			e := &events[i]
			s.mu.Lock()
			c := s.conns[uint64(uint32(e.Pad))<<32|uint64(uint32(e.Fd))]
			s.mu.Unlock()
			if c == nil {
				continue
			}
			if e.Events&unix.EPOLLOUT != 0 {
				c.drain()
			}
			if e.Events&^unix.EPOLLOUT != 0 {
				c.receive(buf)
			}
			if c.gone {
				s.remove(c)
			}
		}
	}
}

// remove closes a socket. Its reader calls it, once.
func (s *shard) remove(c *conn) {
	for _, sub := range c.channels {
		s.leave(sub)
	}
	c.channels = nil
	s.mu.Lock()
	if s.conns[c.id] == c {
		delete(s.conns, c.id)
	}
	s.mu.Unlock()
	c.mu.Lock()
	c.state, c.backlog = ended, nil
	_ = unix.Close(c.fd) // and so out of epoll; there is nothing to be lost in it
	c.mu.Unlock()
	s.hub.connections.Add(-1)
	s.hub.left()
}

// all returns the sockets of now.
func (s *shard) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		list = append(list, c)
	}
	return list
}

// ---- subscriptions, all by the socket's reader ----

// subscribe answers the client and subscribes it; again is no error. False: it has too many.
func (s *shard) subscribe(c *conn, name string) bool {
	succeeded := appendEvent(nil, "pusher_internal:subscription_succeeded", name, "{}")
	for _, sub := range c.channels {
		if sub.channel.name == name {
			c.write(succeeded)
			return true
		}
	}
	if len(c.channels) >= maxChannels {
		return false
	}
	sub := &subscription{conn: c, channel: c.app.enter(name)}
	c.channels = append(c.channels, sub)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rosters[sub.channel]
	if r == nil {
		r = &roster{}
		s.rosters[sub.channel] = r
		sub.channel.on.Or(1 << s.index)
	}
	sub.at = len(r.members)
	r.members = append(r.members, sub)
	// The client may have the next event published as soon as it reads this: it is on the list
	// before. No event overtakes the answer: put waits for the lock.
	c.write(succeeded)
	return true
}

func (s *shard) unsubscribe(c *conn, name string) {
	for i, sub := range c.channels {
		if sub.channel.name == name {
			last := len(c.channels) - 1
			c.channels[i], c.channels[last] = c.channels[last], nil
			c.channels = c.channels[:last]
			s.leave(sub)
			return
		}
	}
}

func (s *shard) leave(sub *subscription) {
	s.mu.Lock()
	r := s.rosters[sub.channel]
	last := len(r.members) - 1
	moved := r.members[last]
	r.members[sub.at], moved.at = moved, sub.at
	r.members[last] = nil
	if r.members = r.members[:last]; last == 0 {
		delete(s.rosters, sub.channel)
		sub.channel.on.And(^uint64(1 << s.index))
	}
	s.mu.Unlock()
	sub.channel.leave()
}

// ---- fan-out ----

// put adds a frame to the channel's batch; its bytes are counted as queued already.
func (s *shard) put(ch *channel, frame []byte, except uint64) {
	s.mu.Lock()
	r := s.rosters[ch]
	if r == nil { // its last subscriber has left
		s.mu.Unlock()
		s.written(len(frame))
		return
	}
	var b *batch
	if n := len(r.batches); n > 0 && len(r.batches[n-1].frames)+len(frame) <= maxBatch {
		b = r.batches[n-1]
	} else {
		b = batches.Get().(*batch)
		r.batches = append(r.batches, b)
	}
	if except != 0 && s.conns[except] != nil {
		b.skips = append(b.skips, skip{except, len(b.frames), len(b.frames) + len(frame)})
	}
	b.frames = append(b.frames, frame...)
	if !r.dirty {
		r.dirty = true
		s.dirty = append(s.dirty, r)
	}
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default: // it has not looked since the last one
	}
}

// written takes bytes off what is queued.
func (s *shard) written(n int) {
	s.queued.Add(int64(-n))
	s.hub.queued.Add(int64(-n))
}

// fanOut writes batches until stop is closed.
func (s *shard) fanOut() {
	var members []*subscription
	for {
		select {
		case <-s.kick:
		case <-s.stop:
			return
		}
		for {
			var b *batch
			if b, members = s.take(members); b == nil {
				break
			}
			for _, m := range members {
				b.write(m.conn)
			}
			clear(members)
			s.written(len(b.frames))
			b.release()
		}
	}
}

// take returns the batch that has waited longest, and who gets it.
func (s *shard) take(members []*subscription) (*batch, []*subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == len(s.dirty) {
		return nil, members
	}
	r := s.dirty[s.first]
	s.first++
	b := r.batches[0]
	r.batches = r.batches[:copy(r.batches, r.batches[1:])]
	if r.dirty = len(r.batches) > 0; r.dirty {
		s.dirty = append(s.dirty, r) // behind the other channels
	}
	if 2*s.first >= len(s.dirty) {
		kept := copy(s.dirty, s.dirty[s.first:])
		clear(s.dirty[kept:])
		s.dirty, s.first = s.dirty[:kept], 0
	}
	return b, append(members[:0], r.members...)
}

// write gives a socket the batch without what it is to skip.
func (b *batch) write(c *conn) {
	from := 0
	for _, k := range b.skips {
		if k.id == c.id {
			if k.from > from {
				c.write(b.frames[from:k.from])
			}
			from = k.to
		}
	}
	if from < len(b.frames) {
		c.write(b.frames[from:])
	}
}

// release gives the batch back, unless an unusual one made it large.
func (b *batch) release() {
	if cap(b.frames) > maxBatch {
		return
	}
	b.frames, b.skips = b.frames[:0], b.skips[:0]
	batches.Put(b)
}
