package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pogod/raftfsm/leader"
)

// clockOf is a Source with a clock, and something to say.
type clockOf struct {
	*fake
	clock Clock
	reset func(context.Context) (leader.Reset, error)
	notes []string
}

func (c clockOf) Clock() Clock                                         { return c.clock }
func (c clockOf) ResetClock(ctx context.Context) (leader.Reset, error) { return c.reset(ctx) }
func (c clockOf) Notes() []string                                      { return c.notes }

func TestClock(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	s := serve(t, clockOf{fake: &fake{status: some}, clock: Clock{Time: &at}})
	r, body := send(t, s, get(ClockPath))
	if want := `{"time":"2026-01-02T03:04:05.678Z","median":null,"ahead_ms":0,"nodes":[]}`; r.StatusCode != 200 || strings.TrimSpace(body) != want {
		t.Error(r.StatusCode, body)
	}
	if r, body := send(t, s, strings.Replace(post(asJSON, ""), TokensPath, ClockPath, 1)); r.StatusCode != 405 {
		t.Error(r.StatusCode, body)
	}
	if r, body := send(t, serve(t, &fake{status: some}), get(ClockPath)); r.StatusCode != 404 {
		t.Error(r.StatusCode, body)
	}
}

func TestClockReset(t *testing.T) {
	t.Parallel()
	back := leader.Reset{Back: 90 * time.Second, To: time.UnixMilli(1_763_849_472_123)}
	for _, c := range []struct {
		name, headers, body string
		err                 error
		code                int
		want                string
	}{
		{"done", asJSON, "", nil, 200, `{"back_ms":90000,"time":"2025-11-22T22:11:12.123Z"}`},
		{"refused", asJSON, "{}", fmt.Errorf("%w: it is not ahead of the clocks", leader.ErrNotReset), 409, "it is not ahead of the clocks"},
		{"no leader", asJSON, "", errors.New("no leader is known"), 503, "perhaps not set back: no leader is known"},
		{"form", "Content-Type: text/plain\r\n", "", nil, 415, "application/json"},
		{"page of elsewhere", asJSON + "Origin: https://evil.example\r\n", "", nil, 403, ""},
		{"wishes", asJSON, `{"to":1}`, nil, 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			s := serve(t, clockOf{fake: &fake{status: some}, reset: func(context.Context) (leader.Reset, error) {
				asked++
				if c.err != nil {
					return leader.Reset{}, c.err
				}
				return back, nil
			}})
			r, body := send(t, s, strings.Replace(post(c.headers, c.body), TokensPath, ClockResetPath, 1))
			if r.StatusCode != c.code || !strings.Contains(body, c.want) {
				t.Error(r.StatusCode, body)
			}
			if may := c.code == 200 || c.err != nil; may != (asked == 1) {
				t.Errorf("it was asked %d times", asked)
			}
			if r, body := send(t, s, get(ClockResetPath)); r.StatusCode != 405 {
				t.Error(r.StatusCode, body)
			}
		})
	}
}

func TestReadyWithNotes(t *testing.T) {
	t.Parallel()
	s := serve(t, clockOf{fake: &fake{status: some}, notes: []string{"the clock is off"}})
	if r, body := send(t, s, get("/readyz")); r.StatusCode != 200 || strings.TrimSpace(body) != `{"notes":["the clock is off"],"ready":true}` {
		t.Error(r.StatusCode, body)
	}
}
