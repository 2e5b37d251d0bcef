package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pogod/internal/config"
)

// place is a good set-up without a node, which a test breaks.
type place struct {
	t    *testing.T
	dir  string
	file string // of the configuration, as it is written before the examination
	php  bool   // as a build with PHP sees it
}

func newPlace(t *testing.T) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "p") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, sub := range []string{"public", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &place{t: t, dir: dir, file: "[node]\ndata_dir = \"data\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"}
}

func (p *place) add(text string) { p.file += text }

// examine writes the configuration and returns the findings, a line each.
func (p *place) examine() string {
	p.t.Helper()
	path := filepath.Join(p.dir, "pogod.toml")
	if err := os.WriteFile(path, []byte(p.file), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.find(path)
}

func (p *place) find(path string) string {
	p.t.Helper()
	all := Examine(p.t.Context(), Options{
		Config: config.Options{File: path, Env: func(string) (string, bool) { return "", false }}, Version: "1", HasPHP: p.php,
		Get: func(context.Context, config.Admin, string) ([]byte, error) {
			return nil, errors.New("no node is asked here")
		},
	})
	var b strings.Builder
	for _, f := range all {
		if (f.Level == OK) != (f.Advice == "") || f.Text == "" || f.Check == "" || strings.Contains(f.Text+f.Advice, "\n") {
			p.t.Errorf("%+v", f)
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", f.Level, f.Check, strings.ReplaceAll(f.Text, p.dir, "DIR"))
	}
	return b.String()
}

// contents is all that is in the place.
func (p *place) contents() string {
	p.t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime())
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	return b.String()
}

func TestGoodPlace(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.examine()
	before := p.contents()
	got := p.find(filepath.Join(p.dir, "pogod.toml"))
	for _, want := range []string{
		`(?m)^ok: configuration: DIR/pogod.toml: production mode$`, `(?m)^ok: data directory: DIR/data is there, and no node runs on it$`,
		`(?m)^(ok|warning): disk: DIR/data has .* free$`, `(?m)^(ok: disk: a sync takes|warning: disk: a sync in DIR/data takes) .* \(median of 15\)$`,
		`(?m)^ok: node: none runs here`, `(?m)^ok: \[admin\] listen: 127.0.0.1:0 is free$`, `(?m)^warning: PHP: this pogod was built without PHP`,
		`(?m)^(ok|warning): open files: a process may open`, `(?m)^(ok|warning): clock: `,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "problem") {
		t.Error(got)
	}
	if after := p.contents(); after != before {
		t.Errorf("it changed\n%s\nto\n%s", before, after)
	}
}

func TestBrokenPlaces(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(p *place)
		want  string // a line; DIR for the place
	}{
		"unknown key":    {func(p *place) { p.add("[web]\nthread = 1\n") }, `problem: configuration: DIR/pogod.toml:5:2: unknown section`},
		"no app":         {func(p *place) { p.add("[php]\napp = \"nowhere\"\n") }, `problem: configuration: DIR/pogod.toml:6:7: [php] app must be a directory, but there is no DIR/nowhere`},
		"no script":      {func(p *place) { p.php = true; p.add("[[worker]]\nscript = \"wrok.php\"\n") }, `problem: configuration: DIR/pogod.toml:6:10: [[worker]] script must be a PHP file, but there is no DIR/wrok.php`},
		"no web root":    {func(p *place) { p.php = true; p.add("[web]\nroot = \"pub\"\n") }, `problem: configuration: DIR/pogod.toml:6:8: [web] root must be a directory, but there is no DIR/pub`},
		"no effect":      {func(p *place) { p.add("[[schedule]]\n") }, `warning: configuration: DIR/pogod.toml:5: [[schedule]] is not built yet and has no effect`},
		"long socket":    {func(p *place) { p.file = "[node]\nsocket = \"" + strings.Repeat("s", 120) + "\"\n" }, `problem: configuration: DIR/pogod.toml:2:10: [node] socket must be at most 107 bytes`},
		"no data yet":    {func(p *place) { p.file = "[admin]\nlisten = \"127.0.0.1:0\"\n" }, `ok: data directory: DIR/.pogod is not there yet: the first start makes it`},
		"open data":      {func(p *place) { p.mode("data", 0o755) }, `warning: data directory: DIR/data can be entered by other users of this machine (mode 0755): jobs are in it`},
		"data is a file": {func(p *place) { p.file = "[node]\ndata_dir = \"pogod.toml/x\"\n[admin]\nlisten = \"127.0.0.1:0\"\n" }, `problem: configuration: DIR/pogod.toml:2:12: [node] data_dir must be a directory, but DIR/pogod.toml is none`},
		"port in use":    {func(p *place) { p.file = "[admin]\nlisten = \"" + taken(p.t) + "\"\n" }, `problem: [admin] listen: 127.0.0.1:PORT is in use by another program`},
		"data in memory": {func(p *place) {
			p.file = "[node]\ndata_dir = \"" + memory(p.t) + "\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"
		}, `warning: disk: MEMORY is on tmpfs: it is memory, and gone with the machine`},
		"below the floor": {func(p *place) { p.file = "[node]\nmin_free_bytes = 1_000_000_000_000_000\n" + p.file[len("[node]\n"):] }, `iB free, and [node] min_free_bytes is 909 TiB`},
		"secret for all":  {func(p *place) { p.add("[[websocket.app]]\nsecret_file = \"/etc/passwd\"\n") }, `problem: configuration: DIR/pogod.toml:6:15: [[websocket.app]] secret_file must be a file that not everybody can read or write`},
		"no such file":    {func(p *place) { p.dir += "/nowhere" }, `problem: configuration: the configuration cannot be read: open DIR/pogod.toml: no such file or directory`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.t = t
			c.spoil(p)
			var got string
			if name == "no such file" {
				got = p.find(filepath.Join(p.dir, "pogod.toml"))
			} else {
				got = p.examine()
			}
			got = regexp.MustCompile(`127\.0\.0\.1:[1-9][0-9]*`).ReplaceAllString(got, "127.0.0.1:PORT")
			got = regexp.MustCompile(`/dev/shm/pogod-doctor[0-9]*`).ReplaceAllString(got, "MEMORY")
			want := c.want
			if name == "unknown key" {
				want = `problem: configuration: DIR/pogod.toml:6:1: unknown key "thread" in [web]: did you mean "threads"?`
			}
			if !strings.Contains(got, want) {
				t.Errorf("no %s in\n%s", want, got)
			}
		})
	}
}

func (p *place) mode(name string, mode os.FileMode) {
	p.t.Helper()
	if err := os.Chmod(filepath.Join(p.dir, name), mode); err != nil {
		p.t.Fatal(err)
	}
}

// taken is an address in use.
func taken(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// memory is a directory on a tmpfs.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pogod-doctor")
	if err != nil {
		t.Skip("needs a tmpfs at /dev/shm: ", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestClock(t *testing.T) {
	t.Parallel()
	p := &patient{}
	p.clock(time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC))
	if len(p.all) != 1 || p.all[0].Level != Problem || !strings.Contains(p.all[0].Text, "1970-01-01 00:00:07") {
		t.Errorf("%+v", p.all)
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	for want, levels := range map[Level][]Level{OK: {OK, OK}, Warning: {OK, Warning, OK}, Problem: {Warning, Problem, Warning}} {
		var all []Finding
		for _, l := range levels {
			all = append(all, Finding{Level: l})
		}
		if got := Worst(all); got != want {
			t.Errorf("%v: %s", levels, got)
		}
	}
}
