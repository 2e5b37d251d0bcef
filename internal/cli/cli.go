package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pogod/internal/config"
)

// Exit codes of Execute.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitUnreachable = 3
)

// ErrUsage is returned when the command line itself is wrong.
var ErrUsage = errors.New("wrong usage")

// ErrUnreachable is returned when no node answers at the admin address.
var ErrUnreachable = errors.New("no node is reachable")

// Deps is what the commands need of the rest.
type Deps struct {
	// Version of pogod, as "0.1.0". Default "dev".
	Version string
	// Serve runs the server with this configuration until the context ends, which
	// SIGINT or SIGTERM makes it do, and returns nil when everything is put away.
	// Whoever wants to hear a second signal asks os/signal too. again reads and checks
	// the same configuration as it is when it is called. nil: there is no server in
	// this binary.
	Serve func(ctx context.Context, c *config.Config, again func() (*config.Config, error)) error
	// PHPHost runs a PHP host until it has ended. No signal ends its context: a
	// host ends with its node. nil: there is no PHP in this binary.
	PHPHost func(ctx context.Context) error
	// HasPHP says whether this binary was built with PHP.
	HasPHP bool
	// PHP finds the php command line of this build. nil: there is none.
	PHP func() (CommandLine, error)
	// Stdin is what a command reads when it is told to. Default os.Stdin.
	Stdin io.Reader
	// Stdout takes what was asked for. Default os.Stdout.
	Stdout io.Writer
	// Stderr takes errors and warnings. Default os.Stderr.
	Stderr io.Writer
}

// program is Deps with its defaults, and what tests replace.
type program struct {
	Deps
	now    func() time.Time
	tick   func() (ticks <-chan time.Time, stop func()) // each second
	screen func(io.Writer) bool                         // whether a person sees what is written
	exec   func(path string, argv, env []string) error  // becomes that program
}

func newProgram(d Deps) *program {
	if d.Version == "" {
		d.Version = "dev"
	}
	if d.Stdin == nil {
		d.Stdin = os.Stdin
	}
	if d.Stdout == nil {
		d.Stdout = os.Stdout
	}
	if d.Stderr == nil {
		d.Stderr = os.Stderr
	}
	return &program{Deps: d, now: time.Now, screen: terminal, exec: syscall.Exec, tick: func() (<-chan time.Time, func()) {
		t := time.NewTicker(time.Second)
		return t.C, t.Stop
	}}
}

// New returns the root command. Its errors are for Execute to print.
func New(d Deps) *cobra.Command { return newProgram(d).root() }

// Execute runs the command line (without the program's name) and returns the
// exit code.
func Execute(d Deps, args []string) int {
	return newProgram(d).execute(context.Background(), args)
}

func (p *program) execute(ctx context.Context, args []string) int {
	root := p.root()
	var err error
	if o, rest, ok := phpArgs(args); ok && !ownPHP(root, rest) {
		err = p.becomePHP(o, rest)
	} else {
		root.SetArgs(args)
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return ExitDone
	}
	fmt.Fprintln(p.Stderr, "pogod:", err)
	switch {
	case errors.Is(err, ErrUsage):
		return ExitUsage
	case errors.Is(err, ErrUnreachable):
		return ExitUnreachable
	}
	return ExitFailed
}

// fault is an error with a sentence of its own.
type fault struct {
	text string
	is   error
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.is }

func usage(format string, args ...any) error {
	return &fault{fmt.Sprintf(format, args...), ErrUsage}
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "pogod",
		Short: "A durable job queue and PHP server in one process",
		Long: `pogod runs a PHP application and its jobs: one process beside it in place of a
queue server, a worker supervisor and a web server. Without a configuration file
it is a single node in development mode, with its data in ./.pogod.`,
		Example: `  pogod serve            serve the application in this directory
  pogod status --watch   see its queues and workers at work`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	group(root)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(`%v: "%s --help" lists the flags`, err, cmd.CommandPath())
	})
	root.AddCommand(p.serve(), p.status(), p.queue(), p.cluster(), p.backup(), p.restore(), p.compact(), p.config(), p.admin(), p.php(), p.doctor(), p.version(), p.phpHost())
	return root
}

// group makes a command of which only its subcommands do something. One that runs
// and checks its arguments itself makes of an unknown subcommand an error of one
// line.
func group(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		_, path, _ := strings.Cut(cmd.CommandPath()+" ", " ") // without the program's name
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usage("there is no command %q: did you mean %q?", path+args[0], path+near[0])
		}
		return usage(`there is no command %q: "%s --help" lists them`, path+args[0], cmd.CommandPath())
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// noArgs refuses arguments that are no flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(`%s takes no argument, but got %q: "%[1]s --help" lists its flags`, cmd.CommandPath(), strings.Join(args, " "))
	}
	return nil
}

// interruptible returns a context that SIGINT and SIGTERM end.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}
