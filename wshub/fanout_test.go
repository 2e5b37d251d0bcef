package wshub

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"golang.org/x/sys/unix"

	"pogod/internal/clock"
)

// Every subscriber gets every event of its channel once, in the order of their publishing,
// whichever shard it is in.
func TestFanOut(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	var clients []*client
	for range 10 {
		c := connect(t, addr)
		c.join("a")
		clients = append(clients, c)
	}
	other := connect(t, addr)
	other.join("b")
	const each, publishers = 500, 4
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				must(t, publish(h, "a", fmt.Sprintf(`{"from":%d,"n":%d}`, p, i)))
				if i%100 == 0 {
					must(t, publish(h, "nobody", "1"))
				}
			}
		})
	}
	for _, c := range clients {
		var last [publishers]int
		for range each * publishers {
			e := c.next()
			var from, n int
			if k, err := fmt.Sscanf(e.Data, `{"from":%d,"n":%d}`, &from, &n); k != 2 || err != nil || e.Event != "e" || e.Channel != "a" {
				t.Fatalf("%+v", e)
			}
			if n != last[from] {
				t.Fatalf("event %d of %d came where %d was due", n, from, last[from])
			}
			last[from]++
		}
	}
	wg.Wait()
	must(t, publish(h, "b", `"only here"`))
	other.expect("of another channel", other.next(), event{"e", "b", `"only here"`})
	eventually(t, "nothing is queued", func() bool { return h.queued.Load() == 0 })
	if s := h.Status(); s.Connections != 11 || s.Channels != 2 || s.Messages != each*publishers+publishers*(each/100)+1 || s.Slow != 0 {
		t.Errorf("%+v", s)
	}
}

// An event that is published when the client knows that it has subscribed reaches it.
func TestSubscribedAtOnce(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	c := connect(t, addr)
	for i := range 1000 {
		channel := fmt.Sprint("c", i)
		c.join(channel)
		must(t, publish(h, channel, "1"))
		c.expect("the event", c.next(), event{"e", channel, "1"})
		c.send(`{"event":"pusher:unsubscribe","data":{"channel":"` + channel + `"}}`)
	}
}

// What gathers while the shard writes comes in order, also when it fills several batches.
func TestBatches(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	c := connect(t, addr)
	c.join("a")
	var s *shard
	var held *conn
	for _, one := range h.shards {
		for _, c := range one.all() {
			s, held = one, c
		}
	}
	const n = 400
	held.mu.Lock() // the shard comes no further than the first batch
	for i := range n {
		must(t, publish(h, "a", fmt.Sprintf(`"%d %s"`, i, strings.Repeat("x", 1000))))
	}
	s.mu.Lock()
	var batches int
	for _, r := range s.rosters {
		batches += len(r.batches)
	}
	s.mu.Unlock()
	held.mu.Unlock()
	if batches < 3 {
		t.Fatalf("%d batches", batches)
	}
	for i := range n {
		if e := c.next(); !strings.HasPrefix(e.Data, fmt.Sprintf(`"%d x`, i)) {
			t.Fatalf("%.40v, where %d was due", e, i)
		}
	}
	eventually(t, "nothing is queued", func() bool { return h.queued.Load() == 0 })
}

// Who an event excepts gets all others, also those of one batch.
func TestExcept(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	a, b := connect(t, addr), connect(t, addr)
	a.join("x", "y")
	b.join("x", "y")
	const n = 300
	for i := range n {
		m := Message{App: []byte("shop"), Channels: [][]byte{[]byte("x")}, Event: []byte("e"), Data: fmt.Append(nil, i)}
		switch i % 3 {
		case 1:
			m.Except = []byte(a.id)
		case 2:
			m.Except = []byte("1.1") // nobody
		}
		must(t, h.Publish(m))
	}
	for i := range n {
		want := event{"e", "x", fmt.Sprint(i)}
		if i%3 != 1 {
			a.expect("with an exception", a.next(), want)
		}
		b.expect("without one", b.next(), want)
	}
	// In many channels at once.
	must(t, h.Publish(Message{
		App: []byte("shop"), Channels: [][]byte{[]byte("x"), []byte("y"), []byte("z")}, Event: []byte("both"), Data: []byte("{}"), Except: []byte(a.id),
	}))
	var got []string
	for range 2 {
		got = append(got, b.next().Channel)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"x", "y"}) {
		t.Error(got)
	}
	must(t, publish(h, "y", "9"))
	a.expect("after it", a.next(), event{"e", "y", "9"})
}

// The checks in their order: each message has all faults from one on.
func TestPublishChecks(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{MaxEventBytes: 1000, MaxPendingBytes: 400})
	c := connect(t, addr)
	c.join("a")
	long := func(n int) []byte { return []byte(strings.Repeat("é", n)) }
	m := Message{App: []byte("key"), Channels: [][]byte{[]byte("ok"), long(257)}, Event: long(201), Data: []byte(strings.Repeat("x", 1001))}
	check := func(want error) {
		t.Helper()
		if err := h.Publish(m); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	check(ErrNoApp)
	m.App = []byte("shop")
	check(ErrChannelTooLong)
	m.Channels = [][]byte{[]byte("a"), long(256)}
	check(ErrEventTooLong)
	m.Event = long(200)
	check(ErrTooLarge)
	for _, bad := range []string{"", "x", "{", `"` + "\xff" + `"`, "1 2", strings.Repeat("x", 1000)} {
		m.Data = []byte(bad)
		check(ErrNotJSON)
	}
	m.Event, m.Data = []byte("e"), []byte(`"`+strings.Repeat("x", 400)+`"`)
	check(ErrHubFull)
	m.Data = []byte(`"` + strings.Repeat("x", 250) + `"`)
	check(ErrShardFull)
	m.Channels = [][]byte{[]byte("nobody")} // where nobody listens there is room
	check(nil)
	must(t, publish(h, "a", "1"))
	c.expect("what was taken", c.next(), event{"e", "a", "1"})
	if got := h.Status().Messages; got != 2 {
		t.Error(got)
	}
	eventually(t, "nothing is queued", func() bool { return h.queued.Load() == 0 && h.shards[0].queued.Load() == 0 })
	h.Close()
	check(ErrClosed)
	m.Data = nil
	check(ErrNotJSON)
}

// A client that does not read is closed with 4200, behind a frame that is whole; the others
// get everything meanwhile.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	slow, quick := connect(t, addr), connect(t, addr)
	slow.join("a")
	quick.join("a")
	data := `"` + strings.Repeat("x", 10_000) + `"`
	sent := 0
	for ; h.Status().Slow == 0; sent++ {
		if sent > 5000 {
			t.Fatal("it was never too slow")
		}
		must(t, publish(h, "a", data))
		if e := quick.next(); e.Data != data {
			t.Fatalf("%.100v", e)
		}
	}
	got := 0
	_ = slow.SetReadDeadline(time.Now().Add(patience))
	for {
		_, _, err := slow.ReadMessage()
		if websocket.IsCloseError(err, 4200) {
			break
		}
		must(t, err)
		got++
	}
	if got == 0 || got >= sent {
		t.Errorf("it got %d of %d", got, sent)
	}
	slow.Close()
	eventually(t, "it is gone", func() bool { return h.Status().Connections == 1 })
	must(t, publish(h, "a", "1"))
	quick.expect("the other one", quick.next(), event{"e", "a", "1"})
	if h.Status().Slow != 1 {
		t.Error(h.Status())
	}
}

// A client that reads late but in time gets everything.
func TestBacklog(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	c := connect(t, addr)
	c.join("a")
	backlog := func() (n int) {
		for _, s := range h.shards {
			for _, c := range s.all() {
				c.mu.Lock()
				n += len(c.backlog)
				c.mu.Unlock()
			}
		}
		return n
	}
	sent := 0
	for ; backlog() < maxBacklog/2; sent++ {
		must(t, publish(h, "a", fmt.Sprintf(`"%d %s"`, sent, strings.Repeat("x", 1000+sent%5000))))
		eventually(t, "it is written", func() bool { return h.queued.Load() == 0 })
	}
	for i := range sent {
		if e := c.next(); !strings.HasPrefix(e.Data, fmt.Sprintf(`"%d x`, i)) {
			t.Fatalf("%.40v, where %d was due", e, i)
		}
	}
	eventually(t, "the backlog is empty", func() bool { return backlog() == 0 })
	must(t, publish(h, "a", "1"))
	c.expect("and then", c.next(), event{"e", "a", "1"})
	c.expect("ping", c.ask(`{"event":"pusher:ping"}`), event{Event: "pusher:pong", Data: "{}"})
	if h.Status().Slow != 0 {
		t.Error("it was closed")
	}
}

// stalled makes a socket whose client reads nothing, with a backlog.
func stalled(t *testing.T, h *Hub, addr string) {
	t.Helper()
	c := connect(t, addr)
	c.join("a")
	for {
		must(t, publish(h, "a", `"`+strings.Repeat("x", 50_000)+`"`))
		eventually(t, "it is written", func() bool { return h.queued.Load() == 0 })
		for _, s := range h.shards {
			for _, c := range s.all() {
				c.mu.Lock()
				n := len(c.backlog)
				c.mu.Unlock()
				if n > 100_000 {
					return
				}
			}
		}
	}
}

// A backlog of which nothing is taken for ten seconds is too slow; who does not take the
// close within five is cut off.
func TestStalled(t *testing.T) {
	t.Parallel()
	spy := clock.NewSpy(time.Unix(1_700_000_000, 0))
	h, addr := newHub(t, Config{Clock: spy})
	stalled(t, h, addr)
	for range 10 {
		spy.Advance(time.Second)
	}
	if h.Status().Slow != 0 || h.Status().Connections != 1 {
		t.Errorf("too soon: %+v", h.Status())
	}
	spy.Advance(time.Second)
	if h.Status().Slow != 1 || h.Status().Connections != 1 {
		t.Errorf("%+v", h.Status())
	}
	for range 7 {
		spy.Advance(time.Second)
	}
	eventually(t, "it is cut off", func() bool { return h.Status().Connections == 0 })
}

func TestActivity(t *testing.T) {
	t.Parallel()
	spy := clock.NewSpy(time.Unix(1_700_000_000, 0))
	h, addr := newHub(t, Config{Clock: spy, Ping: 40 * time.Second})
	silent, lively := connect(t, addr), connect(t, addr)
	advance := func(seconds int) {
		for range seconds {
			spy.Advance(time.Second)
		}
	}
	advance(48)
	for _, c := range []*client{silent, lively} {
		c.expect("ping", c.ask(`{"event":"x"}`), event{Event: "pusher:error", Data: `{"code":null,"message":"the event x is not known"}`})
	}
	advance(51) // a quarter over the 40 s since it said something
	for _, c := range []*client{silent, lively} {
		c.expect("the server's ping", c.next(), event{Event: "pusher:ping", Data: "{}"})
	}
	lively.send(`{"event":"pusher:pong"}`)
	lively.expect("ping", lively.ask(`{"event":"pusher:ping"}`), event{Event: "pusher:pong", Data: "{}"})
	advance(21)
	if code := silent.closed(); code != 4201 {
		t.Error(code)
	}
	lively.expect("the one that answered", lively.ask(`{"event":"pusher:ping"}`), event{Event: "pusher:pong", Data: "{}"})
	if n := h.Status().Connections; n > 2 {
		t.Error(n)
	}
}

// Sockets that come and go, subscribe and unsubscribe while much is published leave nothing
// behind.
func TestChurn(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	stop := make(chan struct{})
	var publishers, sockets sync.WaitGroup
	for p := range 2 {
		publishers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := publish(h, fmt.Sprint("c", (i+p)%5), `"`+strings.Repeat("x", i%2000)+`"`)
				if err != nil && !errors.Is(err, ErrShardFull) && !errors.Is(err, ErrHubFull) {
					t.Error(err)
				}
			}
		})
	}
	for w := range 8 {
		sockets.Go(func() {
			for i := range 25 {
				ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/app/key?protocol=7", nil)
				if err != nil {
					t.Error(err)
					return
				}
				for j := range 5 {
					_ = ws.WriteMessage(websocket.TextMessage, []byte(subscribe(fmt.Sprint("c", (w+i+j)%5), "")))
				}
				_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"event":"pusher:unsubscribe","data":{"channel":"c1"}}`))
				_ = ws.SetReadDeadline(time.Now().Add(patience))
				for range 10 + i {
					if _, _, err := ws.ReadMessage(); err != nil {
						t.Error(err)
						break
					}
				}
				if i%2 == 0 {
					_ = ws.WriteMessage(websocket.CloseMessage, nil)
				}
				_ = ws.Close()
			}
		})
	}
	sockets.Wait()
	close(stop)
	publishers.Wait()
	eventually(t, "nothing is left", func() bool { return h.Status().Connections == 0 && h.Status().Channels == 0 && h.queued.Load() == 0 })
	for _, s := range h.shards {
		s.mu.Lock()
		if len(s.conns)+len(s.rosters) != 0 || s.queued.Load() != 0 {
			t.Errorf("%d sockets, %d rosters, %d bytes", len(s.conns), len(s.rosters), s.queued.Load())
		}
		s.mu.Unlock()
	}
}

// What a client sends with its handshake is not lost.
func TestEarlyMessages(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	c, err := net.Dial("tcp", addr)
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	request := "GET /app/key?protocol=7 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	sub := masked(0x81, subscribe("a", ""))
	_, err = c.Write(append([]byte(request), sub[:len(sub)-3]...))
	must(t, err)
	var all strings.Builder
	read := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for !strings.Contains(all.String(), want) {
			n, err := c.Read(buf)
			must(t, err)
			all.Write(buf[:n])
		}
	}
	read("pusher:connection_established")
	_, err = c.Write(sub[len(sub)-3:])
	must(t, err)
	read("subscription_succeeded")
	must(t, publish(h, "a", `"here"`))
	read(`"data":"\"here\""`)
}

// A reset ends the socket as a close does.
func TestReset(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	c := connect(t, addr)
	c.join("a")
	raw, err := c.NetConn().(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		must(t, unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	}))
	c.Close()
	eventually(t, "it is gone", func() bool { return h.Status().Connections == 0 && h.Status().Channels == 0 })
}

// Close cuts off a client that takes nothing.
func TestCloseStalled(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	stalled(t, h, addr)
	h.Close()
	if n := h.Status().Connections; n != 0 {
		t.Errorf("%d sockets are left", n)
	}
}
