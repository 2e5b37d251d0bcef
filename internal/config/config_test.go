package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

// vars is an environment.
type vars map[string]string

func (v vars) lookup(name string) (string, bool) { s, ok := v[name]; return s, ok }

// parsed builds a Config of a text, as the file /srv/app/pogod.toml.
func parsed(t *testing.T, text string, env vars) *Config {
	t.Helper()
	c, err := build(Options{File: "pogod.toml", Dir: "/srv/app", Env: env.lookup}, &document{name: "pogod.toml", data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWrong(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/wrong/*.toml")
	if err != nil || len(files) < 50 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := build(Options{File: "pogod.toml", Dir: "/srv/app", Env: vars{}.lookup}, &document{name: "pogod.toml", data: data})
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrInvalid) {
				t.Fatalf("%T: %v", err, err)
			}
			golden := strings.TrimSuffix(file, ".toml") + ".txt"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestWithoutFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := Load(Options{Dir: dir, Env: vars{}.lookup})
	if err != nil {
		t.Fatal(err)
	}
	threads := c.Web.Threads
	if threads < 4 || threads > MaxThreads {
		t.Errorf("%d threads", threads)
	}
	def := Queue{
		Name: "default", MaxPayloadBytes: 1 << 20, VisibilityTimeout: 90 * time.Second, MaxAttempts: 3, MaxCrashes: 3,
		Backoff: []time.Duration{time.Second, 10 * time.Second},
	}
	every := def
	every.Name = ""
	want := &Config{
		Node: Node{
			DataDir: dir + "/.pogod", Socket: dir + "/.pogod/pogod.sock", Mode: ModeDevelopment, LogLevel: "info",
			LogFormat: "text", ShutdownTimeout: 30 * time.Second, PushTimeout: 10 * time.Second, MinFreeBytes: 256 << 20,
		},
		PHP:   PHP{App: dir, Ini: map[string]string{}, KillGrace: 30 * time.Second, Watch: true},
		Web:   Web{Listen: "127.0.0.1:8080", Root: dir + "/public", Index: "index.php", Threads: threads, AccessLog: AccessLog},
		Queue: Queues{AutoCreate: true, Defaults: every, Declared: []Queue{def}},
		Admin: Admin{Listen: "127.0.0.1:8082"}, Cluster: Cluster{Listen: "127.0.0.1:8083", Advertise: "127.0.0.1:8083"},
		Websocket: Websocket{Listen: "127.0.0.1:8081", Ping: 30 * time.Second, MaxEventBytes: 256 << 10, MaxPendingBytes: 64 << 20},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
}

func TestWorkerWithoutFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/shop", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/shop/queue-worker.php", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Options{Dir: dir, App: "shop", Env: vars{}.lookup})
	if err != nil {
		t.Fatal(err)
	}
	want := []Worker{{Name: "default", Script: dir + "/shop/queue-worker.php", Queues: []string{"default"}, Threads: 2, Host: "jobs", Env: map[string]string{}, Ini: map[string]string{}}}
	if !reflect.DeepEqual(c.Workers, want) {
		t.Errorf("%+v", c.Workers)
	}
	if len(c.Pools) != 0 {
		t.Errorf("%+v", c.Pools)
	}
	if err := os.WriteFile(dir+"/shop/dispatch-worker.php", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err = Load(Options{Dir: dir, App: "shop", Env: vars{}.lookup}); err != nil {
		t.Fatal(err)
	}
	if p := []Pool{{Name: "default", Script: dir + "/shop/dispatch-worker.php", Threads: 2, MaxWait: 30 * time.Second, Host: "jobs", Env: map[string]string{}, Ini: map[string]string{}}}; !reflect.DeepEqual(c.Pools, p) {
		t.Errorf("%+v", c.Pools)
	}
	// With a file there is no such guess.
	if err := os.WriteFile(dir+"/shop/pogod.toml", []byte("[node]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err = Load(Options{Dir: dir, File: "shop/pogod.toml", Env: vars{}.lookup})
	if err != nil || len(c.Workers) != 0 || len(c.Pools) != 0 {
		t.Error(c, err)
	}
	if c.File != dir+"/shop/pogod.toml" || c.PHP.App != dir+"/shop" || c.Node.DataDir != dir+"/shop/.pogod" {
		t.Errorf("%+v", c)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	c := parsed(t, `
# Queues first: the defaults that come below go for them all the same.
[queue.mail]
max_messages = 1_000
[queue]
auto_create = true
max_attempts = 0
max_crashes = 5
backoff = []
max_bytes = 0x10000
visibility_timeout = "1h30m"
[queue."größe.1"]
backoff = ["500ms"]
max_attempts = 7
max_crashes = 0
max_payload_bytes = 15728640
[node]
data_dir = "../data"
socket = "run/p.sock"
log_level = "debug"
log_format = "json"
shutdown_timeout = "0s"
push_timeout = "1m"
min_free_bytes = 1_000_000
[php]
app = "current"
memory_limit = -1
extension_dir = "ext"
kill_grace = "1m30s"
watch = false
[php.ini]
opcache.enable_cli = true
opcache.jit.debug = 0
"date.timezone" = "Europe/Berlin"
precision = 1_4
[web]
access_log = "log/access"
trusted_proxies = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]
tls = { cert = "tls/web.crt", key = "/etc/web.key" }
listen = "0.0.0.0:0"
root = "."
index = "sub/app.php"
worker = "bin/worker.php"
threads = 1
[admin]
listen = "0.0.0.0:9000"
tls = { cert = "tls/admin.crt", key = "/etc/admin.key" }
[[admin.tokens]]
name = "prometheus"
role = "read"
hash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
[[admin.tokens]]
name = "ops"
role = "admin"
hash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
[cluster]
listen = "[::]:8083"
advertise = "node1.example:8083"
join = ["node2.example:8083", "[fd00::3]:9083"]
[[worker]]
[[worker]]
name = "slow"
script = "/opt/slow.php"
queues = ["imports", "mail"]
threads = 1024
env = { A = "", "b c" = "ü" }
host = "imports"
max_jobs = 500
memory_limit = "1G"
ini = { "date.timezone" = "UTC", precision = 5 }
[[pool]]
[[pool]]
name = "cpu"
script = "jobs/cpu.php"
threads = 0
max_wait = "1m"
env = { B = "c" }
host = "tasks"
memory_limit = -1
ini = { precision = 5 }
`, nil)
	def := Queue{MaxPayloadBytes: 1 << 20, VisibilityTimeout: 90 * time.Minute, MaxCrashes: 5, Backoff: []time.Duration{}, MaxBytes: 65536}
	named := func(name string) Queue { q := def; q.Name = name; return q }
	mail := named("mail")
	mail.MaxMessages = 1000
	size := named("größe.1")
	size.MaxAttempts, size.MaxCrashes, size.Backoff, size.MaxPayloadBytes = 7, 0, []time.Duration{500 * time.Millisecond}, 15<<20
	want := &Config{
		File: "/srv/app/pogod.toml",
		Node: Node{
			DataDir: "/srv/data", Socket: "/srv/app/run/p.sock", Mode: ModeProduction, LogLevel: "debug", LogFormat: "json",
			PushTimeout: time.Minute, MinFreeBytes: 1_000_000,
		},
		PHP: PHP{App: "/srv/app/current", MemoryLimit: "-1", ExtensionDir: "/srv/app/ext", KillGrace: 90 * time.Second, Ini: map[string]string{
			"opcache.enable_cli": "1",
			"opcache.jit.debug":  "0", "date.timezone": "Europe/Berlin", "precision": "14",
		}},
		Web:   Web{Listen: "0.0.0.0:0", Root: "/srv/app/current", Index: "sub/app.php", Worker: "/srv/app/current/bin/worker.php", Threads: 1, AccessLog: "/srv/app/log/access", TrustedProxies: []string{"10.0.0.0/8", "192.0.2.7", "fd00::/8"}, TLS: TLS{"/srv/app/tls/web.crt", "/etc/web.key"}},
		Queue: Queues{AutoCreate: true, Defaults: def, Declared: []Queue{named("default"), size, named("imports"), mail}},
		Workers: []Worker{
			{Name: "default", Script: "/srv/app/current/queue-worker.php", Queues: []string{"default"}, Threads: 4, Host: "jobs", Env: map[string]string{}, Ini: map[string]string{}},
			{
				Name: "slow", Script: "/opt/slow.php", Queues: []string{"imports", "mail"}, Threads: 1024, Env: map[string]string{"A": "", "b c": "ü"},
				Host: "imports", MaxJobs: 500, MemoryLimit: "1G", Ini: map[string]string{"date.timezone": "UTC", "precision": "5"},
			},
		},
		Pools: []Pool{
			{Name: "default", Script: "/srv/app/current/dispatch-worker.php", Threads: 4, MaxWait: 30 * time.Second, Host: "jobs", Env: map[string]string{}, Ini: map[string]string{}},
			{
				Name: "cpu", Script: "/srv/app/current/jobs/cpu.php", MaxWait: time.Minute, Host: "tasks", Env: map[string]string{"B": "c"},
				MemoryLimit: "-1", Ini: map[string]string{"precision": "5"},
			},
		},
		Websocket: Websocket{Listen: "127.0.0.1:8081", Ping: 30 * time.Second, MaxEventBytes: 256 << 10, MaxPendingBytes: 64 << 20},
		Admin: Admin{Listen: "0.0.0.0:9000", TLS: TLS{"/srv/app/tls/admin.crt", "/etc/admin.key"}, Tokens: []AdminToken{
			{"prometheus", "read", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}, {"ops", "admin", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		}},
		Cluster: Cluster{
			Listen: "[::]:8083", Advertise: "node1.example:8083", Join: []string{"node2.example:8083", "[fd00::3]:9083"},
		},
	}
	// "größe.1" sorts behind "default" and before "imports".
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
	if q, ok := c.Queue.Lookup("mail"); !ok || q.MaxMessages != 1000 {
		t.Error(q, ok)
	}
	if q, ok := c.Queue.Lookup("nobody"); ok {
		t.Error(q)
	}
}

func TestDevelopmentThreads(t *testing.T) {
	t.Parallel()
	// The mode is below the worker, and still counts.
	c := parsed(t, "[[worker]]\n[node]\nmode = \"development\"\n", nil)
	if c.Workers[0].Threads != 2 || c.Queue.AutoCreate {
		t.Errorf("%+v", c)
	}
}

func TestInert(t *testing.T) {
	t.Parallel()
	c := parsed(t, `[node]
id = "a"
[queue]
retain_failed = "168h"
[queue.mail]
rate = "100/s"
[[schedule]]
name = "a"
cron = "* * * * *"
[[schedule]]
name = "b"
[[worker]]
host = "jobs"
[[worker]]
name = "b"
host = "imports"
[[pool]]
memory_limit = "1G"
[[websocket.app]]
id = "chat"
key = "k"
secret = "s"
webhooks = []
[websocket]
history = {}
[cluster]
join = ["node1:8083"]
bootstrap_expect = 3
tls = {}
[admin]
dashboard = true
[php]
extension_dir = "x"
`, nil)
	got := strings.Join(c.Inert, "\n")
	want := strings.TrimSpace(strings.ReplaceAll(`
pogod.toml:2: [node] id @
pogod.toml:4: [queue] retain_failed @
pogod.toml:6: [queue.mail] rate @
pogod.toml:7: [[schedule]] @
pogod.toml:23: [[websocket.app]] webhooks @
pogod.toml:25: [websocket] history @
pogod.toml:28: [cluster] bootstrap_expect @
pogod.toml:29: [cluster] tls @
pogod.toml:31: [admin] dashboard @
`, "@", "is not built yet and has no effect"))
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// An address that is all of a machine's is none that another node could connect to.
func TestAdvertise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ listen, advertise, want string }{ // want: what is advertised, or an error in brackets
		{"127.0.0.1:8083", "", "127.0.0.1:8083"},
		{"10.0.0.1:0", "", "10.0.0.1:0"}, // of the port that is taken
		{"10.0.0.1:0", "nat.example:80", "nat.example:80"},
		{"0.0.0.0:8083", "node1:8083", "node1:8083"},
		{"0.0.0.0:8083", "", "(set [cluster] advertise to)"},
		{":8083", "", "(set [cluster] advertise to)"},
		{"[::]:8083", "", "(set [cluster] advertise to)"},
		{"[::ffff:0.0.0.0]:8083", "", "(set [cluster] advertise to)"},
		{"0.0.0.0:0", "", "(set [cluster] advertise to)"},
		{"0.0.0.0:8083", "0.0.0.0:8083", "([cluster] advertise must be an address that other nodes connect to)"},
		{"10.0.0.1:8083", "[::]:8083", "([cluster] advertise must be an address that other nodes connect to)"},
		{"10.0.0.1:8083", "10.0.0.1:0", "([cluster] advertise must be an address that other nodes connect to)"},
		{"10.0.0.1:8083", "node1", "([cluster] advertise must be an address that other nodes connect to)"},
		{"10.0.0.1:8083", "node1:80831", "([cluster] advertise must have a port)"},
	} {
		text := fmt.Sprintf("[cluster]\nlisten = %q\n", c.listen)
		if c.advertise != "" {
			text += fmt.Sprintf("advertise = %q\n", c.advertise)
		}
		got, err := build(Options{File: "f", Dir: "/srv", Env: vars{}.lookup}, &document{name: "f", data: []byte(text)})
		if want, bad := strings.CutPrefix(c.want, "("); bad {
			if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(want, ")")) {
				t.Errorf("%q: %v", c, err)
			}
		} else if err != nil || got.Cluster.Advertise != c.want {
			t.Errorf("%q: %+v %v", c, got, err)
		}
	}
	// What the default would take is free for others: without a cluster nobody listens there.
	if c := parsed(t, "[web]\nlisten = \"127.0.0.1:8083\"\n", nil); c.Cluster.Listen != c.Web.Listen {
		t.Error(c.Cluster)
	}
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Load(Options{Dir: dir, File: "pogod.toml"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Load(Options{Dir: dir, File: "."}); err == nil || errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := os.WriteFile(dir+"/big", make([]byte, maxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Options{Dir: dir, File: "big"}); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Error(err)
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{
		"default": true, "größe": true, "a:b.c-d_e": true, strings.Repeat("q", 128): true, "\U0001F4E8": true,
		"": false, "a b": false, "a/b": false, "a\x00": false, "a\x7f": false, "a\u00a0b": false, "a\u0085": false,
		strings.Repeat("q", 129): false, "\xff": false, "\n": false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	if c := parsed(t, "\xEF\xBB\xBF[web]\r\nthreads = 3\r\n", nil); c.Web.Threads != 3 {
		t.Error(c.Web)
	}
}

// FuzzLoad wants of any bytes an *Error or a Config that validates.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/wrong/*.toml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("[queue]\nmax_attempts = 0\n[queue.a]\nbackoff = []\n[[worker]]\nqueues = ['b']\n[[websocket.app]]\n[php.ini]\na.b = 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := build(Options{File: "f", Dir: "/srv/app", Env: vars{}.lookup}, &document{name: "f", data: data})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			for _, r := range err.Error() {
				if r < ' ' && r != '\n' && r != '\t' {
					t.Fatalf("control character in %q", err)
				}
			}
			if strings.Count(err.Error(), "\n") > 2 {
				t.Fatalf("too many lines: %q", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAccessLogDefault(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               AccessOff,
		"[node]\nmode = \"development\"": AccessLog,
		"[node]\nmode = \"development\"\n[web]\naccess_log = \"off\"": AccessOff,
		"[web]\naccess_log = \"log\"":                                 AccessLog,
		"[web]\naccess_log = \"a.log\"":                               "/srv/app/a.log",
		"[web]\naccess_log = \"/var/a\"":                              "/var/a",
	} {
		if got := parsed(t, text, nil).Web.AccessLog; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
