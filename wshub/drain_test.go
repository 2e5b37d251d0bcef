package wshub

import (
	"errors"
	"net"
	"testing"
	"time"

	"pogod/internal/clock"
)

// Drain closes with 4200, takes nobody new, and still hands out events; Close cuts off who
// does not answer.
func TestDrain(t *testing.T) {
	t.Parallel()
	spy := clock.NewSpy(time.Unix(1_700_000_000, 0))
	h, addr := newHub(t, Config{Clock: spy})
	const n = 13
	var clients []*client
	for range n {
		c := connect(t, addr)
		c.join("a")
		clients = append(clients, c)
	}
	closed := make(chan int, n)
	for _, c := range clients {
		go func() { closed <- c.closed() }() // ended by the close
	}
	drained := make(chan struct{})
	go func() {
		h.Drain(t.Context())
		close(drained)
	}()
	for range 2 { // five, five, three
		if !spy.Await(drainStep, patience) {
			t.Fatal("it does not pause")
		}
		for range 5 {
			if code := <-closed; code != 4200 {
				t.Error(code)
			}
		}
		select {
		case code := <-closed:
			t.Errorf("%d without a pause", code)
		default:
		}
		must(t, publish(h, "a", "1"))
		spy.Advance(drainStep)
	}
	<-drained
	for range n - 10 {
		if code := <-closed; code != 4200 {
			t.Error(code)
		}
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("it still takes connections")
	}
	// Clients hear of it before their sockets are gone, for which the next drain would pause.
	eventually(t, "the sockets are gone", func() bool { return h.Status().Connections == 0 })
	h.Drain(t.Context())
	h.Close()
	h.Close()
	if s := h.Status(); s.Connections != 0 || s.Channels != 0 {
		t.Errorf("%+v", s)
	}
	if err := publish(h, "a", "1"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestDrainPause(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{1: 0, 5: 0, 6: drainStep, 500: 99 * drainStep, 5000: 99 * drainStep, 100_001: 99 * drainStep} {
		var all time.Duration
		for i := range n {
			all += drainPause(i, n)
		}
		if all != want {
			t.Errorf("%d sockets are closed over %s, want %s", n, all, want)
		}
	}
}
