//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// withApp is a hub with one application.
const withApp = "\n[[websocket.app]]\nid = \"shop\"\nkey = \"app-key\"\nsecret = \"app secret\"\n[websocket]\nlisten = \"127.0.0.1:0\"\n"

// hubStatus is what /status says of the hub.
type hubStatus struct {
	Listen                string
	Connections, Channels int
	Messages              uint64
	SlowClosed            uint64 `json:"slow_closed"`
}

func (s *site) hubStatus(t *testing.T) *hubStatus {
	t.Helper()
	body, err := s.get(t.Context(), "/status")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Hub *hubStatus }
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Hub
}

// publish has a page publish; the code is to be this.
func (s *site) publish(t *testing.T, want int, channel, event, data string) {
	t.Helper()
	if got := s.call(t, "pogo_websocket_publish", "shop", channel, event, data).code(t); got != want {
		t.Errorf("publishing %s to %s: %d, want %d", event, channel, got, want)
	}
}

// TestE2EWebsocket is pusher-js and a page.
func TestE2EWebsocket(t *testing.T) {
	t.Parallel()
	s := startSite(t, withApp+"max_pending_bytes = 400_000\n")
	t.Run("pusher-js", func(t *testing.T) { testPusherJS(t, s) })
	t.Run("codes", func(t *testing.T) { testPublishCodes(t, s) })
	t.Run("slow consumer", func(t *testing.T) { testSlowConsumer(t, s) })
	t.Run("PHP killed", func(t *testing.T) { testHostKilled(t, s) })
	t.Run("browser", func(t *testing.T) { testPusherBrowser(t, s) })
	t.Run("leave and come back", func(t *testing.T) { testReconnect(t, s) })
}

func testPusherJS(t *testing.T, s *site) {
	a, b := newPusher(t, s, nil), newPusher(t, s, nil)
	if a.id == "" || a.id == b.id {
		t.Errorf("socket ids %q and %q", a.id, b.id)
	}
	for _, p := range []*pusher{a, b} {
		p.subscribe("news")
		p.subscribe("private-news")
	}
	s.publish(t, 0, "news", "published", `{"text":"grüße \"<&>\"","n":1.50}`)
	s.publish(t, 0, "private-news", "secret", `[1,null,"x"]`)
	s.publish(t, 0, "elsewhere", "nobody hears", `{}`)
	for _, p := range []*pusher{a, b} {
		p.got("news", "published", `{"text":"grüße \"<&>\"","n":1.5}`)
		p.got("private-news", "secret", `[1,null,"x"]`)
	}
	for _, r := range s.calls(t,
		[]any{"pogo_websocket_broadcast_multi", "shop", `["news","private-news","elsewhere"]`, "multi", `"m"`},
		[]any{"pogo_websocket_publish_with", "shop", []string{"news"}, "not to a", `1`, map[string]string{"except": a.id}},
		[]any{"pogo_websocket_publish_with", "shop", []string{"news"}, "to all", `2`, map[string]string{}},
	) {
		if r.code(t) != 0 {
			t.Errorf("%s %s", r.Result, r.Error)
		}
	}
	sorted := func(p *pusher) {
		t.Helper()
		both := map[string]bool{} // between channels there is no order
		for range 2 {
			h := p.next("an event of two channels")
			both[h.Channel+" "+h.Event] = true
		}
		if !both["news multi"] || !both["private-news multi"] {
			t.Error(both)
		}
	}
	sorted(a)
	a.got("news", "to all", "2")
	sorted(b)
	b.got("news", "not to a", "1")
	b.got("news", "to all", "2")
	// Refused by the page, by the hub for its signature, and by the hub for its kind.
	for channel, status := range map[string]int{"private-forbidden": 403, "private-wrong": 401, "presence-room": 501, "cache-x": 501} {
		a.do("subscribe " + channel)
		if h := a.next(channel); h.What != "refused" || h.Channel != channel || h.Code != status {
			t.Errorf("%+v, want %d", h, status)
		}
	}
	a.do("unsubscribe news")
	a.next("unsubscribing")
	eventually(t, "it is unsubscribed", func() bool { // its message goes its own way
		s.publish(t, 0, "news", "gone", `0`)
		b.got("news", "gone", "0")
		return s.publishesTo(t, a, b)
	})
	if h := s.hubStatus(t); h == nil || h.Connections < 2 || h.Channels != 2 || h.Listen != s.hub || h.SlowClosed != 0 {
		t.Errorf("%+v", h)
	}
	metrics, err := s.get(t.Context(), "/metrics")
	if err != nil || !strings.Contains(string(metrics), "\npogod_websocket_channels 2\n") {
		t.Error(err, "no channels among the metrics")
	}
	// pusher-js asks after half a second of silence.
	c := newPusher(t, s, map[string]any{"activityTimeout": 500})
	for range 3 {
		c.until("the answer to its ping", func(h happening) bool { return h.What == "pong" })
	}
	// One that is refused does not try again.
	d := startPusher(t, s, "nobody", nil)
	if h := d.until("refused", func(h happening) bool { return h.What == "error" }); h.Code != 4001 {
		t.Errorf("%+v", h)
	}
	d.until("failed for good", func(h happening) bool { return h.What == "state" && (h.State == "failed" || h.State == "disconnected") })
}

// publishesTo tells whether all events that were published before have come to both: an event
// of a channel that both have is behind them.
func (s *site) publishesTo(t *testing.T, all ...*pusher) bool {
	t.Helper()
	s.publish(t, 0, "private-news", "mark", `0`)
	clean := true
	for _, p := range all {
		p.until("the mark", func(h happening) bool {
			clean = clean && (h.Event == "mark" || h.What != "event")
			return h.Event == "mark"
		})
	}
	return clean
}

// testPublishCodes makes each code from a page, with a subscriber; each call has all faults
// from one on.
func testPublishCodes(t *testing.T, s *site) {
	ws := dialHub(t, s)
	subscribeHub(t, ws, "busy")
	subscribeHub(t, ws, "busy2")
	long := func(n int) string { return strings.Repeat("é", n) }
	quoted := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	big := map[string]int{"bytes": 262_145}
	for _, c := range []struct {
		want                     int
		app, channel, event, bad any
	}{
		{1, "nobody", long(257), long(201), big},
		{1, "app-key", "busy", "e", `{}`},
		{1, map[string]int{"bytes": 1 << 20}, "busy", "e", `{}`},
		{2, "shop", long(257), long(201), big},
		{2, "shop", map[string]int{"bytes": 20 << 20}, long(201), big},
		{3, "shop", long(256), long(201), big},
		{4, "shop", long(256), long(200), big},
		{4, "shop", "busy", "e", map[string]int{"bytes": 20 << 20}},
		{5, "shop", "busy", "e", map[string]int{"bytes": 262_144}},
		{5, "shop", "busy", "e", ``},
		{5, "shop", "busy", "e", `{"a":}`},
		{5, "shop", "busy", "e", binary(`"` + "\xff" + `"`)},
		{9, "shop", "busy", "e", quoted(250_000)},
		{0, "shop", "nobody listens", "e", quoted(250_000)},
		{0, "shop", "busy", "e", `"last"`},
	} {
		if got := s.call(t, "pogo_websocket_publish", c.app, c.channel, c.event, c.bad).code(t); got != c.want {
			t.Errorf("%.50v %.50v %.50v %.50v: %d, want %d", c.app, c.channel, c.event, c.bad, got, c.want)
		}
	}
	for _, c := range []struct {
		want      int
		app, list any
		event     string
	}{
		{1, "nobody", "x", long(201)},
		{7, "shop", `["a",]`, long(201)},
		{7, "shop", `{"a":"b"}`, long(201)},
		{7, "shop", `["a",1]`, long(201)},
		{7, "shop", ``, long(201)},
		{2, "shop", `["busy","` + long(257) + `"]`, "e"},
		{3, "shop", `["busy"]`, long(201)},
		{0, "shop", `[]`, "e"},
		{0, "shop", `["busy"]`, "listed"},
	} {
		if got := s.call(t, "pogo_websocket_broadcast_multi", c.app, c.list, c.event, `"x"`).code(t); got != c.want {
			t.Errorf("%v %.50v %.50v: %d, want %d", c.app, c.list, c.event, got, c.want)
		}
	}
	// 8: of two channels together.
	if got := s.call(t, "pogo_websocket_broadcast_multi", "shop", `["busy","busy2"]`, "e", quoted(250_000)).code(t); got != 8 {
		t.Errorf("%d, want 8", got)
	}
	for _, want := range []string{`{"event":"e","channel":"busy","data":"\"last\""}`, `{"event":"listed","channel":"busy","data":"\"x\""}`} {
		if _, text, err := ws.ReadMessage(); err != nil || string(text) != want {
			t.Errorf("%s %v, want %s", text, err, want)
		}
	}
	for args, want := range map[string]string{
		`'shop', [], 'e', '{}', ['expect' => '1.1']`:      "ValueError: pogo_websocket_publish_with(): Argument #5 ($options) has an unknown option: \"except\" is the only one",
		`'shop', [], 'e', '{}', ['1.1']`:                  "ValueError: pogo_websocket_publish_with(): Argument #5 ($options) has an unknown option: \"except\" is the only one",
		`'shop', [], 'e', '{}', ['except' => 1.1]`:        "TypeError: pogo_websocket_publish_with(): Argument #5 ($options) must have a socket id as \"except\", float given",
		`'shop', ['a', 1], 'e', '{}', []`:                 "TypeError: pogo_websocket_publish_with(): Argument #2 ($channels) must be an array of channel names, int given",
		`'shop', ['x' => 'a', "\xff/é"], 'e', '{}', []`:   "nothing",
		`'shop', ['a'], 'e', '{}', ['except' => 'no id']`: "nothing",
	} {
		var got string
		if s.eval(t, &got, `return thrown(fn () => pogo_websocket_publish_with(`+args+`));`); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
	// 6: no node; on the command line.
	cmd := s.php(t, filepath.Join(s.home, "no socket"), "-r", `echo json_encode([pogo_websocket_publish('shop', 'a', 'e', '{}'),
		pogo_websocket_broadcast_multi('shop', 'x', 'e', '{}'), pogo_websocket_publish_with('shop', [], 'e', '{}', [])]);`)
	var codes []int
	if output(t, cmd, &codes); fmt.Sprint(codes) != "[6 6 6]" {
		t.Error(codes)
	}
}

// dialHub opens a socket that only does what the test says, also nothing.
func dialHub(t *testing.T, s *site) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+s.hub+"/app/app-key?protocol=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(readyWithin))
	if _, text, err := ws.ReadMessage(); err != nil || !strings.Contains(string(text), "connection_established") {
		t.Fatal(string(text), err)
	}
	return ws
}

func subscribeHub(t *testing.T, ws *websocket.Conn, channel string) {
	t.Helper()
	err := ws.WriteMessage(websocket.TextMessage, []byte(`{"event":"pusher:subscribe","data":{"channel":"`+channel+`"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, text, err := ws.ReadMessage(); err != nil || !strings.Contains(string(text), "subscription_succeeded") {
		t.Fatal(string(text), err)
	}
}

// testSlowConsumer publishes to one that reads and one that does not.
func testSlowConsumer(t *testing.T, s *site) {
	slow := dialHub(t, s)
	subscribeHub(t, slow, "flood")
	p := newPusher(t, s, nil)
	p.subscribe("flood")
	data := `"` + strings.Repeat("x", 100_000) + `"`
	sent := 0
	for ; s.hubStatus(t).SlowClosed == 0; sent++ {
		if sent > 1000 {
			t.Fatal("it was never too slow")
		}
		s.publish(t, 0, "flood", "e", data)
		p.got("flood", "e", data)
	}
	got := 0
	for {
		_, text, err := slow.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, 4200) {
				t.Error(err)
			}
			break
		}
		if len(text) < len(data) {
			t.Fatalf("a part of an event: %.100s", text)
		}
		got++
	}
	if got == 0 || got >= sent {
		t.Errorf("it got %d of %d", got, sent)
	}
}

// testHostKilled kills the web host: the sockets are the node's.
func testHostKilled(t *testing.T, s *site) {
	p := newPusher(t, s, nil)
	p.subscribe("after")
	for _, h := range s.document(t).PHP.Hosts {
		if h.Name == "web" {
			if err := syscall.Kill(h.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "a page publishes again", func() bool {
		r, err := s.tryCalls([]any{"pogo_websocket_publish", "shop", "after", "back", `1`})
		return err == nil && r[0].code(t) == 0
	})
	p.got("after", "back", "1")
}

// testPusherBrowser is pusher-js in a page of a real browser.
func testPusherBrowser(t *testing.T, s *site) {
	needPusherJS(t)
	script, err := os.ReadFile(filepath.Join(pusherFolder, "node_modules/pusher-js/dist/web/pusher.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, s.web+"/static.txt", 800, 600)
	var ok bool
	b.eval("(() => { "+string(script)+"\n; return true; }).call(window)", &ok)
	_, port, _ := strings.Cut(s.hub, ":")
	b.eval(fmt.Sprintf(`(() => {
		document.body.innerHTML = '<p id=state></p><p id=event></p>';
		const pusher = new Pusher('app-key', {cluster: '', wsHost: '127.0.0.1', wsPort: %s, forceTLS: false, enabledTransports: ['ws'],
			channelAuthorization: {endpoint: '/auth', transport: 'ajax'}});
		const channel = pusher.subscribe('private-page');
		channel.bind('pusher:subscription_succeeded', () => { document.querySelector('#state').innerText = 'subscribed'; });
		channel.bind('hello', (data) => { document.querySelector('#event').innerText = data.text; });
		return true; })()`, port), &ok)
	b.see("#state", "subscribed")
	s.publish(t, 0, "private-page", "hello", `{"text":"from PHP"}`)
	b.see("#event", "from PHP")
	if len(b.errors) > 0 {
		t.Errorf("the page's script threw %s", b.errors)
	}
}

// testReconnect ends the node well and by SIGKILL: pusher-js comes back to the next one by
// itself, and subscribes again.
func testReconnect(t *testing.T, s *site) {
	s.env = append(s.env, "POGOD_WEBSOCKET_LISTEN="+s.hub, "POGOD_WEB_LISTEN="+strings.TrimPrefix(s.web, "http://"))
	p := newPusher(t, s, nil)
	p.subscribe("private-again")
	raw := dialHub(t, s)
	for i, end := range []func(){s.stop, s.kill} {
		end()
		if i == 0 {
			if _, _, err := raw.ReadMessage(); !websocket.IsCloseError(err, 4200) {
				t.Errorf("the end of the node: %v, want a close with 4200", err)
			}
		}
		p.until("it notices", func(h happening) bool { return h.What == "state" && h.State != "connected" })
		s.serve(t)
		p.connected()
		p.until("it is subscribed again", func(h happening) bool { return h.What == "subscribed" && h.Channel == "private-again" })
		s.publish(t, 0, "private-again", "welcome", fmt.Sprint(i))
		p.until("the next event", func(h happening) bool { return h.What == "event" && string(h.Data) == fmt.Sprint(i) })
	}
}

// TestE2ENoHub is a node without an application: it listens nowhere for sockets, and
// publishing answers 1.
func TestE2ENoHub(t *testing.T) {
	t.Parallel()
	s := startSite(t, "")
	if s.hub != "" || s.hubStatus(t) != nil {
		t.Error("there is a hub:", s.hub)
	}
	for _, r := range s.calls(t,
		[]any{"pogo_websocket_publish", "shop", "a", "e", `{}`},
		[]any{"pogo_websocket_broadcast_multi", "shop", `["a"]`, "e", `{}`},
		[]any{"pogo_websocket_publish_with", "shop", []string{"a"}, "e", `{}`, map[string]string{}},
	) {
		if r.code(t) != 1 {
			t.Errorf("%s %s, want 1", r.Result, r.Error)
		}
	}
}

// TestE2EReverb takes the application of the environment.
func TestE2EReverb(t *testing.T) {
	t.Parallel()
	s := newSite(t, inApp(t, ""), "[websocket]\nlisten = \"127.0.0.1:0\"\n")
	s.env = []string{"REVERB_APP_ID=shop", "REVERB_APP_KEY=app-key", "REVERB_APP_SECRET=app secret"}
	s.serve(t)
	p := newPusher(t, s, nil)
	p.subscribe("private-a")
	s.publish(t, 0, "private-a", "e", `{}`)
	p.got("private-a", "e", "{}")
}
