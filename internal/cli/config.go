package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"pogod/internal/config"
)

func (p *program) config() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration, show what it comes to, list its keys, reload it",
		Long: `These commands read a configuration as "pogod serve" would: the file, variables of
the environment over it, flags over both. All but reload, which asks a running
node, need none and change nothing.`,
		Example: `  pogod config check && pogod serve
  pogod config show      every value, and what says it
  pogod config docs      every key, with its type, default and bounds`,
	}
	group(cmd)
	cmd.AddCommand(p.configCheck(), p.configShow(), p.configDocs(), p.configReload())
	return cmd
}

// configFlags are the flags of a command that reads a configuration which may be named
// as an argument too.
func configFlags(cmd *cobra.Command, o *config.Options) {
	dataFlags(cmd, o)
	cmd.Flags().StringVar(&o.App, "app", "", "the application's `directory`, over [php] app")
	_ = cmd.MarkFlagDirname("app") // fails only for a flag that does not exist
	insecureFlag(cmd, o)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > 1:
			return usage(`%s takes one file, but got %q: "%[1]s --help" lists its flags`, cmd.CommandPath(), strings.Join(args, " "))
		case len(args) == 1 && o.File != "":
			return usage("the file is named twice, %q and --config %q: name it once", args[0], o.File)
		}
		return nil
	}
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"toml"}, cobra.ShellCompDirectiveFilterFileExt
	}
}

// named is orDefault with a file that may be an argument.
func named(o config.Options, args []string) config.Options {
	if len(args) == 1 {
		o.File = args[0]
	}
	return orDefault(o)
}

// noSuchFile says what to do about a file that is not there.
func noSuchFile(err error) error {
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, config.ErrInvalid) {
		return fmt.Errorf("%w: name a file that exists, or leave it out to read none", err)
	}
	return err
}

func (p *program) configCheck() *cobra.Command {
	var o config.Options
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say whether a node would start with a configuration",
		Long: `check reads the configuration (FILE, or pogod.toml in the working directory, or
none) and looks whether what it names is on this machine: the application, the
web's root, the scripts of workers and pools that have threads here, and a data
directory that can be written to or made. It prints one line and ends with 0, or
names what is wrong, with file and line, and ends with 1. It opens no port, and
a running node is in nobody's way.`,
		Example: `  pogod config check
  pogod config check /etc/pogod/pogod.toml
  POGOD_WEB_LISTEN=:80 pogod config check --app /srv/shop/current`,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Check(named(o, args))
			if c != nil {
				for _, line := range c.Inert {
					fmt.Fprintln(p.Stderr, "pogod:", line)
				}
			}
			if err != nil {
				return noSuchFile(err)
			}
			_, err = fmt.Fprintf(p.Stdout, "%s is good: %s mode, %s, %s, %s\n", origin(c), c.Node.Mode,
				counted(len(c.Queue.Declared), "queue"), counted(len(c.Workers), "worker"), counted(len(c.Pools), "pool"))
			return err
		},
	}
	configFlags(cmd, &o)
	return cmd
}

// origin names what a configuration was read from.
func origin(c *config.Config) string {
	if c.File == "" {
		return "the configuration without a file"
	}
	return c.File
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func (p *program) configShow() *cobra.Command {
	var o config.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show every value of a configuration, and what says it",
		Long: `show prints the configuration that a node would run with, as a file of its own,
with what each value comes from behind it: "default", file and line, a variable of
the environment, or a flag. Paths are absolute. In env and ini secrets are replaced
by (redacted): values of names such as PASSWORD or API_KEY, those that came out of
a ${VARIABLE}, and URLs with a password.`,
		Example: `  pogod config show
  pogod config show /etc/pogod/pogod.toml
  pogod config show --json | jq '.settings[] | select(.from != "default")'`,
		RunE: func(_ *cobra.Command, args []string) error {
			c, settings, err := config.Explain(named(o, args))
			if err != nil {
				return noSuchFile(err)
			}
			if asJSON {
				return printJSON(p.Stdout, struct {
					File     string           `json:"file"`
					Settings []config.Setting `json:"settings"`
				}{c.File, settings})
			}
			return showSettings(p.Stdout, origin(c), settings)
		},
	}
	configFlags(cmd, &o)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document; durations are strings")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// sourceColumn is where the sources begin, if the value is not longer.
const sourceColumn = 40

// showSettings prints settings as TOML, with comments.
func showSettings(w io.Writer, origin string, settings []config.Setting) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", origin)
	table, entry := "", 0
	for _, s := range settings {
		if s.Table != table || s.Entry != entry {
			table, entry = s.Table, s.Entry
			fmt.Fprintf(&b, "\n%s\n", config.TableHeader(table))
		}
		line := s.Key + " = " + config.TOML(s.Value)
		if s.Value == "" {
			line = "# " + s.Key + " is not set"
		}
		from := s.Where
		if s.From == config.FromDefault {
			from = "default"
		}
		fmt.Fprintf(&b, "%s%s # %s\n", line, strings.Repeat(" ", max(0, sourceColumn-utf8.RuneCountInString(line))), from)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *program) configDocs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "docs",
		Short: "List every key of the configuration",
		Long: `docs lists every key that the file can have, with its type, default and bounds, the
variable of the environment that goes over it, and what it means. A change counts
when the node reads its configuration again ("pogod config reload"), unless the
line says that it needs a restart. Keys of [queue]
but for auto_create can stand in a table [queue.NAME] too. A duration is written as
"90s", "1h30m" or "500ms".`,
		Example: `  pogod config docs
  pogod config docs --json | jq -r '.[] | select(.env != "") | .env'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(p.Stdout, config.Keys())
			}
			return showKeys(p.Stdout, config.Keys())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document, a list of keys")
	return cmd
}

func showKeys(w io.Writer, keys []config.Key) error {
	var b strings.Builder
	table := ""
	for _, k := range keys {
		if k.Table != table {
			if table != "" {
				b.WriteByte('\n')
			}
			table = k.Table
			fmt.Fprintln(&b, table)
		}
		fmt.Fprintf(&b, "  %-18s %s\n", k.Name, k.Meaning)
		fmt.Fprintf(&b, "  %-18s %s", "", k.Type)
		if k.Bounds != "" {
			fmt.Fprintf(&b, ", %s", k.Bounds)
		}
		fmt.Fprintf(&b, "; default: %s", k.Default)
		if k.Env != "" {
			fmt.Fprintf(&b, "; $%s", k.Env)
		}
		if k.Effect == config.Restart {
			b.WriteString("; a change needs a restart")
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
