package doctor

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what is well.
const (
	fewFiles     = 4096
	fewProcesses = 1024
)

// built is a time at which this program was not there yet.
var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// machine looks at what the kernel gives to a process like this one.
func (p *patient) machine() {
	var files, processes unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil { // Go's runtime raises the soft limit to the hard one
		if files.Max < fewFiles {
			p.warn("open files", "LimitNOFILE=65536 in the unit, or \"ulimit -Hn 65536\" before the start", "a process may open %d at once: each connection and each PHP thread is one", files.Max)
		} else {
			p.ok("open files", "a process may open %d at once", files.Max)
		}
	}
	if unix.Getrlimit(unix.RLIMIT_NPROC, &processes) == nil && processes.Cur < fewProcesses && os.Geteuid() != 0 {
		p.warn("threads", "LimitNPROC= in the unit, or \"ulimit -u\" before the start", "this user may have %d processes and threads", processes.Cur)
	}
	if os.Geteuid() == 0 {
		p.warn("user", "run it as a user of its own: User= in the unit", "this is root: so would be all PHP code of a node that is started so")
	}
	p.clock(time.Now())
}

func (p *patient) clock(now time.Time) {
	const check = "clock"
	const unsynchronized = 0x40 // STA_UNSYNC of <linux/timex.h>
	if now.Before(built) {
		p.problem(check, "set it, and have it kept by NTP", "it says %s: delayed jobs and time-outs go by it", now.Format(time.DateTime))
		return
	}
	var x unix.Timex
	if _, err := unix.Adjtimex(&x); err == nil && x.Status&unsynchronized != 0 {
		p.warn(check, "chrony or systemd-timesyncd, or see to it on the machine that hosts this one", "nobody keeps it by NTP, as far as the kernel knows: delayed jobs and time-outs go by it")
		return
	}
	p.ok(check, "%s", now.UTC().Format(time.RFC3339))
}
