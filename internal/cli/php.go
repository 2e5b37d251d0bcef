package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pogod/internal/config"
)

// CommandLine is a php command line program and what makes it one of this pogod.
type CommandLine struct {
	Binary    string // the real php
	Extension string // pogo.so, built for it
	// Name is what PHP takes for its own path, which PHP_BINARY and the programs
	// that a script starts by it go by: a program that runs php with the extension.
	// "": Binary.
	Name string
}

// errNoPHP is what a binary without PHP says.
var errNoPHP = errors.New("this binary was built without PHP: build it with \"make build\"")

// php is PHP's own command line, but for the subcommands, which are reserved words.
func (p *program) php() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "php ARGS...",
		Short: "The php command line, with the queue functions connected",
		Long: `php becomes the real php command line of this build, with the pogo extension
loaded and connected to the node: everything behind "php" is PHP's own, and so are
signals, standard input and exit codes. PHP_BINARY names a php that has the
extension too, so that programs which a script starts by it are connected as well.

"reload" and "status" are no scripts but commands of pogod, see below.

The flags --config and --data go before "php". Without them the node is the one
that POGOD_SOCKET names, or else that of the configuration: pogod.toml in the
working directory, or the defaults.`,
		Example: `  pogod php artisan migrate
  pogod php -r 'echo pogo_queue_status();'
  pogod --config /etc/pogod/pogod.toml php bin/console messenger:stats`,
		DisableFlagParsing: true,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault // scripts
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.becomePHP(config.Options{}, args) },
	}
	cmd.AddCommand(p.phpReload(), p.phpStatus())
	return cmd
}

// phpArgs splits a command line "[--config FILE] [--data DIR] php ARGS..."; ok is false
// for any other. cobra would look for flags and commands of pogod among PHP's.
func phpArgs(args []string) (o config.Options, rest []string, ok bool) {
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		var to *string
		switch name {
		case "php":
			return o, args[1:], !joined
		case "--config":
			to = &o.File
		case "--data":
			to = &o.Data
		default:
			return o, nil, false
		}
		if args = args[1:]; !joined {
			if len(args) == 0 {
				return o, nil, false
			}
			value, args = args[0], args[1:]
		}
		*to = value
	}
	return o, nil, false
}

// ownPHP reports whether the first argument of php names a command of pogod's.
func ownPHP(root *cobra.Command, args []string) bool {
	if len(args) == 0 {
		return false
	}
	for _, c := range root.Commands() {
		if c.Name() == "php" {
			return slices.ContainsFunc(c.Commands(), func(own *cobra.Command) bool { return own.Name() == args[0] })
		}
	}
	return false
}

// socketEnv names the environment variable that tells PHP where the node is.
const socketEnv = "POGOD_SOCKET"

// becomePHP replaces this process by php. It returns only when that fails.
func (p *program) becomePHP(o config.Options, args []string) error {
	if !p.HasPHP || p.PHP == nil {
		return errNoPHP
	}
	php, err := p.PHP()
	if err != nil {
		return err
	}
	socket := os.Getenv(socketEnv)
	if socket == "" || o.File != "" || o.Data != "" {
		c, err := loadPart(orDefault(o))
		if err != nil {
			return err
		}
		socket = c.Node.Socket
	}
	name := php.Name
	if name == "" {
		name = php.Binary
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, socketEnv+"=") || strings.HasPrefix(kv, "PHP_BINARY=")
	})
	env = append(env, socketEnv+"="+socket, "PHP_BINARY="+name)
	argv := append([]string{name, "-d", "extension=" + php.Extension}, args...)
	if err := p.exec(php.Binary, argv, env); err != nil {
		return fmt.Errorf("start %s: %w", php.Binary, err)
	}
	return nil
}
