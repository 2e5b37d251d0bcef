//go:build php

package cluster_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2EPogodPHP runs `pogod php` against a node.
func TestE2EPogodPHP(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue]\nauto_create = true\n")
	for name, test := range map[string]func(*testing.T, *site){
		"options and exit codes": testPogodPHPOptions,
		"standard input":         testPogodPHPStdin,
		"PHP_BINARY":             testPogodPHPBinary,
		"one process":            testPogodPHPSignals,
		"fork":                   testPogodPHPFork,
		"console":                testPogodPHPConsole,
		"server":                 testPogodPHPServer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// pogodPHP is the php command line, as a user starts it.
func (s *site) pogodPHP(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(filepath.Join(filepath.Dir(s.bin), "pogod-php")); err != nil {
		t.Skipf("%v: run make build", err)
	}
	cmd := exec.CommandContext(t.Context(), s.bin, append([]string{"--config", s.config(), "php"}, args...)...)
	cmd.Dir = s.home
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// ran is what a command printed, and its exit code.
func ran(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func testPogodPHPOptions(t *testing.T, s *site) {
	for _, c := range []struct {
		args []string
		code int
		want string // is in what it printed
	}{
		{[]string{"-v"}, 0, "(cli)"},
		{[]string{"-m"}, 0, "\npogo\n"},
		{[]string{"-i"}, 0, "socket => " + s.socket()},
		{[]string{"--ri", "pogo"}, 0, "pogo => enabled"},
		{[]string{"-d", "precision=3", "-r", "echo 1/3, '|', json_encode(array_slice($argv, 1));", "--", "-r", "--config", "a b"}, 0, `0.333|["-r","--config","a b"]`},
		{[]string{"-r", "echo pogo_queue_push('options', 'x');"}, 0, `"code":1}`},
		{[]string{"-r", "exit(42);"}, 42, ""},
		{[]string{"-r", "throw new DomainException('no');"}, 255, "DomainException: no"},
		{[]string{"-l", inApp(t, "cli/push.php")}, 0, "No syntax errors"},
		{[]string{"-l", s.config()}, 0, "No syntax errors"}, // a file without PHP in it
		{[]string{"gone.php"}, 1, "Could not open input file"},
	} {
		code, out, errs := ran(t, s.pogodPHP(t, c.args...))
		if code != c.code || !strings.Contains("\n"+out+errs, c.want) {
			t.Errorf("%q ended with %d, want %d and %q:\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}

func testPogodPHPStdin(t *testing.T, s *site) {
	cmd := s.pogodPHP(t)
	cmd.Stdin = strings.NewReader(`<?php echo pogo_queue_push('stdin', 'x'), __FILE__; exit(3);`)
	if code, out, errs := ran(t, cmd); code != 3 || !strings.Contains(out, `"code":1}`) {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// testPogodPHPBinary starts a program by PHP_BINARY from elsewhere, as schedulers and
// process pools do.
func testPogodPHPBinary(t *testing.T, s *site) {
	code, out, errs := ran(t, s.pogodPHP(t, "-r", `
		if (getenv('PHP_BINARY') !== PHP_BINARY) exit(50);
		chdir('/');
		passthru(escapeshellarg(PHP_BINARY) . ' -r ' . escapeshellarg('echo pogo_queue_push("binary", "x"); exit(6);'), $code);
		exit($code);`))
	if code != 6 || !strings.Contains(out, `"code":1}`) {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// testPogodPHPSignals sees that php is the very process that was started.
func testPogodPHPSignals(t *testing.T, s *site) {
	for script, want := range map[string]string{
		`echo getmypid(), "\n"; while (true) sleep(60);`:                                                                     "signal: terminated",
		`pcntl_async_signals(true); pcntl_signal(SIGTERM, fn () => exit(9)); echo getmypid(), "\n"; while (true) sleep(60);`: "exit status 9",
	} {
		cmd := s.pogodPHP(t, "-r", script)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != fmt.Sprintln(cmd.Process.Pid) {
			t.Errorf("php is process %q, and %d was started: %v", line, cmd.Process.Pid, err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || err.Error() != want {
			t.Errorf("it ended with %v, want %s", err, want)
		}
	}
}

func testPogodPHPFork(t *testing.T, s *site) {
	var c struct {
		Before, Parent, After string
		Child                 int
	}
	output(t, s.pogodPHP(t, inApp(t, "cli/fork.php"), "forked"), &c)
	ids := map[string]bool{}
	for _, text := range []string{c.Before, c.Parent, c.After} {
		if a := parseAnswer(t, text); a.OK {
			ids[a.ID] = true
		}
	}
	if got := s.queue(t, "forked"); c.Child != 0 || len(ids) != 3 || got.Enqueued != 4 {
		t.Errorf("%+v, %v, %+v", c, ids, got)
	}
}

func testPogodPHPConsole(t *testing.T, s *site) {
	push := s.pogodPHP(t, inApp(t, "cli/console.php"), "queue:push", "--queue=console")
	push.Stdin = strings.NewReader("{\"to\":\"ada\"}\n")
	code, out, errs := ran(t, push)
	if code != 0 || errs != "accepted\n" || !strings.HasSuffix(out, "\n") || len(out) < 10 {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, out, errs = ran(t, s.pogodPHP(t, inApp(t, "cli/console.php"), "queue:status", "--queue=console"))
	if code != 0 || out != "console 1\n" || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, _, errs := ran(t, s.pogodPHP(t, inApp(t, "cli/console.php"), "status")); code != 2 || !strings.Contains(errs, `"status" is not defined`) {
		t.Errorf("%d %q", code, errs)
	}
}

// testPogodPHPServer runs PHP's own web server.
func testPogodPHPServer(t *testing.T, s *site) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	cmd := s.pogodPHP(t, "-S", addr, inApp(t, "public/index.php"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it has no other end
		_ = cmd.Wait()
	}()
	var body []byte
	eventually(t, "the page of php -S", func() bool {
		res, err := s.client.Post("http://"+addr+"/call", "application/json", strings.NewReader(`[["pogo_queue_push","server","x"]]`))
		if err != nil {
			return false
		}
		defer res.Body.Close()
		body, err = io.ReadAll(res.Body)
		return err == nil && res.StatusCode == http.StatusOK
	})
	if !strings.Contains(string(body), `\"code\":1}`) {
		t.Errorf("%s", body)
	}
	if got := s.queue(t, "server"); got.Enqueued != 1 {
		t.Errorf("%+v", got)
	}
	const prompt = 5 * time.Second
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || time.Since(began) > prompt {
		t.Errorf("SIGINT: it ended with %v after %s", err, time.Since(began))
	}
}
