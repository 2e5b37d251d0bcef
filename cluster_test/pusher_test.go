//go:build php

package cluster_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const pusherFolder = "testdata/pusher"

// pusherJS installs pusher-js as the lock file has it, once.
var pusherJS = sync.OnceValue(func() error {
	have, err := os.ReadFile(filepath.Join(pusherFolder, "node_modules/.package-lock.json"))
	want, wantErr := os.ReadFile(filepath.Join(pusherFolder, "package-lock.json"))
	if err == nil && wantErr == nil && integrities(have) == integrities(want) {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = pusherFolder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
})

// integrities are the hashes of the packages in a lock file.
func integrities(lock []byte) string {
	var doc struct {
		Packages map[string]struct{ Integrity string }
	}
	if json.Unmarshal(lock, &doc) != nil {
		return "unreadable"
	}
	delete(doc.Packages, "") // the folder itself
	return fmt.Sprint(doc.Packages)
}

// needPusherJS skips the test where there is no node.
func needPusherJS(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs node and npm (Debian: nodejs, npm)")
		}
	}
	if err := pusherJS(); err != nil {
		t.Fatal(err)
	}
}

// pusher is a process that runs pusher-js.
type pusher struct {
	t  *testing.T
	in io.Writer
	on <-chan happening
	id string // the socket id, once it is connected
}

// happening is a line of client.js.
type happening struct {
	What, State, ID, Channel, Event string
	Code                            int
	Data                            json.RawMessage
}

// newPusher connects a client to the site's hub.
func newPusher(t *testing.T, s *site, options map[string]any) *pusher {
	t.Helper()
	p := startPusher(t, s, "app-key", options)
	p.connected()
	return p
}

func startPusher(t *testing.T, s *site, key string, options map[string]any) *pusher {
	t.Helper()
	needPusherJS(t)
	host, port, err := net.SplitHostPort(s.hub)
	if err != nil {
		t.Fatal(err)
	}
	arg, _ := json.Marshal(map[string]any{"host": host, "port": port, "key": key, "auth": s.web + "/auth", "options": options}) // of strings
	cmd := exec.Command("node", "client.js", string(arg))
	cmd.Dir = pusherFolder
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	on := make(chan happening, 10_000) // more than a test makes happen
	go func() {                        // ended by the client's end
		defer out.Close()
		defer close(on)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var h happening
			if json.Unmarshal(lines.Bytes(), &h) != nil {
				return
			}
			on <- h
		}
	}()
	t.Cleanup(func() {
		in.Close() // which ends it
		_ = cmd.Wait()
	})
	return &pusher{t: t, in: in, on: on}
}

func (p *pusher) do(command string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for what a test expects, and lets happen what else may.
func (p *pusher) until(what string, is func(happening) bool) happening {
	p.t.Helper()
	late := time.After(readyWithin)
	var seen []happening
	for {
		select {
		case h, ok := <-p.on:
			if !ok {
				p.t.Fatalf("%s: pusher-js has ended, after %+v", what, seen)
			}
			if is(h) {
				return h
			}
			seen = append(seen, h)
		case <-late:
			p.t.Fatalf("%s: not within %s; it saw %+v", what, readyWithin, seen)
		}
	}
}

// next waits for one thing, and refuses another meanwhile.
func (p *pusher) next(what string) happening {
	p.t.Helper()
	return p.until(what, func(happening) bool { return true })
}

func (p *pusher) connected() {
	p.t.Helper()
	p.id = p.until("connected", func(h happening) bool { return h.What == "state" && h.State == "connected" }).ID
}

func (p *pusher) subscribe(channel string) {
	p.t.Helper()
	p.do("subscribe " + channel)
	if h := p.next("subscribing"); h.What != "subscribed" || h.Channel != channel {
		p.t.Fatalf("%+v", h)
	}
}

// got waits for the very next thing, which is to be this event.
func (p *pusher) got(channel, event, data string) {
	p.t.Helper()
	if h := p.next("an event"); h.What != "event" || h.Channel != channel || h.Event != event || string(h.Data) != data {
		p.t.Errorf("%+v %s, want %s of %s with %s", h, h.Data, event, channel, data)
	}
}
