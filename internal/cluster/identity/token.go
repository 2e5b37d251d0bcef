package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	tokenPrefix  = "pogod1_"
	tokenLife    = 15 * time.Minute
	secretSize   = 16
	maxTokens    = 100
	maxFailures  = 10 // wrong tokens that are answered
	failuresSpan = time.Minute
)

var tokenEncoding = base64.RawURLEncoding.Strict()

// Tokens are the join tokens that this node has made since it started.
type Tokens struct {
	pin [sha256.Size]byte
	now func() time.Time

	mu       sync.Mutex // guards the rest
	made     []*token   // the oldest first, at most maxTokens: open ones, and closed ones for a better answer
	failures int        // since
	since    time.Time
}

type token struct {
	hash    [sha256.Size]byte // of the secret
	expires time.Time
	worker  bool // who joins with it is one
	state   tokenState
}

type tokenState uint8

const (
	tokenFree    tokenState = iota
	tokenClaimed            // a node is joining with it
	tokenUsed
)

// NewTokens makes a set without tokens. c tells the time.
func NewTokens(i *Identity, c func() time.Time) *Tokens {
	return &Tokens{pin: pin(i.ca.cert), now: c}
}

// Issue makes a token, one line, with which one node can join until it expires, 15
// minutes later. At most 100 are open: the oldest is void when there are more.
func (t *Tokens) Issue() (line string, expires time.Time) { return t.issue(false) }

// IssueWorker makes a token as Issue does; who joins with it is a worker, and never has a
// vote.
func (t *Tokens) IssueWorker() (line string, expires time.Time) { return t.issue(true) }

func (t *Tokens) issue(worker bool) (line string, expires time.Time) {
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.made) == maxTokens {
		closed := slices.IndexFunc(t.made, func(k *token) bool { return k.state == tokenUsed || !now.Before(k.expires) })
		oldest := max(closed, 0)
		t.made = slices.Delete(t.made, oldest, oldest+1)
	}
	k := &token{hash: sha256.Sum256(secret), expires: now.Add(tokenLife), worker: worker}
	t.made = append(t.made, k)
	return tokenPrefix + tokenEncoding.EncodeToString(append(t.pin[:], secret...)), k.expires
}

// parseToken takes a token's line apart.
func parseToken(line string) (pin [sha256.Size]byte, secret []byte, err error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(line), tokenPrefix)
	b, err := tokenEncoding.DecodeString(text)
	if !ok || err != nil || len(b) != len(pin)+secretSize {
		return pin, nil, fmt.Errorf("this is not a whole token: it is the line that `pogod cluster token` prints, %q and 64 characters", tokenPrefix)
	}
	return [sha256.Size]byte(b), b[len(pin):], nil
}

// Why a token is refused, in words for who joins.
var (
	errTooMany = errors.New("too many wrong tokens: this node looks at no token for the rest of a minute; try again then")
	errUnknown = errors.New("the token is wrong: one is good at the node that made it alone, until that node restarts; `pogod cluster token` makes a new one")
	errUsed    = errors.New("the token has been used, and each brings in one node; `pogod cluster token` makes a new one")
	errExpired = errors.New("the token has expired, after 15 minutes; `pogod cluster token` makes a new one")
	errClaimed = errors.New("another node is joining with this token; `pogod cluster token` makes one for each node")
)

// claim takes the token with that secret for one attempt to join, which release ends.
func (t *Tokens) claim(secret []byte) (*token, error) {
	hash := sha256.Sum256(secret)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if now.Sub(t.since) >= failuresSpan {
		t.since, t.failures = now, 0
	}
	if t.failures >= maxFailures {
		return nil, errTooMany
	}
	var found *token
	for _, k := range t.made {
		if subtle.ConstantTimeCompare(k.hash[:], hash[:]) == 1 {
			found = k
		}
	}
	var err error
	switch {
	case found == nil:
		err = errUnknown
	case found.state == tokenUsed:
		err = errUsed
	case !now.Before(found.expires):
		err = errExpired
	case found.state == tokenClaimed:
		return nil, errClaimed
	default:
		found.state = tokenClaimed
		return found, nil
	}
	t.failures++
	return nil, err
}

// release ends a claim: the token is used up, or free for another attempt.
func (t *Tokens) release(k *token, used bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k.state = tokenFree
	if used {
		k.state = tokenUsed
	}
}
