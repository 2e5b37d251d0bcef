//go:build php

package phpext

import (
	"net/http"

	"pogod/internal/link"
	"pogod/phpext/web"
)

// logged notes the requests of pages as the spec wants it. end writes what waits; no
// request may be under way then.
func (h *host) logged(pages http.Handler) (handler http.Handler, end func(), err error) {
	switch to := h.spec.Web.AccessLog; to {
	case "":
		return pages, func() {}, nil
	case link.AccessToNode:
		a := web.NewAccessLog(pages, func(lines []byte) error {
			h.out.send(link.Request(nil, link.Access).Bytes(lines))
			return nil
		}, h.log)
		return a, a.Close, nil
	default:
		f, err := web.OpenLogFile(to)
		if err != nil {
			return nil, nil, err
		}
		a := web.NewAccessLog(pages, f.Append, h.log)
		return a, func() {
			a.Close()
			_ = f.Close() // all that was written to it is
		}, nil
	}
}
