//go:build php

package phpext

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pogod/internal/link"
)

// The test binary is a PHP host when this variable says how often: once, or twice
// one after the other. A crash of PHP ends that child alone.
const hostEnv = "POGO_TEST_HOST"

func TestMain(m *testing.M) {
	if times := os.Getenv(hostEnv); times != "" {
		if err := beHost(len(times)); err != nil {
			fmt.Fprintln(os.Stderr, "host:", err)
			if errors.Is(err, ErrNodeGone) {
				os.Exit(3)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// beHost runs the host of the environment's spec, times times.
func beHost(times int) error {
	var spec link.HostSpec
	if err := json.Unmarshal([]byte(os.Getenv(link.HostSpecEnv)), &spec); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	for range times {
		var ln net.Listener
		if spec.Web != nil {
			var err error
			if ln, err = net.FileListener(os.NewFile(3, "web")); err != nil {
				return err
			}
		}
		if err := RunHost(context.Background(), spec, ln, log); err != nil {
			return err
		}
	}
	return nil
}

// phpConfig answers php-config's question.
func phpConfig(t testing.TB, question string) string {
	t.Helper()
	name := "php-config"
	for _, env := range []string{"POGOD_PHP_CONFIG", "PHP_CONFIG"} {
		if v := os.Getenv(env); v != "" {
			name = v
			break
		}
	}
	out, err := exec.Command(name, question).Output()
	if err != nil {
		t.Fatalf("%s %s: %v (run the tests through scripts/env.sh --php)", name, question, err)
	}
	return strings.TrimSpace(string(out))
}

// pogo.so, built once from the same files, with every warning an error.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func pogoSO(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		built.dir, built.err = os.MkdirTemp("", "pogo-so")
		if built.err != nil {
			return
		}
		args := []string{"-shared", "-fPIC", "-g", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"}
		args = append(args, strings.Fields(phpConfig(t, "--includes"))...)
		args = append(args, "-o", filepath.Join(built.dir, "pogo.so"))
		for _, f := range []string{"pogo.c", "link.c", "functions.c", "reserve.c", "websocket.c", "worker.c", "dispatch.c"} {
			args = append(args, filepath.Join("ext", f))
		}
		if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal("build pogo.so:", built.err)
	}
	return filepath.Join(built.dir, "pogo.so")
}

// php returns the php command line with pogo.so, connected to socket ("" for none).
func php(t testing.TB, socket string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(phpConfig(t, "--php-binary"), append([]string{"-n", "-d", "extension=" + pogoSO(t)}, args...)...)
	cmd.Env = append(os.Environ(), "POGOD_SOCKET="+socket)
	cmd.Dir = t.TempDir()
	return cmd
}

// run returns what a command printed, and fails the test when the command failed.
func run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Log(stderr.String())
	}
	return string(out)
}
