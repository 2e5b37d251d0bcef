package wshub

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp keeps one ticking clock for the whole process, for the Date header.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// patience bounds a wait of a test that fails.
const patience = time.Minute

var testApp = App{ID: "shop", Key: "key", Secret: "secret"}

// newHub starts a hub on loopback and returns its address.
func newHub(t testing.TB, cfg Config) (*Hub, string) {
	t.Helper()
	if cfg.Apps == nil {
		cfg.Apps = []App{testApp}
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ln) }() // ended by Close
	t.Cleanup(func() {
		h.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return h, ln.Addr().String()
}

// client is a socket of a test.
type client struct {
	*websocket.Conn
	t  testing.TB
	id string
}

// event is what a client gets. Data is the text that the data is.
type event struct {
	Event, Channel, Data string
}

// dial opens a socket and takes nothing from it yet.
func dial(t testing.TB, addr, path string, header http.Header) *client {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.Dial("ws://"+addr+path, header)
	if err != nil {
		t.Fatalf("%v %+v", err, res)
	}
	t.Cleanup(func() { ws.Close() })
	return &client{Conn: ws, t: t}
}

// connect opens a socket that is taken.
func connect(t testing.TB, addr string) *client {
	t.Helper()
	c := dial(t, addr, "/app/key?protocol=7&client=js&version=8.4.0", nil)
	e := c.next()
	var d struct {
		ID string `json:"socket_id"`
	}
	if err := json.Unmarshal([]byte(e.Data), &d); err != nil || e.Event != "pusher:connection_established" {
		t.Fatalf("%+v %v", e, err)
	}
	c.id = d.ID
	return c
}

// next returns the next event, which must be text and JSON.
func (c *client) next() event {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	kind, text, err := c.ReadMessage()
	if err != nil {
		c.t.Fatal(err)
	}
	var e event
	if err := json.Unmarshal(text, &e); err != nil || kind != websocket.TextMessage {
		c.t.Fatalf("%d %s: %v", kind, text, err)
	}
	return e
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends and returns the answer.
func (c *client) ask(text string) event {
	c.t.Helper()
	c.send(text)
	return c.next()
}

// expect checks an answer.
func (c *client) expect(what string, got, want event) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// closed returns the code that the socket is closed with.
func (c *client) closed() int {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		_, _, err := c.ReadMessage()
		if e := (*websocket.CloseError)(nil); errors.As(err, &e) {
			return e.Code
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

func subscribe(channel, auth string) string {
	b, _ := json.Marshal(map[string]any{"event": "pusher:subscribe", "data": map[string]string{"channel": channel, "auth": auth}})
	return string(b)
}

func succeeded(channel string) event {
	return event{"pusher_internal:subscription_succeeded", channel, "{}"}
}

func (c *client) join(channels ...string) {
	c.t.Helper()
	for _, name := range channels {
		c.expect("subscribing", c.ask(subscribe(name, "")), succeeded(name))
	}
}

// publish publishes; the event is "e".
func publish(h *Hub, channel, data string) error {
	return h.Publish(Message{App: []byte("shop"), Channels: [][]byte{[]byte(channel)}, Event: []byte("e"), Data: []byte(data)})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestGreeting(t *testing.T) {
	t.Parallel()
	_, addr := newHub(t, Config{Ping: 45 * time.Second})
	ids := map[string]bool{}
	for range 20 {
		e := dial(t, addr, "/app/key?protocol=7", nil).next()
		var id1, id2 uint32
		if n, err := fmt.Sscanf(e.Data, `{"socket_id":"%d.%d","activity_timeout":45}`, &id1, &id2); n != 2 || err != nil || e.Event != "pusher:connection_established" {
			t.Fatalf("%+v %v", e, err)
		}
		ids[e.Data] = true
	}
	if len(ids) != 20 {
		t.Error("a socket id was given twice")
	}
	if id, ok := parseSocketID([]byte("4294967295.1")); !ok || (&conn{id: id}).socketID() != "4294967295.1" {
		t.Error(id, ok)
	}
	for _, bad := range []string{"", ".", "1", "1.", "-1.2", "4294967296.1", "1.2.3", "a.b"} {
		if _, ok := parseSocketID([]byte(bad)); ok {
			t.Errorf("%q is taken for a socket id", bad)
		}
	}
}

// Whoever is refused is told why, as an event and as the code of the close.
func TestRefusals(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{MaxConnections: 1, Apps: []App{testApp, {ID: "2", Key: "strict", Secret: "s", AllowedOrigins: []string{"example.org", "*.example.com"}}}})
	origin := func(o string) http.Header { return http.Header{"Origin": {o}} }
	refused := func(path string, header http.Header, code int) {
		t.Helper()
		c := dial(t, addr, path, header)
		e := c.next()
		if !strings.HasPrefix(e.Data, fmt.Sprintf(`{"code":%d,"message":"`, code)) || e.Event != "pusher:error" || c.closed() != code {
			t.Errorf("%s %v: %+v, want %d", path, header, e, code)
		}
	}
	refused("/app/nobody?protocol=7", nil, 4001)
	refused("/app/shop?protocol=7", nil, 4001) // an id is no key
	for _, q := range []string{"", "?protocol=", "?protocol=4", "?protocol=8", "?protocol=x"} {
		refused("/app/key"+q, nil, 4007)
	}
	for _, o := range []string{"https://example.net", "https://example.org.evil.net", "https://evilexample.com", "null"} {
		refused("/app/strict?protocol=7", origin(o), 4009)
	}
	for _, o := range []string{"https://example.org", "http://EXAMPLE.org:8080", "https://www.example.com"} {
		c := dial(t, addr, "/app/strict?protocol=5", origin(o))
		if e := c.next(); e.Event != "pusher:connection_established" {
			t.Errorf("%s: %+v", o, e)
		}
		refused("/app/key?protocol=7", nil, 4100) // there is one already
		_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""))
		if code := c.closed(); code != 1000 {
			t.Error(code)
		}
		eventually(t, "its place is free", func() bool { return h.Status().Connections == 0 })
	}
}

// What is no handshake gets an answer of HTTP.
func TestRequests(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	for _, want := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/up", 200},
		{"HEAD", "/up", 200},
		{"POST", "/up", 405},
		{"GET", "/", 404},
		{"GET", "/app/", 404},
		{"GET", "/app/key/more", 404},
		{"GET", "/apps/shop/events", 404},
		{"GET", "/app/key?protocol=7", 400},
		{"POST", "/app/key?protocol=7", 405},
	} {
		req, err := http.NewRequestWithContext(t.Context(), want.method, "http://"+addr+want.path, nil)
		must(t, err)
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		_ = res.Body.Close()
		if res.StatusCode != want.status {
			t.Errorf("%s %s: %s", want.method, want.path, res.Status)
		}
	}
	if s := h.Status(); s != (Status{}) {
		t.Errorf("%+v", s)
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	_, addr := newHub(t, Config{})
	c := connect(t, addr)
	c.expect("ping", c.ask(`{"event":"pusher:ping","data":{}}`), event{Event: "pusher:pong", Data: "{}"})
	for text, message := range map[string]string{
		`x`:                            "a message must be a JSON object with an event",
		`[]`:                           "a message must be a JSON object with an event",
		`{"event":""}`:                 "a message must be a JSON object with an event",
		`{"event":"pusher:subscribe"}`: "pusher:subscribe must have a channel in its data",
		`{"event":"pusher:subscribe","data":"x"}`:            "pusher:subscribe must have a channel in its data",
		`{"event":"client-x","channel":"private-a"}`:         "client events are not taken",
		`{"event":"pusher:signin"}`:                          "the event pusher:signin is not known",
		`{"event":"` + strings.Repeat("a", 80) + `"}`:        "the event " + strings.Repeat("a", 64) + "... is not known",
		`{"event":"pusher:subscribe","data":{"channel":[]}}`: "pusher:subscribe must have a channel in its data",
	} {
		want, _ := json.Marshal(map[string]any{"code": nil, "message": message})
		c.expect(text, c.ask(text), event{Event: "pusher:error", Data: string(want)})
	}
	// In pieces, with a ping between them.
	c.SetPongHandler(func(data string) error {
		if data != "between" {
			t.Error(data)
		}
		return nil
	})
	raw := c.NetConn()
	for _, part := range []struct {
		first byte
		text  string
	}{{0x01, `{"event":"pusher`}, {0x89, "between"}, {0x00, ``}, {0x80, `:ping"}`}} {
		_, err := raw.Write(masked(part.first, part.text))
		must(t, err)
	}
	c.expect("a message in pieces", c.next(), event{Event: "pusher:pong", Data: "{}"})
	// Byte for byte.
	for _, b := range masked(0x81, `{"event":"pusher:ping"}`) {
		_, err := raw.Write([]byte{b})
		must(t, err)
	}
	c.expect("a message byte for byte", c.next(), event{Event: "pusher:pong", Data: "{}"})
}

// masked is a client's frame.
func masked(first byte, text string) []byte {
	b := []byte{first}
	switch n := len(text); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	default:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	}
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i := range len(text) {
		b = append(b, text[i]^mask[i&3])
	}
	return b
}

// What breaks the WebSocket protocol, or is not meant to be sent, ends the connection.
func TestBrokenClients(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	for name, x := range map[string]struct {
		bytes []byte
		code  int
	}{
		"binary":                   {masked(0x82, "x"), 4003},
		"no mask":                  {[]byte{0x81, 1, 'x'}, 1002},
		"reserved bits":            {masked(0xc1, "x"), 1002},
		"an unknown kind":          {masked(0x83, "x"), 1002},
		"a continuation of naught": {masked(0x80, "x"), 1002},
		"a message in another":     {append(masked(0x01, "x"), masked(0x81, "x")...), 1002},
		"a ping in pieces":         {masked(0x09, "x"), 1002},
		"a ping that is long":      {masked(0x89, strings.Repeat("x", 126)), 1002},
		"not UTF-8":                {masked(0x81, "\xff"), 1007},
		"a frame too large":        {[]byte{0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1}, 1009},
		"a length without end":     {[]byte{0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255}, 1009},
		"pieces too large": {slices.Concat(masked(0x01, strings.Repeat("x", 60000)), masked(0x00, strings.Repeat("x", 5000)),
			masked(0x80, strings.Repeat("x", 1000))), 1009},
	} {
		c := connect(t, addr)
		_, err := c.NetConn().Write(x.bytes)
		must(t, err)
		if code := c.closed(); code != x.code {
			t.Errorf("%s: %d, want %d", name, code, x.code)
		}
		c.Close()
	}
	eventually(t, "all are gone", func() bool { return h.Status().Connections == 0 })
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	h, addr := newHub(t, Config{})
	c := connect(t, addr)
	sign := func(key, secret, text string) string {
		return (&App{Key: key, Secret: secret}).sign(text)
	}
	good := sign("key", "secret", c.id+":private-a")
	c.expect("private", c.ask(subscribe("private-a", good)), succeeded("private-a"))
	c.join("a", "news_-=@,.;1")
	c.expect("again", c.ask(subscribe("a", "")), succeeded("a"))
	c.expect("data in a string", c.ask(`{"event":"pusher:subscribe","data":"{\"channel\":\"b\"}"}`), succeeded("b"))
	for _, x := range []struct {
		channel, auth, kind string
		status              int
	}{
		{"private-b", good, "AuthError", 401}, // of another channel
		{"private-b", "", "AuthError", 401},
		{"private-b", "key:", "AuthError", 401},
		{"private-b", sign("key", "other", c.id+":private-b"), "AuthError", 401},
		{"private-b", sign("other", "secret", c.id+":private-b"), "AuthError", 401},
		{"private-b", sign("key", "secret", "1.1:private-b"), "AuthError", 401}, // of another socket
		{"presence-a", "", "ChannelError", 501},
		{"private-encrypted-a", "", "ChannelError", 501},
		{"cache-a", "", "ChannelError", 501},
		{"private-cache-a", "", "ChannelError", 501},
		{"", "", "ChannelError", 400},
		{"#server-to-user-1", "", "ChannelError", 400},
		{"a b", "", "ChannelError", 400},
		{"ä", "", "ChannelError", 400},
		{strings.Repeat("a", 257), "", "ChannelError", 400},
	} {
		e := c.ask(subscribe(x.channel, x.auth))
		var d struct {
			Type, Error string
			Status      int
		}
		if err := json.Unmarshal([]byte(e.Data), &d); err != nil || d.Type != x.kind || d.Status != x.status || d.Error == "" ||
			e.Event != "pusher:subscription_error" || e.Channel != x.channel {
			t.Errorf("%+v: %+v", x, e)
		}
	}
	if n := h.Status().Channels; n != 4 {
		t.Errorf("%d channels, want 4", n)
	}
	for _, name := range []string{"a", "b", "nothing", "a"} {
		c.send(`{"event":"pusher:unsubscribe","data":{"channel":"` + name + `"}}`)
	}
	c.ask(`{"event":"pusher:ping"}`)
	if n := h.Status().Channels; n != 2 {
		t.Errorf("%d channels, want 2", n)
	}
	must(t, publish(h, "a", "1"))
	must(t, publish(h, "private-a", "2"))
	c.expect("the channel that is left", c.next(), event{"e", "private-a", "2"})
	c.Close()
	eventually(t, "no channel is left", func() bool { return h.Status().Channels == 0 && h.Status().Connections == 0 })
	for _, s := range h.shards {
		s.mu.Lock()
		if len(s.rosters)+len(s.conns) != 0 {
			t.Error("something is left of the socket")
		}
		s.mu.Unlock()
	}
}

func TestTooManyChannels(t *testing.T) {
	t.Parallel()
	_, addr := newHub(t, Config{})
	c := connect(t, addr)
	for i := range maxChannels {
		c.join(fmt.Sprint("c", i))
	}
	if e := c.ask(subscribe("more", "")); e.Event != "pusher:subscription_error" || !strings.Contains(e.Data, `"status":429`) {
		t.Errorf("%+v", e)
	}
	c.expect("one that it has", c.ask(subscribe("c7", "")), succeeded("c7"))
}

func TestBadApps(t *testing.T) {
	t.Parallel()
	for _, apps := range [][]App{
		nil,
		{{ID: "a", Key: "k"}},
		{{ID: "a", Key: "k", Secret: "s"}, {ID: "a", Key: "l", Secret: "s"}},
		{{ID: "a", Key: "k", Secret: "s"}, {ID: "b", Key: "k", Secret: "s"}},
	} {
		if h, err := New(Config{Apps: apps}); err == nil {
			h.Close()
			t.Errorf("%+v was taken", apps)
		}
	}
}
