package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// Role says what whoever has a token may do. Each includes those before it.
type Role int

// The roles.
const (
	RoleRead    Role = iota + 1 // read all there is, payloads too
	RoleOperate                 // change queues, reload PHP
	RoleAdmin                   // change who is in the cluster
)

var roleNames = []string{RoleRead: "read", RoleOperate: "operate", RoleAdmin: "admin"}

// String returns the role's name.
func (r Role) String() string { return roleNames[r] }

// ParseRole reads what String returned.
func ParseRole(name string) (Role, error) {
	for r := RoleRead; r <= RoleAdmin; r++ {
		if roleNames[r] == name {
			return r, nil
		}
	}
	return 0, fmt.Errorf("a role is read, operate or admin, not %q", name)
}

// Bearer is whoever has a token, as the node knows him: the token itself is nowhere.
type Bearer struct {
	Name string
	Role Role
	Hash [sha256.Size]byte // of the token
}

// hashPrefix says how a token was hashed. A token is 256 random bits, which nobody can
// guess however quick the hash.
const hashPrefix = "sha256:"

// NewToken makes a token, and what is to be kept of it: the text of its hash.
func NewToken() (token, hash string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	token = "pogod_" + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(token))
	return token, hashPrefix + hex.EncodeToString(sum[:])
}

// NewBearer makes a Bearer of what the configuration says.
func NewBearer(name, role, hash string) (Bearer, error) {
	b := Bearer{Name: name}
	var err error
	if b.Role, err = ParseRole(role); err != nil {
		return b, err
	}
	digits, ok := strings.CutPrefix(hash, hashPrefix)
	n, err := hex.Decode(b.Hash[:], []byte(digits[:min(len(digits), 2*sha256.Size)]))
	if !ok || err != nil || n != sha256.Size || len(digits) != 2*sha256.Size {
		return b, errors.New(`the hash of a token is "sha256:" and 64 hexadecimal digits, as "pogod admin token" prints it`)
	}
	return b, nil
}

// SetBearers says who has a token. From then on all but /healthz and /readyz takes one;
// with nobody, none. It may be called at any time.
func (s *Server) SetBearers(all []Bearer) { s.bearers.Store(&all) }

// guarded reports whether a token is asked for.
func (s *Server) guarded() bool { return len(*s.bearers.Load()) > 0 }

// anyone is who asks where no token is asked for.
var anyone = Bearer{Name: "anyone", Role: RoleAdmin}

// bearer returns whose token a request has; ok is false when it has none that is known.
// given says whether it has one at all.
func (s *Server) bearer(h *fasthttp.RequestHeader) (who Bearer, given, ok bool) {
	if !s.guarded() {
		return anyone, false, true
	}
	scheme, token, _ := strings.Cut(string(h.Peek("Authorization")), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return Bearer{}, false, false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	for _, b := range *s.bearers.Load() { // all, so that the time tells nothing
		if subtle.ConstantTimeCompare(sum[:], b.Hash[:]) == 1 {
			who, ok = b, true
		}
	}
	return who, true, ok
}

// admitted says who asks; ok is false when he is not to be answered, and has been told.
func (s *Server) admitted(ctx *fasthttp.RequestCtx) (who Bearer, ok bool) {
	if wait := s.failures.wait(ctx.RemoteIP(), time.Now()); wait > 0 && s.guarded() {
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		problem(ctx, fasthttp.StatusTooManyRequests, fmt.Sprintf("%d wrong tokens came from this address within a minute: see which one is used, and wait", maxFailures), nil)
		return who, false
	}
	who, given, ok := s.bearer(&ctx.Request.Header)
	switch {
	case ok:
		return who, true
	case given:
		s.failures.add(ctx.RemoteIP(), time.Now())
		s.log.Warn("a wrong token", "from", ctx.RemoteAddr().String(), "method", string(ctx.Method()), "path", string(ctx.URI().PathOriginal()))
		ctx.Response.Header.Set("WWW-Authenticate", `Bearer realm="pogod", error="invalid_token"`)
		problem(ctx, fasthttp.StatusUnauthorized, "this token is not known here: [admin] tokens has those that are", nil)
	default:
		ctx.Response.Header.Set("WWW-Authenticate", `Bearer realm="pogod"`)
		problem(ctx, fasthttp.StatusUnauthorized, "a token is needed, as Authorization: Bearer TOKEN; the command line takes one from --token-file or POGOD_TOKEN", nil)
	}
	return who, false
}

// needed is the role that a request takes.
func needed(ctx *fasthttp.RequestCtx) Role {
	switch {
	case ctx.IsGet() || ctx.IsHead():
		return RoleRead
	case strings.HasPrefix(string(ctx.Path()), "/api/v1/cluster/"):
		return RoleAdmin
	}
	return RoleOperate
}

// audit tells the log of a request that was to change something, and what became of it.
func (s *Server) audit(ctx *fasthttp.RequestCtx, who Bearer) {
	if ctx.IsGet() || ctx.IsHead() {
		return
	}
	s.log.Info("asked for a change", "who", who.Name, "from", ctx.RemoteAddr().String(), "method", string(ctx.Method()),
		"path", string(ctx.URI().PathOriginal()), "status", ctx.Response.StatusCode())
}

// Bounds of wrong tokens: so many from one address within failureSpan, and addresses that
// are remembered.
const (
	maxFailures  = 10
	failureSpan  = time.Minute
	maxAddresses = 4096
)

// network is the part of an address that one machine has for itself at least: the 64 bits
// of IPv6 that its network is, all of IPv4.
type network [16]byte

func networkOf(ip net.IP) (n network) {
	copy(n[:], ip.To16())
	if ip.To4() == nil {
		clear(n[8:])
	}
	return n
}
