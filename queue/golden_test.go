package queue_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/queue"
)

var update = flag.Bool("update", false, "write what the scripts of testdata answer into them")

// Each file of testdata is a script: blocks of commands, a line each, "----", and
// what they answer, up to an empty line. Blocks of one file follow each other.
//
//	define [auto] [QUEUE:KEY=VALUE,...]...   attempts, crashes, messages, bytes, payload, timeout, backoff=1s+5s
//	open                                     a session; end SESSION
//	push QUEUE PAYLOAD [delay=5s]
//	reserve QUEUE[/suspects] SESSION N
//	ack|fail|release QUEUE DELIVERY [delay=5s] [cause=unsettled] [reason=it_threw] [output=half_way]
//	retry|forget QUEUE ID, purge QUEUE
//	pause|resume QUEUE
//	clear QUEUE [from=3]
//	delete QUEUE ID [from=3]                 from: its place, else it is looked up
//	retry_all QUEUE [delay=5s] [reason=threw] [from=3] [to=9]
//	count QUEUE [too_large=1] [shutdown=1] [backend=1]
//	tick [5s]                                after that time
//	commit, restart
//	state                                    everything there is
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(want))
			if bytes.Equal([]byte(got), want) {
				return
			}
			if !*update {
				t.Fatalf("%s: %s\n-update takes it over", file, firstDifference([]byte(got), want))
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// runScript returns the script with what it answered now.
func runScript(t *testing.T, text string) string {
	t.Helper()
	s := &script{machine: newMachine(t, filepath.Join(t.TempDir(), "data"))}
	t.Cleanup(func() { _ = s.store.Close() })
	s.now = startOfScripts
	var out strings.Builder
	answering := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "----":
			answering = true
			out.WriteString("----\n" + s.answers.String())
			s.answers.Reset()
			continue
		case line == "":
			answering = false
		case answering:
			continue
		case !strings.HasPrefix(line, "#"):
			s.run(line)
		}
		out.WriteString(line + "\n")
	}
	s.check()
	return out.String()
}

const startOfScripts = 1000 // unix milliseconds

type script struct {
	*machine
	answers strings.Builder
}

func (s *script) say(format string, args ...any) { fmt.Fprintf(&s.answers, format+"\n", args...) }

func (s *script) run(line string) {
	s.t.Helper()
	word := strings.Fields(line)
	arg := func(i int) string {
		if i >= len(word) {
			s.t.Fatalf("%q needs more words", line)
		}
		return word[i]
	}
	switch word[0] {
	case "define":
		s.defineWords(word[1:])
	case "open":
		s.say("session %d", s.openSession())
	case "end":
		s.endSession(s.number(arg(1)))
	case "reserve":
		s.reserveWords(arg(1), s.number(arg(2)), s.number(arg(3)))
	case "tick":
		if len(word) > 1 {
			s.now += s.duration(word[1]).Milliseconds()
		}
		s.say("%d", s.machine.tick(s.now))
	case "commit":
		s.commit()
	case "restart":
		s.restart()
	case "state":
		s.tellState()
	default:
		s.command(word[0], arg(1), word[2:])
	}
}

var scriptOps = map[string]command.Op{
	"push": command.Push, "ack": command.Ack, "release": command.Release, "fail": command.Fail,
	"retry": command.RetryFailed, "forget": command.ForgetFailed, "purge": command.PurgeFailed, "count": command.Count,
	"pause": command.Pause, "resume": command.Resume, "clear": command.Clear, "delete": command.Delete, "retry_all": command.RetryAll,
}

var scriptCauses = map[string]command.Cause{
	"unsettled": command.Unsettled, "broke": command.Broke, "interrupted": command.Interrupted, "unstarted": command.Unstarted,
	"timed_out": command.TimedOut, "crashed": command.Crashed,
}

// command applies a command whose other words are KEY=VALUE, an id or a payload.
func (s *script) command(verb, name string, words []string) {
	s.t.Helper()
	c := &command.Command{Op: scriptOps[verb], Queue: name}
	for _, w := range words {
		key, value, found := strings.Cut(w, "=")
		switch {
		case !found && c.Op == command.Push:
			c.Payload = []byte(w)
		case !found && strings.Contains(w, ":"):
			c.Job, c.Lease, _ = queue.ParseDeliveryID(w)
		case !found:
			c.Job, _ = command.ParseJobID(w)
		case key == "delay":
			c.Delay = uint64(s.duration(value).Milliseconds())
		case key == "reason":
			c.Reason = strings.ReplaceAll(value, "_", " ")
		case key == "output":
			c.Output = strings.ReplaceAll(value, "_", " ")
		case key == "cause":
			c.Cause = scriptCauses[value]
		case key == "from":
			c.From = s.number(value)
		case key == "to":
			c.To = s.number(value)
		case key == "too_large":
			c.TooLarge = s.number(value)
		case key == "shutdown":
			c.Shutdown = s.number(value)
		case key == "backend":
			c.Backend = s.number(value)
		default:
			s.t.Fatalf("%s does not know %q", verb, w)
		}
	}
	if c.Op == 0 {
		s.t.Fatalf("there is no command %q", verb)
	}
	if number, known := s.state.Table().Number(name); c.Op == command.Delete && c.From == 0 && known {
		var err error
		c.From, _, err = queue.FindWaiting(s.tx(), number, c.Job)
		s.ok(err)
	}
	r := s.apply(c)
	said := fmt.Sprintf("code %d", r.Code)
	if r.Job != (command.JobID{}) {
		said += " job " + r.Job.String()
	}
	if r.Count > 0 {
		said += fmt.Sprintf(" count %d", r.Count)
	}
	if r.To > 0 {
		said += fmt.Sprintf(" from %d to %d", r.Next, r.To)
	}
	s.say("%s", said)
}

func (s *script) reserveWords(name string, session, n uint64) {
	s.t.Helper()
	got := s.machine.reserve(name, session, n)
	for _, d := range got {
		alone := ""
		if d.Suspect {
			alone = fmt.Sprintf(" alone, %d crashes of %d,", d.Crashes, d.MaxCrashes)
		}
		s.say("%s attempt %d%s %q", d.ID(), d.Attempts, alone, d.Payload)
	}
	if len(got) == 0 {
		s.say("none")
	}
}

func (s *script) defineWords(words []string) {
	s.t.Helper()
	d := &queue.Definitions{Queues: map[string]queue.Definition{}}
	for _, w := range words {
		if w == "auto" {
			d.AutoCreate = true
			continue
		}
		name, options, _ := strings.Cut(w, ":")
		def := queue.Definition{VisibilityTimeout: time.Minute}
		for o := range strings.SplitSeq(options, ",") {
			key, value, _ := strings.Cut(o, "=")
			switch key {
			case "":
			case "attempts":
				def.MaxAttempts = s.number(value)
			case "crashes":
				def.MaxCrashes = s.number(value)
			case "messages":
				def.MaxMessages = s.number(value)
			case "bytes":
				def.MaxBytes = s.number(value)
			case "payload":
				def.MaxPayloadBytes = s.number(value)
			case "timeout":
				def.VisibilityTimeout = s.duration(value)
			case "backoff":
				for v := range strings.SplitSeq(value, "+") {
					def.Backoff = append(def.Backoff, s.duration(v))
				}
			default:
				s.t.Fatalf("a queue has no %q", key)
			}
		}
		if name == "default" {
			d.Default = def
			continue
		}
		d.Queues[name] = def
	}
	s.machine.define(d)
}

func (s *script) number(text string) uint64 {
	s.t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	s.ok(err)
	return n
}

func (s *script) duration(text string) time.Duration {
	s.t.Helper()
	d, err := time.ParseDuration(text)
	s.ok(err)
	return d
}

func since(ms int64) string {
	return (time.Duration(ms-startOfScripts) * time.Millisecond).String()
}

// tellState commits and tells everything that can be read.
func (s *script) tellState() {
	s.t.Helper()
	s.commit()
	all, err := s.state.AllStats(s.tx())
	s.ok(err)
	for _, st := range all {
		g, c := st.Gauges, st.Counters
		declared := ""
		if !st.Declared {
			declared = " (not declared)"
		}
		if st.Paused {
			declared += " (paused)"
		}
		s.say("%s%s: ready %d, delayed %d, reserved %d, failed %d, bytes %d", st.Name, declared, g.Ready, g.Delayed, g.Reserved, g.Failed, g.Bytes)
		if g.Suspects > 0 {
			s.say("  suspects %d", g.Suspects)
		}
		s.say("  enqueued %d, reserved %d, acked %d, released %d, failed %d", c.Enqueued, c.ReservedTotal, c.Acked, c.Released, c.FailedTotal)
		if c.DroppedFull+c.DroppedPayloadTooLarge+c.DroppedShutdown+c.BackendErrors > 0 {
			s.say("  full %d, too large %d, shutdown %d, backend %d", c.DroppedFull, c.DroppedPayloadTooLarge, c.DroppedShutdown, c.BackendErrors)
		}
		if c.Deleted+c.Purged+c.Retried > 0 {
			s.say("  deleted %d, purged %d, retried %d", c.Deleted, c.Purged, c.Retried)
		}
		for _, j := range s.failed(st.Name, 100) {
			first := ""
			if j.Origin != (command.JobID{}) {
				first = " first " + j.Origin.String()
			}
			s.say("  failed %s%s attempts %d at %s %q: %s", j.ID, first, j.Attempts, since(j.FailedAt), j.Payload, j.Reason)
			if j.Output != "" {
				s.say("    printed %q", j.Output)
			}
		}
	}
	for session := range s.counter + 1 {
		for _, d := range s.state.Reserved(nil, session) {
			s.say("session %d: %s %s attempt %d timeout %s", session, d.Queue, d.ID(), d.Attempts, d.Timeout)
		}
	}
	switch due := s.state.NextDue(); due {
	case 0:
		s.say("now %s, a tick is due", since(s.now))
	case math.MaxInt64:
		s.say("now %s", since(s.now))
	default:
		s.say("now %s, a tick is due at %s", since(s.now), since(due))
	}
}
