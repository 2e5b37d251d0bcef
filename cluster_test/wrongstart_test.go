package cluster_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// contents is all that is in a directory, each file with its content but for those that
// are left out.
func contents(t *testing.T, dir string, leftOut ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		for _, out := range leftOut {
			if name == out {
				return nil
			}
		}
		all[name] = d.Type().String()
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			all[name] += " " + string(b)
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// unchanged compares what contents returned.
func unchanged(t *testing.T, before, after map[string]string) {
	t.Helper()
	for name, was := range before {
		if is, ok := after[name]; !ok || is != was {
			t.Errorf("%s was changed or removed", name)
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s was made", name)
		}
	}
}

// turnedAway runs a command that must end with code 1 and nothing on stdout, within a bound,
// and returns what it wrote to stderr.
func turnedAway(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = orNew(cmd.SysProcAttr)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(endWithin, func() { _ = cmd.Process.Kill() }) // Wait then says so
	defer late.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || stdout.Len() > 0 {
		t.Errorf("it ended with %v, want code 1\n%s%s", err, stdout.String(), stderr.String())
	}
	return stderr.String()
}

func orNew(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		return new(syscall.SysProcAttr)
	}
	return a
}

// TestWrongConfiguration starts a node with each of many mistakes: it says which, in the
// same words as pogod config check, and makes nothing.
func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	notTwice(t)
	bin := build(t, "")
	for name, c := range map[string]struct {
		file, env string
		args      []string
		want      string // DIR is where the file is
	}{
		"unknown key":     {file: "[web]\nthread = 4\n", want: "pogod.toml:2:1: unknown key \"thread\" in [web]: did you mean \"threads\"?\n  2 | thread = 4\n    | ^^^^^^\n"},
		"unknown section": {file: "[wep]\n", want: "pogod.toml:1:2: unknown section \"wep\": did you mean \"web\"?\n  1 | [wep]\n    |  ^^^\n"},
		"wrong type":      {file: "[web]\nthreads = \"4\"\n", want: "pogod.toml:2:11: [web] threads must be an integer without quotes, not a string\n  2 | threads = \"4\"\n    |           ^^^\n"},
		"bad duration": {
			file: "[node]\npush_timeout = \"10 s\"\n",
			want: "pogod.toml:2:16: [node] push_timeout must be a duration, as \"90s\", \"1h30m\" or \"168h\", not \"10 s\": the units are ms, s, m and h\n  2 | push_timeout = \"10 s\"\n    |                ^^^^^^\n",
		},
		"no TOML":     {file: "[node]\nmode = production\n", want: "pogod.toml:2:8: this is not TOML: unexpected character U+0070 'p' at start of value: put text in quotes\n  2 | mode = production\n    |        ^\n"},
		"variable":    {file: "[[worker]]\nenv = { A = \"${NOT_SET}\" }\n", want: "pogod.toml:2:14: the environment has no variable NOT_SET: set it, or write $${ where the text is to have ${\n  2 | env = { A = \"${NOT_SET}\" }\n    |              ^^^^^^^^^^\n"},
		"environment": {env: "POGOD_LOG_LEVEL=warning", want: "the environment's POGOD_LOG_LEVEL must be \"debug\", \"info\", \"warn\" or \"error\", not \"warning\": did you mean \"warn\"?\n"},
		"misspelt":    {env: "POGOD_WEB_LISTN=:80", want: "the environment's POGOD_WEB_LISTN is no variable that pogod knows: did you mean POGOD_WEB_LISTEN?\n"},
		"open secret": {file: "[[websocket.app]]\nsecret_file = \"/etc/passwd\"\n", want: "pogod.toml:2:15: [[websocket.app]] secret_file must be a file that not everybody can read or write, but /etc/passwd has mode 0644: say chmod o= /etc/passwd\n  2 | secret_file = \"/etc/passwd\"\n    |               ^^^^^^^^^^^^^\n"},
		"wide admin": {
			file: "[admin]\nlisten = \"0.0.0.0:8082\"\n",
			want: "pogod.toml:2:10: [admin] listen is \"0.0.0.0:8082\", which others can reach: set [admin] tls and tokens (\"pogod admin token NAME\" makes a token), or take an address of this machine alone, as \"127.0.0.1:8082\"; --insecure does without\n  2 | listen = \"0.0.0.0:8082\"\n    |          ^^^^^^^^^^^^^^\n",
		},
		"no file":       {args: []string{"--config", "nowhere.toml"}, want: "the configuration cannot be read: open DIR/nowhere.toml: no such file or directory: name a file that exists"},
		"socket length": {args: []string{"--data", strings.Repeat("d", 120)}, want: "[node] socket must be at most 107 bytes, the longest path of a unix socket, but DIR/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, "pogod.toml"), []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, dir)
			for _, command := range [][]string{{"serve"}, {"config", "check"}} {
				cmd := exec.Command(bin, append(command, c.args...)...)
				cmd.Dir = dir
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), c.env}
				got := strings.ReplaceAll(turnedAway(t, cmd), dir, "DIR")
				first, _, _ := strings.Cut(got, "\n")
				if !strings.HasPrefix(got, "pogod: "+strings.TrimSuffix(c.want, "\n")) || strings.HasSuffix(c.want, "^\n") && got != "pogod: "+c.want || strings.Count(first, "pogod: ") != 1 {
					t.Errorf("%s says\n%swant\n%s", command, got, c.want)
				}
			}
			unchanged(t, before, contents(t, dir))
		})
	}
}

// TestWrongSituation starts a node where it cannot be: it says why in one line, and changes
// nothing that is stored.
func TestWrongSituation(t *testing.T) {
	t.Parallel()
	notTwice(t)
	bin := build(t, "")
	line := func(t *testing.T, got, want string) {
		t.Helper()
		if got != "pogod: "+want+"\n" {
			t.Errorf("it says\n%swant\npogod: %s\n", got, want)
		}
	}
	t.Run("data directory in use", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, bin, "")
		n.up()
		held := map[string]string{}
		for _, name := range []string{"lock", "node.json"} {
			b, err := os.ReadFile(filepath.Join(n.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			held[name] = string(b)
		}
		line(t, turnedAway(t, n.command("serve")), fmt.Sprintf("the data directory is in use: %s belongs to the running pogod with process id %d; end it, or give this one another --data", n.dir, n.cmd.Process.Pid))
		for name, was := range held {
			if b, err := os.ReadFile(filepath.Join(n.dir, name)); err != nil || string(b) != was {
				t.Errorf("%s: %q, was %q (%v)", name, b, was, err)
			}
		}
		if _, err := n.get(t.Context(), "/readyz"); err != nil {
			t.Error("the first node:", err)
		}
		n.stop()
	})
	t.Run("address in use", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, bin, "")
		n.up()
		n.stop()
		ln, err := net.Listen("tcp", n.admin)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		before := contents(t, n.dir, "/lock")
		line(t, turnedAway(t, n.command("serve")), fmt.Sprintf("[admin] listen = %q: listen tcp %[1]s: bind: address already in use; end what uses it, or choose another address", n.admin))
		unchanged(t, before, contents(t, n.dir, "/lock"))
	})
	t.Run("data of a newer pogod", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, bin, "")
		n.up()
		n.stop()
		db, err := bolt.Open(filepath.Join(n.dir, "state.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("format")).Put([]byte("version"), []byte{0, 0, 1000 >> 8, 1000 & 0xff})
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		before := contents(t, n.dir, "/lock")
		line(t, turnedAway(t, n.command("serve")), fmt.Sprintf("open %s/state.db: storage: the data file was written by a newer pogod: format 1000, this one reads up to 1; run the pogod that wrote it, or name another data directory", n.dir))
		unchanged(t, before, contents(t, n.dir, "/lock"))
	})
	t.Run("data directory is a file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/data", []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := contents(t, dir)
		cmd := exec.Command(bin, "serve", "--data", "data")
		cmd.Dir = dir
		line(t, turnedAway(t, cmd), "make the data directory: mkdir "+dir+"/data: not a directory; it must be a directory that this user may write to: change its rights, or name another with --data or [node] data_dir")
		unchanged(t, before, contents(t, dir))
	})
	t.Run("not writable", func(t *testing.T) {
		t.Parallel()
		dir, err := os.MkdirTemp("", "pogod") // which another user can enter
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what is left in the temporary directory harms nobody
		program, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(os.WriteFile(dir+"/program", program, 0o755), os.Mkdir(dir+"/data", 0o755), os.Chmod(dir+"/data", 0o555), os.Chmod(dir, 0o555))
		if err != nil {
			t.Fatal(err)
		}
		before := contents(t, dir, "/program")
		for data, want := range map[string]string{
			"data": "lock the data directory: open " + dir + "/data/lock: permission denied; it must be",
			"new":  "make the data directory: mkdir " + dir + "/new: permission denied; it must be",
		} {
			for _, command := range []string{"serve", "config check"} {
				cmd := exec.Command(dir+"/program", append(strings.Fields(command), "--data", data)...)
				cmd.Dir = dir
				if os.Geteuid() == 0 { // who may write anywhere
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
				}
				if command == "config check" {
					want = "[node] data_dir must be a directory that can be written to, but this user cannot "
				}
				if got := turnedAway(t, cmd); !strings.HasPrefix(got, "pogod: "+want) {
					t.Errorf("%s --data %s says\n%swant\n%s", command, data, got, want)
				}
			}
		}
		unchanged(t, before, contents(t, dir, "/program"))
	})
}
