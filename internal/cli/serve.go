package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"pogod/internal/config"
)

func (p *program) serve() *cobra.Command {
	var o config.Options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the application, its queue and its workers",
		Long: `serve runs the node: the queue, the PHP application on [web] listen (default
127.0.0.1:8080), its workers, sockets of browsers on [websocket] listen (default
127.0.0.1:8081) if there is a [[websocket.app]], and status on [admin] listen (default
127.0.0.1:8082). In a cluster, which "pogod cluster" makes, the other nodes reach
it on [cluster] listen (default 127.0.0.1:8083). It ends on SIGTERM or an
interrupt, when running jobs have had [node] shutdown_timeout to finish. SIGHUP
has it read its configuration again and start new PHP hosts, as "pogod config
reload" does.

The configuration is the file named by --config, or pogod.toml in the working
directory if there is one. Without a file pogod runs as a single node in
development mode; if the application has a queue-worker.php, it is run for the
queue "default". Variables of the environment such as POGOD_DATA_DIR and
POGOD_WEB_LISTEN, which "pogod config docs" lists, go over the file, flags over
both.`,
		Example: `  pogod serve
  pogod serve --app ~/shop --data /tmp/shop-data
  pogod serve --config /etc/pogod/pogod.toml`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := orDefault(o)
			c, err := load(o)
			if err != nil {
				return err
			}
			for _, line := range c.Inert {
				fmt.Fprintln(p.Stderr, "pogod:", line)
			}
			if p.Serve == nil {
				return errors.New("this binary has no server in it: build pogod from its main package")
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return p.Serve(ctx, c, func() (*config.Config, error) {
				if !p.HasPHP { // who misses no application
					return config.Load(o)
				}
				return config.Check(o)
			})
		},
	}
	dataFlags(cmd, &o)
	cmd.Flags().StringVar(&o.App, "app", "", "the application's `directory`, over [php] app")
	_ = cmd.MarkFlagDirname("app") // fails only for a flag that does not exist
	insecureFlag(cmd, &o)
	return cmd
}

// insecureFlag is the flag of the commands that judge how open [admin] is.
func insecureFlag(cmd *cobra.Command, o *config.Options) {
	cmd.Flags().BoolVar(&o.Insecure, "insecure", false, "let [admin] listen be an address that others can reach, without TLS and tokens")
}

// dataFlags are the flags of the commands that work on a node's data.
func dataFlags(cmd *cobra.Command, o *config.Options) {
	cmd.Flags().StringVar(&o.File, "config", "", "configuration `file` (default pogod.toml, if there is one)")
	cmd.Flags().StringVar(&o.Data, "data", "", "`directory` for everything that is stored, over [node] data_dir")
	// These fail only for a flag that does not exist.
	_ = cmd.MarkFlagFilename("config", "toml")
	_ = cmd.MarkFlagDirname("data")
}

// orDefault names the file that is read where none was named, if it is there.
func orDefault(o config.Options) config.Options {
	if o.File == "" {
		if _, err := os.Stat(config.DefaultFile); !errors.Is(err, fs.ErrNotExist) {
			o.File = config.DefaultFile
		}
	}
	return o
}

func load(o config.Options) (*config.Config, error) {
	c, err := config.Load(o)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: name a file that exists with --config, or leave it out to run without one", err)
	}
	return c, err
}

// loadPart is load for a command that needs no secrets of the configuration, only where
// its node is.
func loadPart(o config.Options) (*config.Config, error) {
	o.Unset, o.Insecure = true, true
	return load(o)
}

// phpHost is the command that the server starts for each of its PHP hosts.
func (p *program) phpHost() *cobra.Command {
	return &cobra.Command{
		Use:    "php-host",
		Short:  "A PHP host; the server starts it",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !p.HasPHP || p.PHPHost == nil {
				return errors.New("this binary was built without PHP: build it with \"make build\"")
			}
			return p.PHPHost(cmd.Context())
		},
	}
}
