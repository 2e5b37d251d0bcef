package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pogod/internal/admin"
)

func TestToken(t *testing.T) {
	t.Parallel()
	addr, _ := endpointOf(t, "follower.json", true)
	code, out, errs := run(Deps{}, "cluster", "token", "--admin", addr)
	if code != 0 || out != "pogod1_abc\n" || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, out, errs = run(Deps{}, "cluster", "token", "--json", "--admin", addr)
	var k admin.Token
	if err := json.Unmarshal([]byte(out), &k); code != 0 || errs != "" || err != nil || k.Token != "pogod1_abc" || !k.ExpiresAt.Equal(noon.Add(15*time.Minute)) {
		t.Errorf("%d %q %q %v", code, out, errs, err)
	}
	if code, out, errs = run(Deps{}, "cluster", "token", "--worker", "--admin", addr); code != 0 || out != "pogod1_worker\n" || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	// People are told what to do with it, where they are not in the way.
	code, out, errs = runOn(screens{true, true}, Deps{}, "cluster", "token", "--admin", addr)
	if code != 0 || out != "pogod1_abc\n" || errs != "\non the new node, within 15m:\n  pogod cluster join 10.0.0.2:8083 pogod1_abc\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	for _, on := range []screens{{stdout: true}, {stderr: true}} { // the other one is piped
		if code, out, errs = runOn(on, Deps{}, "cluster", "token", "--admin", addr); code != 0 || out != "pogod1_abc\n" || errs != "" {
			t.Errorf("%+v: %d %q %q", on, code, out, errs)
		}
	}
	lone, _ := endpointOf(t, "small.json", true) // does not know where it is
	if _, _, errs = runOn(screens{true, true}, Deps{}, "cluster", "token", "--admin", lone); !strings.Contains(errs, "pogod cluster join ADDRESS pogod1_abc\n") {
		t.Errorf("%q", errs)
	}
}

func TestMembersTable(t *testing.T) {
	t.Parallel()
	addr, s := endpointOf(t, "follower.json", true)
	var m admin.Members
	shownAndJSON(t, "members", addr, &m)
	if len(m.Members) != 5 {
		t.Errorf("%+v", m)
	}
	var b bytes.Buffer
	members(&b, s.Raft.Members, noon, true)
	golden(t, "members.colour.txt", b.String())
}

// shownAndJSON has "cluster NAME" answer as NAME.txt says, and as one line of JSON.
func shownAndJSON(t *testing.T, name, addr string, into any) {
	t.Helper()
	code, out, errs := run(Deps{}, "cluster", name, "--admin", addr)
	if code != 0 || errs != "" || strings.Contains(out, "\x1b") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	golden(t, name+".txt", out)
	code, out, errs = run(Deps{}, "cluster", name, "--json", "--admin", addr)
	if err := json.Unmarshal([]byte(out), into); code != 0 || errs != "" || err != nil || strings.Count(out, "\n") != 1 {
		t.Errorf("%d %q %q %v", code, out, errs, err)
	}
}

func TestAskingWithoutCluster(t *testing.T) {
	t.Parallel()
	addr, _ := endpointOf(t, "small.json", false)
	want := "pogod: the node at http://" + addr + ` answers 409: this node is part of no cluster: end it, make one with "pogod cluster init", and start it again` + "\n"
	for _, name := range []string{"token", "members", "transfer"} {
		if code, out, errs := run(Deps{}, "cluster", name, "--admin", addr); code != ExitFailed || out != "" || errs != want {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
		}
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	addr, _ := endpointOf(t, "follower.json", true)
	for _, c := range []struct {
		typed, args string
		code        int
		out, errs   string
	}{
		{"", "", ExitDone, "this node has left the cluster\n", ""},
		{"", "abc --json", ExitDone, `{"left":"abc"}` + "\n", ""},
		{"", "up", ExitFailed, "", "answers 409: declined: node up stays\n"},
		{"", "up --force", ExitDone, "node up was removed from the cluster\n", ""},
		{"n\n", "", ExitFailed, "", "pogod: nothing was changed\n"},
		{"y\n", "abc", ExitDone, "node abc was removed from the cluster\n", "remove node abc from the cluster for good? [y/N] "},
		{"n\n", "--yes", ExitDone, "this node has left the cluster\n", ""},
	} {
		d := Deps{Stdin: strings.NewReader(c.typed)}
		code, out, errs := runOn(screens{stderr: c.typed != ""}, d, append([]string{"cluster", "leave", "--admin", addr}, strings.Fields(c.args)...)...)
		if code != c.code || out != c.out || !strings.HasSuffix(errs, c.errs) || c.errs == "" && errs != "" {
			t.Errorf("%q %q: %d %q %q", c.typed, c.args, code, out, errs)
		}
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	addr, _ := endpointOf(t, "follower.json", true)
	for _, c := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{nil, ExitDone, "led-by-\n", ""},
		{[]string{"abc"}, ExitDone, "led-by-abc\n", ""},
		{[]string{"abc", "--json"}, ExitDone, `{"leader":"led-by-abc"}` + "\n", ""},
		{[]string{"none"}, ExitFailed, "", "pogod: the node at http://" + addr + " answers 409: declined: node none is no member\n"},
		{[]string{"a", "b"}, ExitUsage, "", `pogod: pogod cluster transfer takes the id of one node at most: "pogod cluster members" lists them` + "\n"},
	} {
		if code, out, errs := run(Deps{}, append([]string{"cluster", "transfer", "--admin", addr}, c.args...)...); code != c.code || out != c.out || errs != c.errs {
			t.Errorf("%q: %d %q %q", c.args, code, out, errs)
		}
	}
}

func TestAskingOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, want string }{
		{`{}`, "sent an answer that this pogod cannot read (it is empty): use one of the same version, or --json"},
		{`{"token":7}`, "sent an answer that this pogod cannot read ("},
		{`<html>`, "is not pogod's admin endpoint: name that with --admin"},
	} {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.body)) }))
		if code, out, errs := run(Deps{}, "cluster", "token", "--admin", h.URL); code != ExitFailed || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: %d %q %q", c.body, code, out, errs)
		}
		h.Close()
	}
}

// TestWhichNodeIsAsked: --admin goes over --config, that over the environment.
func TestWhichNodeIsAsked(t *testing.T) { // not parallel: it changes the environment
	right, _ := endpointOf(t, "follower.json", true)
	dir := t.TempDir()
	file := func(name, listen string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, fmt.Appendf(nil, "[admin]\nlisten = %q\n", listen), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("POGOD_ADMIN_LISTEN", "")
	good, bad, any := file("good.toml", right), file("bad.toml", "127.0.0.1:1"), file("any.toml", "127.0.0.1:0")
	for _, c := range []struct {
		env  string
		args []string
		code int
	}{
		{"", []string{"--config", good}, 0},
		{right, nil, 0},
		{"127.0.0.1:1", nil, ExitUnreachable},
		{"127.0.0.1:1", []string{"--config", good}, 0},
		{right, []string{"--config", bad}, ExitUnreachable},
		{"127.0.0.1:1", []string{"--config", bad, "--admin", right}, 0},
		{right, []string{"--config", any}, ExitFailed},
		{right, []string{"--config", filepath.Join(dir, "none.toml")}, ExitFailed},
	} {
		t.Setenv(adminEnv, c.env)
		for _, command := range [][]string{{"cluster", "members"}, {"cluster", "token"}, {"status"}} {
			args := append(command, c.args...)
			if code, out, errs := run(Deps{}, args...); code != c.code {
				t.Errorf("%s=%s %q: %d %q %q", adminEnv, c.env, args, code, out, errs)
			}
		}
	}
}

func TestSeen(t *testing.T) {
	t.Parallel()
	ms := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		r    admin.Read
		want string
	}{
		{admin.Read{Node: "a", AppliedIndex: 7, AgeMS: ms(49)}, "as node a sees it now, to entry 7"},
		{admin.Read{Node: "a", AppliedIndex: 7, AgeMS: ms(5000)}, "as node a saw it 5.0 s ago, to entry 7"},
		{admin.Read{Node: "a", AppliedIndex: 7, AgeMS: ms(5040)}, "\x1b[33mas node a saw it 5.0 s ago, to entry 7\x1b[0m"},
		{admin.Read{Node: "a", AppliedIndex: 7, AgeMS: ms(61000)}, "\x1b[33mas node a saw it 1m1s ago, to entry 7\x1b[0m"},
		{admin.Read{Node: "a", AppliedIndex: 7}, "\x1b[33mas node a saw it, to entry 7: it has not heard from a leader since it started\x1b[0m"},
		{admin.Read{Node: "a", AppliedIndex: 7, Consistent: true}, "consistent: all that was answered before, to entry 7"},
	} {
		if got := seen(&c.r, noon, true); got != c.want {
			t.Errorf("%q, not %q", got, c.want)
		}
	}
}
