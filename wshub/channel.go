package wshub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// App is one application: its channels are its own.
type App struct {
	ID     string // what the server side names it by
	Key    string // what clients name it by; public
	Secret string // signs subscriptions
	// AllowedOrigins are the hosts whose pages may connect, as "example.org" or
	// "*.example.org"; "*" is every host. Clients that send no Origin are not asked. Empty:
	// every host.
	AllowedOrigins []string
}

// sign returns "key:signature" of a text.
func (a *App) sign(text string) string {
	mac := hmac.New(sha256.New, []byte(a.Secret))
	mac.Write([]byte(text))
	return a.Key + ":" + hex.EncodeToString(mac.Sum(nil))
}

// signed reports whether auth lets the socket into the channel.
func (a *App) signed(auth, socket, channel string) bool {
	return hmac.Equal([]byte(auth), []byte(a.sign(socket+":"+channel))) // in constant time
}

// origin reports whether a page of this origin, "https://host:port", may connect.
func (a *App) origin(origin string) bool {
	if origin == "" || len(a.AllowedOrigins) == 0 {
		return true
	}
	host := origin
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	host = strings.ToLower(host)
	for _, pattern := range a.AllowedOrigins {
		pattern = strings.ToLower(pattern)
		if suffix, ok := strings.CutPrefix(pattern, "*"); pattern == "*" || pattern == host || ok && suffix != "" && strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// kind is what a channel's name says of it.
type kind int

const (
	public kind = iota
	private
	unbuilt  // presence, encrypted and cache channels: not built yet
	nameless // no client can subscribe to such a name
)

// MaxChannel and MaxEvent are the longest names, in characters.
const (
	MaxChannel = 256
	MaxEvent   = 200
)

func kindOf(channel string) kind {
	if channel == "" || len(channel) > MaxChannel {
		return nameless
	}
	for i := range len(channel) {
		c := channel[i]
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !word && !strings.ContainsRune("_-=@,.;", rune(c)) {
			return nameless
		}
	}
	for _, prefix := range []string{"presence-", "private-encrypted-", "cache-", "private-cache-"} {
		if strings.HasPrefix(channel, prefix) {
			return unbuilt
		}
	}
	if strings.HasPrefix(channel, "private-") {
		return private
	}
	return public
}

// longer reports whether a name has more than most characters.
func longer(name []byte, most int) bool { return len(name) > most && utf8.RuneCount(name) > most }

// app is an App and its channels.
type app struct {
	App
	mu       sync.RWMutex        // guards channels, and count of each
	channels map[string]*channel // those that somebody has subscribed to
}

// channel is one that has subscribers, or is about to.
type channel struct {
	app   *app
	name  string
	count int           // of its subscribers, and of those that are about to be
	on    atomic.Uint64 // bit i: shard i has subscribers. Set and cleared under that shard's lock
}

// find returns the channel, nil when nobody has subscribed to it.
func (a *app) find(name []byte) *channel {
	a.mu.RLock()
	c := a.channels[string(name)]
	a.mu.RUnlock()
	return c
}

// enter counts one more subscriber.
func (a *app) enter(name string) *channel {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.channels[name]
	if c == nil {
		c = &channel{app: a, name: name}
		a.channels[name] = c
	}
	c.count++
	return c
}

// leave counts one less.
func (c *channel) leave() {
	c.app.mu.Lock()
	defer c.app.mu.Unlock()
	if c.count--; c.count == 0 {
		delete(c.app.channels, c.name)
	}
}
