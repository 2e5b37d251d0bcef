package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Websocket is the section [websocket]. It has an effect with at least one App.
type Websocket struct {
	// Listen is the address of the WebSocket hub, host:port; port 0 takes a free one.
	// Default "127.0.0.1:8081".
	Listen string
	// Ping is how long a client may be silent before it is asked for a sign of life, 1s to
	// 1h. Default 30s.
	Ping time.Duration
	// MaxEventBytes is the largest data of an event from PHP, in bytes, 1 to
	// MaxEventBytes. Default 262144 (256 KiB).
	MaxEventBytes int
	// MaxPendingBytes is how many bytes of events may wait to be written, 1 to 2^40.
	// Default 67108864 (64 MiB).
	MaxPendingBytes int64
	// MaxConnections is how many sockets are taken, 0 to 10000000. Default 0: as many as
	// the process may have descriptors, less a reserve.
	MaxConnections int
	// Apps are the [[websocket.app]], in the order of the file, or the one of
	// REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET. Empty: there is no hub.
	Apps []WebsocketApp
}

// WebsocketApp is one [[websocket.app]]: an application in the sense of Pusher.
type WebsocketApp struct {
	// ID is what PHP names it by. It obeys CheckName and is unique.
	ID string
	// Key is what clients name it by; it is no secret. It obeys CheckName and is unique.
	Key string
	// Secret signs subscriptions to private channels.
	Secret string
	// AllowedOrigins are the hosts whose pages may connect, as "example.org" or
	// "*.example.org", and "*" for every one. Default: every one.
	AllowedOrigins []string
}

// MaxEventBytes is the largest [websocket] max_event_bytes, in bytes.
const MaxEventBytes = 8 << 20

const (
	appTable         = "[[websocket.app]]"
	defaultWebsocket = "127.0.0.1:8081" // of [websocket] listen
)

var (
	pingTime         = stretch{time.Second, time.Hour}
	eventBounds      = bounds{1, MaxEventBytes}
	pendingBounds    = bounds{1, 1 << 40}
	connectionBounds = bounds{0, 10_000_000}
)

func websocketFields(w *Websocket) fields {
	return fields{
		"listen":            text(&w.Listen, checkListen),
		"ping":              duration(&w.Ping, pingTime.check),
		"max_event_bytes":   integer(&w.MaxEventBytes, eventBounds.check),
		"max_pending_bytes": integer(&w.MaxPendingBytes, pendingBounds.check),
		"max_connections":   integer(&w.MaxConnections, connectionBounds.check),
	}.inert("on_web", "max_http_event_bytes", "limits", "history")
}

func websocketAppFields(a *WebsocketApp) fields {
	return fields{
		"id":              text(&a.ID, CheckName),
		"key":             text(&a.Key, CheckName),
		"secret":          text(&a.Secret, checkAppSecret),
		"allowed_origins": texts(&a.AllowedOrigins, `["example.org", "*.example.org"]`, checkOrigins),
	}.inert("limits", "webhooks")
}

// checkAppSecret does not repeat it.
func checkAppSecret(s string) error {
	if s == "" || len(s) > 1024 {
		return errors.New("must have 1 to 1024 bytes")
	}
	return nil
}

func checkOrigins(hosts []string) error {
	for _, h := range hosts {
		bare := strings.TrimPrefix(strings.TrimPrefix(h, "*"), ".")
		if h == "" || strings.ContainsAny(bare, "*/: ") || h != "*" && bare == "" {
			return fmt.Errorf(`must have hosts without scheme and port, as "example.org" or "*.example.org", or "*" for every one, not %q`, h)
		}
	}
	return nil
}

// websocket decodes [websocket] and every [[websocket.app]].
func (d *decoder) websocket(t *value) error {
	w := &d.cfg.Websocket
	plain := &value{kind: kindTable}
	for _, e := range t.entries {
		if e.key != "app" {
			plain.entries = append(plain.entries, e)
			continue
		}
		if err := d.shape(e, true); err != nil {
			return d.doc.fault(e.at, `"app" is a list of tables: write %s`, appTable)
		}
		for i, app := range e.val.items {
			d.nth = i
			var a WebsocketApp
			if err := d.table(appTable, app, websocketAppFields(&a)); err != nil {
				return err
			}
			w.Apps = append(w.Apps, a)
			if err := checkApps(w.Apps); err != nil {
				return d.doc.fault(app.at, "%s %v", appTable, err)
			}
		}
	}
	return d.table("[websocket]", plain, websocketFields(w))
}

// checkApps checks what is between the apps, and that nothing is missing.
func checkApps(apps []WebsocketApp) error {
	for i, a := range apps {
		if a.ID == "" || a.Key == "" || a.Secret == "" {
			return errors.New(`must have an "id", a "key" and a "secret"`)
		}
		for _, b := range apps[:i] {
			if a.ID == b.ID {
				return fmt.Errorf("id must be unique, but an earlier one is %q too: give each an id of its own", a.ID)
			}
			if a.Key == b.Key {
				return fmt.Errorf("key must be unique, but an earlier one is %q too: give each a key of its own", a.Key)
			}
		}
	}
	return nil
}

// reverb takes the app of the environment where the file has none: the variables of Laravel
// Reverb mean the same.
func (d *decoder) reverb() error {
	w := &d.cfg.Websocket
	if len(w.Apps) > 0 {
		return nil
	}
	var a WebsocketApp
	var found []string
	for _, v := range []struct {
		name, key string
		to        *string
	}{{"REVERB_APP_ID", "id", &a.ID}, {"REVERB_APP_KEY", "key", &a.Key}, {"REVERB_APP_SECRET", "secret", &a.Secret}} {
		text, _ := d.look(v.name)
		if text == "" {
			continue
		}
		from := "the environment's " + v.name
		if err := websocketAppFields(&a)[v.key].set(&decoder{cfg: d.cfg}, from, &value{kind: kindString, text: text}); err != nil {
			return err
		}
		found = append(found, v.name)
		d.said[place{appTable, 0, v.key}] = source{from: FromEnvironment, where: v.name}
	}
	switch len(found) {
	case 0:
		return nil
	case 3:
		w.Apps = []WebsocketApp{a}
		return nil
	}
	return (*document)(nil).fault(span{}, "the environment has %s, but REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET belong together: set all three, or none", strings.Join(found, " and "))
}

// checkWebsocketApart is about a hub that listens: without an app none does.
func checkWebsocketApart(c *Config) error {
	if len(c.Websocket.Apps) == 0 {
		return nil
	}
	for _, o := range []struct{ key, address string }{
		{"[web] listen", c.Web.Listen}, {"[admin] listen", c.Admin.Listen}, {"[cluster] listen", c.Cluster.Listen},
	} {
		if err := checkApart(c.Websocket.Listen, o.key, o.address); err != nil {
			return err
		}
	}
	return nil
}

func (a *checks) websocket(c *Config) {
	w := &c.Websocket
	a.add("[websocket] listen", checkListen(w.Listen), checkWebsocketApart(c))
	a.add("[websocket] ping", pingTime.check(w.Ping))
	a.add("[websocket] max_event_bytes", eventBounds.check(int64(w.MaxEventBytes)))
	a.add("[websocket] max_pending_bytes", pendingBounds.check(w.MaxPendingBytes))
	a.add("[websocket] max_connections", connectionBounds.check(int64(w.MaxConnections)))
	a.add(appTable, checkApps(w.Apps))
	for _, app := range w.Apps {
		a.add(appTable+" id", CheckName(app.ID))
		a.add(appTable+" key", CheckName(app.Key))
		a.add(appTable+" secret", checkAppSecret(app.Secret))
		a.add(appTable+" allowed_origins", checkOrigins(app.AllowedOrigins))
	}
}
