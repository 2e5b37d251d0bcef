package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"pogod/internal/command"
)

// pushing is a connection on which a push of so many bytes is under way.
func pushing(t *testing.T, s *Server, bytes int, more string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprintf(c, "POST %s/mail/jobs HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", QueuesPath, asJSON, bytes, more)
	return c
}

func answerOn(t *testing.T, c net.Conn) (*http.Response, string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "POST"})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

func (b *budget) inUse() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// until waits for what has no other signal.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("not within 30 s: " + what)
		}
	}
}

// However many connections send long bodies, those that are held at once are bounded; a
// push over the bound is told when to come again, and others are served.
func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, &queued{fake: &fake{status: some}})
	const long = 16 << 20
	begin := `{"payload":"`
	var under []net.Conn
	for range maxBodies / long {
		under = append(under, pushing(t, s, long, begin))
	}
	until(t, "all are read", func() bool { return s.budget.inUse() == maxBodies })
	for range 3 * maxBodies / long {
		r, body := answerOn(t, pushing(t, s, long, begin))
		if got := problemOf(t, "a push too many", r, body); got != 503 || r.Header.Get("Retry-After") != "1" || !r.Close || !strings.Contains(body, "bodies of 64 MiB are under way") {
			t.Fatal(r.StatusCode, r.Header, body)
		}
	}
	short := `{"payload":"short"}`
	if r, body := answerOn(t, pushing(t, s, len(short), short)); r.StatusCode != 200 {
		t.Error(r.StatusCode, body)
	}
	chunked := "POST " + QueuesPath + "/mail/jobs HTTP/1.1\r\nHost: localhost\r\n" + asJSON + "Transfer-Encoding: chunked\r\n\r\n"
	if r, body := send(t, s, chunked+"13\r\n"+short+"\r\n0\r\n\r\n"); r.StatusCode != 200 {
		t.Error(r.StatusCode, body)
	}
	if r, body := send(t, s, chunked+"2000\r\n"+strings.Repeat(" ", 0x2000)+"\r\n0\r\n\r\n"); r.StatusCode != 503 {
		t.Error(r.StatusCode, body)
	}
	// One that is answered, and one whose client goes, make room; on a slow machine those that
	// send nothing for the read time-out do, too.
	rest := strings.Repeat("x", long-len(begin)-2) + `"}`
	if _, err := io.WriteString(under[0], rest); err != nil {
		t.Fatal(err)
	}
	if r, body := answerOn(t, under[0]); r.StatusCode != 200 {
		t.Fatal(r.StatusCode, body)
	}
	until(t, "a share is given back", func() bool { return s.budget.inUse() <= maxBodies-long })
	_ = under[1].Close()
	until(t, "another is given back", func() bool { return s.budget.inUse() <= maxBodies-2*long })
	// The connection that was answered is kept, its body is not.
	next := pushing(t, s, long, begin)
	if _, err := io.WriteString(next, rest); err != nil {
		t.Fatal(err)
	}
	if r, body := answerOn(t, next); r.StatusCode != 200 {
		t.Error(r.StatusCode, body)
	}
	for _, c := range under[2:] {
		_ = c.Close()
	}
	until(t, "all is given back", func() bool { return s.budget.inUse() == 0 })
}

// A share is held while its push is worked on, not only while it is read.
func TestShareIsHeldUntilTheAnswer(t *testing.T) {
	t.Parallel()
	src := &slow{queued: &queued{fake: &fake{status: some}}, entered: make(chan struct{}), release: make(chan struct{})}
	s := serve(t, src)
	text := `{"payload":"` + strings.Repeat("x", 1<<20) + `"}`
	c := pushing(t, s, len(text), text)
	<-src.entered
	if got := s.budget.inUse(); got != len(text) {
		t.Error(got)
	}
	close(src.release)
	if r, body := answerOn(t, c); r.StatusCode != 200 {
		t.Error(r.StatusCode, body)
	}
	until(t, "it is given back", func() bool { return s.budget.inUse() == 0 })
}

type slow struct {
	*queued
	entered, release chan struct{}
}

func (q *slow) Push(ctx context.Context, name string, payload []byte, delay time.Duration) (command.JobID, error) {
	close(q.entered)
	<-q.release
	return q.queued.Push(ctx, name, payload, delay)
}

// A share that nobody gives back is taken back once its request cannot come any more; one
// that is worked on is not.
func TestBudget(t *testing.T) {
	t.Parallel()
	var b budget
	at := time.Unix(1000, 0)
	var h [4]fasthttp.RequestHeader
	take := func(i, bytes int, want bool) {
		t.Helper()
		if got := b.take(&h[i], bytes, at); got != want {
			t.Errorf("a share of %d for %d: %v", bytes, i, got)
		}
	}
	take(0, maxBodies-10, true)
	take(1, 11, false)
	if !b.release(&h[1]) || b.release(&h[1]) {
		t.Error("who was refused is not told, or twice")
	}
	take(1, 10, true)
	b.work(&h[1])
	take(0, maxBodies-11, true) // another request with the same headers
	take(2, 2, false)
	take(2, 1, true)
	at = at.Add(2*readTimeout + 1)
	take(3, maxBodies-10, true) // all but the one that is worked on
	if b.used != maxBodies || len(b.share) != 2 {
		t.Errorf("%d in %d shares", b.used, len(b.share))
	}
	for i := range h {
		if b.release(&h[i]) {
			t.Error(strconv.Itoa(i) + " was refused")
		}
	}
	if b.used != 0 || len(b.share) != 0 {
		t.Errorf("%d in %d shares", b.used, len(b.share))
	}
}
