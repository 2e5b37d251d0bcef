package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestWebsocket(t *testing.T) {
	t.Parallel()
	if c := parsed(t, "[websocket]\n", nil); !reflect.DeepEqual(c.Websocket, Websocket{
		Listen: "127.0.0.1:8081", Ping: 30 * time.Second, MaxEventBytes: 256 << 10, MaxPendingBytes: 64 << 20,
	}) {
		t.Errorf("%+v", c.Websocket)
	}
	reverb := vars{"REVERB_APP_ID": "env", "REVERB_APP_KEY": "env-key", "REVERB_APP_SECRET": "hidden"}
	text := `[websocket]
listen = "0.0.0.0:1"
ping = "2m"
max_event_bytes = 8_388_608
max_pending_bytes = 1
max_connections = 7
[[websocket.app]]
id = "1"
key = "k1"
secret = "${S}"
[[websocket.app]]
id = "2"
key = "k2"
secret = "s2"
allowed_origins = ["example.org", "*.example.org", "*"]
`
	want := Websocket{
		Listen: "0.0.0.0:1", Ping: 2 * time.Minute, MaxEventBytes: 8 << 20, MaxPendingBytes: 1, MaxConnections: 7,
		Apps: []WebsocketApp{{ID: "1", Key: "k1", Secret: "s1"}, {ID: "2", Key: "k2", Secret: "s2", AllowedOrigins: []string{"example.org", "*.example.org", "*"}}},
	}
	reverb["S"] = "s1"
	if c := parsed(t, text, reverb); !reflect.DeepEqual(c.Websocket, want) || len(c.Inert) != 0 {
		t.Errorf("%+v\nwant %+v", c.Websocket, want)
	}
	c := parsed(t, "", reverb)
	if want := []WebsocketApp{{ID: "env", Key: "env-key", Secret: "hidden"}}; !reflect.DeepEqual(c.Websocket.Apps, want) {
		t.Errorf("%+v", c.Websocket.Apps)
	}
	// Without a hub its address is anybody's.
	if c := parsed(t, "[web]\nlisten = \"127.0.0.1:8081\"\n", nil); c.Web.Listen != c.Websocket.Listen {
		t.Error(c.Web)
	}
}

func TestReverbTogether(t *testing.T) {
	t.Parallel()
	for _, env := range []vars{
		{"REVERB_APP_ID": "a"},
		{"REVERB_APP_KEY": "a", "REVERB_APP_SECRET": "b"},
		{"REVERB_APP_ID": "a/b", "REVERB_APP_KEY": "a", "REVERB_APP_SECRET": "b"},
	} {
		_, err := build(Options{Dir: "/srv", Env: env.lookup}, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "the environment") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", env, err)
		}
	}
	if c, err := build(Options{Dir: "/srv", Env: vars{"REVERB_APP_ID": "", "REVERB_HOST": "x"}.lookup}, nil); err != nil || len(c.Websocket.Apps) != 0 {
		t.Error(c, err)
	}
}

// The secret of an app is shown nowhere.
func TestExplainApps(t *testing.T) {
	t.Parallel()
	shown := func(o Options, doc *document) string {
		d, err := decode(o, doc)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, s := range d.settings() {
			if s.Table == appTable {
				fmt.Fprintf(&b, "%d %s = %s (%s)\n", s.Entry, s.Key, TOML(s.Value), s.Where)
			}
		}
		return b.String()
	}
	text := "[[websocket.app]]\nid = \"1\"\nkey = \"k1\"\nsecret = \"hidden\"\n[[websocket.app]]\nid = \"2\"\nkey = \"k2\"\nsecret = \"hidden\"\n"
	got := shown(Options{File: "f", Dir: "/srv", Env: vars{}.lookup}, &document{name: "f", data: []byte(text)})
	want := `1 allowed_origins = [] ()
1 id = "1" (f:2)
1 key = "k1" (f:3)
1 secret = "(redacted)" (f:4)
2 allowed_origins = [] ()
2 id = "2" (f:6)
2 key = "k2" (f:7)
2 secret = "(redacted)" (f:8)
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	got = shown(Options{Dir: "/srv", Env: vars{"REVERB_APP_ID": "env", "REVERB_APP_KEY": "env-key", "REVERB_APP_SECRET": "hidden"}.lookup}, nil)
	if want := "1 allowed_origins = [] ()\n1 id = \"env\" (REVERB_APP_ID)\n1 key = \"env-key\" (REVERB_APP_KEY)\n1 secret = \"(redacted)\" (REVERB_APP_SECRET)\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
