package node

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
)

// logging is what a running node's log can be told to do otherwise.
type logging struct {
	level slog.LevelVar
	json  atomic.Bool
}

// newLogger returns a log whose level and format set changes.
func newLogger(w io.Writer, level, format string) (*slog.Logger, *logging) {
	l := &logging{}
	l.set(level, format)
	o := &slog.HandlerOptions{Level: &l.level}
	return slog.New(&switched{l, slog.NewTextHandler(w, o), slog.NewJSONHandler(w, o)}), l
}

// set takes values of the configuration, which have been checked.
func (l *logging) set(level, format string) {
	var to slog.Level
	if to.UnmarshalText([]byte(level)) == nil {
		l.level.Set(to)
	}
	l.json.Store(format == "json")
}

// switched is a handler of both formats.
type switched struct {
	*logging
	asText, asJSON slog.Handler
}

func (s *switched) Enabled(_ context.Context, level slog.Level) bool { return level >= s.level.Level() }

func (s *switched) Handle(ctx context.Context, r slog.Record) error {
	if s.json.Load() {
		return s.asJSON.Handle(ctx, r)
	}
	return s.asText.Handle(ctx, r)
}

func (s *switched) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &switched{s.logging, s.asText.WithAttrs(attrs), s.asJSON.WithAttrs(attrs)}
}

func (s *switched) WithGroup(name string) slog.Handler {
	return &switched{s.logging, s.asText.WithGroup(name), s.asJSON.WithGroup(name)}
}
