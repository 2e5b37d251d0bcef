package admin

import (
	"context"
	"errors"
	"time"

	"github.com/valyala/fasthttp"
)

// ErrNoPHP is returned by a Reloader in a node that was built without PHP.
var ErrNoPHP = errors.New("this pogod was built without PHP: it has no PHP hosts")

// Reloader replaces the PHP hosts. A Source that has any is one.
type Reloader interface {
	// Reload starts new PHP hosts and returns when they have taken over, with an error
	// when one did not, or when ctx ended before; ErrNoPHP when there are none.
	Reload(ctx context.Context) error
}

// ReloadPath is where a reload of the PHP hosts is asked for, by POST.
const ReloadPath = "/api/v1/php/reload"

// reloadTimeout is how long a reload is waited for; it goes on by itself.
const reloadTimeout = 2 * time.Minute

// Reloaded is the answer of ReloadPath.
type Reloaded struct {
	Reloaded bool `json:"reloaded"` // true
}

func (s *Server) reload(ctx *fasthttp.RequestCtx) {
	if !permitted(ctx) {
		return
	}
	err := ErrNoPHP
	if s.reloader != nil {
		bounded, cancel := context.WithTimeout(s.ctx, reloadTimeout)
		defer cancel()
		err = s.reloader.Reload(bounded)
	}
	switch {
	case errors.Is(err, ErrNoPHP):
		problem(ctx, fasthttp.StatusConflict, err.Error(), nil)
	case err != nil:
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), nil)
	default:
		write(ctx, Reloaded{true})
	}
}
