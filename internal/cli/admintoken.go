package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"pogod/internal/admin"
	"pogod/internal/config"
)

func (p *program) admin() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "Make tokens for the admin endpoint",
		Long: `A node whose [admin] has tokens answers only to whoever has one, but for /healthz and
/readyz. On an address that others can reach it wants tokens and TLS.`,
		Example: `  pogod admin token prometheus
  pogod admin token ada --role admin`,
	}
	group(cmd)
	cmd.AddCommand(p.adminToken())
	return cmd
}

// madeToken is what is printed of a token with --json.
type madeToken struct {
	Name  string `json:"name"`
	Role  string `json:"role"`
	Token string `json:"token"`
	Hash  string `json:"hash"`
}

func (p *program) adminToken() *cobra.Command {
	var role string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token, and what the configuration has of it",
		Long: `token makes a token for NAME, which the node's log will name, and prints it once, with
the lines for the configuration. These have a hash of the token: it is nowhere but
with whoever uses it, and cannot be shown again. Nothing is stored, no node is
asked; a node knows the token once it runs with the lines.

Roles: read sees everything, payloads of jobs too; operate also changes queues and
reloads PHP; admin also changes who is in the cluster.

The command line takes a token from --token-file, POGOD_TOKEN or --token; other
programs send the header "Authorization: Bearer TOKEN".`,
		Example: `  pogod admin token prometheus
  pogod admin token ada --role admin
  pogod admin token deploy --role operate --json | jq -r .token > /etc/pogod/deploy.token`,
		ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(`%s takes a name, as "pogod admin token prometheus": "%[1]s --help" has examples`, cmd.CommandPath())
			}
			if err := config.CheckName(args[0]); err != nil {
				return usage("the name of a token %v", err)
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := admin.ParseRole(role)
			if err != nil {
				return usage("--role: %v", err)
			}
			t := madeToken{Name: args[0], Role: r.String()}
			t.Token, t.Hash = admin.NewToken()
			if asJSON {
				return printJSON(p.Stdout, t)
			}
			_, err = fmt.Fprintf(p.Stdout, `The token, which is not shown again:

    %s

Add this to pogod.toml, and start the node again:

[[admin.tokens]]
name = %s
role = %s
hash = %s
`, t.Token, config.TOML(t.Name), config.TOML(t.Role), config.TOML(t.Hash))
			return err
		},
	}
	cmd.Flags().StringVar(&role, "role", admin.RoleRead.String(), "`role` of who has it: read, operate or admin")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document with name, role, token and hash")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"read", "operate", "admin"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
	return cmd
}
