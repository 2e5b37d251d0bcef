package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestMisspeltVariables(t *testing.T) {
	t.Parallel()
	read := func(env vars, unset bool) (*Config, error) {
		return build(Options{Dir: "/srv", Env: env.lookup, Names: slices.Collect(maps.Keys(env)), Unset: unset}, nil)
	}
	for name, want := range map[string]string{
		"POGOD_WEB_LISTN":          "POGOD_WEB_LISTEN",
		"POGOD_WEB_LSITEN":         "POGOD_WEB_LISTEN",
		"POGOD_WEBLISTEN":          "POGOD_WEB_LISTEN",
		"POGOD_LOGLEVEL":           "POGOD_LOG_LEVEL",
		"POGOD_DATADIR":            "POGOD_DATA_DIR",
		"POGOD_MOD":                "POGOD_MODE",
		"POGOD_QUEUE_MAX_ATEMPT":   "POGOD_QUEUE_MAX_ATTEMPTS",
		"POGOD_PHP_MEMORY_LIMITS":  "POGOD_PHP_MEMORY_LIMIT",
		"POGOD_QUEUE_MAXATTEMPTS":  "POGOD_QUEUE_MAX_ATTEMPTS",
		"POGOD_ADMIN_LISTENS":      "POGOD_ADMIN_LISTEN",
		"POGOD_CLUSTER_ADVERTISED": "POGOD_CLUSTER_ADVERTISE",
		"POGOD_NODE_DATA_DIR":      "", // far enough to be another's
	} {
		_, err := read(vars{name: "x"}, false)
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrInvalid) || err.Error() != "the environment's "+name+" is no variable that pogod knows: did you mean "+want+"?") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := read(vars{name: "x"}, true); err != nil {
			t.Errorf("%s, for a command that only looks for its node: %v", name, err)
		}
		if _, err := read(vars{name: ""}, false); err != nil {
			t.Errorf("%s, empty: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"POGOD_LISTEN":              "did you mean POGOD_ADMIN_LISTEN or POGOD_CLUSTER_LISTEN or POGOD_WEBSOCKET_LISTEN or POGOD_WEB_LISTEN?",
		"POGOD_MAX_ATTEMPTS":        "did you mean POGOD_QUEUE_MAX_ATTEMPTS?",
		"POGOD_WEB_TRUSTED_PROXIES": "[web] trusted_proxies is said in the file alone",
		"POGOD_PHP_INI":             "[php] ini is said in the file alone",
		"POGOD_WORKER_THREADS":      "[[worker]] threads is said in the file alone",
		"POGOD_POOL_MAX_WAIT":       "[[pool]] max_wait is said in the file alone",
	} {
		c, err := read(vars{name: "x"}, false)
		if err != nil || len(c.Inert) != 1 || c.Inert[0] != "the environment's "+name+" has no effect: "+want {
			t.Errorf("%s: %v %+v", name, err, c)
		}
	}
	// What others have in the environment, and what pogod's other parts read.
	quiet := vars{}
	for _, name := range []string{
		"POGOD_SOCKET", "POGOD_ADMIN", "POGOD_ADMIN_CA", "POGOD_TOKEN", "POGOD_TOKEN_FILE", "POGOD_HOST_SPEC",
		"POGOD_PORT", "POGOD_SERVICE_HOST", "POGOD_SERVICE_PORT", "POGOD_SERVICE_PORT_HTTP", "POGOD_PORT_8080_TCP", "POGOD_PORT_8080_TCP_ADDR",
		"POGOD_WEB_PORT", "POGOD_WEB_SERVICE_HOST", "POGOD_WEB_PORT_80_TCP_PROTO", "POGOD_ADMIN_PORT", "POGOD_CLUSTER_PORT", "POGOD_QUEUE_PORT", "POGOD_PHP_PORT",
		"POGOD_NAME", "POGOD_ENV_PORT", "POGOD_VERSION", "POGOD_BIN", "POGOD_PHP_CONFIG", "POGOD_SEED", "POGOD_CRASHES", "POGOD_CLUSTER_SECONDS", "pogod_web_listn", "WEB_LISTN",
	} {
		quiet[name] = "x"
	}
	if c, err := read(quiet, false); err != nil || len(c.Inert) > 0 {
		t.Error(err, c)
	}
	// Every variable is taken for itself.
	for _, k := range Keys() {
		if near := nearVariable(k.Env, map[string]bool{k.Env: true}); k.Env != "" && near != k.Env {
			t.Error(k.Env, near)
		}
	}
}

// No key's variable is so near to another's that a slip turns one into the other unseen.
func TestVariablesAreApart(t *testing.T) {
	t.Parallel()
	var all []string
	for _, k := range Keys() {
		if k.Env != "" {
			all = append(all, k.Env)
		}
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if distance(a, b) < 2 && strings.HasPrefix(a, "POGOD_") {
				t.Errorf("%s and %s", a, b)
			}
		}
	}
}
