// pogod is one binary beside a PHP application: a durable job queue, the PHP that works
// on it, and the endpoints that show it. This file names the commands; serve.go wires a
// node from its rooms; docs/architecture.md draws them.
package main

import (
	"os"

	"pogod/internal/cli"
)

// version is set by the build: git describe.
var version = "dev"

func main() {
	os.Exit(cli.Execute(cli.Deps{
		Version: version,
		Serve:   serve,
		PHPHost: phpHost,
		HasPHP:  hasPHP,
		PHP:     commandLine,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	}, os.Args[1:]))
}
