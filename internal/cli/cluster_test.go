package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pogod/internal/cluster/identity"
	"pogod/internal/datadir"
)

// founder is a member that lets nodes in, with its data directory made by init.
type founder struct {
	id     *identity.Identity
	addr   string
	tokens *identity.Tokens
	admit  func(context.Context, identity.Peer) ([]identity.Peer, error)
	peers  chan identity.Peer // that were admitted
}

func found(t *testing.T, now func() time.Time) *founder {
	t.Helper()
	path := t.TempDir()
	if code, out, errs := run(Deps{}, "cluster", "init", "--data", path); code != 0 || errs != "" {
		t.Fatal(code, out, errs)
	}
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	f := &founder{peers: make(chan identity.Peer, 10)}
	f.admit = func(_ context.Context, p identity.Peer) ([]identity.Peer, error) {
		f.peers <- p
		return []identity.Peer{{ID: f.id.Node, Address: f.addr, Version: 3}}, nil
	}
	if f.id, err = identity.Load(dir); err != nil {
		t.Fatal(err)
	}
	f.tokens = identity.NewTokens(f.id, now)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	var done sync.WaitGroup
	done.Go(func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			done.Go(func() { // ends with its connection, which its client closes
				defer conn.Close()
				c := tls.Server(conn, f.id.ServerTLS())
				if c.HandshakeContext(t.Context()) == nil {
					_ = f.id.Admit(t.Context(), c, f.tokens, f.admit) // who joins is told
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); done.Wait() })
	return f
}

func (f *founder) token() string { line, _ := f.tokens.Issue(); return line }

// files are the names in a directory, sorted.
func files(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// loaded is the identity that a command left in a directory, whose lock it gave up.
func loaded(t *testing.T, path string) *identity.Identity {
	t.Helper()
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestInit(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b", "data")
	code, out, errs := run(Deps{}, "cluster", "init", "--data", dir)
	id := loaded(t, dir)
	want := "made cluster " + id.Cluster + " with this node, " + id.Node + ", in " + dir + `/cluster
only this machine reaches it at 127.0.0.1:8083: for nodes elsewhere, set [cluster] listen before it starts

next:
  pogod serve --data '` + dir + `'
  pogod cluster token   # while it runs: prints a TOKEN for one more node
  pogod cluster join 127.0.0.1:8083 TOKEN   # on that node
`
	if code != 0 || errs != "" || out != want {
		t.Errorf("%d %q\n%s\n%s", code, errs, out, want)
	}
	code, out, errs = run(Deps{}, "cluster", "init", "--data", dir)
	if code != ExitFailed || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "is in a cluster already") || !strings.Contains(errs, `"pogod serve" starts it`) {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if again := loaded(t, dir); again.Cluster != id.Cluster {
		t.Error("a second init made another cluster")
	}
}

// TestInitKeepsJobs makes a cluster of a node that was alone.
func TestInitKeepsJobs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "my.toml")
	if err := errors.Join(os.WriteFile(file, []byte("[node]\ndata_dir = \"d\"\n[cluster]\nlisten = \"0.0.0.0:9083\"\nadvertise = \"node1:9083\"\n"), 0o600),
		os.Mkdir(dir+"/d", 0o700), os.WriteFile(dir+"/d/state.db", []byte("jobs"), 0o600)); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run(Deps{}, "cluster", "init", "--config", file)
	if code != 0 || errs != "" || !strings.Contains(out, "\nthe jobs of this node are kept\n\nnext:\n  pogod serve --config "+file+"\n  pogod cluster token --config "+file+" ") ||
		!strings.Contains(out, "\n  pogod cluster join node1:9083 TOKEN ") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if jobs, err := os.ReadFile(dir + "/d/state.db"); string(jobs) != "jobs" {
		t.Error(jobs, err)
	}
}

func TestInitJSON(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	code, out, errs := run(Deps{}, "cluster", "init", "--data", dir, "--json")
	id := loaded(t, dir)
	want := `{"cluster":"` + id.Cluster + `","node":"` + id.Node + `","address":"127.0.0.1:8083","data_dir":"` + dir + `","members":[],"worker":false,"has_jobs":false}` + "\n"
	if code != 0 || errs != "" || out != want {
		t.Errorf("%d %q %q", code, out, errs)
	}
}

// TestRunningNodeIsLeftAlone: both commands work on a directory that nobody uses.
func TestRunningNodeIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, args := range [][]string{{"cluster", "init"}, {"cluster", "join", "127.0.0.1:1", "t"}} {
		code, out, errs := run(Deps{}, append(args, "--data", path)...)
		if code != ExitFailed || out != "" || !strings.Contains(errs, "belongs to the running pogod") {
			t.Errorf("%d %q %q", code, out, errs)
		}
	}
	if identity.Exists(dir) {
		t.Error("a cluster was made")
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	f := found(t, time.Now)
	dir := filepath.Join(t.TempDir(), "data")
	token := f.token()
	code, out, errs := run(Deps{}, "cluster", "join", f.addr, token, "--data", dir)
	id := loaded(t, dir)
	if want := "joined cluster " + f.id.Cluster + " as node " + id.Node + `; start it with "pogod serve --data ` + dir + "\"\n"; code != 0 || errs != "" || out != want {
		t.Errorf("%d %q %q, want %q", code, out, errs, want)
	}
	if p := <-f.peers; id.Cluster != f.id.Cluster || p.ID != id.Node || p.Address != "127.0.0.1:8083" {
		t.Errorf("%+v %+v", id, p)
	}
	// It is in now, once and for all.
	code, out, errs = run(Deps{}, "cluster", "join", f.addr, f.token(), "--data", dir)
	if code != ExitFailed || out != "" || !strings.Contains(errs, "is in a cluster already") || !strings.Contains(errs, "name another directory with --data") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	// So is its token used.
	second := t.TempDir()
	code, out, errs = run(Deps{}, "cluster", "join", f.addr, token, "--data", second)
	if code != ExitFailed || out != "" || !strings.Contains(errs, "the token has been used") || strings.Count(errs, "\n") != 1 {
		t.Errorf("%d %q %q", code, out, errs)
	}
	// The next one joins with JSON, and with people who watch.
	code, out, errs = runOn(screens{stderr: true}, Deps{}, "cluster", "join", f.addr, f.token(), "--data", second, "--json")
	var m membership
	if err := json.Unmarshal([]byte(out), &m); code != 0 || err != nil || m.Cluster != f.id.Cluster || m.DataDir != second ||
		m.Address != "127.0.0.1:8083" || len(m.Members) != 1 || m.Members[0].Address != f.addr {
		t.Errorf("%d %q %q %v", code, out, errs, err)
	}
	if want := "asking " + f.addr + " to let node " + m.Node + " in, which is at 127.0.0.1:8083\n"; errs != want {
		t.Errorf("%q, want %q", errs, want)
	}
}

// TestJoinInPlaceOf: a node that lost its data is told whose place it takes.
func TestJoinInPlaceOf(t *testing.T) {
	t.Parallel()
	f := found(t, time.Now)
	f.admit = func(_ context.Context, p identity.Peer) ([]identity.Peer, error) {
		return []identity.Peer{{ID: f.id.Node, Address: f.addr, Version: 3}, {ID: "00000000000000aa", Address: p.Address, Version: 9}, p}, nil
	}
	code, out, errs := run(Deps{}, "cluster", "join", f.addr, f.token(), "--data", t.TempDir())
	if want := "\nit takes the place of node 00000000000000aa, which was at 127.0.0.1:8083 and is removed from the cluster\n"; code != 0 || errs != "" || !strings.HasSuffix(out, want) {
		t.Errorf("%d %q %q", code, out, errs)
	}
	_, out, _ = run(Deps{}, "cluster", "join", f.addr, f.token(), "--data", t.TempDir(), "--json")
	var m membership
	if err := json.Unmarshal([]byte(out), &m); err != nil || len(m.Replaces) != 1 || m.Replaces[0] != "00000000000000aa" || len(m.Members) != 1 {
		t.Errorf("%s %v", out, err)
	}
}

// TestJoinAdvertise: a flag goes over the configuration, and the server must say the same.
func TestJoinAdvertise(t *testing.T) {
	t.Parallel()
	f := found(t, time.Now)
	dir := t.TempDir()
	for name, text := range map[string]string{"none": "", "same": "advertise = \"node2:83\"\n", "other": "advertise = \"node3:83\"\n"} {
		file := filepath.Join(dir, name+".toml")
		if err := os.WriteFile(file, []byte("[node]\ndata_dir = \""+name+"\"\n[cluster]\nlisten = \"0.0.0.0:83\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := run(Deps{}, "cluster", "join", "--config", file, "--advertise", "node2:83", f.addr, f.token())
		if code != 0 || !strings.Contains(out, "joined cluster") || strings.Contains(errs, `set [cluster] advertise = "node2:83"`) != (name != "same") {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
		}
		if p := <-f.peers; p.Address != "node2:83" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	// What others cannot connect to is not told to them.
	for flag, want := range map[string]string{"node2": "--advertise must be an address", "0.0.0.0:83": "--advertise must be an address", "": "which is every address of this machine"} {
		code, out, errs := run(Deps{}, "cluster", "join", "--config", filepath.Join(dir, "none.toml"), "--data", t.TempDir(), "--advertise", flag, f.addr, f.token())
		if code != ExitFailed || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: %d %q %q", flag, code, out, errs)
		}
	}
	file := filepath.Join(dir, "any.toml")
	if err := os.WriteFile(file, []byte("[cluster]\nlisten = \"127.0.0.1:0\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run(Deps{}, "cluster", "join", "--config", file, f.addr, f.token())
	if code != ExitFailed || out != "" || !strings.Contains(errs, "[cluster] advertise must be an address") || !strings.Contains(errs, "or give --advertise") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if slices.Contains(files(t, dir), ".pogod") {
		t.Error("a directory was made for nothing")
	}
}

// TestJoinFails: what fails has its code, one line that says what to do, and leaves a
// directory in which the same command works later.
func TestJoinFails(t *testing.T) {
	t.Parallel()
	now := noon
	f := found(t, func() time.Time { return now })
	admit := f.admit
	old := f.token()
	now = now.Add(15 * time.Minute)
	other := found(t, time.Now)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // hangs up
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() { // ends with its listener
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 400 \x1b[2J\r\n\r\n")
			c.Close()
		}
	}()
	dir := t.TempDir()
	for _, c := range []struct {
		name, addr, token string
		code              int
		want              string
	}{
		{"closed port", closed.Addr().String(), f.token(), ExitUnreachable, `no node is reached at ` + closed.Addr().String() + ` (dial tcp`},
		{"no such host", "nowhere.invalid", f.token(), ExitUnreachable, `no node is reached at nowhere.invalid:8083 (`},
		{"no cluster port", mute.Addr().String(), f.token(), ExitFailed, "[cluster] listen"},
		{"no token", f.addr, "abc", ExitFailed, "`pogod cluster token` prints"},
		{"old token", f.addr, old, ExitFailed, "the token has expired"},
		{"token of another cluster", f.addr, other.token(), ExitFailed, "is not of this cluster"},
		{"refused", f.addr, f.token(), ExitFailed, "the log is cut \uFFFD[2J at 7"},
	} {
		f.admit = func(context.Context, identity.Peer) ([]identity.Peer, error) {
			return nil, errors.New("the log is cut \x1b[2J at 7")
		}
		code, out, errs := run(Deps{}, "cluster", "join", c.addr, c.token, "--data", dir)
		if code != c.code || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 || strings.Contains(errs, "\x1b") {
			t.Errorf("%s: %d %q %q", c.name, code, out, errs)
		}
		// The node's id stays, so that one that was admitted and lost the answer is not another one.
		if left := files(t, dir); !slices.Equal(left, []string{"lock", "node.json"}) {
			t.Errorf("%s: %q are left", c.name, left)
		}
	}
	f.admit = admit
	if code, out, errs := run(Deps{}, "cluster", "join", f.addr, f.token(), "--data", dir); code != 0 {
		t.Error(code, out, errs)
	}
}

// TestJoinTakesNoJobs: a node that has run joins no cluster with what it has.
func TestJoinTakesNoJobs(t *testing.T) {
	t.Parallel()
	f := found(t, time.Now)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.db"), []byte("jobs"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := f.token()
	code, out, errs := run(Deps{}, "cluster", "join", f.addr, token, "--data", dir)
	if code != ExitFailed || out != "" || !strings.Contains(errs, "a node joins with an empty data directory") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	// The token was not spent on it.
	if code, out, errs := run(Deps{}, "cluster", "join", f.addr, token, "--data", t.TempDir()); code != 0 {
		t.Error(code, out, errs)
	}
}

func TestJoinInterrupted(t *testing.T) { // not parallel: it sends itself a signal
	f := found(t, time.Now)
	f.admit = func(ctx context.Context, _ identity.Peer) ([]identity.Peer, error) {
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			return nil, err
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	dir := t.TempDir()
	code, out, errs := run(Deps{}, "cluster", "join", f.addr, f.token(), "--data", dir)
	if code != ExitFailed || out != "" || !strings.HasPrefix(errs, "pogod: interrupted: this node has not joined") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if left := files(t, dir); !slices.Equal(left, []string{"lock", "node.json"}) {
		t.Errorf("%q are left", left)
	}
}

func TestWithPort(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"node1": "node1:8083", "node1:1": "node1:1", "10.0.0.1": "10.0.0.1:8083", "fd00::1": "[fd00::1]:8083",
		"[fd00::1]": "[fd00::1]:8083", "[fd00::1]:1": "[fd00::1]:1",
	} {
		if got := withPort(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestAsFlag(t *testing.T) {
	t.Parallel()
	all := map[string]string{"": "", "/srv/a-b_1.toml": " --x /srv/a-b_1.toml", "a b": " --x 'a b'", "it's": ` --x 'it'\''s'`, "$(x)": " --x '$(x)'"}
	for _, in := range slices.Sorted(maps.Keys(all)) {
		if got := asFlag("x", in); got != all[in] {
			t.Errorf("%q: %q", in, got)
		}
	}
}
