//go:build php

package cluster_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestE2EGettingStarted does what docs/getting-started.md says, block by block: a block
// "sh" is run, "sh stopped" when the node has ended, "sh serve" is a node that goes on, and one
// of another language with a name behind it is a file.
func TestE2EGettingStarted(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := pogod(t)
	home, err := os.MkdirTemp("", "pogod") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	web, admin := freeAddress(t), freeAddress(t)
	env := append(os.Environ(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "POGOD_WEB_LISTEN="+web, "POGOD_ADMIN_LISTEN="+admin, "POGOD_ADMIN=http://"+admin)
	dir := home
	var node *exec.Cmd
	var exited chan struct{}
	var log strings.Builder
	stop := func() {
		if node == nil {
			return
		}
		if err := node.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-exited
		if !node.ProcessState.Success() {
			t.Errorf("the node ended with %s\n%s", node.ProcessState, log.String())
		}
		node = nil
	}
	t.Cleanup(stop)
	serve := func(command string) {
		node = exec.Command("sh", "-c", "exec "+command)
		node.Dir, node.Env = dir, env
		node.Stdout, node.Stderr = &log, &log
		node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := node.Start(); err != nil {
			t.Fatal(err)
		}
		exited = make(chan struct{})
		go func(cmd *exec.Cmd, done chan struct{}) { // ended by the end of the process
			_ = cmd.Wait()
			close(done)
		}(node, exited)
		eventually(t, "the node is ready", func() bool {
			select {
			case <-exited:
				t.Fatalf("the node ended\n%s", log.String())
			default:
			}
			return exec.Command("curl", "-sf", "http://"+admin+"/readyz").Run() == nil
		})
	}
	said := map[string]string{} // by command, what it printed
	run := func(block string) {
		for command := range strings.Lines(block) {
			command = strings.TrimSpace(command)
			if sub, ok := strings.CutPrefix(command, "cd "); ok {
				dir = filepath.Join(dir, sub)
				continue
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(command, "127.0.0.1:8080", web))
			cmd.Dir, cmd.Env = dir, env
			try := func() error {
				again := *cmd
				out, err := again.CombinedOutput()
				said[command] = string(out)
				return err
			}
			if command == "pogod queue failed default" { // once it has had its attempts
				eventually(t, "a job has failed", func() bool {
					cmd = exec.CommandContext(t.Context(), "sh", "-c", command)
					cmd.Dir, cmd.Env = dir, env
					return try() == nil && strings.Contains(said[command], "there is nobody to write to")
				})
				continue
			}
			if err := try(); err != nil {
				t.Fatalf("%s: %v\n%s\n%s", command, err, said[command], log.String())
			}
		}
	}
	blocks := strings.Split(string(text), "\n```")
	runs := 0
	for i := 1; i < len(blocks); i += 2 { // every second one is between fences
		header, block, _ := strings.Cut(blocks[i], "\n")
		language, name, _ := strings.Cut(header, " ")
		switch {
		case header == "sh", header == "sh stopped":
			if header == "sh stopped" {
				stop()
			}
			run(block + "\n")
			runs++
		case header == "sh serve":
			serve(strings.TrimSpace(block))
			runs++
		case name != "" && (language == "php" || language == "toml"):
			if err := os.WriteFile(filepath.Join(dir, name), []byte(block+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		case header != "" && header != "toml":
			t.Errorf("what is a block %q?", header)
		}
	}
	if runs < 8 {
		t.Errorf("only %d blocks were run", runs)
	}
	for command, want := range map[string]string{
		`curl -s 'http://127.0.0.1:8080/?to=ada@example.org'`: `"code":1`,
		"pogod config check":              "is good: production mode, 2 queues, 1 worker, 0 pools",
		"pogod php reload":                "reloaded in ",
		"pogod config reload":             "applied       [[worker]] \"default\" threads\n",
		"pogod queue retry default --all": "1",
	} {
		if !strings.Contains(said[command], want) {
			t.Errorf("%s says\n%s", command, said[command])
		}
	}
	stop()
	for _, want := range []string{`msg="a mail to ada@example.org" worker=default queue=default`, `msg="a mail to grace@example.org"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log\n%s", want, log.String())
		}
	}
}
