package admin

import (
	"context"
	"errors"

	"github.com/valyala/fasthttp"
)

// ErrConfig is returned by a Reconfigurer that goes on with the configuration it had.
var ErrConfig = errors.New("the configuration was not reloaded, the old one goes on")

// Reconfigurer reads the node's configuration again. A Source that can is one.
type Reconfigurer interface {
	// Reconfigure checks the configuration as it is now and goes over to it, with new PHP
	// hosts; it returns when they have taken over. An error wraps ErrConfig: nothing has
	// changed then.
	Reconfigure(ctx context.Context) (Reconfigured, error)
}

// ConfigReloadPath is where the configuration is read again, by POST.
const ConfigReloadPath = "/api/v1/config/reload"

// Reconfigured is the answer of ConfigReloadPath. Lists are never null.
type Reconfigured struct {
	Applied []string `json:"applied"` // keys and tables that have changed and count now, as "[web] threads"
	Restart []string `json:"restart"` // keys that have changed and count at the node's next start
	Notes   []string `json:"notes"`   // what has no effect, or not here
}

func (s *Server) reconfigure(ctx *fasthttp.RequestCtx) {
	if !permitted(ctx) {
		return
	}
	r, ok := s.src.(Reconfigurer)
	if !ok {
		problem(ctx, fasthttp.StatusConflict, "this node cannot read its configuration again", nil)
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, reloadTimeout)
	defer cancel()
	done, err := r.Reconfigure(bounded)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), nil)
	case err != nil:
		problem(ctx, fasthttp.StatusUnprocessableEntity, err.Error(), nil)
	default:
		write(ctx, Reconfigured{list(done.Applied), list(done.Restart), list(done.Notes)})
	}
}
