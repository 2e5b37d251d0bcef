package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pogod/internal/link"
	"pogod/queue"
)

func (q *fakeQueue) Reservable(_ context.Context, queues []string) error {
	return q.note("reservable %q", queues)
}

func (f *fakeThreads) Reserve(c *link.Conn, queues []string, wait time.Duration) error {
	f.note("reserve %q %s", queues, wait)
	return c.Answer(1, []byte("null"))
}

func TestReserve(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	ask := func(names string, millis int64) (int32, string) {
		return b.call(link.Request(nil, link.Reserve).String(names).Int(millis))
	}
	if code, body := ask("high\nlow\nhigh", 1500); code != 1 || body != "null" || b.threads.calls[0] != `reserve ["high" "low"] 1.5s` {
		t.Error(code, body, b.threads.calls)
	}
	var many []string
	for i := range maxReserveQueues + 1 {
		many = append(many, fmt.Sprint("q", i))
	}
	if code, body := ask(strings.Join(many, "\n"), 0); code != 6 || body != "must name at most 64 queues" {
		t.Error(code, body)
	}
	if code, _ := ask(strings.Join(many[1:], "\n"), 0); code != 1 {
		t.Error(code)
	}
	b.queue.err = fmt.Errorf("%q: %w", "gone", queue.ErrUnknownQueue)
	if code, body := ask("gone", 0); code != 6 || !strings.HasPrefix(body, `must name queues that are declared: "gone": the queue is not declared`) {
		t.Error(code, body)
	}
	b.queue.err = errors.New("it lags")
	if code, body := ask("q", 0); code != 0 || body != "null" {
		t.Error(code, body)
	}
	if n := len(b.threads.calls); n != 2 {
		t.Error("refused calls went on:", b.threads.calls)
	}
	for _, millis := range []int64{-1, 86_400_001} {
		c := b.dial(link.RolePHP)
		if _, _, err := c.Call(link.Request(nil, link.Reserve).String("q").Int(millis)); !errors.Is(err, link.ErrLost) {
			t.Error(millis, err)
		}
	}
}
