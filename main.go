// pogod is one binary beside a PHP application: a durable job queue, the PHP that works
// on it, and the endpoints that show it. This file joins the commands (internal/cli), the
// node (internal/node) and, in a build with PHP, the PHP hosts (phpext); docs/architecture.md
// draws them.
package main

import (
	"context"
	"os"

	"pogod/internal/cli"
	"pogod/internal/config"
	"pogod/internal/node"
)

// version is set by the build: git describe.
var version = "dev"

func main() {
	os.Exit(cli.Execute(cli.Deps{
		Version: version,
		Serve: func(ctx context.Context, c *config.Config, again func() (*config.Config, error)) error {
			return node.Serve(ctx, node.Build{Version: version, PHP: hasPHP}, c, again)
		},
		PHPHost: phpHost,
		HasPHP:  hasPHP,
		PHP:     commandLine,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	}, os.Args[1:]))
}
