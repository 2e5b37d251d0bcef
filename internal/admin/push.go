package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"pogod/queue"
)

// MaxPush bounds the body of a push: a payload as long as one may be as a JSON string,
// and what stands around it. A longer one is
// refused, and its connection closed, before it was read; so is one over maxBody that the
// budget has nothing left for.
const MaxPush = 16<<20 + maxBody

// maxDelay of a push: ten years, as for PHP.
const maxDelay = 10 * 365 * 24 * 3600 // seconds

// Job is the body of a push.
type Job struct {
	Payload string  `json:"payload"`         // UTF-8, delivered as it is
	Delay   float64 `json:"delay,omitempty"` // seconds until it is ready, to the millisecond
}

// bodyAllowed is bodyBound for a body that is read next, with a share of the budget if it
// is long.
func (s *Server) bodyAllowed(h *fasthttp.RequestHeader) int {
	bound, length := s.bodyBound(h), h.ContentLength()
	if length == -1 { // chunked: nobody knows
		length = bound
	}
	if length <= maxBody || length > bound {
		return bound
	}
	if !s.budget.take(h, length, time.Now()) {
		return maxBody
	}
	return bound
}

// bodyBound returns how long the body of a request may be, from its headers: only a push
// may be long, and only one that is taken by its headers.
func (s *Server) bodyBound(h *fasthttp.RequestHeader) int {
	path, _, _ := bytes.Cut(h.RequestURI(), []byte("?"))
	if !h.IsPost() || !bytes.HasSuffix(path, []byte("/jobs")) || s.queues == nil || s.loopback && !local(string(h.Host())) {
		return maxBody
	}
	if status, _ := foreign(h); status != 0 {
		return maxBody
	}
	if who, _, ok := s.bearer(h); !ok || who.Role < RoleOperate {
		return maxBody
	}
	return MaxPush
}

// readJob reads the body of a push.
func readJob(body []byte) (payload []byte, delay time.Duration, err error) {
	const form = `the body must be an object {"payload":"...","delay":seconds}, delay as you like`
	if !utf8.Valid(body) { // the decoder would put other characters there
		return nil, 0, queue.ErrPayloadNotUTF8
	}
	var parts map[string]json.RawMessage
	if json.Unmarshal(body, &parts) != nil || parts == nil {
		return nil, 0, errors.New(form)
	}
	for key := range parts {
		if key != "payload" && key != "delay" {
			return nil, 0, fmt.Errorf("unknown member %q: %s", key, form)
		}
	}
	text, raw := "", parts["payload"]
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		return nil, 0, errors.New("payload must be there and be a string: encode other values as JSON into it")
	}
	if halved(raw) {
		return nil, 0, errors.New(`payload has half of a surrogate pair, as \ud800 alone, which is no character`)
	}
	if raw, given := parts["delay"]; given {
		var seconds float64
		if json.Unmarshal(raw, &seconds) != nil || string(raw) == "null" || seconds < 0 || seconds > maxDelay {
			return nil, 0, fmt.Errorf("delay must be a number of seconds from 0 to %d (ten years)", maxDelay)
		}
		delay = time.Duration(math.Round(seconds*1000)) * time.Millisecond
	}
	return []byte(text), delay, nil
}

// halved says whether a JSON string, which is a valid one, escapes half of a surrogate
// pair alone. The decoder would put another character there.
func halved(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // what is escaped
		if raw[i] != 'u' {
			continue
		}
		first := unit(raw[i+1:])
		i += 4
		if !utf16.IsSurrogate(first) {
			continue
		}
		if !strings.HasPrefix(string(raw[i+1:min(i+3, len(raw))]), `\u`) || utf16.DecodeRune(first, unit(raw[i+3:])) == unicode.ReplacementChar {
			return true
		}
		i += 6
	}
	return false
}

// unit reads four hexadecimal digits.
func unit(digits []byte) rune {
	n, _ := strconv.ParseUint(string(digits[:4]), 16, 16) // they are digits, in a valid string
	return rune(n)
}
