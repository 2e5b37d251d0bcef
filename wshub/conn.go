package wshub

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The codes that a socket is closed with. Pusher's clients do not come back after 4000 to 4099,
// wait after 4100 to 4199, and come back at once after 4200 to 4299.
const (
	closeNormal     = 1000
	closeMalformed  = 1002
	closeNotUTF8    = 1007
	closeOversized  = 1009
	closeNoApp      = 4001
	closeBinary     = 4003
	closeProtocol   = 4007
	closeForbidden  = 4009
	closeOverfull   = 4100
	closeReconnect  = 4200
	closePongMissed = 4201
)

const (
	// maxBacklog is how many bytes may wait for a socket whose client does not read.
	maxBacklog = 1 << 20
	// stallLimit is how long a socket with a backlog may take nothing at all.
	stallLimit = 10 * time.Second
	// closeLimit is how long a client has to take the close and to answer it.
	closeLimit = 5 * time.Second
)

// state of a socket. It only ever grows.
type state int

const (
	open    state = iota
	closing       // the close is sent, or at the end of the backlog
	ended         // shut down; the shard's reader closes it
)

// conn is one socket. Its reader, the goroutine of its shard, alone subscribes, unsubscribes
// and closes it, so that these happen in the order in which the client asked.
type conn struct {
	id    uint64 // random: the socket id, one half before the dot and one behind
	shard *shard
	app   *app

	seen atomic.Int64 // the hub's time when the client last sent something

	mu      sync.Mutex // guards the rest of this group, and writes to fd
	fd      int        // not blocking; good until ended
	state   state
	backlog []byte // what the kernel did not take yet; it begins cut bytes before a frame does
	cut     int
	asked   int64 // the hub's time when the client was last asked for a sign of life
	since   int64 // of closing, or else when the kernel last took some of the backlog; the hub's time

	// The reader's.
	in       []byte // the beginning of a frame
	text     []byte // of a message in several frames
	inside   bool   // such a message has begun
	gone     bool
	channels []*subscription
}

// subscription is a socket's place among the subscribers of a channel.
type subscription struct {
	conn    *conn
	channel *channel
	at      int // in the roster's list; the shard's lock guards it
}

// socketID is the id as clients know it.
func (c *conn) socketID() string {
	b := strconv.AppendUint(make([]byte, 0, 21), c.id>>32, 10)
	return string(strconv.AppendUint(append(b, '.'), c.id&0xffffffff, 10))
}

// parseSocketID is the reverse of socketID; ok is false for what is none.
func parseSocketID(b []byte) (id uint64, ok bool) {
	dot := -1
	for i, c := range b {
		if c == '.' {
			dot = i
			break
		}
	}
	if dot < 0 {
		return 0, false
	}
	high, err1 := strconv.ParseUint(string(b[:dot]), 10, 32)
	low, err2 := strconv.ParseUint(string(b[dot+1:]), 10, 32)
	return high<<32 | low, err1 == nil && err2 == nil
}

// write sends whole frames, or keeps what the kernel does not take. A socket that is too far
// behind is closed instead: what it misses is not kept from it in silence.
func (c *conn) write(frames []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return
	}
	if len(c.backlog)+len(frames) > maxBacklog && len(c.backlog) > 0 {
		c.tooSlow()
		return
	}
	c.send(frames)
}

// send is write without bounds. The caller holds mu.
func (c *conn) send(frames []byte) {
	if len(c.backlog) > 0 {
		c.backlog = append(c.backlog, frames...)
		return
	}
	n, ok := c.put(frames)
	if !ok || n == len(frames) {
		return
	}
	c.cut = unfinished(frames, n)
	c.backlog = append(c.backlog, frames[n:]...)
	c.since = c.shard.hub.time.Load()
	c.shard.watch(c, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLOUT)
}

// put gives bytes to the kernel; ok is false when the socket is lost. The caller holds mu.
func (c *conn) put(b []byte) (n int, ok bool) {
	for len(b) > 0 {
		n, err := unix.Write(c.fd, b)
		switch err {
		case nil:
			return n, true
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, true
		}
		c.end()
		return 0, false
	}
	return 0, true
}

// drain gives the backlog to the kernel, as far as it takes it. The reader calls it.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == ended {
		return
	}
	n, ok := c.put(c.backlog)
	if !ok {
		return
	}
	if n > 0 && c.state == open {
		c.since = c.shard.hub.time.Load()
	}
	if n == len(c.backlog) {
		c.backlog, c.cut = nil, 0
		c.shard.watch(c, unix.EPOLLIN|unix.EPOLLRDHUP)
		return
	}
	if n < c.cut {
		c.cut -= n
	} else {
		c.cut = unfinished(c.backlog[c.cut:], n-c.cut)
	}
	c.backlog = append(c.backlog[:0], c.backlog[n:]...)
}

// close sends the close behind all that was written.
func (c *conn) close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish(code, reason)
}

// finish is close. The caller holds mu.
func (c *conn) finish(code int, reason string) {
	if c.state != open {
		return
	}
	c.send(appendClose(nil, code, reason))
	c.since = c.shard.hub.time.Load()
	c.state = max(c.state, closing)
}

// tooSlow closes a socket whose client does not read: in place of the backlog it gets the
// close, behind the frame that it has the beginning of. The caller holds mu.
func (c *conn) tooSlow() {
	c.shard.hub.slow.Add(1)
	c.backlog = c.backlog[:c.cut]
	c.finish(closeReconnect, "too slow: reconnect")
}

// end shuts the socket down, which wakes its reader. The caller holds mu.
func (c *conn) end() {
	if c.state != ended {
		c.state = ended
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // lost already, or not: the reader closes it
	}
}

// cutOff is end.
func (c *conn) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
}

// look closes what has been silent or stalled for too long; ping and pong are how long a
// client may be silent before it is asked, and then. now is the hub's time.
func (c *conn) look(now int64, ping, pong time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stalled := time.Duration(now - c.since)
	switch {
	case c.state == closing && stalled > closeLimit:
		c.end()
	case c.state != open:
	case len(c.backlog) > 0 && stalled > stallLimit:
		c.tooSlow()
	case time.Duration(now-c.seen.Load()) > ping+pong:
		c.finish(closePongMissed, "no pong in time")
	case time.Duration(now-c.seen.Load()) > ping && c.asked <= c.seen.Load():
		c.asked = now
		if len(c.backlog) == 0 { // else the client has enough to read
			c.send(pingFrame)
		}
	}
}

var pingFrame = appendEvent(nil, "pusher:ping", "", "{}")
