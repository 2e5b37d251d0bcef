package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"
)

// Cluster is what the endpoint needs of the cluster that the node is part of. Its
// methods are called from many goroutines at once.
type Cluster interface {
	// NewToken makes a token with which one more node may join, until it expires; as a
	// worker, which never has a vote, or else for a vote.
	NewToken(worker bool) (token string, expires time.Time, err error)
	// Members returns the members, sorted by id. It ends with an error when its
	// context does.
	Members(ctx context.Context) ([]Member, error)
	// Leave removes a member from the cluster: the one with that id, which is dead, or
	// this node if it is "", which ends. It returns when that is done, and fails with
	// ErrDeclined when nothing was begun.
	Leave(ctx context.Context, node string, force bool) error
	// Transfer has the member with that id lead, or the best follower if it is "", and
	// returns who leads then. It fails with ErrDeclined when that cannot be, and nothing
	// was changed.
	Transfer(ctx context.Context, node string) (leads string, err error)
}

// The paths of the cluster.
const (
	MembersPath  = "/api/v1/cluster/members"  // GET
	TokensPath   = "/api/v1/cluster/tokens"   // POST ?worker=
	TransferPath = "/api/v1/cluster/transfer" // POST ?node=
	LeavePath    = "/api/v1/cluster/leave"    // POST ?node=&force=
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

// Transferred is the answer of TransferPath.
type Transferred struct {
	Leader string `json:"leader"` // the id of the node that leads now
}

// transferTimeout bounds a hand-over; raft gives its own up after an election's time.
const transferTimeout = 10 * time.Second

func (s *Server) transfer(ctx *fasthttp.RequestCtx) {
	if !permitted(ctx) || !s.clustered(ctx) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, transferTimeout)
	defer cancel()
	leads, err := s.cluster.Transfer(bounded, string(ctx.QueryArgs().Peek("node")))
	if err != nil {
		changeFailed(ctx, err)
		return
	}
	write(ctx, Transferred{leads})
}

// Left is the answer of LeavePath.
type Left struct {
	Left string `json:"left"` // the id that was asked for; "" for the node that answers
}

// leaveTimeout is over what the jobs of a node that leaves may take.
const leaveTimeout = 30 * time.Minute

func (s *Server) leave(ctx *fasthttp.RequestCtx) {
	var force bool
	if !permitted(ctx) || !s.clustered(ctx) || !option(ctx, "force", &force) {
		return
	}
	bounded, cancel := context.WithTimeout(s.ctx, leaveTimeout)
	defer cancel()
	node := string(ctx.QueryArgs().Peek("node"))
	if node != "" {
		bounded, cancel = context.WithTimeout(bounded, transferTimeout)
		defer cancel()
	}
	if err := s.cluster.Leave(bounded, node, force); err != nil {
		changeFailed(ctx, err)
		return
	}
	write(ctx, Left{node})
}

// ErrDeclined is what a Cluster's error wraps when the change was not begun, for the reason
// that it says.
var ErrDeclined = errors.New("declined")

func changeFailed(ctx *fasthttp.RequestCtx, err error) {
	status := fasthttp.StatusServiceUnavailable
	if errors.Is(err, ErrDeclined) {
		status = fasthttp.StatusConflict
	}
	problem(ctx, status, err.Error(), nil)
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
	var worker bool
	if !permitted(ctx) || !s.clustered(ctx) || !option(ctx, "worker", &worker) {
		return
	}
	token, expires, err := s.cluster.NewToken(worker)
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
