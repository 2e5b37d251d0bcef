//go:build php

package phpext

import (
	"encoding/json"
	"time"

	"pogod/internal/link"
)

// figuresEvery is how often the node is told what the pages do, if that has changed.
const figuresEvery = time.Second

// tellFigures tells the node what the pages do, until stop is closed; of a worker that
// fails at once.
func (h *host) tellFigures(p *pages, stop <-chan struct{}) {
	t := time.NewTicker(figuresEvery)
	defer t.Stop()
	var changed <-chan struct{} // nil: nothing ever comes
	if p.worker != nil {
		changed = p.worker.changed
	}
	var told link.PageFigures
	for {
		if now := p.figures(); now != told && h.out.send(figuresFrame(now)) {
			told = now
		}
		select {
		case <-t.C:
		case <-changed:
		case <-stop:
			if now := p.figures(); now != told {
				h.out.send(figuresFrame(now))
			}
			return
		}
	}
}

func figuresFrame(f link.PageFigures) link.Builder {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // numbers and a string: never
	}
	return link.Request(nil, link.Pages).Bytes(text)
}
