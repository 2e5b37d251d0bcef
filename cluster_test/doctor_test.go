package cluster_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// doctor runs pogod doctor and returns its findings but for what is well.
func doctor(t *testing.T, cmd *exec.Cmd) (found string, code int) {
	t.Helper()
	cmd.Args = append(cmd.Args, "--json")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	var doc struct {
		Findings []struct{ Check, Level, Text, Advice string }
		Problems int
	}
	if err := errors.Join(err, json.Unmarshal(out, &doc)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	problems := 0
	for _, f := range doc.Findings {
		if f.Level == "problem" {
			problems++
		}
		if f.Level != "ok" {
			found += f.Level + ": " + f.Check + ": " + f.Text + "\n"
		}
	}
	if problems != doc.Problems || (code == 0) != (problems == 0) {
		t.Errorf("code %d with %d problems, of which there are %d", code, doc.Problems, problems)
	}
	return found, code
}

// TestDoctor asks about a node that runs, in good health and with this and that broken.
func TestDoctor(t *testing.T) {
	t.Parallel()
	notTwice(t)
	n := newNode(t, build(t, ""), "")
	n.up()
	if found, code := doctor(t, n.command("doctor")); code != 0 {
		t.Errorf("%d\n%s", code, found)
	}
	out, err := n.command("doctor").Output()
	if err != nil || !strings.Contains(string(out), "\nok       node ") || !strings.Contains(string(out), "[admin] listen  "+n.admin+" is in use, by the node that runs\n") {
		t.Errorf("%v\n%s", err, out)
	}
	broken := func(want string) {
		t.Helper()
		found, code := doctor(t, n.command("doctor"))
		if !strings.Contains(found, want) || strings.HasPrefix(want, "problem") && code != 1 {
			t.Errorf("code %d, no %s in\n%s", code, want, found)
		}
	}
	good, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(n.config(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What a reload has left for a restart.
	write(string(good) + "\n[cluster]\njoin = [\"other:8083\"]\n")
	if out, err := n.command("config", "reload").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	broken("warning: node: [cluster] join changed in the configuration and count at the next start")
	write(string(good))
	// Its socket is gone.
	if err := os.Rename(n.socket(), n.socket()+".away"); err != nil {
		t.Fatal(err)
	}
	broken("problem: [node] socket: PHP cannot connect: link: no node is reachable at " + n.socket())
	if err := os.Rename(n.socket()+".away", n.socket()); err != nil {
		t.Fatal(err)
	}
	// Somebody else answers where its configuration says that it does, or nobody.
	free := freeAddress(t)
	write(strings.Replace(string(good), n.admin, free, 1))
	broken("problem: node: process ")
	broken("warning: [admin] listen: " + free + " is free: the node that runs listens elsewhere")
	write(string(good))
	// It hangs: the lock is held, and nothing is answered.
	if err := n.freeze(); err != nil {
		t.Fatal(err)
	}
	broken("and its admin endpoint does not tell its status")
	n.kill()
	if found, code := doctor(t, n.command("doctor")); code != 0 || strings.Contains(found, ": node:") {
		t.Errorf("of a node that ended: %d\n%s", code, found)
	}
}

// freeAddress is one that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
