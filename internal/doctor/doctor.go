// Package doctor looks at a configuration, the machine and the node that runs here, if one
// does, and says what is wrong and what to do. It changes nothing: what it writes to measure
// the disk has no name and is gone with it, and a port that it tries it gives back at once.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"pogod/internal/admin"
	"pogod/internal/config"
)

// Level is how bad a finding is.
type Level string

// Values of Level.
const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, and could be better
	Problem Level = "problem" // something does not work, or will not
)

// Finding is what one check has found.
type Finding struct {
	Check  string `json:"check"` // as "data directory"
	Level  Level  `json:"level"`
	Text   string `json:"text"`   // one line
	Advice string `json:"advice"` // what to do; "" of OK
}

// Options says what is looked at.
type Options struct {
	Config  config.Options
	Version string // of this program
	HasPHP  bool   // whether it was built with PHP
	// PHP runs the php command line of this build, connected as "pogod php" is, and returns
	// what it printed, errors after output. nil without PHP.
	PHP func(ctx context.Context, args ...string) (out string, err error)
	// Get asks the admin endpoint of a node with that configuration for a path.
	Get func(ctx context.Context, of config.Admin, path string) ([]byte, error)
}

// patient is one examination.
type patient struct {
	Options
	cfg    *config.Config
	node   int // process id of the node that runs on the data directory; 0: none does
	all    []Finding
	status *admin.Status // of the node; nil: it does not tell
}

// Examine makes all checks, the most basic first.
func Examine(ctx context.Context, o Options) []Finding {
	p := &patient{Options: o}
	if p.configuration() {
		p.node = holder(p.cfg.Node.DataDir)
		p.dataDirectory()
		p.disk()
		p.running(ctx)
		p.addresses(ctx)
		p.php(ctx)
	}
	p.machine()
	return p.all
}

// Worst is the worst level among findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Problem || f.Level == Warning && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

func (p *patient) ok(check, format string, args ...any) {
	p.all = append(p.all, Finding{check, OK, line(fmt.Sprintf(format, args...)), ""})
}

func (p *patient) warn(check, advice, format string, args ...any) {
	p.all = append(p.all, Finding{check, Warning, line(fmt.Sprintf(format, args...)), advice})
}

func (p *patient) problem(check, advice, format string, args ...any) {
	p.all = append(p.all, Finding{check, Problem, line(fmt.Sprintf(format, args...)), advice})
}

// line is the first line of a text.
func line(text string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return first
}

// configuration reads it, and reports whether there is one to go on with.
func (p *patient) configuration() bool {
	const check = "configuration"
	c, err := config.Check(p.Config)
	if p.cfg = c; c == nil {
		advice := "mend it; \"pogod config docs\" lists every key"
		if errors.Is(err, fs.ErrNotExist) {
			advice = "name a file that exists with --config, or leave it out to run without one"
		}
		p.problem(check, advice, "%v", err)
		return false
	}
	for _, inert := range c.Inert {
		p.warn(check, "take it out, or leave it for a version that has it", "%s", inert)
	}
	if err == nil {
		p.ok(check, "%s: %s mode", cmp.Or(c.File, "no file, all defaults"), c.Node.Mode)
		return true
	}
	for _, e := range each(err) {
		if !p.HasPHP && forPHP(e) {
			continue
		}
		p.problem(check, "do what the line says: \"pogod config check\" shows the place", "%v", e)
	}
	return true
}

// forPHP reports whether a mistake is one of those that a node without PHP does not mind.
func forPHP(err error) bool {
	var e *config.Error
	return errors.As(err, &e) && slices.ContainsFunc([]string{"[web] root ", "[[worker]] script ", "[[pool]] script "}, func(key string) bool {
		return strings.HasPrefix(e.Message, key)
	})
}

// each returns the errors that were joined.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
