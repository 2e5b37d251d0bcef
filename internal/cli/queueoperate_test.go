package cli

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"pogod/internal/admin"
)

func TestQueueOperate(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 3, 0)
	const asked = "delete the jobs that wait in queue mail, 12 ready and 3 delayed now? [y/N] "
	for _, c := range []struct {
		args      string
		on        screens
		stdin     string
		code      int
		out, errs string // errs: its end
		call      string
	}{
		{"pause mail", screens{}, "", 0, "mail is paused\n", "", "pause mail"},
		{"pause mail --json", screens{}, "", 0, `{"queue":"mail","paused":true}` + "\n", "", "pause mail"},
		{"resume mail", screens{}, "", 0, "mail is resumed\n", "", "resume mail"},
		{"pause nowhere", screens{}, "", 1, "", "answers 404: queue nowhere: the queue is not declared: add it to [queue] or switch auto_create on\n", "pause nowhere"},
		{"pause", screens{}, "", 2, "", `pogod queue pause takes a queue, as "pogod queue pause QUEUE": "pogod queue pause --help" has examples` + "\n", ""},
		{"clear mail", screens{}, "", 0, "15 jobs deleted\n", "", "clear mail"},
		{"clear mail --json", screens{}, "", 0, `{"queue":"mail","count":15}` + "\n", "", "clear mail"},
		{"clear mail", screens{stderr: true}, "y\n", 0, "15 jobs deleted\n", asked, "clear mail"},
		{"clear mail", screens{true, true}, "\n", 1, "", asked + "pogod: nothing was deleted\n", ""},
		{"clear mail --yes", screens{true, true}, "", 0, "15 jobs deleted\n", "", "clear mail"},
		{"clear mail --dry-run", screens{true, true}, "", 0, "15 jobs would be deleted: 12 ready, 3 delayed\n", "", ""},
		{"clear mail --dry-run --json", screens{}, "", 0, `{"queue":"mail","count":15,"dry_run":true}` + "\n", "", ""},
		{"clear nowhere --dry-run", screens{}, "", 1, "", "add it to [queue] or switch auto_create on\n", ""},
		{"delete mail 5-6", screens{}, "", 0, "1 job deleted\n", "", "delete mail 5-6"},
		{"delete mail 1-2", screens{}, "", 1, "", "answers 409: queue mail, job 1-2: the job is reserved: a worker has it; delete it when it is back in line or has failed, or let it end\n", "delete mail 1-2"},
		{"delete mail", screens{}, "", 2, "", `takes a queue and the id of a job, as "pogod queue delete QUEUE ID": "pogod queue delete --help" has examples` + "\n", ""},
	} {
		q.calls = nil
		code, out, errs := runOn(c.on, Deps{Stdin: strings.NewReader(c.stdin)}, append([]string{"queue", "--admin", addr}, strings.Fields(c.args)...)...)
		if code != c.code || out != c.out || !strings.HasSuffix(errs, c.errs) || (c.errs == "") != (errs == "") || strings.Join(q.calls, "") != c.call {
			t.Errorf("%s: %d %q %q %q", c.args, code, out, errs, q.calls)
		}
	}
}

// ticking is a program whose clock a test drives.
type ticking struct {
	*program
	out, errs bytes.Buffer
	ticks     chan time.Time
	at        time.Time
}

func newTicking(on screens) *ticking {
	k := &ticking{ticks: make(chan time.Time), at: noon}
	k.program = newProgram(Deps{Stdout: &k.out, Stderr: &k.errs})
	k.screen = func(w io.Writer) bool { return w == &k.errs && on.stderr }
	k.tick = func() (<-chan time.Time, func()) { return k.ticks, func() {} }
	k.now = func() time.Time { k.at = k.at.Add(time.Second); return k.at }
	return k
}

// Drain looks until the queue is empty for all nodes.
func TestQueueDrain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, args string
		looks      []uint64 // jobs that are ready, look by look; the last stays
		paused     bool
		screen     bool
		code       int
		out, errs  string // errs: its end
	}{
		{"empty", "mail", []uint64{0}, false, false, 0, "mail is empty: 90 acked, 7 failed so far\n", ""},
		{"json", "mail --json", []uint64{3, 0}, false, false, 0, `{"queue":"mail","ready":true,"pending":0,`, ""},
		{"later", "mail --timeout 1h", []uint64{3, 2, 0}, false, false, 0, "mail is empty: 90 acked, 7 failed so far\n", ""},
		{"shown", "mail", []uint64{3, 0}, false, true, 0, "mail is empty", "\rmail: 3 ready, 1 delayed, 0 reserved, after 1s\x1b[K\r\x1b[K"},
		{"too late", "mail --timeout 2s", []uint64{3}, false, false, 1, "", "pogod: queue mail is not empty after 2s: 3 ready, 1 delayed, 0 reserved\n"},
		{"paused", "mail", []uint64{3}, true, false, 1, "", "pogod: queue mail is paused and does not get empty: \"pogod queue resume mail\" has its 4 jobs handed out, \"pogod queue clear mail\" deletes those that wait\n"},
		{"paused and empty", "mail", []uint64{0}, true, false, 0, "mail is empty", ""},
		{"unknown", "nowhere", []uint64{0}, false, false, 1, "", "add it to [queue] or switch auto_create on\n"},
		{"no time", "mail --timeout -1s", []uint64{0}, false, false, 2, "", "--timeout must not be below 0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, q := withFailed(t, 0, 0)
			looks := c.looks
			q.s = &admin.Status{}
			q.now = func(d *admin.Queue) {
				d.Pending, d.Delayed, d.Reserved, d.Paused = looks[0], min(looks[0], 1), 0, c.paused
				if len(looks) > 1 {
					looks = looks[1:]
				}
			}
			k := newTicking(screens{stderr: c.screen})
			ended := make(chan int, 1)
			go func() {
				ended <- k.execute(context.Background(), append([]string{"queue", "drain", "--admin", addr}, strings.Fields(c.args)...))
			}() // ended by what it finds
			code := -1
			for code < 0 {
				select {
				case k.ticks <- noon:
				case code = <-ended:
				}
			}
			if code != c.code || !strings.HasPrefix(k.out.String(), c.out) || (c.out == "") != (k.out.Len() == 0) || !strings.HasSuffix(k.errs.String(), c.errs) || (c.errs == "") != (k.errs.Len() == 0) {
				t.Errorf("%d %q %q", code, k.out.String(), k.errs.String())
			}
		})
	}
}

// What this node sees empty may not be so for the others.
func TestQueueDrainAsksAll(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 0, 0)
	q.now = func(d *admin.Queue) { d.Pending, d.Delayed, d.Reserved = 0, 0, 0 }
	q.s = &admin.Status{Queues: []admin.Queue{{Queue: "mail", Reserved: 1}}}
	k := newTicking(screens{})
	if code := k.execute(context.Background(), []string{"queue", "drain", "mail", "--timeout", "1s", "--admin", addr}); code != 1 || !strings.Contains(k.errs.String(), "0 delayed, 1 reserved") {
		t.Errorf("%d %q", code, k.errs.String())
	}
}

// A retry that takes long shows what is left of it.
func TestQueueProgress(t *testing.T) {
	t.Parallel()
	addr, q := withFailed(t, 3, 3)
	q.hold = make(chan struct{})
	k := newTicking(screens{stderr: true})
	ended := make(chan int, 1)
	go func() {
		ended <- k.execute(context.Background(), []string{"queue", "retry", "mail", "--all", "--admin", addr})
	}() // ended by the answer
	k.ticks <- noon
	k.ticks <- noon // the first was dealt with
	close(q.hold)
	if code := <-ended; code != 0 || k.out.String() != "3 failed jobs retried\n" || !strings.HasPrefix(k.errs.String(), "\rmail: 3 failed jobs left\x1b[K") || !strings.HasSuffix(k.errs.String(), "\r\x1b[K") {
		t.Errorf("%d %q %q", code, k.out.String(), k.errs.String())
	}
}

// Shells are offered queues and ids, or nothing.
func TestQueueCompletion(t *testing.T) {
	t.Parallel()
	addr, _ := withFailed(t, 2, 0)
	silent, stop := silentServer(t)
	defer stop()
	for _, c := range []struct{ args, want string }{
		{"queue show --admin " + addr + " |", "default mail"},
		{"queue pause --admin " + addr + " |ma", "mail"},
		{"queue purge --admin " + addr + " mail |", ""},
		{"queue push --admin " + addr + " |", "default mail"},
		{"queue retry --admin " + addr + " mail |", "1767322985000-2 1767322985000-1"},
		{"queue forget --admin " + addr + " mail |1767322985000-1", "1767322985000-1"},
		{"queue delete --admin " + addr + " mail |", "1767322985000-6 1767323045000-60 1767322985000-2 1767322985000-1"},
		{"queue retry --admin " + addr + " nowhere |", ""},
		{"queue retry --admin " + addr + " mail 1-2 |", ""},
		{"queue ls --admin " + addr + " |", ""},
		{"queue show --admin 127.0.0.1:1 |", ""},
		{"queue show --admin " + silent + " |", ""},
		{"queue show --config /nowhere |", ""},
		{"queue peek mail --state |", "delayed ready reserved suspect"},
	} {
		before, typed, _ := strings.Cut(c.args, "|")
		begin := time.Now()
		code, out, errs := run(Deps{}, append(append([]string{"__completeNoDesc"}, strings.Fields(before)...), typed)...)
		if waited := time.Since(begin); waited >= askTimeout { // as long as commands wait
			t.Errorf("%s took %s", c.args, waited)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		got := strings.Join(lines[:len(lines)-1], " ")
		if strings.Contains(c.args, "--state") {
			got = sortedWords(got)
		}
		if code != 0 || got != c.want || lines[len(lines)-1] != ":4" || strings.Contains(errs, "pogod:") {
			t.Errorf("%s: %d %q %q", c.args, code, out, errs)
		}
	}
}

func sortedWords(s string) string {
	words := strings.Fields(s)
	slices.Sort(words)
	return strings.Join(words, " ")
}

// silentServer takes connections and says nothing.
func silentServer(t *testing.T) (address string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String(), func() { _ = ln.Close() }
}
