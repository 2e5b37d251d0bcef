package config

import (
	"slices"
	"strings"
	"testing"
)

// Every key has an effect, and every effect a key.
func TestEffects(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, k := range Keys() {
		if k.Effect != Live && k.Effect != NewPHP && k.Effect != Restart {
			t.Errorf("%s %s takes effect %q", k.Table, k.Name, k.Effect)
		}
		used[k.Table] = true
		used[k.Table+" "+k.Name] = true
		if e, ok := effects[k.Table+" "+k.Name]; ok && e == effects[k.Table] {
			t.Errorf("%s %s is as its table", k.Table, k.Name)
		}
	}
	for name := range effects {
		if !used[name] {
			t.Errorf("there is no %s", name)
		}
	}
}

func changed(before, after *Config) (all []string) {
	for _, c := range Changes(before, after) {
		all = append(all, c.Name+": "+string(c.Effect))
	}
	return all
}

func TestChanges(t *testing.T) {
	t.Parallel()
	base := "[queue.mail]\nmax_attempts = 7\n[[worker]]\nname = \"a\"\nenv = { A = \"1\" }\n[[pool]]\n"
	for text, want := range map[string]string{
		base:             "",
		"[web]\n" + base: "",
		"[web]\nthreads = 77\nlisten = \":1\"\n" + base:         "[web] listen: restart, [web] threads: php",
		"[queue]\nmax_attempts = 5\n" + base:                    "[queue] max_attempts: live",
		strings.Replace(base, "7", "3", 1):                      "[queue.mail] max_attempts: live",
		strings.Replace(base, `"1"`, `"2"`, 1):                  `[[worker]] "a" env: php`,
		strings.Replace(base, `"a"`, `"b"`, 1):                  `[[worker]] "b": php, [[worker]] "a": php`,
		base + "[[worker]]\nname = \"c\"\nqueues = [\"x.y\"]\n": `[queue."x.y"]: live, [[worker]] "c": php`,
		strings.Replace(base, "[[pool]]\n", "", 1):              `[[pool]] "default": php`,
		base + "max_wait = \"1s\"\n":                            `[[pool]] "default" max_wait: live`,
		"[node]\nmode = \"development\"\n" + base:               `[node] mode: live, [web] access_log: php, [[worker]] "a" threads: php, [[pool]] "default" threads: php`,
	} {
		if got := strings.Join(changed(parsed(t, base, nil), parsed(t, text, nil)), ", "); got != want {
			t.Errorf("%q\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// A node keeps every value that needs a restart, and takes every other.
func TestOver(t *testing.T) {
	t.Parallel()
	samples := map[string]string{ // a text that changes the key
		"[node] data_dir":               "[node]\ndata_dir = \"elsewhere\"\nsocket = \"s\"\n",
		"[node] socket":                 "[node]\nsocket = \"elsewhere\"\n",
		"[web] listen":                  "[web]\nlisten = \"127.0.0.1:7\"\n",
		"[admin] listen":                "[admin]\nlisten = \"127.0.0.1:7\"\n",
		"[admin] tls":                   "[admin]\ntls = { cert = \"c\", key = \"k\" }\n",
		"[websocket] listen":            "[websocket]\nlisten = \"127.0.0.1:7\"\n",
		"[websocket] ping":              "[websocket]\nping = \"7s\"\n",
		"[websocket] max_event_bytes":   "[websocket]\nmax_event_bytes = 7777\n",
		"[websocket] max_pending_bytes": "[websocket]\nmax_pending_bytes = 77777777\n",
		"[websocket] max_connections":   "[websocket]\nmax_connections = 777\n",
		"[cluster] listen":              "[cluster]\nlisten = \"127.0.0.1:7\"\nadvertise = \"n:1\"\n",
		"[cluster] advertise":           "[cluster]\nadvertise = \"n:7\"\n",
		"[cluster] join":                "[cluster]\nadvertise = \"n:1\"\njoin = [\"n:7\"]\n",
	}
	base := "[node]\nsocket = \"s\"\n[cluster]\nadvertise = \"n:1\"\n"
	for _, k := range Keys() {
		name := k.Table + " " + k.Name
		if k.Effect != Restart || k.Table == appTable { // apps come and go whole, see below
			continue
		}
		text, ok := samples[name]
		if !ok {
			t.Errorf("%s needs a restart, and has no sample here", name)
			continue
		}
		for _, rest := range []string{"[node]\nsocket = \"s\"\n", "[cluster]\nadvertise = \"n:1\"\n"} {
			header, _, _ := strings.Cut(rest, "\n")
			if !strings.Contains(text, header) {
				text += rest
			}
		}
		running := parsed(t, base, nil)
		next, restart := parsed(t, text+"[php]\nkill_grace = \"7s\"\n", nil).Over(running)
		if !slices.Equal(restart, []string{name}) {
			t.Errorf("%s: a restart for %q", name, restart)
		}
		if got := changed(running, next); !slices.Equal(got, []string{"[php] kill_grace: live"}) {
			t.Errorf("%s: the node goes over to %q", name, got)
		}
		if _, restart := parsed(t, base, nil).Over(next); len(restart) > 0 {
			t.Errorf("%s: changed back, a restart for %q", name, restart)
		}
	}
	app := base + "[[websocket.app]]\nid = \"a\"\nkey = \"k\"\nsecret = \"s\"\n"
	if next, restart := parsed(t, app, nil).Over(parsed(t, base, nil)); !slices.Equal(restart, []string{`[[websocket.app]] "a"`}) || len(next.Websocket.Apps) > 0 {
		t.Errorf("a restart for %q", restart)
	}
	// All the others are taken.
	text := "[node]\nmode = \"development\"\nlog_level = \"debug\"\nlog_format = \"json\"\nshutdown_timeout = \"1s\"\npush_timeout = \"1s\"\nmin_free_bytes = 1\nsocket = \"s\"\n" +
		"[queue]\nauto_create = true\n[queue.x]\n[[worker]]\n[[pool]]\n[web]\nindex = \"a.php\"\n[cluster]\nadvertise = \"n:1\"\n"
	running, read := parsed(t, base, nil), parsed(t, text, nil)
	next, restart := read.Over(running)
	if got := changed(read, next); len(got)+len(restart) > 0 {
		t.Errorf("not taken: %q %q", got, restart)
	}
}
