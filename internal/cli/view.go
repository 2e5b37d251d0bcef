package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"pogod/internal/admin"
	"pogod/raftfsm/disk"
)

// terminal says whether a person sees what is written.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// style is an SGR parameter of a terminal; "" is plain.
type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// paint says whether there are colours.
type paint bool

func (p paint) the(s style, text string) string {
	if !p || s == "" || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// cell is one cell of a table.
type cell struct {
	text  string
	style style
}

func plain(text string) cell { return cell{clean(text), ""} }

// count is a number, in a style when it is not 0 and dim when it is.
func count[N int | int64 | uint64](n N, s style) cell {
	if n == 0 {
		s = dim
	}
	return cell{strconv.FormatInt(int64(n), 10), s}
}

// table prints rows in columns. A header that begins with '>' puts its column to
// the right.
func table(w io.Writer, p paint, header []string, rows [][]cell) {
	head := make([]cell, len(header))
	right := make([]bool, len(header))
	for i, h := range header {
		right[i] = strings.HasPrefix(h, ">")
		head[i] = cell{strings.TrimPrefix(h, ">"), dim}
	}
	rows = append([][]cell{head}, rows...)
	width := make([]int, len(header))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.text))
			switch {
			case right[i]:
				line.WriteString(pad + p.the(c.style, c.text))
			case i == len(r)-1: // nothing behind it needs the room
				line.WriteString(p.the(c.style, c.text))
			default:
				line.WriteString(p.the(c.style, c.text) + pad)
			}
		}
		fmt.Fprintln(w, line.String())
	}
}

// view prints a status for people. Ages are as of now.
func view(w io.Writer, s *admin.Status, now time.Time, p paint) {
	label := func(name, text string) { fmt.Fprintf(w, "%s  %s\n", p.the(dim, fmt.Sprintf("%-7s", name)), text) }
	label("node", fmt.Sprintf("%s  %s, %s, pogod %s, pid %d, up %s", p.the(bold, clean(s.Node.ID)), clean(s.Node.Role),
		clean(s.Node.Mode), clean(s.Node.Version), s.Node.PID, age(now, &s.Node.StartedAt)))
	label("data", clean(s.Node.DataDir))
	for _, note := range s.Notes {
		label("note", p.the(yellow, clean(note)))
	}
	if len(s.Node.RestartFor) > 0 {
		label("restart", p.the(yellow, clean("for "+strings.Join(s.Node.RestartFor, ", ")+": the configuration has changed")))
	}
	r := s.Raft
	leader := "leader " + clean(r.Leader)
	if r.Leader == "" {
		leader = p.the(red, "no leader")
	}
	if len(r.Members) > 1 {
		leader += ", " + reached(r.Members, p)
	}
	label("raft", fmt.Sprintf("%s, %s, term %d, commit %d, applied %d, in the file %d", clean(r.State), leader, r.Term,
		r.CommitIndex, r.AppliedIndex, r.CommittedIndex))
	if len(r.Members) > 1 || s.Read.Consistent {
		label("state", seen(&s.Read, now, p))
	}
	st := s.Storage
	log := "empty log"
	if st.LogLastIndex > 0 {
		log = fmt.Sprintf("log %s, entries %d to %d", disk.Size(st.LogBytes), st.LogFirstIndex, st.LogLastIndex)
	}
	snapshot := "no snapshot"
	if st.SnapshotIndex > 0 {
		snapshot = fmt.Sprintf("snapshot at %d", st.SnapshotIndex)
	}
	label("storage", fmt.Sprintf("file %s, %s of it free; %s; %s; %s free on disk", disk.Size(st.FileBytes), disk.Size(st.FreeBytesInFile),
		log, snapshot, disk.Size(st.DiskFreeBytes)))
	if st.Failure != "" {
		label("failure", p.the(red, clean(st.Failure)))
	}
	if st.Damage != "" {
		label("damage", p.the(red, clean(st.Damage)))
	}
	for _, s := range st.Streams {
		label("stream", stream(&s, now))
	}

	if len(r.Members) > 1 {
		fmt.Fprintln(w)
		members(w, r.Members, now, p)
	}
	fmt.Fprintln(w)
	queues(w, s.Queues, now, p)
	fmt.Fprintln(w)
	workers(w, s.Workers, now, p)
	fmt.Fprintln(w)
	if s.Web.Mode != "" {
		web(w, &s.Web, now, p)
		fmt.Fprintln(w)
	}
	if len(s.Pools) > 0 {
		pools(w, s.Pools, now, p)
		fmt.Fprintln(w)
	}
	if h := s.Hub; h != nil {
		fmt.Fprintf(w, "SOCKETS  %d at %s, %d channels, %d events published", h.Connections, clean(h.Listen), h.Channels, h.Messages)
		if h.SlowClosed > 0 {
			fmt.Fprint(w, p.the(yellow, fmt.Sprintf(", %d closed for they did not read", h.SlowClosed)))
		}
		fmt.Fprint(w, "\n\n")
	}
	hosts(w, s, now, p)
}

// stream says what is on its way.
func stream(s *admin.Stream, now time.Time) string {
	way := "the data file comes from"
	if s.Sending {
		way = "the data file goes to"
	}
	done := disk.Size(s.Bytes)
	if s.Total > 0 {
		done = fmt.Sprintf("%s of %s, %d%%", done, disk.Size(s.Total), 100*s.Bytes/s.Total)
	}
	node := "the node that leads"
	if s.Node != "" {
		node = "node " + clean(s.Node)
	}
	return fmt.Sprintf("%s %s: %s, for %s", way, node, done, age(now, &s.Since))
}

// reached says how many members are up.
func reached(list []admin.Member, p paint) string {
	up := 0
	for _, m := range list {
		if m.Up {
			up++
		}
	}
	if up < len(list) {
		return p.the(yellow, fmt.Sprintf("%d of %d members up", up, len(list)))
	}
	return fmt.Sprintf("%d members, all up", up)
}

// oldAfter is the age of a state that is worth a colour: a leader confirms it each second.
const oldAfter = 5 * time.Second

// seen says whose state it is, and how old it may be.
func seen(r *admin.Read, now time.Time, p paint) string {
	who := "as node " + clean(r.Node) + " saw it"
	switch {
	case r.Consistent:
		return fmt.Sprintf("consistent: all that was answered before, to entry %d", r.AppliedIndex)
	case r.AgeMS == nil:
		return p.the(yellow, fmt.Sprintf("%s, to entry %d: it has not heard from a leader since it started", who, r.AppliedIndex))
	}
	old := time.Duration(*r.AgeMS) * time.Millisecond
	ago := fmt.Sprintf("%.1f s", old.Seconds())
	if at := now.Add(-old); old >= time.Minute {
		ago = age(now, &at)
	}
	text := fmt.Sprintf("%s %s ago, to entry %d", who, ago, r.AppliedIndex)
	switch {
	case old < 50*time.Millisecond: // would be 0.0 s
		return fmt.Sprintf("as node %s sees it now, to entry %d", clean(r.Node), r.AppliedIndex)
	case old > oldAfter:
		return p.the(yellow, text)
	}
	return text
}

func queues(w io.Writer, list []admin.Queue, now time.Time, p paint) {
	if len(list) == 0 {
		fmt.Fprintln(w, p.the(dim, "no queue"))
		return
	}
	var rows [][]cell
	for _, q := range list {
		name := plain(q.Queue)
		if !q.Ready {
			name = cell{name.text + " (not ready)", yellow}
		}
		if q.Paused {
			name = cell{name.text + " (paused)", yellow}
		}
		rows = append(rows, []cell{
			name, count(q.Pending, ""), count(q.Delayed, ""), count(q.Reserved, green),
			count(q.Failed, red), count(q.Acked, ""), plain(age(now, q.OldestPendingAt)),
		})
	}
	table(w, p, []string{"QUEUE", ">READY", ">DELAYED", ">RESERVED", ">FAILED", ">ACKED", ">OLDEST"}, rows)
	for _, q := range list {
		if q.Suspects > 0 {
			fmt.Fprintln(w, p.the(yellow, fmt.Sprintf("%s: %d of the ready jobs ran in a PHP host that crashed: each runs next alone, in quarantine", clean(q.Queue), q.Suspects)))
		}
	}
}

func workers(w io.Writer, list []admin.Worker, now time.Time, p paint) {
	if len(list) == 0 {
		fmt.Fprintln(w, p.the(dim, "no worker: name one with [[worker]] in pogod.toml"))
		return
	}
	var rows [][]cell
	for _, k := range list {
		rows = append(rows, []cell{
			plain(k.Name), plain(filepath.Base(k.Script)), plain(strings.Join(k.Queues, ",")), plain(k.Host),
			count(k.Threads, ""), count(k.Waiting, ""), count(k.Running, green), count(k.Restarts, yellow),
		})
	}
	table(w, p, []string{"WORKER", "SCRIPT", "QUEUES", "HOST", ">THREADS", ">WAITING", ">RUNNING", ">RESTARTS"}, rows)
	for _, k := range list {
		if k.LastError == "" {
			continue
		}
		when := ""
		if k.LastErrorAt != nil {
			when = " " + age(now, k.LastErrorAt) + " ago"
		}
		fmt.Fprintln(w, p.the(red, fmt.Sprintf("%s failed%s: %s", clean(k.Name), when, cut(clean(k.LastError), 200))))
	}
}

func web(w io.Writer, k *admin.Web, now time.Time, p paint) {
	mode := plain(k.Mode)
	if k.Script != "" {
		mode.text += " " + clean(filepath.Base(k.Script))
	}
	ready := count(k.Ready, "")
	if k.Ready < k.Threads {
		ready.style = yellow
	}
	header := []string{"PAGES", ">THREADS", ">READY", ">BUSY", ">WAITING", ">REQUESTS"}
	row := []cell{mode, count(k.Threads, ""), ready, count(k.Busy, green), count(k.Waiting, yellow), count(k.Requests, "")}
	if k.Script != "" {
		header = append(header, ">RESTARTS", ">CRASHES", ">FAILED STARTS")
		row = append(row, count(k.Restarts, ""), count(k.Crashes, yellow), count(k.FailedStarts, red))
	}
	table(w, p, header, [][]cell{row})
	if k.LastError != "" {
		when := ""
		if k.LastErrorAt != nil {
			when = " " + age(now, k.LastErrorAt) + " ago"
		}
		fmt.Fprintln(w, p.the(red, fmt.Sprintf("the worker of pages failed to start%s: %s", when, cut(clean(k.LastError), 200))))
	}
}

func pools(w io.Writer, list []admin.Pool, now time.Time, p paint) {
	var rows [][]cell
	for _, k := range list {
		script := "-"
		if k.Script != "" {
			script = filepath.Base(k.Script)
		}
		rows = append(rows, []cell{
			plain(k.Name), plain(script), plain(dash(k.Host)),
			count(k.Threads, ""), count(k.Running, green), count(k.Queued, yellow), count(k.Done, ""), count(k.Failed, red),
			count(k.TimedOut, yellow), count(k.Cancelled, ""), plain(fmt.Sprintf("%.1f ms", k.WaitMS)), plain(fmt.Sprintf("%.1f ms", k.RunMS)),
		})
	}
	table(w, p, []string{
		"POOL", "SCRIPT", "HOST", ">THREADS", ">RUNNING", ">QUEUED", ">DONE", ">FAILED", ">TIMED OUT", ">CANCELLED", ">WAIT", ">RUN",
	}, rows)
	for _, k := range list {
		if k.LastError == "" {
			continue
		}
		when := ""
		if k.LastErrorAt != nil {
			when = " " + age(now, k.LastErrorAt) + " ago"
		}
		fmt.Fprintln(w, p.the(red, fmt.Sprintf("pool %s failed%s: %s", clean(k.Name), when, cut(clean(k.LastError), 200))))
	}
}

func hosts(w io.Writer, s *admin.Status, now time.Time, p paint) {
	if len(s.PHP.Hosts) == 0 {
		why := "no PHP host"
		if !s.Build.PHP {
			why = "built without PHP: this node serves the queue only"
		}
		fmt.Fprintln(w, p.the(dim, why))
		return
	}
	var rows [][]cell
	for _, h := range s.PHP.Hosts {
		state := cell{clean(h.State), yellow}
		switch h.State {
		case "ready":
			state.style = green
		case "draining", "on demand":
			state.style = dim
		case "stopped", "down":
			state.style = red
		}
		pid := "-"
		if h.PID != 0 {
			pid = strconv.Itoa(h.PID)
		}
		rows = append(rows, []cell{
			plain(h.Name), state, plain(pid), plain(age(now, h.StartedAt)), count(h.Restarts, yellow),
			plain(dash(cut(clean(h.LastExit), 100))),
		})
	}
	name := "PHP HOST"
	if s.PHP.Version != "" {
		name = "PHP " + clean(s.PHP.Version) + " HOST"
	}
	table(w, p, []string{name, "STATE", ">PID", ">UP", ">RESTARTS", "LAST EXIT"}, rows)
}

// age writes how long ago something was, in two units at most; "-" for never.
func age(now time.Time, at *time.Time) string {
	if at == nil || at.IsZero() {
		return "-"
	}
	s := max(0, int64(now.Sub(*at)/time.Second)) // another machine's clock may be ahead
	two := func(n int64, unit string, rest int64, less string) string {
		if rest == 0 {
			return fmt.Sprintf("%d%s", n, unit)
		}
		return fmt.Sprintf("%d%s%d%s", n, unit, rest, less)
	}
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return two(s/60, "m", s%60, "s")
	case s < 86400:
		return two(s/3600, "h", s%3600/60, "m")
	}
	return two(s/86400, "d", s%86400/3600, "h")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// cut shortens a text to some characters.
func cut(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// clean makes a text of elsewhere one line that cannot move the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, s)
}
