//go:build php

package phpext

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestSeldom(t *testing.T) {
	var said strings.Builder
	now := time.Unix(0, 0)
	s := newSeldom(&lines{to: &said, least: slog.LevelInfo})
	s.now = func() time.Time { return now }
	log := slog.New(s)
	for i := range 3 {
		log.Warn("again", "thread", i)
		log.Error("other")
		log.Debug("too small")
		now = now.Add(seldomEvery - 1)
	}
	if want := "again thread=0\nother\nagain thread=2\nother\n"; said.String() != want {
		t.Errorf("%q, want %q", said.String(), want)
	}
	for i := range 2 * seldomKept {
		log.Warn(fmt.Sprint(i))
	}
	if len(s.last) > seldomKept {
		t.Errorf("%d messages are kept", len(s.last))
	}
}
