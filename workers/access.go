package workers

import (
	"encoding/json"
	"fmt"
	"strings"

	"pogod/internal/link"
)

// access logs the requests of pages that a host has noted.
func (h *Hosts) access(lines string) error {
	for line := range strings.Lines(lines) {
		var r link.AccessLine
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return fmt.Errorf("%w: a line of the access log: %w", link.ErrFrame, err)
		}
		attrs := []any{"client", r.Client, "status", r.Status, "bytes", r.Bytes, "seconds", r.Seconds}
		if r.Agent != "" {
			attrs = append(attrs, "agent", r.Agent)
		}
		if r.Referer != "" {
			attrs = append(attrs, "referer", r.Referer)
		}
		h.cfg.Log.Info(r.Method+" "+r.Path, append(attrs, "at", r.Time)...)
	}
	return nil
}
