package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pogod/internal/admin"
	"pogod/internal/config"
	"pogod/raftfsm/leader"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp keeps one ticking clock for the whole process, for the Date header.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		// The runtime's own, since a test asked os/signal for signals.
		goleak.IgnoreTopFunction("os/signal.signal_recv"))
}

var noon = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// run executes a command line and returns its code and output.
func run(d Deps, args ...string) (code int, stdout, stderr string) {
	return runOn(screens{}, d, args...)
}

// screens says what is a terminal.
type screens struct{ stdout, stderr bool }

// runOn is run with terminals.
func runOn(on screens, d Deps, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	d.Stdout, d.Stderr = &out, &errs
	p := newProgram(d)
	p.now = func() time.Time { return noon }
	p.screen = func(w io.Writer) bool { return w == &out && on.stdout || w == &errs && on.stderr }
	code = p.execute(context.Background(), args)
	return code, out.String(), errs.String()
}

func TestView(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"full", "empty", "small", "follower"} {
		data, err := os.ReadFile("testdata/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var s admin.Status
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		for suffix, p := range map[string]paint{"": false, ".colour": true} {
			var b bytes.Buffer
			view(&b, &s, noon, p)
			golden(t, name+suffix+".txt", b.String())
			if p == false && strings.ContainsAny(b.String(), "\x1b\r") {
				t.Error("a terminal sequence without colour")
			}
			if strings.Contains(b.String(), "\x1b[2J") {
				t.Error("a queue's name clears the screen")
			}
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"root": {"--help"}, "bare": {}, "serve": {"serve", "--help"}, "status": {"status", "-h"}, "version": {"help", "version"},
		"cluster": {"cluster", "--help"}, "bare cluster": {"cluster"}, "cluster_init": {"cluster", "init", "--help"}, "cluster_token": {"help", "cluster", "token"},
		"cluster_join": {"cluster", "join", "-h"}, "php": {"help", "php"}, "cluster_members": {"cluster", "members", "-h"}, "cluster_clock": {"cluster", "clock", "-h"},
		"cluster_transfer": {"cluster", "transfer", "-h"}, "cluster_leave": {"cluster", "leave", "-h"},
		"php_reload": {"php", "reload", "-h"}, "php_status": {"help", "php", "status"},
		"config": {"config", "-h"}, "bare config": {"config"}, "config_check": {"config", "check", "-h"}, "config_show": {"help", "config", "show"},
		"config_docs": {"config", "docs", "--help"}, "admin": {"admin"}, "admin_token": {"admin", "token", "-h"},
		"config_reload": {"config", "reload", "-h"}, "doctor": {"doctor", "-h"}, "backup": {"backup", "-h"}, "restore": {"restore", "-h"}, "compact": {"compact", "-h"}, "cluster_recover": {"cluster", "recover", "-h"},
	} {
		code, out, errs := run(Deps{}, args...)
		if code != 0 || errs != "" || !strings.Contains(out, "Examples:\n") || strings.Contains(out, "php-host") {
			t.Errorf("%s: %d %s%s", name, code, out, errs)
		}
		if !strings.HasPrefix(name, "bare") {
			golden(t, "help_"+name+".txt", out)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"servee"}, `pogod: there is no command "servee": did you mean "serve"?`},
		{[]string{"horizon"}, `pogod: there is no command "horizon": "pogod --help" lists them`},
		{[]string{"cluster", "inti"}, `pogod: there is no command "cluster inti": did you mean "cluster init"?`},
		{[]string{"cluster", "horizon"}, `pogod: there is no command "cluster horizon": "pogod cluster --help" lists them`},
		{[]string{"config", "chek"}, `pogod: there is no command "config chek": did you mean "config check"?`},
		{[]string{"config", "check", "a", "b"}, `pogod: pogod config check takes one file, but got "a b": "pogod config check --help" lists its flags`},
		{[]string{"config", "show", "a", "--config", "b"}, `pogod: the file is named twice, "a" and --config "b": name it once`},
		{[]string{"config", "docs", "web"}, `pogod: pogod config docs takes no argument, but got "web": "pogod config docs --help" lists its flags`},
		{[]string{"cluster", "--jsn"}, `pogod: unknown flag: --jsn: "pogod cluster --help" lists the flags`},
		{[]string{"cluster", "init", "now"}, `pogod: pogod cluster init takes no argument, but got "now": "pogod cluster init --help" lists its flags`},
		{[]string{"cluster", "token", "--admin", "ftp://x"}, `pogod: --admin must be a URL, as http://127.0.0.1:8082, not "ftp://x"`},
		{[]string{"cluster", "members", "all"}, `pogod: pogod cluster members takes no argument, but got "all": "pogod cluster members --help" lists its flags`},
		{[]string{"cluster", "join", "node1"}, `pogod: pogod cluster join takes an address and a token, as "pogod cluster join node1:8083 TOKEN": "pogod cluster token" prints one on a member`},
		{[]string{"cluster", "join", "http://node1", "t"}, `pogod: ADDRESS must have a port from 0 to 65535, not "//node1"`},
		{[]string{"cluster", "join", "0.0.0.0", "t"}, `pogod: ADDRESS must be an address that other nodes connect to, as "node1:8083", not "0.0.0.0:8083"`},
		{[]string{"serve", "now"}, `pogod: pogod serve takes no argument, but got "now": "pogod serve --help" lists its flags`},
		{[]string{"status", "--jsn"}, `pogod: unknown flag: --jsn: "pogod status --help" lists the flags`},
		{[]string{"serve", "--config"}, `pogod: flag needs an argument: --config: "pogod serve --help" lists the flags`},
		{[]string{"--verbose"}, `pogod: unknown flag: --verbose: "pogod --help" lists the flags`},
		{[]string{"status", "--admin", "ftp://x"}, `pogod: --admin must be a URL, as http://127.0.0.1:8082, not "ftp://x"`},
		{[]string{"status", "--admin", "http://"}, `pogod: --admin must be a URL, as http://127.0.0.1:8082, not "http://"`},
		{[]string{"status", "--admin", ""}, `pogod: --admin must be a URL, as http://127.0.0.1:8082, not ""`},
	} {
		code, out, errs := run(Deps{}, c.args...)
		if code != ExitUsage || out != "" || errs != c.want+"\n" {
			t.Errorf("%q: %d %q %q", c.args, code, out, errs)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	code, out, errs := run(Deps{Version: "0.1.0", HasPHP: true}, "version")
	if code != 0 || errs != "" || !strings.HasPrefix(out, "pogod 0.1.0 (go") || !strings.HasSuffix(out, ", with PHP\n") {
		t.Error(code, out, errs)
	}
	code, out, errs = run(Deps{}, "version", "--json")
	var b admin.Build
	if err := json.Unmarshal([]byte(out), &b); code != 0 || errs != "" || err != nil || b.Version != "dev" || b.PHP || b.Go == "" {
		t.Error(code, out, errs, err)
	}
	for _, c := range []struct {
		b    admin.Build
		json bool
		want string
	}{
		{admin.Build{Version: "1", Go: "go2", Revision: "abc-dirty"}, false, "pogod 1 (go2, linux/arm64, revision abc-dirty), without PHP: it serves the queue only"},
		{admin.Build{Version: "1", Go: "go2", PHP: true}, false, "pogod 1 (go2, linux/arm64), with PHP"},
		{admin.Build{Version: "1", Go: "go2", PHP: true}, true, `{"version":"1","go":"go2","php":true,"revision":""}`},
	} {
		if got, err := versionText(c.b, "linux/arm64", c.json); err != nil || got != c.want {
			t.Error(got, err)
		}
	}
}

func TestPHPHost(t *testing.T) {
	t.Parallel()
	if code, _, errs := run(Deps{}, "php-host"); code != ExitFailed || !strings.Contains(errs, "built without PHP") {
		t.Error(code, errs)
	}
	called := false
	d := Deps{HasPHP: true, PHPHost: func(context.Context) error { called = true; return errors.New("no script") }}
	if code, _, errs := run(d, "php-host"); code != ExitFailed || errs != "pogod: no script\n" || !called {
		t.Error(code, errs)
	}
}

func TestServe(t *testing.T) { // not parallel: it changes the working directory
	dir := t.TempDir()
	t.Chdir(dir)
	for _, v := range []string{"POGOD_DATA_DIR", "POGOD_LOG_LEVEL", "POGOD_WEB_LISTEN", "POGOD_ADMIN_LISTEN", "POGOD_CLUSTER_LISTEN", "POGOD_CLUSTER_ADVERTISE"} {
		t.Setenv(v, "")
	}
	var got *config.Config
	d := Deps{Serve: func(_ context.Context, c *config.Config, _ func() (*config.Config, error)) error { got = c; return nil }}
	if code, out, errs := run(d, "serve"); code != 0 || out+errs != "" || got.File != "" || got.Node.Mode != config.ModeDevelopment {
		t.Error(code, out, errs, got)
	}
	if code, _, errs := run(d, "serve", "--app", "shop", "--data", "d"); code != 0 || got.PHP.App != dir+"/shop" || got.Node.DataDir != dir+"/d" {
		t.Error(code, errs, got)
	}
	if code, _, errs := run(d, "serve", "--config", "nowhere.toml"); code != ExitFailed || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "nowhere.toml: no such file") {
		t.Error(code, errs)
	}
	if err := os.WriteFile("pogod.toml", []byte("[[schedule]]\n[web]\nthreads = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := run(d, "serve"); code != 0 || out != "" || got.Web.Threads != 3 ||
		errs != "pogod: pogod.toml:1: [[schedule]] is not built yet and has no effect\n" {
		t.Error(code, out, errs, got)
	}
	if err := os.WriteFile("other.toml", []byte("[web]\nthread = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "pogod: other.toml:2:1: unknown key \"thread\" in [web]: did you mean \"threads\"?\n  2 | thread = 3\n    | ^^^^^^\n"
	if code, out, errs := run(d, "serve", "--config", "other.toml"); code != ExitFailed || out != "" || errs != want {
		t.Error(code, out, errs)
	}
	d.Serve = func(context.Context, *config.Config, func() (*config.Config, error)) error {
		return errors.New("the data directory is locked by process 7")
	}
	if code, _, errs := run(d, "serve"); code != ExitFailed || !strings.HasSuffix(errs, "pogod: the data directory is locked by process 7\n") {
		t.Error(code, errs)
	}
	if code, _, errs := run(Deps{}, "serve"); code != ExitFailed || !strings.Contains(errs, "no server in it") {
		t.Error(code, errs)
	}
	// SIGTERM ends the context, and a server that then returns nil is done.
	d.Serve = func(ctx context.Context, _ *config.Config, _ func() (*config.Config, error)) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	if code, _, errs := run(d, "serve"); code != 0 {
		t.Error(code, errs)
	}
}

// source is the admin endpoint's fake node.
type source struct{ s *admin.Status }

func (s source) Ready() error { return nil }
func (s source) Status(_ context.Context, o admin.StatusOptions) (*admin.Status, error) {
	c := *s.s
	c.Read.Consistent = o.Consistent
	return &c, nil
}

func (s source) Clock() admin.Clock { return s.s.Clock }
func (s source) ResetClock(context.Context) (leader.Reset, error) {
	if s.s.Clock.AheadMS == 0 {
		return leader.Reset{}, fmt.Errorf("%w: it is not ahead of the clocks", leader.ErrNotReset)
	}
	return leader.Reset{Back: time.Duration(s.s.Clock.AheadMS) * time.Millisecond, To: noon}, nil
}

// member is the admin endpoint's fake cluster.
type member struct{ list []admin.Member }

func (m member) NewToken(worker bool) (string, time.Time, error) {
	if worker {
		return "pogod1_worker", noon.Add(15 * time.Minute), nil
	}
	return "pogod1_abc", noon.Add(15 * time.Minute), nil
}

func (m member) Leave(_ context.Context, node string, force bool) error {
	if node == "none" || !force && node == "up" {
		return fmt.Errorf("%w: node %s stays", admin.ErrDeclined, node)
	}
	return nil
}

func (m member) Transfer(_ context.Context, node string) (string, error) {
	if node == "none" {
		return "", fmt.Errorf("%w: node none is no member", admin.ErrDeclined)
	}
	return "led-by-" + node, nil
}

func (m member) Members(context.Context) ([]admin.Member, error) { return m.list, nil }

// endpointOf serves the status of a file of testdata, and returns its address.
func endpointOf(t *testing.T, file string, clustered bool) (address string, s *admin.Status) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	s = &admin.Status{}
	if err := json.Unmarshal(data, s); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var c admin.Cluster
	if clustered {
		c = member{s.Raft.Members}
	}
	a := admin.New(ln, source{s}, c, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- a.Serve() }() // ended by Shutdown
	t.Cleanup(func() {
		if err := errors.Join(a.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return a.Addr().String(), s
}

// TestStatusOfAdmin asks the real endpoint.
func TestStatusOfAdmin(t *testing.T) {
	t.Parallel()
	addr, s := endpointOf(t, "full.json", true)
	code, out, errs := run(Deps{}, "status", "--admin", addr)
	if code != 0 || errs != "" {
		t.Error(code, errs)
	}
	golden(t, "full.txt", out)
	code, out, errs = run(Deps{}, "status", "--json", "--admin", "http://"+addr+"/")
	want, err := json.Marshal(s)
	if err != nil || code != 0 || errs != "" || out != string(want)+"\n" {
		t.Error(code, out, errs, err)
	}
	code, out, errs = run(Deps{}, "status", "--consistent", "--admin", addr)
	if code != 0 || errs != "" || !strings.Contains(out, "state    consistent: all that was answered before, to entry 104200\n") {
		t.Error(code, out, errs)
	}
	lone, _ := endpointOf(t, "small.json", false)
	if _, out, _ := run(Deps{}, "status", "--consistent", "--admin", lone); !strings.Contains(out, "state    consistent:") {
		t.Error(out)
	}
}

func TestStatusEnvironment(t *testing.T) { // not parallel: it changes the environment
	t.Setenv(adminEnv, "gopher://x")
	if code, _, errs := run(Deps{}, "status"); code != ExitUsage || !strings.Contains(errs, "the environment's POGOD_ADMIN must be a URL") {
		t.Error(code, errs)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	t.Setenv(adminEnv, ln.Addr().String())
	code, out, errs := run(Deps{}, "status")
	want := "pogod: no node answers at http://" + ln.Addr().String() + " (dial tcp " + ln.Addr().String() +
		": connect: connection refused): start one with \"pogod serve\", or name its admin address with --admin\n"
	if code != ExitUnreachable || out != "" || errs != want {
		t.Errorf("%d %q\n%q\n%q", code, out, errs, want)
	}
	if code, _, _ := run(Deps{}, "status", "--watch"); code != ExitUnreachable {
		t.Error(code)
	}
}

func TestStatusOfOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code       int
		body, want string
	}{
		{503, `{"status":503,"detail":"the file is closed"}`, "answers 503: the file is closed\n"},
		{404, "<html>not here</html>", "is not pogod's admin endpoint: name that with --admin\n"},
		{200, "<html>hello</html>", "is not pogod's admin endpoint: name that with --admin\n"},
		{200, `{"node":[]}`, "use one of the same version, or --json\n"},
	} {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.code)
			_, _ = w.Write([]byte(c.body))
		}))
		code, out, errs := run(Deps{}, "status", "--admin", h.URL)
		if code != ExitFailed || out != "" || !strings.HasSuffix(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%d %q %q", code, out, errs)
		}
		h.Close()
	}
}

// TestWatch drives three looks: a node that is there, away, and back.
func TestWatch(t *testing.T) {
	t.Parallel()
	small, err := os.ReadFile("testdata/small.json")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked, ticks := 0, make(chan time.Time)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if asked == 2 {
			w.WriteHeader(503)
			_, _ = w.Write([]byte(`{"detail":"away"}`))
			return
		}
		_, _ = w.Write(small)
	}))
	defer h.Close()
	for _, screen := range []bool{false, true} {
		mu.Lock()
		asked = 0
		mu.Unlock()
		var out, errs bytes.Buffer
		p := newProgram(Deps{Stdout: &out, Stderr: &errs})
		p.now = func() time.Time { return noon }
		stopped := false
		p.tick = func() (<-chan time.Time, func()) { return ticks, func() { stopped = true } }
		u, err := adminURL(h.URL)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- (&viewer{program: p, url: &target{URL: u}, screen: screen}).watch(ctx) }() // ended by cancel
		ticks <- noon                                                                                   // taken after the first look is printed
		ticks <- noon
		select { // after the third
		case ticks <- noon:
		case err := <-ended:
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil || !stopped {
			t.Error(err, stopped)
		}
		if n := strings.Count(out.String(), "QUEUE"); n < 2 {
			t.Errorf("%d views in %q", n, out.String())
		}
		if screen != strings.HasPrefix(out.String(), clearScreen+home) || screen != strings.Contains(out.String(), "away") {
			t.Errorf("%q", out.String())
		}
		if !screen && (!strings.Contains(errs.String(), "away") || strings.Contains(out.String(), "\x1b")) {
			t.Errorf("%q %q", out.String(), errs.String())
		}
	}
}

func TestAgesAndSizes(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 61 * time.Second: "1m1s",
		3*time.Hour + 12*time.Minute + 9*time.Second: "3h12m", 24 * time.Hour: "1d", 30 * time.Hour: "1d6h",
	} {
		at := noon.Add(-d)
		if got := age(noon, &at); got != want {
			t.Errorf("%s: %s, not %s", d, got, want)
		}
	}
	if age(noon, nil) != "-" || age(noon, &time.Time{}) != "-" {
		t.Error("an age of nothing")
	}
}
