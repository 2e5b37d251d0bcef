package cluster_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium with one page, spoken to over pipes in the DevTools
// protocol.
type browser struct {
	t       *testing.T
	to      *os.File
	from    <-chan message
	session string
	last    int
	errors  []string // what the page's script threw
}

type message struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// newBrowser opens a page, with more flags of Chromium, or skips the test where there is no
// Chromium.
func newBrowser(t *testing.T, url string, width, height int, flags ...string) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs a browser (Debian: chromium)")
	}
	theirs, to := pipe(t)
	answers, ours := pipe(t)
	flags = append(flags, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(),
		fmt.Sprintf("--window-size=%d,%d", width, height), "--remote-debugging-pipe", "about:blank")
	cmd := exec.Command(path, flags...)
	cmd.ExtraFiles = []*os.File{theirs, ours} // descriptors 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = cmd.Start()
	theirs.Close()
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan message) // unbuffered: do reads all that comes
	done := make(chan struct{})
	b := &browser{t: t, to: to, from: from}
	go func() { // ended by the browser's end, or by the clean-up
		defer close(from)
		for in := bufio.NewReader(answers); ; {
			line, err := in.ReadBytes(0)
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(line[:len(line)-1], &m) != nil {
				return
			}
			select {
			case from <- m:
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its children; gone is what we want
		_ = cmd.Wait()
	})
	var target struct{ TargetID string }
	b.do("Target.createTarget", map[string]any{"url": url}, &target)
	var attached struct{ SessionID string }
	b.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.do("Runtime.enable", nil, nil)
	var there bool
	eventually(t, "the browser shows "+url, func() bool { // not an empty page any more, whose scripts would be lost
		b.eval("location.href !== 'about:blank' && document.readyState === 'complete'", &there)
		return there
	})
	return b
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// do gives one command and waits for its result.
func (b *browser) do(method string, params, result any) {
	b.t.Helper()
	b.last++
	command := map[string]any{"id": b.last, "method": method}
	if params != nil {
		command["params"] = params
	}
	if b.session != "" {
		command["sessionId"] = b.session
	}
	line, err := json.Marshal(command)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(line, 0)); err != nil {
		b.t.Fatalf("%s: the browser is gone: %v", method, err)
	}
	late := time.After(readyWithin)
	for {
		select {
		case m, ok := <-b.from:
			switch {
			case !ok:
				b.t.Fatalf("%s: the browser is gone", method)
			case m.Method == "Runtime.exceptionThrown":
				b.errors = append(b.errors, string(m.Params))
			case m.ID != b.last:
			case m.Error != nil:
				b.t.Fatalf("%s: %s", method, m.Error.Message)
			default:
				if result != nil {
					if err := json.Unmarshal(m.Result, result); err != nil {
						b.t.Fatalf("%s: %v: %s", method, err, m.Result)
					}
				}
				return
			}
		case <-late:
			b.t.Fatalf("%s was not answered within %s", method, readyWithin)
		}
	}
}

// eval evaluates an expression in the page.
func (b *browser) eval(expression string, into any) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	b.do("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails.Text)
	}
	if err := json.Unmarshal(r.Result.Value, into); err != nil {
		b.t.Fatalf("%s: %v: %s", expression, err, r.Result.Value)
	}
}

// click clicks with the mouse where the element is, which must be there and seen.
func (b *browser) click(selector string) {
	b.t.Helper()
	quoted, _ := json.Marshal(selector) // a string
	var at *struct{ X, Y float64 }
	b.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%s); if (!e || !e.checkVisibility()) return null; e.scrollIntoView({block: 'center', behavior: 'instant'});
		const r = e.getBoundingClientRect(); return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()`, quoted), &at)
	if at == nil {
		b.t.Fatalf("the page has no %s to click", selector)
	}
	for _, kind := range []string{"mouseMoved", "mousePressed", "mouseReleased"} {
		p := map[string]any{"type": kind, "x": at.X, "y": at.Y}
		if kind != "mouseMoved" {
			p["button"], p["clickCount"] = "left", 1
		}
		b.do("Input.dispatchMouseEvent", p, nil)
	}
}

// see waits until the element's text is, or holds, this.
func (b *browser) see(selector, text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(selector) // a string
	var now string
	eventually(b.t, fmt.Sprintf("%s shows %q", selector, text), func() bool {
		b.eval(fmt.Sprintf(`document.querySelector(%s)?.innerText ?? ''`, quoted), &now)
		return strings.Contains(now, text)
	})
}

// screenshot keeps a picture in the directory POGOD_SCREENSHOTS, if that is set.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("POGOD_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.do("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(dir+"/"+name+".png", png, 0o600)
	}
	if err != nil {
		b.t.Error(err)
	}
}
