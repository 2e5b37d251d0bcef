package config

import (
	"runtime"
	"time"
)

// Bounds of values.
const (
	// MaxPayloadBytes is the largest [queue] max_payload_bytes, in bytes: a
	// payload and its options fit into one command of the log, 16 MiB.
	MaxPayloadBytes = 15 << 20
	// MaxSocketPath is the longest path of a unix socket on Linux, in bytes.
	MaxSocketPath = 107
	// MaxThreads is the most threads of the web or of one worker.
	MaxThreads = 1024
	// MaxName is the longest name of a queue or a worker, in bytes.
	MaxName = 128
)

// Defaults that are filled in after the file was read, because they depend on
// other values of it.
const (
	defaultSocket             = "pogod.sock"          // in data_dir
	defaultScript             = "queue-worker.php"    // in app
	defaultPoolScript         = "dispatch-worker.php" // in app
	defaultMaxWait            = 30 * time.Second      // of a pool
	defaultHost               = "jobs"                // of a worker or a pool
	webHost                   = "web"                 // the host of the pages
	defaultName               = "default"             // of a worker or a pool, and the queue that always exists
	unsaid                    = -1                    // threads of a worker or a pool whose table has no such key
	defaultCluster            = "127.0.0.1:8083"      // of [cluster] listen
	defaultThreads            = 4
	defaultThreadsDevelopment = 2
)

// defaults is the one place of default values: the configuration before
// anything was read. Paths are still relative.
func defaults(file bool) *Config {
	c := &Config{
		Node: Node{
			DataDir:         ".pogod",
			Mode:            ModeDevelopment,
			LogLevel:        "info",
			LogFormat:       "text",
			ShutdownTimeout: 30 * time.Second,
			PushTimeout:     10 * time.Second,
			MinFreeBytes:    256 << 20,
		},
		PHP: PHP{App: ".", Ini: map[string]string{}, KillGrace: 30 * time.Second, Watch: true},
		Web: Web{
			Listen:  "127.0.0.1:8080",
			Root:    "public",
			Index:   "index.php",
			Threads: max(4, 2*runtime.GOMAXPROCS(0)),
		},
		Queue: Queues{
			AutoCreate: !file,
			Defaults: Queue{
				MaxPayloadBytes:   1 << 20,
				VisibilityTimeout: 90 * time.Second,
				MaxAttempts:       3,
				MaxCrashes:        3,
				Backoff:           []time.Duration{time.Second, 10 * time.Second},
			},
		},
		Websocket: Websocket{
			Listen:          defaultWebsocket,
			Ping:            30 * time.Second,
			MaxEventBytes:   256 << 10,
			MaxPendingBytes: 64 << 20,
		},
		Admin:   Admin{Listen: "127.0.0.1:8082"},
		Cluster: Cluster{Listen: defaultCluster},
	}
	if file {
		c.Node.Mode = ModeProduction
	}
	// Many cores do not ask for more than the bound.
	c.Web.Threads = min(c.Web.Threads, MaxThreads)
	return c
}
