package api

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"pogod/internal/link"
	"pogod/wshub"
)

// newHub makes a hub with a socket that has subscribed to the channel "a", and serves it.
func newHub(t *testing.T, b *bench) *websocket.Conn {
	t.Helper()
	h, err := wshub.New(wshub.Config{Apps: []wshub.App{{ID: "shop", Key: "key", Secret: "s"}}, MaxEventBytes: 1000, MaxPendingBytes: 400})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ended by Close
		defer close(ended)
		if err := h.Serve(ln); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		h.Close()
		<-ended
	})
	b.server.ServeHub(h)
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+ln.Addr().String()+"/app/key?protocol=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	next(t, ws)
	if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"event":"pusher:subscribe","data":{"channel":"a"}}`)); err != nil {
		t.Fatal(err)
	}
	next(t, ws)
	return ws
}

func next(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_, text, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each request has all faults from one on, so that the order of the checks shows.
func TestPublishCodes(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	long, broken := strings.Repeat("é", 257), strings.Repeat("x", 1001)
	quoted := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	check := func(want int32, op link.Op, app, to, event, data string) {
		t.Helper()
		f := request(op, app).String(to).String(event).String(data)
		if op == link.PublishWith {
			f = f.String("")
		}
		if code, body := b.call(f); code != want || body != "" {
			t.Errorf("operation %d to %.20q: %d %q, want %d", op, to, code, body, want)
		}
	}
	check(1, link.Publish, "shop", "a", "e", "{}") // no hub
	check(1, link.Broadcast, "shop", "no list", long, broken)
	ws := newHub(t, b)
	check(1, link.Publish, "key", long, long, broken)
	check(2, link.Publish, "shop", long, long, broken)
	check(3, link.Publish, "shop", long[2:], long[2:], broken)
	check(4, link.Publish, "shop", "a", strings.Repeat("é", 200), broken)
	check(5, link.Publish, "shop", "a", "e", broken[1:])
	check(8, link.Publish, "shop", "a", "e", quoted(400))
	check(9, link.Publish, "shop", "a", "e", quoted(250))
	check(0, link.Publish, "shop", "nobody", "e", quoted(400))
	check(0, link.Publish, "shop", "a", "1", `{"x":1}`)
	for _, op := range []link.Op{link.Broadcast, link.PublishWith} {
		check(1, op, "", "no list", long, broken)
		for _, bad := range []string{"", "a", `"a"`, `{}`, `[1]`, `[null]`, `["a",["b"]]`, `["a"`, `null`, `["a"]x`} {
			check(7, op, "shop", bad, long, broken)
		}
		check(2, op, "shop", `["a","`+long+`"]`, long, broken)
		check(3, op, "shop", `["a","b"]`, long, broken)
		check(4, op, "shop", `["a"]`, "e", broken)
		check(5, op, "shop", `[]`, "e", broken[1:])
		check(8, op, "shop", `["a"]`, "e", quoted(400))
		check(9, op, "shop", `["a"]`, "e", quoted(250))
		check(0, op, "shop", `[]`, "e", "1")
		check(0, op, "shop", `["nobody","\u0061"]`, "list", `"ü"`)
	}
	for _, want := range []string{
		`{"event":"1","channel":"a","data":"{\"x\":1}"}`,
		`{"event":"list","channel":"a","data":"\"ü\""}`,
		`{"event":"list","channel":"a","data":"\"ü\""}`,
	} {
		if got := next(t, ws); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
