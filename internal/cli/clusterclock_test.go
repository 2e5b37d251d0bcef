package cli

import (
	"bytes"
	"strings"
	"testing"

	"pogod/internal/admin"
)

func TestClusterClock(t *testing.T) {
	t.Parallel()
	addr, s := endpointOf(t, "follower.json", true)
	var c admin.Clock
	shownAndJSON(t, "clock", addr, &c)
	if len(c.Nodes) != 4 {
		t.Errorf("%+v", c)
	}
	var b bytes.Buffer
	showClock(&b, &s.Clock, true)
	golden(t, "clock.colour.txt", b.String())
	b.Reset()
	showClock(&b, &admin.Clock{Nodes: []admin.NodeClock{{Node: "alone", Self: true, Voter: true}}}, false)
	golden(t, "clock_unknown.txt", b.String())
}

func TestClusterClockReset(t *testing.T) {
	t.Parallel()
	addr, _ := endpointOf(t, "follower.json", true)
	code, out, errs := run(Deps{}, "cluster", "clock", "--reset", "--admin", addr)
	if code != 0 || errs != "" || out != "cluster time was set back by 8760h0m0s, to 2026-01-02 03:04:05.000 UTC\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, out, _ = run(Deps{}, "cluster", "clock", "--reset", "--json", "--admin", addr)
	if code != 0 || out != `{"back_ms":31536000000,"time":"2026-01-02T03:04:05Z"}`+"\n" {
		t.Errorf("%d %q", code, out)
	}
	lone, _ := endpointOf(t, "small.json", false) // a node that is part of no cluster has a time, too
	code, out, errs = run(Deps{}, "cluster", "clock", "--reset", "--admin", lone)
	if code != ExitFailed || out != "" || !strings.Contains(errs, "answers 409: cluster time was not set back: it is not ahead of the clocks") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, _, errs = run(Deps{}, "cluster", "clock", "now", "--admin", lone); code == 0 || errs == "" {
		t.Errorf("%d %q", code, errs)
	}
}
