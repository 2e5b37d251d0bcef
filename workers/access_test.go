package workers

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"pogod/internal/link"
)

func TestAccessLinesAreLogged(t *testing.T) {
	t.Parallel()
	log := newSink()
	h := NewHosts(HostsConfig{Log: slog.New(slog.NewTextHandler(log, nil))})
	line := `{"time":"2026-01-02T03:04:05.000Z","client":"10.0.0.1","method":"GET","path":"/a?b","status":404,"bytes":9,"seconds":0.25,"agent":"x y"}` + "\n"
	if err := h.access(line + strings.ReplaceAll(line, "/a?b", "/c")); err != nil {
		t.Fatal(err)
	}
	log.await(t, `msg="GET /a?b" client=10.0.0.1 status=404 bytes=9 seconds=0.25 agent="x y" at=2026-01-02T03:04:05.000Z`)
	log.await(t, `msg="GET /c"`)
	if err := h.access("{\n"); !errors.Is(err, link.ErrFrame) {
		t.Error(err)
	}
}
