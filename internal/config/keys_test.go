package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// Every key that is decoded is in the documentation, and none besides.
func TestKeys(t *testing.T) {
	t.Parallel()
	built := builtKeys()
	seen := map[string]bool{}
	for _, k := range Keys() {
		name := k.Table + " " + k.Name
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if _, ok := built[k.Table][k.Name]; !ok {
			t.Errorf("%s is documented, but not built", name)
		}
		if k.Type == "" || k.Default == "" || k.Default == `""` || k.Meaning == "" || strings.ContainsAny(k.Meaning+k.Bounds+k.Default, "|\n") {
			t.Errorf("%+v", k)
		}
	}
	for table, keys := range built {
		for key := range keys {
			if !seen[table+" "+key] {
				t.Errorf("%s %s is built, but keys.go says nothing of it", table, key)
			}
		}
	}
}

// docs/configuration.md has the table of keys between two marks, and its example every
// key but those of which the text says more.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	const file, begin, end = "../../docs/configuration.md", "<!-- keys: written by the tests of internal/config -->\n", "<!-- end of keys -->\n"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), begin)
	got, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the keys", file)
	}
	var b strings.Builder
	table := ""
	for _, k := range Keys() {
		if k.Table != table {
			table = k.Table
			fmt.Fprintf(&b, "\n### %s\n\n| key | type and bounds | default | meaning | a change counts |\n|---|---|---|---|---|\n", table)
		}
		what := k.Type
		if k.Bounds != "" {
			what += ", " + k.Bounds
		}
		counts := map[Effect]string{Live: "at a reload", NewPHP: "at a reload, in new PHP hosts", Restart: "at a restart"}[k.Effect]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Name, what, k.Default, k.Meaning, counts)
	}
	b.WriteByte('\n')
	want := b.String()
	if *update {
		if err := os.WriteFile(file, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("the keys in %s lag behind: write them with go test ./internal/config -run TestDocumentation -update", file)
	}
	_, example, _ := strings.Cut(head, "```toml\n")
	for _, k := range Keys() {
		if !strings.Contains(example, k.Name+" = ") {
			t.Errorf("the example of %s has no %s of %s", file, k.Name, k.Table)
		}
	}
}

// Every variable that Keys names goes over the file, and is checked.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"string or integer": "64M", "duration": "5s", "integer": "2", "boolean": "true",
		"data_dir": "env/d", "mode": "development", "log_level": "warn", "log_format": "json", "app": "env", "extension_dir": "env/e",
		"listen": "127.0.0.1:7", "root": "r", "index": "i.php", "worker": "w.php", "access_log": "env/a", "advertise": "n:7",
	}
	n := 0
	for _, k := range Keys() {
		if k.Env == "" {
			continue
		}
		n++
		value, ok := values[k.Name]
		if !ok {
			value = values[k.Type]
		}
		o := Options{File: "conf/f", Dir: "/srv", Env: vars{k.Env: value, "POGOD_SOCKET": "/elsewhere"}.lookup}
		d, err := decode(o, &document{name: "conf/f", data: []byte("[queue]\nmax_attempts = 9\nmax_crashes = 9\n[queue.mail]\n")})
		if err != nil {
			t.Errorf("%s=%s: %v", k.Env, value, err)
			continue
		}
		i := slices.IndexFunc(d.settings(), func(s Setting) bool { return s.Table == k.Table && s.Key == k.Name })
		s := d.settings()[i]
		got := fmt.Sprint(s.Value)
		if s.Where != k.Env || s.From != FromEnvironment || got != value && got != "/srv/"+value && got != "/srv/conf/"+value {
			t.Errorf("%s=%s: %+v", k.Env, value, s)
		}
		if strings.HasPrefix(value, "env") && got != "/srv/"+value {
			t.Errorf("%s is not relative to the working directory: %s", k.Env, got)
		}
		if k.Table == "[queue]" && k.Name == "max_attempts" && d.cfg.Queue.Declared[1].MaxAttempts != 2 {
			t.Errorf("[queue.mail] has not taken the environment's default: %+v", d.cfg.Queue.Declared)
		}
		if d.cfg.Node.Socket == "/elsewhere" {
			t.Error("POGOD_SOCKET, which is for PHP, moved the node's own")
		}
	}
	if n < 25 {
		t.Errorf("only %d variables", n)
	}
	for name, want := range map[string]string{
		"POGOD_WEB_THREADS=two":          `the environment's POGOD_WEB_THREADS must be an integer, not "two"`,
		"POGOD_WEB_THREADS=0":            "the environment's POGOD_WEB_THREADS must be 1 to 1024, not 0",
		"POGOD_PHP_WATCH=yes":            `the environment's POGOD_PHP_WATCH must be true or false, not "yes"`,
		"POGOD_PUSH_TIMEOUT=5":           `the environment's POGOD_PUSH_TIMEOUT must be a duration, as "90s", "1h30m" or "168h", not "5": the units are ms, s, m and h`,
		"POGOD_QUEUE_MAX_PAYLOAD_BYTES=": "",
	} {
		k, v, _ := strings.Cut(name, "=")
		_, err := build(Options{Dir: "/srv", Env: vars{k: v}.lookup}, nil)
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVariables(t *testing.T) {
	t.Parallel()
	env := vars{"HOST": "db1", "EMPTY": "", "SECRET": `a"b${HOST}`, "_N1": "500"}
	c := parsed(t, `
[node]
data_dir = "/data/${HOST}"
[php]
ini = { "date.timezone" = "${HOST}/x", "user.a" = "$${HOST} $x $" }
[[worker]]
queues = ["a-${HOST}", 'b${EMPTY}']
env = { DSN = "mysql://${HOST}:${SECRET}@x", N = "${_N1}" }
`, env)
	if c.Node.DataDir != "/data/db1" || c.PHP.Ini["date.timezone"] != "db1/x" || c.PHP.Ini["user.a"] != "${HOST} $x $" ||
		!slices.Equal(c.Workers[0].Queues, []string{"a-db1", "b"}) ||
		!maps.Equal(c.Workers[0].Env, map[string]string{"DSN": `mysql://db1:a"b${HOST}@x`, "N": "500"}) {
		t.Errorf("%+v", c)
	}
}

// A command that needs no secrets does not ask for their variables.
func TestUnset(t *testing.T) {
	t.Parallel()
	text := "[admin]\nlisten = \"${A}\"\n[[worker]]\nenv = { P = \"x${SECRET}\" }\n"
	o := Options{File: "f", Dir: "/srv", Unset: true, Env: vars{"A": "127.0.0.1:9"}.lookup}
	c, err := build(o, &document{name: "f", data: []byte(text)})
	if err != nil || c.Admin.Listen != "127.0.0.1:9" || c.Workers[0].Env["P"] != "x${SECRET}" {
		t.Errorf("%+v %v", c, err)
	}
	o.Env = vars{}.lookup
	if _, err := build(o, &document{name: "f", data: []byte(text)}); !errors.Is(err, ErrInvalid) {
		t.Error("an address that is not known was taken:", err)
	}
}

// What Explain redacts, and that the rest of what it says is the configuration.
func TestExplain(t *testing.T) {
	t.Parallel()
	env := vars{"X": "hidden", "POGOD_LOG_LEVEL": "warn"}
	text := "[queue]\nmax_attempts = 7\n[queue.\"a.b\"]\nmax_crashes = 1\n[[worker]]\n[[worker]]\nname = \"w\"\n" +
		"env = { A = \"1\", API_KEY = \"hidden\", B = \"p${X}\", C = \"redis://u:hidden@h/0\", D = \"http://h/a@b\" }\n" +
		"ini = { a.b.c = \"${X}\", a.d = \"x\" }\n"
	d, err := decode(Options{File: "f", Dir: "/srv", Data: "flag", Env: env.lookup}, &document{name: "f", data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range d.settings() {
		if s.From != FromDefault {
			got = append(got, fmt.Sprintf("%s %d %s = %s (%s %s %v)", s.Table, s.Entry, s.Key, TOML(s.Value), s.From, s.Where, s.Redacted))
		}
		if strings.Contains(fmt.Sprint(s.Value), "hidden") {
			t.Errorf("a secret is shown: %+v", s)
		}
	}
	want := []string{
		`[node] 0 data_dir = "/srv/flag" (flag --data false)`,
		`[node] 0 log_level = "warn" (environment POGOD_LOG_LEVEL false)`,
		`[queue] 0 max_attempts = 7 (file f:2 false)`,
		`[queue.a.b] 0 max_attempts = 7 (file f:2 false)`,
		`[queue.a.b] 0 max_crashes = 1 (file f:4 false)`,
		`[queue.default] 0 max_attempts = 7 (file f:2 false)`,
		`[[worker]] 2 env = { A = "1", API_KEY = "(redacted)", B = "(redacted)", C = "(redacted)", D = "http://h/a@b" } (file f:8 true)`,
		`[[worker]] 2 ini = { "a.b.c" = "(redacted)", "a.d" = "x" } (file f:9 true)`,
		`[[worker]] 2 name = "w" (file f:7 false)`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if d.cfg.Workers[1].Env["API_KEY"] != "hidden" {
		t.Error("the configuration itself was redacted")
	}
}
