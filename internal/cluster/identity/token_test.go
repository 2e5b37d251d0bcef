package identity

import (
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hands is a clock that is set by hand.
type hands struct{ t atomic.Int64 }

func (h *hands) now() time.Time          { return time.Unix(1e9, h.t.Load()) }
func (h *hands) advance(d time.Duration) { h.t.Add(int64(d)) }

func newTokens(t *testing.T) (*Tokens, *hands) {
	h := new(hands)
	return NewTokens(found(t), h.now), h
}

// issue makes a token and returns its secret.
func issue(t *testing.T, tokens *Tokens) []byte {
	t.Helper()
	line, _ := tokens.Issue()
	_, secret, err := parseToken(line)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestTokenLine(t *testing.T) {
	t.Parallel()
	i, h := found(t), new(hands)
	tokens := NewTokens(i, h.now)
	line, expires := tokens.Issue()
	if !strings.HasPrefix(line, "pogod1_") || len(line) != 71 || strings.ContainsAny(line, "\n =+/") || !expires.Equal(h.now().Add(15*time.Minute)) {
		t.Error(line, expires)
	}
	if other, _ := tokens.Issue(); other == line {
		t.Error("twice the same")
	}
	got, secret, err := parseToken(" " + line + "\n")
	if err != nil || got != sha256.Sum256(i.ca.cert.RawSubjectPublicKeyInfo) {
		t.Error(got, err)
	}
	if tokens.made[0].hash != sha256.Sum256(secret) {
		t.Error("not the hash of the secret is kept")
	}
	for _, bad := range []string{"", "pogod1_", line[1:], line[:70], line + "A", line[:70] + "=", strings.Replace(line, "pogod1", "pogod2", 1), line[:40] + " " + line[41:]} {
		if _, _, err := parseToken(bad); err == nil || !strings.Contains(err.Error(), "pogod cluster token") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTokenIsGoodOnce(t *testing.T) {
	t.Parallel()
	tokens, h := newTokens(t)
	secret := issue(t, tokens)
	k, err := tokens.claim(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.claim(secret); !errors.Is(err, errClaimed) {
		t.Error("while it is claimed:", err)
	}
	tokens.release(k, false)
	h.advance(tokenLife - 1)
	if k, err = tokens.claim(secret); err != nil {
		t.Fatal("after a failed attempt, in the last moment:", err)
	}
	tokens.release(k, true)
	if _, err := tokens.claim(secret); !errors.Is(err, errUsed) {
		t.Error("after use:", err)
	}
	h.advance(time.Hour)
	if _, err := tokens.claim(secret); !errors.Is(err, errUsed) {
		t.Error("long after use:", err)
	}
}

func TestTokenExpires(t *testing.T) {
	t.Parallel()
	tokens, h := newTokens(t)
	secret := issue(t, tokens)
	h.advance(tokenLife)
	if _, err := tokens.claim(secret); !errors.Is(err, errExpired) {
		t.Error(err)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errUnknown, errUsed, errExpired, errClaimed} {
		if !strings.Contains(err.Error(), "`pogod cluster token`") {
			t.Error(err)
		}
	}
}

func TestTooManyWrongTokens(t *testing.T) {
	t.Parallel()
	tokens, h := newTokens(t)
	good, used, expired := issue(t, tokens), issue(t, tokens), issue(t, tokens)
	tokens.made[1].state = tokenUsed
	tokens.made[2].expires = h.now()
	wrong := make([]byte, secretSize)

	for range 2 { // minutes
		for n := range maxFailures {
			secret := [][]byte{wrong, used, expired}[n%3]
			if _, err := tokens.claim(secret); err == nil || errors.Is(err, errTooMany) {
				t.Fatal(n, err)
			}
			// What is right does not count.
			k, err := tokens.claim(good)
			if n == maxFailures-1 {
				if !errors.Is(err, errTooMany) {
					t.Error("a right token after too many wrong ones:", err)
				}
				break
			}
			if err != nil {
				t.Fatal(n, err)
			}
			if _, err := tokens.claim(good); !errors.Is(err, errClaimed) {
				t.Fatal(n, err)
			}
			tokens.release(k, false)
		}
		h.advance(failuresSpan - 1)
		if _, err := tokens.claim(wrong); !errors.Is(err, errTooMany) {
			t.Error("before the minute is over:", err)
		}
		h.advance(1)
	}
	k, err := tokens.claim(good)
	if err != nil {
		t.Fatal("a minute later:", err)
	}
	tokens.release(k, true)
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	tokens, _ := newTokens(t)
	first, second := issue(t, tokens), issue(t, tokens)
	k, err := tokens.claim(second)
	if err != nil {
		t.Fatal(err)
	}
	tokens.release(k, true)
	for range maxTokens - 1 { // one too many: the used one is forgotten first
		issue(t, tokens)
	}
	if k, err = tokens.claim(first); err != nil {
		t.Fatal(err)
	}
	tokens.release(k, false)
	if _, err := tokens.claim(second); !errors.Is(err, errUnknown) {
		t.Error(err)
	}
	last := issue(t, tokens)
	if _, err := tokens.claim(first); !errors.Is(err, errUnknown) {
		t.Error("the oldest of 101:", err)
	}
	if _, err := tokens.claim(last); err != nil || len(tokens.made) != maxTokens {
		t.Error(err, len(tokens.made))
	}
}

func TestOneOfManyClaims(t *testing.T) {
	t.Parallel()
	tokens, _ := newTokens(t)
	secret := issue(t, tokens)
	var won atomic.Int32
	var done sync.WaitGroup
	for range 50 {
		done.Go(func() { // ends by itself
			if _, err := tokens.claim(secret); err == nil {
				won.Add(1)
			} else if !errors.Is(err, errClaimed) {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if won.Load() != 1 {
		t.Error(won.Load(), "claims of one token")
	}
}
