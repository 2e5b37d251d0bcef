// Package config reads the node's configuration: a TOML file, the environment
// and the flags of the command line, later ones over earlier ones.
//
//	file pogod.toml  <  POGOD_* of the environment  <  --data, --app, --advertise
//
// A variable is named as its key: POGOD_KEY for one of [node], POGOD_SECTION_KEY
// for one of [php], [web], [queue], [admin] or [cluster] that is neither a list nor
// a table. [node] socket has none: POGOD_SOCKET tells PHP which node to connect to.
//
// Without a file every default works on a laptop: a single node in development
// mode, with its data in ./.pogod and everything on loopback.
//
// # Strict
//
// An unknown key, a value of the wrong type and a bad value are refused, with
// file, line, the line's text, a caret and the nearest right key:
//
//	pogod.toml:7:1: unknown key "thread" in [web]: did you mean "threads"?
//	  7 | thread = 4
//	    | ^^^^^^
//
// A section or key that has its place in the configuration but whose part is
// not built yet is accepted, and named in Config.Inert.
//
// # Variables in the file
//
// ${NAME} in a string of the file, also in one of a list or a table, is what the
// environment says; a variable that is not set is refused. $${ is a literal ${.
//
// # One table of keys
//
// Keys lists every key that is built, for "pogod config docs" and
// docs/configuration.md. Types and most defaults come from what decodes the file;
// a test holds the rest to it.
//
// # Paths
//
// A path in the file is relative to the file, one in the environment or a flag
// to the working directory; [web] root and a worker's script are relative to
// the application. Config holds absolute paths whose symbolic links are not
// resolved, so that whoever uses one follows a link that a deployment changed.
//
// The package reads the file and, without one, looks for queue-worker.php
// and dispatch-worker.php in the application; it touches nothing else, but for
// Check, which also looks at what the values name. Values from a file, the
// environment and flags pass the same checks, those of Config.Validate.
package config
