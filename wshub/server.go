package wshub

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

const (
	// handshakeLimit bounds the request that opens a socket, and each write before it is one.
	handshakeLimit = 10 * time.Second
	// refusalLimit is how long a client that is refused has to take the reason.
	refusalLimit = 2 * time.Second
	// maxRequest bounds the header of that request, in bytes: it may hold cookies.
	maxRequest = 16 << 10
	idleWorker = 100 * time.Millisecond // fasthttp's sweeper of goroutines sleeps so long, after Close too
)

func (h *Hub) newServer() *fasthttp.Server {
	up := websocket.FastHTTPUpgrader{
		ReadBufferSize: 256, WriteBufferSize: 256, // only a refusal uses them
		CheckOrigin: func(*fasthttp.RequestCtx) bool { return true }, // that of the app, see refusal
	}
	return &fasthttp.Server{
		Name: "pogod",
		Handler: func(ctx *fasthttp.RequestCtx) {
			key, isApp := bytes.CutPrefix(ctx.Path(), []byte("/app/"))
			switch {
			case string(ctx.Path()) == "/up":
				h.up(ctx)
			case isApp && len(key) > 0 && bytes.IndexByte(key, '/') < 0:
				h.open(ctx, &up, key)
			default:
				ctx.Error("there is nothing here: sockets are opened at /app/{key}\n", fasthttp.StatusNotFound)
			}
		},
		ReadBufferSize: maxRequest, MaxRequestBodySize: 1, ReadTimeout: handshakeLimit, WriteTimeout: handshakeLimit, IdleTimeout: handshakeLimit,
		MaxIdleWorkerDuration: idleWorker,
		KeepHijackedConns:     true, Concurrency: 1 << 20, NoDefaultContentType: true,
		Logger: quiet{}, CloseOnShutdown: true,
	}
}

// quiet is a logger for what clients do wrong.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// up is for load balancers.
func (h *Hub) up(ctx *fasthttp.RequestCtx) {
	switch {
	case !ctx.IsGet() && !ctx.IsHead():
		ctx.Response.Header.Set("Allow", "GET, HEAD")
		ctx.Error("", fasthttp.StatusMethodNotAllowed)
	case h.leaving.Load():
		ctx.Error("leaving\n", fasthttp.StatusServiceUnavailable)
	default:
		ctx.SetContentType("text/plain; charset=utf-8")
		ctx.SetBodyString("OK\n")
	}
}

// open makes a socket of a request. A client that is refused is told so over the socket: a
// browser hides the answer to a failed handshake from the page.
func (h *Hub) open(ctx *fasthttp.RequestCtx, up *websocket.FastHTTPUpgrader, key []byte) {
	a := h.keys[string(key)]
	code, reason := h.refusal(ctx, a)
	_ = up.Upgrade(ctx, func(ws *websocket.Conn) { // an error was answered
		if code != 0 {
			refuse(ws, code, reason)
			return
		}
		h.take(a, ws)
	})
}

// refusal says why the request gets no socket; code 0: it gets one.
func (h *Hub) refusal(ctx *fasthttp.RequestCtx, a *app) (code int, reason string) {
	protocol, err := strconv.Atoi(string(ctx.QueryArgs().Peek("protocol")))
	switch {
	case a == nil:
		return closeNoApp, "no application has this key"
	case err != nil || protocol < 5 || protocol > 7: // what differs is in the clients
		return closeProtocol, "the protocol must be 5, 6 or 7"
	case !a.origin(string(ctx.Request.Header.Peek("Origin"))):
		return closeForbidden, "pages of this origin may not connect"
	case h.leaving.Load():
		return closeReconnect, "the server leaves: reconnect"
	case h.connections.Load() >= int64(h.cfg.MaxConnections):
		return closeOverfull, "the server has no room for more sockets"
	}
	return 0, ""
}

// refuse tells why and closes. It is on a goroutine of the handshake, for refusalLimit at most.
func refuse(ws *websocket.Conn, code int, reason string) {
	defer func() { _ = ws.Close() }() // the client was told
	_ = ws.SetWriteDeadline(time.Now().Add(refusalLimit))
	_ = ws.SetReadDeadline(time.Now().Add(refusalLimit))
	ws.SetReadLimit(maxMessage)
	event := appendEvent(nil, "pusher:error", "", errorData(code, reason))
	if ws.WriteMessage(websocket.TextMessage, event[len(event)-payloadSize(event):]) != nil {
		return
	}
	if ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason)) != nil {
		return
	}
	for { // until the client has closed, so that no reset overtakes the reason
		if _, _, err := ws.NextReader(); err != nil {
			return
		}
	}
}

// payloadSize is how many bytes the server's frame b carries.
func payloadSize(b []byte) int {
	switch n := int(b[1]); n {
	case 126:
		return len(b) - 4
	case 127:
		return len(b) - 10
	default:
		return len(b) - 2
	}
}

// take gives the socket to a shard: its descriptor, and what the client has sent already.
func (h *Hub) take(a *app, ws *websocket.Conn) {
	fd, leftover, err := detach(ws)
	if err != nil {
		h.cfg.Log.Warn("websocket: a socket was lost as it opened", "error", err)
		return
	}
	s := h.shards[h.next.Add(1)%uint64(len(h.shards))]
	c := &conn{id: newID(), shard: s, app: a, fd: fd}
	c.seen.Store(h.time.Load())
	s.add(c, leftover)
}

// detach takes the descriptor out of the hands of fasthttp and of Go's poller, which would
// be woken by every message too, and closes what is left.
func detach(ws *websocket.Conn) (fd int, leftover []byte, err error) {
	nc := ws.NetConn()
	defer func() { _ = ws.Close() }() // fd is another descriptor of the same socket
	wrapper, ok := nc.(interface{ UnsafeConn() net.Conn })
	if !ok {
		return 0, nil, errors.New("fasthttp gave a connection that cannot be unwrapped")
	}
	sc, ok := wrapper.UnsafeConn().(syscall.Conn)
	if !ok {
		return 0, nil, errors.New("the listener gave a connection without a descriptor")
	}
	// Past its deadline a connection gives what was read from it already, and no more.
	if err := nc.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return 0, nil, err
	}
	buf := make([]byte, maxRequest)
	n, err := nc.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil, err
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var inner error
	if err := raw.Control(func(p uintptr) { fd, inner = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, nil, err
	}
	return fd, buf[:n:n], inner
}

// Serve takes sockets from ln until Drain or Close, which close it.
func (h *Hub) Serve(ln net.Listener) error {
	h.mu.Lock()
	if h.leaving.Load() {
		h.mu.Unlock()
		return ln.Close()
	}
	h.listener = ln
	h.mu.Unlock()
	err := h.server.Serve(ln)
	if h.leaving.Load() {
		return nil
	}
	return err
}
