package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"mime"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"
)

// Cluster is what the endpoint needs of the cluster that the node is part of. Its
// methods are called from many goroutines at once.
type Cluster interface {
	// NewToken makes a token with which one more node may join, until it expires.
	NewToken() (token string, expires time.Time, err error)
	// Members returns the members, sorted by id. It ends with an error when its
	// context does.
	Members(ctx context.Context) ([]Member, error)
}

// The paths of the cluster.
const (
	MembersPath = "/api/v1/cluster/members" // GET
	TokensPath  = "/api/v1/cluster/tokens"  // POST
)

// Token is the answer of TokensPath.
type Token struct {
	Token     string    `json:"token"` // lets one node join, once
	ExpiresAt time.Time `json:"expires_at"`
}

// Members is the answer of MembersPath.
type Members struct {
	Members []Member `json:"members"` // sorted by id
}

// clustered says whether there is a cluster, and has answered otherwise.
func (s *Server) clustered(ctx *fasthttp.RequestCtx) bool {
	if s.cluster == nil {
		problem(ctx, fasthttp.StatusConflict, `this node is part of no cluster: end it, make one with "pogod cluster init", and start it again`, nil)
	}
	return s.cluster != nil
}

func (s *Server) members(ctx *fasthttp.RequestCtx) {
	if !s.clustered(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, statusTimeout)
	defer cancel()
	all, err := s.cluster.Members(bounded)
	if err != nil {
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	write(ctx, Members{list(all)})
}

func (s *Server) newToken(ctx *fasthttp.RequestCtx) {
	if !permitted(ctx) || !s.clustered(ctx) {
		return
	}
	token, expires, err := s.cluster.NewToken()
	if err != nil {
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	write(ctx, Token{token, expires.UTC()})
}

// foreign says why the headers of a request that changes something keep it from being
// taken, with the status to answer; 0: they do not. It keeps pages of elsewhere out: a
// browser tells their Origin, and sends this Content-Type for them only after a question
// that nobody answers yes.
func foreign(h *fasthttp.RequestHeader) (status int, why string) {
	for _, o := range h.PeekAll("Origin") {
		if u, err := url.Parse(string(o)); err != nil || !local(u.Host) {
			return fasthttp.StatusForbidden, "this is not for pages of elsewhere: ask without Origin, or from a page of localhost"
		}
	}
	if kind, _, err := mime.ParseMediaType(string(h.ContentType())); err != nil || kind != "application/json" {
		return fasthttp.StatusUnsupportedMediaType, "the request must have Content-Type: application/json"
	}
	return 0, ""
}

// permitted says whether a request that changes something, and says nothing of how, is
// taken, and has answered otherwise.
func permitted(ctx *fasthttp.RequestCtx) bool {
	if status, why := foreign(&ctx.Request.Header); status != 0 {
		problem(ctx, status, why, nil)
		return false
	}
	var o map[string]json.RawMessage
	if body := bytes.TrimSpace(ctx.PostBody()); len(body) > 0 && (json.Unmarshal(body, &o) != nil || o == nil || len(o) > 0) {
		problem(ctx, fasthttp.StatusBadRequest, "the body must be empty or {}: there is nothing to choose", nil)
		return false
	}
	return true
}
