package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"pogod/internal/config"
	"pogod/internal/doctor"
)

func (p *program) doctor() *cobra.Command {
	var o config.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong here, and what to do",
		Long: `doctor looks at the configuration that "pogod serve" would take, at the data
directory and its disk, the ports, the PHP of this build and the scripts, limits and
clock of the machine, and at the node that runs on the data directory, if one does.
Each line is ok, a warning, or a problem, with what to do about it. It changes
nothing. It ends with 0 when nothing is a problem, and otherwise with 1.

Run it as the user that the node runs as. Where the admin endpoint wants a token, it
is that of POGOD_TOKEN or POGOD_TOKEN_FILE.`,
		Example: `  pogod doctor
  sudo -u pogod pogod doctor --config /etc/pogod/pogod.toml
  pogod doctor --json | jq '.findings[] | select(.level != "ok")'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			opts := doctor.Options{Config: orDefault(o), Version: p.Version, HasPHP: p.HasPHP, Get: func(ctx context.Context, of config.Admin, path string) ([]byte, error) {
				node, err := (&endpoint{}).local(cmd, of)
				if err != nil {
					return nil, err
				}
				return ask(ctx, node, http.MethodGet, path, "")
			}}
			if p.HasPHP && p.PHP != nil {
				opts.PHP = p.runPHP
			}
			all := doctor.Examine(ctx, opts)
			problems := 0
			for _, f := range all {
				if f.Level == doctor.Problem {
					problems++
				}
			}
			if asJSON {
				if err := printJSON(p.Stdout, struct {
					Findings []doctor.Finding `json:"findings"`
					Problems int              `json:"problems"`
				}{all, problems}); err != nil {
					return err
				}
			} else {
				p.findings(all)
			}
			if problems > 0 {
				return errors.New(counted(problems, "problem") + ": each line above says what to do")
			}
			return nil
		},
	}
	dataFlags(cmd, &o)
	cmd.Flags().StringVar(&o.App, "app", "", "the application's `directory`, over [php] app")
	_ = cmd.MarkFlagDirname("app") // fails only for a flag that does not exist
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

// findings prints a line for each, and below it the advice.
func (p *program) findings(all []doctor.Finding) {
	paint, width := p.colours(), 0
	for _, f := range all {
		width = max(width, len(f.Check))
	}
	for _, f := range all {
		colour := map[doctor.Level]style{doctor.OK: green, doctor.Warning: yellow, doctor.Problem: red}[f.Level]
		fmt.Fprintf(p.Stdout, "%s  %-*s  %s\n", paint.the(colour, fmt.Sprintf("%-7s", f.Level)), width, clean(f.Check), clean(f.Text))
		if f.Advice != "" {
			fmt.Fprintf(p.Stdout, "%*s%s\n", 7+2+width+2, "", paint.the(bold, "-> "+clean(f.Advice)))
		}
	}
}

// runPHP runs the php command line with the extension, which connects to nobody unless the
// script asks it to.
func (p *program) runPHP(ctx context.Context, args ...string) (string, error) {
	php, err := p.PHP()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, php.Binary, append([]string{"-d", "extension=" + php.Extension}, args...)...)
	cmd.Env = os.Environ()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}
