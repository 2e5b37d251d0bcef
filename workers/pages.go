package workers

import (
	"encoding/json"
	"fmt"
	"time"

	"pogod/internal/link"
)

// PageStatus is what status tells of the pages of this node. Counters are since the node
// started; those of the worker are 0 in classic mode.
type PageStatus struct {
	Requests    uint64 // that PHP answers, or has answered
	Busy        int    // threads that answer one, in processes that drain too
	Waiting     int    // requests that wait for a thread
	Ready       int    // threads that new requests go to
	Restarts    uint64 // times that the worker script ended by itself, or by exit
	Crashes     uint64 // times that a fatal error ended it, or an exit with a status
	Failed      uint64 // times that it ended before it asked for a request
	LastError   string // why it failed last, "" if it never did
	LastErrorAt time.Time
}

// pages takes the figures of a web host.
func (h *Hosts) pages(c *link.Conn, text []byte) error {
	var f link.PageFigures
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("%w: figures of pages: %w", link.ErrFrame, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.byPID[c.Peer.PID] // perhaps it has ended already
	if l == nil {
		return nil
	}
	s, before := &l.host.pages, l.pages
	s.Requests += f.Requests - before.Requests
	s.Restarts += f.Restarts - before.Restarts
	s.Crashes += f.Crashes - before.Crashes
	s.Failed += f.Failed - before.Failed
	if f.Error != "" && f.ErrorAt != before.ErrorAt {
		s.LastError, s.LastErrorAt = f.Error, time.UnixMilli(f.ErrorAt)
	}
	l.pages = f
	return nil
}

// Pages is the status of the pages, of all processes that serve them.
func (h *Hosts) Pages() PageStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	var s PageStatus
	for _, x := range h.hosts {
		if x.Spec.Web == nil {
			continue
		}
		s = x.pages
		for _, l := range x.lives {
			s.Busy += l.pages.Busy
			s.Waiting += l.pages.Waiting
			if l == x.now && l.ready {
				s.Ready = l.pages.Ready
			}
		}
	}
	return s
}
