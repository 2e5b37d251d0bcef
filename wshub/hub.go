package wshub

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"pogod/internal/clock"
)

// Defaults of Config.
const (
	DefaultPing            = 30 * time.Second
	DefaultMaxEventBytes   = 256 << 10
	DefaultMaxPendingBytes = 64 << 20
)

// pongWait is how long a client that was silent for long has to answer.
const pongWait = 30 * time.Second

// Config of a hub. New copies it.
type Config struct {
	// Apps are the applications, at least one; IDs and keys are unique.
	Apps []App
	// Ping is activity_timeout: how long a client may be silent before it pings, in whole
	// seconds for the client. The hub asks a quarter later, and closes 30 s after Ping. 0:
	// DefaultPing.
	Ping time.Duration
	// MaxEventBytes is the largest data of an event. 0: DefaultMaxEventBytes.
	MaxEventBytes int
	// MaxPendingBytes is how many bytes may wait to be written, those for several shards
	// counted once for each; one shard may have half of it. 0: DefaultMaxPendingBytes.
	MaxPendingBytes int64
	// MaxConnections is how many sockets are taken. 0: as many as the process may have
	// descriptors, less a reserve.
	MaxConnections int
	// Clock is the time of time-outs; nil: the machine's.
	Clock clock.Clock
	Log   *slog.Logger // nil: none
}

// Hub is a Pusher server. Its methods are safe from any goroutine.
type Hub struct {
	cfg    Config
	apps   map[string]*app // by ID
	keys   map[string]*app
	shards []*shard
	next   atomic.Uint64 // the shard of the next socket

	time        atomic.Int64 // of Config.Clock since the machine's boot, as of the last look, in nanoseconds
	queued      atomic.Int64 // bytes in the batches of all shards
	connections atomic.Int64
	messages    atomic.Uint64
	slow        atomic.Uint64
	gone        chan struct{} // a socket was removed since the last look
	closed      atomic.Bool
	leaving     atomic.Bool

	server  *fasthttp.Server
	running sync.WaitGroup // two goroutines a shard

	mu       sync.Mutex // guards the rest
	listener net.Listener
	timer    clock.Timer // of look; nil when closed
}

// Status are the figures of a hub. Counters are since it was made.
type Status struct {
	Connections int    // sockets that are connected
	Channels    int    // channels that somebody has subscribed to
	Messages    uint64 // events taken, one for each channel
	Slow        uint64 // sockets closed because their client did not read
}

// New starts a hub without a listener. Close ends it.
func New(cfg Config) (*Hub, error) {
	h := &Hub{cfg: cfg, apps: map[string]*app{}, keys: map[string]*app{}, gone: make(chan struct{}, 1)}
	c := &h.cfg
	if c.Ping <= 0 {
		c.Ping = DefaultPing
	}
	if c.MaxEventBytes <= 0 {
		c.MaxEventBytes = DefaultMaxEventBytes
	}
	if c.MaxPendingBytes <= 0 {
		c.MaxPendingBytes = DefaultMaxPendingBytes
	}
	if c.MaxConnections <= 0 {
		c.MaxConnections = descriptors()
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, one := range c.Apps {
		if h.apps[one.ID] != nil || h.keys[one.Key] != nil || one.ID == "" || one.Key == "" || one.Secret == "" {
			return nil, fmt.Errorf("application %q: id, key and secret must not be empty, and the first two not another's", one.ID)
		}
		a := &app{App: one, channels: map[string]*channel{}}
		h.apps[one.ID], h.keys[one.Key] = a, a
	}
	if len(h.apps) == 0 {
		return nil, errors.New("a hub has at least one application")
	}
	for i := range min(runtime.GOMAXPROCS(0), maxShards) {
		s, err := newShard(h, i)
		if err != nil {
			for _, s := range h.shards {
				_ = s.poll.Close() // nothing uses it
			}
			return nil, err
		}
		h.shards = append(h.shards, s)
	}
	for _, s := range h.shards {
		h.running.Go(s.read)   // ended by Close, which closes poll
		h.running.Go(s.fanOut) // ended by Close, which closes stop
	}
	h.server = h.newServer()
	h.time.Store(int64(c.Clock.Boot()))
	h.timer = c.Clock.AfterFunc(h.lookEvery(), h.look)
	return h, nil
}

// descriptors is how many sockets the process has descriptors for: an eighth of them, at most
// 1,024, is for everything else.
func descriptors() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	n := int(min(r.Cur, 1<<30))
	return max(n-min(n/8, 1024), 1)
}

// newID returns 64 random bits.
func newID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.LittleEndian.Uint64(b[:])
}

// greeting tells a client who it is, and how long it may be silent.
func (h *Hub) greeting(socketID string) []byte {
	seconds := max(int(h.cfg.Ping/time.Second), 1)
	return appendEvent(nil, "pusher:connection_established", "", `{"socket_id":"`+socketID+`","activity_timeout":`+strconv.Itoa(seconds)+`}`)
}

// Status returns the figures of now.
func (h *Hub) Status() Status {
	s := Status{Connections: int(h.connections.Load()), Messages: h.messages.Load(), Slow: h.slow.Load()}
	for _, a := range h.apps {
		a.mu.RLock()
		s.Channels += len(a.channels)
		a.mu.RUnlock()
	}
	return s
}

// lookEvery is the precision of time-outs.
func (h *Hub) lookEvery() time.Duration { return min(h.cfg.Ping/8, time.Second) }

// look sees to the time-outs of all sockets, again and again.
func (h *Hub) look() {
	now := int64(h.cfg.Clock.Boot())
	h.time.Store(now)
	for _, s := range h.shards {
		for _, c := range s.all() {
			c.look(now, h.cfg.Ping+h.cfg.Ping/4, pongWait-h.cfg.Ping/4)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Reset(h.lookEvery())
	}
}

// left tells whoever waits for sockets to go.
func (h *Hub) left() {
	select {
	case h.gone <- struct{}{}:
	default:
	}
}

// Drain takes no new sockets and closes those that are there, so that their clients go
// elsewhere: not all at once but over up to five seconds, or until ctx ends. Events are
// taken until Close.
func (h *Hub) Drain(ctx context.Context) {
	h.stopListening()
	var all []*conn
	for _, s := range h.shards {
		all = append(all, s.all()...)
	}
	for i, c := range all {
		if wait := drainPause(i, len(all)); wait > 0 && ctx.Err() == nil {
			due := make(chan struct{})
			t := h.cfg.Clock.AfterFunc(wait, func() { close(due) })
			select {
			case <-due:
			case <-ctx.Done():
				t.Stop()
			}
		}
		c.close(closeReconnect, "the server leaves: reconnect")
	}
}

const (
	drainStep = 50 * time.Millisecond
	drainOver = 5 * time.Second
)

// drainPause is how long a drain waits before it closes socket i of n: at least five are
// closed each step, a hundred a second.
func drainPause(i, n int) time.Duration {
	group := max(5, (n+int(drainOver/drainStep)-1)/int(drainOver/drainStep))
	if i > 0 && i%group == 0 {
		return drainStep
	}
	return 0
}

// stopListening refuses new connections, and lets handshakes that are under way end within
// a second.
func (h *Hub) stopListening() {
	h.leaving.Store(true)
	h.mu.Lock()
	ln := h.listener
	h.listener = nil
	h.mu.Unlock()
	if ln == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = h.server.ShutdownWithContext(ctx) // the rest ends by its time limits
	_ = ln.Close()                        // Serve may not have come to it
}

// Close ends the hub: it closes what Drain has not, gives clients a second to take it, and
// cuts off who is left. It is idempotent.
func (h *Hub) Close() {
	h.stopListening()
	if h.closed.Swap(true) {
		h.running.Wait()
		return
	}
	for _, s := range h.shards {
		s.mu.Lock()
		s.closed = true // no more sockets
		s.mu.Unlock()
		for _, c := range s.all() {
			c.close(closeReconnect, "the server leaves: reconnect")
		}
	}
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	for late := false; h.connections.Load() > 0; {
		select {
		case <-h.gone:
			continue
		case <-patience.C:
		}
		if late {
			break
		}
		late = true
		for _, s := range h.shards {
			for _, c := range s.all() {
				c.cutOff()
			}
		}
		patience.Reset(time.Minute) // a reader only needs its turn
	}
	h.mu.Lock()
	h.timer.Stop()
	h.timer = nil
	h.mu.Unlock()
	for _, s := range h.shards {
		close(s.stop)
		_ = s.poll.Close() // which ends its reader
	}
	h.running.Wait()
}
