package cluster_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pogod/internal/link"
)

// Each is what a page does to the admin endpoint; it ends with what the browser lets the page
// know of it.
var attacks = map[string]string{
	"push as text": `fetch(at + '/api/v1/queues/now/jobs', {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body: '{"payload":"text"}'})
		.then(r => r.type + ' ' + r.status)`,
	"push as a form's fields": `fetch(at + '/api/v1/queues/now/jobs', {method: 'POST', mode: 'no-cors', body: new URLSearchParams({payload: 'fields'})}).then(r => r.type + ' ' + r.status)`,
	"push as JSON":            `fetch(at + '/api/v1/queues/now/jobs', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{"payload":"json"}'}).then(r => '' + r.status)`,
	"push as JSON without CORS": `fetch(at + '/api/v1/queues/now/jobs', {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'application/json'}, body: '{"payload":"json"}'})
		.then(r => r.type + ' ' + r.status)`,
	"push by a beacon": `Promise.resolve('' + navigator.sendBeacon(at + '/api/v1/queues/now/jobs', new Blob(['{"payload":"beacon"}'], {type: 'text/plain'})))`,
	"push by a form": `new Promise(done => {
		const frame = document.createElement('iframe'), form = document.createElement('form'), field = document.createElement('input');
		frame.name = 'f' + Math.random();
		Object.assign(form, {method: 'post', enctype: 'text/plain', action: at + '/api/v1/queues/now/jobs', target: frame.name});
		Object.assign(field, {name: '{"payload":"', value: '"}'});
		document.body.append(frame, form);
		form.append(field);
		frame.onload = () => { try { if (frame.contentWindow.location.href === 'about:blank') return; } catch { } done('sent'); };
		form.submit();
	})`,
	"purge":         `fetch(at + '/api/v1/queues/now/failed', {method: 'DELETE', headers: {'Content-Type': 'application/json'}}).then(r => '' + r.status)`,
	"purge bare":    `fetch(at + '/api/v1/queues/now/failed', {method: 'DELETE'}).then(r => '' + r.status)`,
	"clear":         `fetch(at + '/api/v1/queues/late/jobs', {method: 'DELETE', headers: {'Content-Type': 'application/json'}}).then(r => '' + r.status)`,
	"pause":         `fetch(at + '/api/v1/queues/now/pause', {method: 'POST', mode: 'no-cors'}).then(r => r.type + ' ' + r.status)`,
	"retry":         `fetch(at + '/api/v1/queues/now/failed/retry', {method: 'POST', mode: 'no-cors', body: ''}).then(r => r.type + ' ' + r.status)`,
	"reload":        `fetch(at + '/api/v1/php/reload', {method: 'POST', mode: 'no-cors'}).then(r => r.type + ' ' + r.status)`,
	"read":          `fetch(at + '/status').then(r => r.text())`,
	"read payloads": `fetch(at + '/api/v1/queues/late/jobs').then(r => r.text())`,
}

// A page of elsewhere, in a browser on the node's machine, changes nothing and reads nothing:
// neither across origins, nor under a name that is rebound to the node's address.
func TestPagesOfElsewhereAreKeptOut(t *testing.T) {
	notTwice(t)
	t.Parallel()
	n := newNode(t, build(t, ""), "")
	n.up()
	worker := n.caller(link.RoleWorker, workerExt)
	n.done("push", queueNow, "secret payload")
	worker.failNext("secret payload", "on purpose")
	n.done("push", queueLate, "secret payload")
	_, before := n.ask("GET", "/api/v1/queues", "")
	untouched := func(what string) {
		t.Helper()
		if _, now := n.ask("GET", "/api/v1/queues", ""); now != before {
			t.Fatalf("%s changed something:\n%s\nwas\n%s", what, now, before)
		}
	}

	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>elsewhere</title><body>")
	}))
	defer pages.Close()
	_, theirs, _ := net.SplitHostPort(pages.Listener.Addr().String())
	_, ours, _ := net.SplitHostPort(n.admin)
	b := newBrowser(t, "http://elsewhere.example:"+theirs+"/", 800, 600, "--host-resolver-rules=MAP elsewhere.example 127.0.0.1")
	eventually(t, "the page is there", func() bool {
		var title string
		b.eval("document.title", &title)
		return title == "elsewhere"
	})
	for _, at := range []string{"http://" + n.admin, "http://localhost:" + ours, "http://elsewhere.example:" + ours} {
		for name, script := range attacks {
			var got string
			b.eval(fmt.Sprintf("(async () => { const at = %q; try { return await %s } catch (e) { return 'error ' + e } })()", at, script), &got)
			if strings.Contains(got, "secret") || strings.Contains(got, "queues") || strings.HasPrefix(got, "2") {
				t.Errorf("%s, %s: the page learns %q", name, at, got)
			}
			untouched(name + ", at " + at)
		}
	}

	// The name is rebound: what answers the page's own origin is the node.
	b.do("Page.enable", nil, nil)
	b.do("Page.navigate", map[string]any{"url": "http://elsewhere.example:" + ours + "/healthz"}, nil)
	eventually(t, "the page's origin is the node", func() bool {
		var origin string
		b.eval("location.origin", &origin)
		return origin == "http://elsewhere.example:"+ours
	})
	for name, script := range attacks {
		if name == "push by a form" {
			continue // of the very origin, a frame is answered as it is
		}
		var got string
		b.eval(fmt.Sprintf("(async () => { const at = ''; try { return await %s } catch (e) { return 'error ' + e } })()", script), &got)
		if strings.Contains(got, "secret") || strings.HasPrefix(got, "2") || strings.HasSuffix(got, " 200") {
			t.Errorf("%s, rebound: the page learns %q", name, got)
		}
		untouched(name + ", rebound")
	}
	n.stop()
}
