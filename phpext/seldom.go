//go:build php

package phpext

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// What is said again and again is logged once in seldomEvery, among the last seldomKept
// that were logged.
const (
	seldomEvery = 10 * time.Second
	seldomKept  = 32
)

// seldom is a slog.Handler that leaves out what it has handled lately, whatever the
// attributes: threads that cannot start say the same each second.
type seldom struct {
	slog.Handler
	now func() time.Time

	mu   sync.Mutex           // guards last
	last map[string]time.Time // when a message was handled
}

func newSeldom(next slog.Handler) *seldom {
	return &seldom{Handler: next, now: time.Now, last: map[string]time.Time{}}
}

// Handle implements slog.Handler.
func (s *seldom) Handle(ctx context.Context, r slog.Record) error {
	s.mu.Lock()
	at, known := s.last[r.Message]
	now := s.now()
	lately := known && now.Sub(at) < seldomEvery
	if !lately {
		if len(s.last) >= seldomKept {
			clear(s.last)
		}
		s.last[r.Message] = now
	}
	s.mu.Unlock()
	if lately {
		return nil
	}
	return s.Handler.Handle(ctx, r)
}
