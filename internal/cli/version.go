package cli

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
)

func (p *program) version() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say how this binary was made",
		Example: `  pogod version
  pogod version --json`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			text, err := versionText(admin.ReadBuild(p.Version, p.HasPHP), runtime.GOOS+"/"+runtime.GOARCH, asJSON)
			if err == nil {
				_, err = fmt.Fprintln(p.Stdout, text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document, as build in the status")
	return cmd
}

func versionText(b admin.Build, platform string, asJSON bool) (string, error) {
	if asJSON {
		text, err := json.Marshal(b)
		return string(text), err
	}
	php := "without PHP: it serves the queue only"
	if b.PHP {
		php = "with PHP"
	}
	revision := ""
	if b.Revision != "" {
		revision = ", revision " + b.Revision
	}
	return fmt.Sprintf("pogod %s (%s, %s%s), %s", b.Version, b.Go, platform, revision, php), nil
}
