package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plainNode is a node whose configuration is the test's own.
func plainNode(t *testing.T) *node {
	t.Helper()
	notTwice(t)
	n := newNode(t, build(t, ""), "")
	n.up()
	return n
}

// reconfigured writes more into the configuration, before the first section that is not
// [node], and reloads it.
func (n *node) reconfigured(t *testing.T, edit func(text string) string) (applied, restart string, err error) {
	t.Helper()
	text, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config(), []byte(edit(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(n.bin, "config", "reload", "--json", "--admin", n.admin).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", "", fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	var r struct{ Applied, Restart []string }
	if err := errors.Join(err, json.Unmarshal(out, &r)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Join(r.Applied, ", "), strings.Join(r.Restart, ", "), nil
}

func inNode(line string) func(string) string {
	return func(text string) string { return strings.Replace(text, "[node]\n", "[node]\n"+line+"\n", 1) }
}

// logged waits for a line of the log that has all parts.
func (n *node) logged(t *testing.T, parts ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	for {
		b, err := os.ReadFile(n.logPath())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
				return line
			}
		}
		if !pause(ctx, pollPause) {
			t.Fatalf("no line with %q in\n%s", parts, b)
		}
	}
}

// post sends a push, and returns the status of the answer.
func (n *node) post(t *testing.T, queue, payload string) int {
	t.Helper()
	body, err := json.Marshal(map[string]string{"payload": payload})
	if err != nil {
		t.Fatal(err)
	}
	res, err := n.http.Post("http://"+n.admin+"/api/v1/queues/"+queue+"/jobs", "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

// TestReconfigure changes the configuration of a running node: what can count at once does,
// the rest is named until the node is started again, and what is wrong changes nothing.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	n := plainNode(t)
	pid := n.cmd.Process.Pid

	// Nothing has changed.
	if applied, restart, err := n.reconfigured(t, func(s string) string { return s }); applied+restart != "" || err != nil {
		t.Error(applied, restart, err)
	}
	// Queues: one comes, a limit changes, what is not declared is refused.
	if code := n.post(t, "fresh", "x"); code != http.StatusNotFound {
		t.Errorf("a push to a queue that is not declared: %d", code)
	}
	applied, restart, err := n.reconfigured(t, func(s string) string { return s + "\n[queue.fresh]\nmax_payload_bytes = 10\n" })
	if applied != "[queue.fresh]" || restart != "" || err != nil {
		t.Error(applied, restart, err)
	}
	if small, large := n.post(t, "fresh", "x"), n.post(t, "fresh", strings.Repeat("x", 11)); small != http.StatusOK || large != http.StatusRequestEntityTooLarge {
		t.Errorf("pushes answer %d and %d", small, large)
	}
	if applied, _, err = n.reconfigured(t, func(s string) string {
		return strings.Replace(s, "max_payload_bytes = 10\n", "max_payload_bytes = 20\n", 1)
	}); applied != "[queue.fresh] max_payload_bytes" || err != nil {
		t.Error(applied, err)
	}
	if code := n.post(t, "fresh", strings.Repeat("x", 11)); code != http.StatusOK {
		t.Errorf("a push answers %d", code)
	}
	// One that goes keeps its jobs and takes no pushes.
	if applied, _, err = n.reconfigured(t, func(s string) string { return strings.Replace(s, "\n[queue.fresh]\nmax_payload_bytes = 20\n", "", 1) }); applied != "[queue.fresh]" || err != nil {
		t.Error(applied, err)
	}
	doc, err := n.document(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if code, q := n.post(t, "fresh", "x"), doc.queue("fresh"); code != http.StatusNotFound || q.Pending != 2 {
		t.Errorf("a push answers %d, %+v", code, q)
	}
	if applied, _, err = n.reconfigured(t, func(s string) string { return s + "\n[queue]\nauto_create = true\n" }); err != nil || applied != "[queue] auto_create" {
		t.Error(applied, err)
	}
	if code := n.post(t, "made-by-a-push", "x"); code != http.StatusOK {
		t.Errorf("a push answers %d", code)
	}

	// What is wrong changes nothing, and says what in one line.
	good, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	for wrong, want := range map[string]string{
		"log_levels = \"debug\"": `unknown key "log_levels" in [node]: did you mean "log_level"?`,
		"push_timeout = \"1ms\"": "[node] push_timeout must be 100ms to 10m, not 1ms",
	} {
		_, _, err := n.reconfigured(t, inNode(wrong))
		if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "the configuration was not reloaded, the old one goes on") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", wrong, err)
		}
		n.logged(t, "level=ERROR", "the configuration was not reloaded, the old one goes on", strings.ReplaceAll(want, `"`, `\"`))
		if err := os.WriteFile(n.config(), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// What needs a restart is named, in status too, until it is changed back.
	admin := n.admin
	moved := func(s string) string {
		return strings.Replace(strings.Replace(s, admin, "127.0.0.1:1", 1), "[node]\n", "[node]\nlog_format = \"json\"\n", 1) + "\n[cluster]\njoin = [\"other:8083\"]\n"
	}
	text, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config(), []byte(moved(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(n.bin, "config", "reload", "--admin", admin).CombinedOutput()
	if want := "applied       [node] log_format\nneeds restart [admin] listen\nneeds restart [cluster] join\n"; err != nil || string(out) != want {
		t.Errorf("%v\n%swant\n%s", err, out, want)
	}
	var record struct{ Msg, Applied string }
	line := n.logged(t, `"needs_restart":"[admin] listen, [cluster] join"`)
	if err := json.Unmarshal([]byte(line), &record); err != nil || record.Msg != "the configuration was reloaded" || record.Applied != "[node] log_format" {
		t.Error(line, err)
	}
	out, err = exec.Command(n.bin, "status", "--admin", admin).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nrestart  for [admin] listen, [cluster] join: the configuration has changed\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.WriteFile(n.config(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	// SIGHUP does the same.
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	for {
		body, err := n.get(ctx, "/status")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(body), `"restart_for":[]`) {
			break
		}
		if !pause(ctx, pollPause) {
			t.Fatalf("%s", body)
		}
	}

	// Mode, level and the time to leave.
	if applied, _, err = n.reconfigured(t, inNode("mode = \"development\"\nlog_level = \"error\"\nshutdown_timeout = \"7s\"")); err != nil ||
		applied != "[node] log_level, [node] mode, [node] shutdown_timeout, [web] access_log, [[worker]] \"ext\" threads, [[worker]] \"ext-late\" threads" {
		t.Error(applied, err)
	}
	body, err := n.get(t.Context(), "/status")
	if err != nil || !strings.Contains(string(body), `"mode":"development"`) {
		t.Errorf("%s %v", body, err)
	}
	before, err := os.ReadFile(n.logPath())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = n.reconfigured(t, func(s string) string { return s }); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(n.logPath())
	if err != nil || len(after) != len(before) {
		t.Errorf("the log takes more than errors: %s %v", after[len(before):], err)
	}
	if _, _, err = n.reconfigured(t, func(s string) string { return strings.Replace(s, "log_level = \"error\"\n", "", 1) }); err != nil {
		t.Error(err)
	}
	if n.cmd.Process.Pid != pid {
		t.Error("it is another process")
	}
	began := time.Now()
	n.stop()
	n.logged(t, "leaving", "within=7s")
	t.Logf("it left after %s", time.Since(began).Round(time.Millisecond))
}
