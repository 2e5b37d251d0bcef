// Package config reads the node's configuration: a TOML file, the environment
// and the flags of the command line, later ones over earlier ones.
//
//	file pogod.toml  <  POGOD_DATA_DIR, POGOD_LOG_LEVEL,        <  --data, --app,
//	                    POGOD_WEB_LISTEN, POGOD_ADMIN_LISTEN,      --advertise
//	                    POGOD_CLUSTER_LISTEN,
//	                    POGOD_CLUSTER_ADVERTISE
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
// # Paths
//
// A path in the file is relative to the file, one in the environment or a flag
// to the working directory; [web] root and a worker's script are relative to
// the application. Config holds absolute paths whose symbolic links are not
// resolved, so that whoever uses one follows a link that a deployment changed.
//
// The package reads the file and, without one, looks for queue-worker.php
// and dispatch-worker.php in the application; it touches nothing else. Values from a file, the environment
// and flags pass the same checks, those of Config.Validate.
package config
