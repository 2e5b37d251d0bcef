package admin

import (
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// maxBodies bounds the sum of the long bodies, over maxBody each, that are read or worked
// on at once, in bytes: so many a node has in memory however many connections send one.
const maxBodies = 64 << 20

// budget is what is left of maxBodies. A body has its share from when the headers of its
// request were read until the request is answered. fasthttp tells of neither a request
// whose connection ends under it nor of what is read for which connection, so a share
// that is never given back, of which the request was not read whole in time, is taken back.
type budget struct {
	mu    sync.Mutex
	used  int
	share map[*fasthttp.RequestHeader]share
}

type share struct {
	bytes   int // 0: it was refused one
	since   time.Time
	working bool // the body was read, and is given back
}

// take takes a share for the body of a request, whose headers are h; false: there is
// none left. release gives it back.
func (b *budget) take(h *fasthttp.RequestHeader, bytes int, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.share == nil {
		b.share = map[*fasthttp.RequestHeader]share{}
	}
	b.drop(h) // the request before on a connection that ended
	if b.used+bytes > maxBodies {
		for other, s := range b.share {
			if !s.working && now.Sub(s.since) > 2*readTimeout {
				b.drop(other)
			}
		}
	}
	ok := b.used+bytes <= maxBodies
	if !ok {
		bytes = 0
	}
	b.used += bytes
	b.share[h] = share{bytes: bytes, since: now}
	return ok
}

// work notes that a body was read, whose share is released in any case.
func (b *budget) work(h *fasthttp.RequestHeader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.share[h]; ok {
		s.working = true
		b.share[h] = s
	}
}

// release gives a share back, if there is one, and says whether one was refused.
func (b *budget) release(h *fasthttp.RequestHeader) (refused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.share[h]
	b.drop(h)
	return ok && s.bytes == 0
}

func (b *budget) drop(h *fasthttp.RequestHeader) {
	b.used -= b.share[h].bytes
	delete(b.share, h)
}

// forget lets go of the memory of a request's body, which fasthttp would keep for the next
// one on the connection.
func forget(ctx *fasthttp.RequestCtx) {
	if len(ctx.Request.Body()) > maxBody {
		ctx.Request.SwapBody(nil)
	}
}
