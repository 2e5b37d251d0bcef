package queue

import (
	"strings"
	"unicode/utf8"
)

// MaxOutput is how much of what an attempt printed is kept with its job, in bytes: the
// last of it.
const MaxOutput = 8 << 10

// tail keeps the last MaxOutput bytes that were written to it. The zero value is empty
// and takes no room.
type tail struct {
	b []byte // the last 2*MaxOutput bytes at most
}

func (t *tail) write(text string) {
	if len(text) >= MaxOutput {
		t.b = append(t.b[:0], text[len(text)-MaxOutput:]...)
		return
	}
	if len(t.b)+len(text) > 2*MaxOutput {
		t.b = append(t.b[:0], t.b[len(t.b)-MaxOutput:]...)
	}
	t.b = append(t.b, text...)
}

// text returns at most MaxOutput bytes as valid UTF-8, cut at the front, where it cuts no
// rune.
func (t *tail) text() string {
	if len(t.b) == 0 {
		return ""
	}
	// Twice: what replaces a byte that is not UTF-8 is longer than it.
	return cutFront(strings.ToValidUTF8(cutFront(string(t.b)), "\uFFFD"))
}

// cutFront returns the last MaxOutput bytes of s at most, from the beginning of a rune.
func cutFront(s string) string {
	if len(s) <= MaxOutput {
		return s
	}
	from := len(s) - MaxOutput
	for most := from + utf8.UTFMax - 1; from < most && !utf8.RuneStart(s[from]); {
		from++
	}
	return s[from:]
}

// Printed takes what the attempt with that lease has printed. It is kept with the job
// when the attempt ends badly; what comes after its end is not.
func (c *Client) Printed(lease uint64, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.attempts[lease]; a != nil {
		a.printed.write(text)
	}
}
