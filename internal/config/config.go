package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultFile is the configuration file that the server uses when none is named
// and the working directory has one.
const DefaultFile = "pogod.toml"

// Values of Node.Mode.
const (
	ModeDevelopment = "development" // the default without a file
	ModeProduction  = "production"  // the default with a file
)

// Values of Web.AccessLog that are no path.
const (
	AccessOff = "off"
	AccessLog = "log"
)

// Config is a checked configuration. All paths in it are absolute.
type Config struct {
	// File is the path of the file that was read; "" means none was.
	File string

	Node      Node
	PHP       PHP
	Web       Web
	Queue     Queues
	Workers   []Worker // [[worker]], in the order of the file; empty: no worker runs
	Pools     []Pool   // [[pool]], in the order of the file; empty: nothing can be dispatched
	Websocket Websocket
	Admin     Admin
	Cluster   Cluster

	// Inert names, with file and line, what is in the file but not built yet, as
	// `pogod.toml:12: [[schedule]] is not built yet and has no effect`. Each
	// section and key is named once, in the order of the file. Behind them are variables
	// of the environment that name a key and have no effect.
	Inert []string
}

// Node is the section [node].
type Node struct {
	// DataDir holds everything that the node stores. Default ".pogod".
	DataDir string
	// Socket is the unix socket that PHP and the command line connect to, at
	// most MaxSocketPath bytes. Default "pogod.sock" in DataDir.
	Socket string
	// Mode is ModeDevelopment or ModeProduction. Default: development without a
	// file, production with one.
	Mode string
	// LogLevel is "debug", "info", "warn" or "error". Default "info".
	LogLevel string
	// LogFormat is "text" or "json". Default "text".
	LogFormat string
	// ShutdownTimeout is how long running jobs and requests may go on after
	// SIGTERM, 0 to 1h. Default 30s; 0 interrupts them at once.
	ShutdownTimeout time.Duration
	// PushTimeout is how long a push waits for its commit before it answers 5,
	// 100ms to 10m. Default 10s.
	PushTimeout time.Duration
	// MinFreeBytes is how much must be free on the file system of DataDir for pushes to be
	// taken, 0 for none. Default 256 MiB.
	MinFreeBytes int64
}

// PHP is the section [php].
type PHP struct {
	// App is the application's root and PHP's working directory. Default ".".
	App string
	// Ini are php.ini settings that go over all files. Booleans are "1" and
	// "0". Default: none.
	Ini map[string]string
	// MemoryLimit is PHP's memory_limit, as "256M"; "-1" is unlimited. Default
	// "": what php.ini says, or PHP's own 128M.
	MemoryLimit string
	// ExtensionDir is where PHP looks for extensions that php.ini names. Default "":
	// PHP's own.
	ExtensionDir string
	// KillGrace is how long after its interrupt an attempt may be stuck in an operation
	// that PHP cannot interrupt, before its host is killed, 0 to 1h. Default 30s; the
	// host is replaced at once.
	KillGrace time.Duration
	// Watch says whether a changed PHP file in App replaces the hosts, in development
	// mode. Default true.
	Watch bool
}

// Web is the section [web].
type Web struct {
	// Listen is the address of the application's web server, host:port; port 0
	// takes a free one. Default "127.0.0.1:8080".
	Listen string
	// Root is what the web may see, in PHP.App. Default "public".
	Root string
	// Index is the script in Root for every path that is no file. Default
	// "index.php".
	Index string
	// Worker is the script, in PHP.App, that answers every path that is no file in worker
	// mode: each thread runs it once for many requests. It need not exist yet. Default "":
	// classic mode, in which Index is run for each request.
	Worker string
	// Threads is the number of PHP threads for pages, 1 to MaxThreads; in worker mode each
	// runs Worker. Default:
	// twice GOMAXPROCS, for a page waits for its database or a commit half of
	// its time, and at least 4.
	Threads int
	// AccessLog is AccessOff, AccessLog for a line of the node's log for each
	// request, or the path of a file for lines of JSON. Default: AccessLog in
	// development, AccessOff in production.
	AccessLog string
	// TrustedProxies are the addresses, as "192.0.2.7", and networks, as "10.0.0.0/8", of
	// proxies whose X-Forwarded-For, -Proto, -Host and -Port are believed; none twice.
	// Default: none.
	TrustedProxies []string
	// TLS are the files of the web server's certificate. Default: no TLS.
	TLS TLS
}

// TLS names a certificate: both files, or none.
type TLS struct {
	// Cert is a PEM file with the certificate, and those between it and its authority.
	Cert string
	// Key is a PEM file with the certificate's private key.
	Key string
}

// Queues is the section [queue].
type Queues struct {
	// AutoCreate says whether a push to a queue that is not declared declares
	// it, with Defaults. Default: false with a file, true without.
	AutoCreate bool
	// Defaults are the settings of a queue that does not say otherwise; its Name
	// is "".
	Defaults Queue
	// Declared are all queues, sorted by name: those with a table of their own,
	// those that a worker names, and "default".
	Declared []Queue
}

// Lookup returns the declared queue of this name.
func (q *Queues) Lookup(name string) (Queue, bool) {
	for _, d := range q.Declared {
		if d.Name == name {
			return d, true
		}
	}
	return Queue{}, false
}

// Queue is the settings of one queue: a table [queue.NAME].
type Queue struct {
	// Name obeys CheckName.
	Name string
	// MaxPayloadBytes is the largest payload of a job, in bytes, 1 to
	// MaxPayloadBytes. Default 1048576 (1 MiB).
	MaxPayloadBytes int
	// VisibilityTimeout is the hard limit of an attempt, 100ms to 8760h. Default
	// 90s.
	VisibilityTimeout time.Duration
	// MaxAttempts is how many attempts a job has before it is failed, 0 to
	// 1000000. Default 3; 0 is unlimited.
	MaxAttempts int
	// MaxCrashes is how many times a job may end its PHP host while it runs there
	// alone before it is failed, 0 to 1000000. Default 3; 0 is unlimited.
	MaxCrashes int
	// Backoff is the wait before the second attempt, the third, and so on; the
	// last one goes for all later ones. At most 100 of 0 to 8760h each. Default
	// 1s, 10s; empty: no wait.
	Backoff []time.Duration
	// MaxMessages is how many ready, delayed and reserved jobs the queue takes.
	// Default 0: unlimited.
	MaxMessages int64
	// MaxBytes is how many bytes of payload these jobs may have together.
	// Default 0: unlimited.
	MaxBytes int64
}

// Worker is one [[worker]]: a PHP script that handles jobs.
type Worker struct {
	// Name obeys CheckName and is unique. Default "default".
	Name string
	// Script is the PHP file, which need not exist yet. Default
	// "queue-worker.php" in PHP.App.
	Script string
	// Queues are the queues that it takes jobs from, the most urgent first; at
	// least one, none twice. Default: "default".
	Queues []string
	// Threads is how many jobs it handles at once here, 0 to MaxThreads. 0: its
	// threads come from outside, from the php command line. Default 4,
	// in development 2.
	Threads int
	// Env is added to $_SERVER and getenv(). Default: none.
	Env map[string]string
	// Host is the PHP host that runs it, a process of its own for each name; it obeys
	// CheckName and is not "web". Default "jobs".
	Host string
	// MaxJobs is how many jobs a script is given before it is told to end, and started
	// again, 0 to 1000000. Default 0: no bound.
	MaxJobs int
	// MemoryLimit is PHP's memory_limit for the script. Default "": that of the host.
	MemoryLimit string
	// Ini are settings for the script, over those of the host; only such as can change
	// while PHP runs. Default: none.
	Ini map[string]string
}

// Pool is one [[pool]]: a PHP script that serves what pogo_dispatch is given.
type Pool struct {
	// Name obeys CheckName and is unique among pools. Default "default".
	Name string
	// Script is the PHP file, which need not exist yet. Default
	// "dispatch-worker.php" in PHP.App.
	Script string
	// Threads is how many jobs it runs at once here, 0 to MaxThreads. 0: its
	// threads come from outside, from the php command line. Default 4, in
	// development 2.
	Threads int
	// MaxWait is how long a job waits for a thread before it fails, 1ms to 1h.
	// Default 30s.
	MaxWait time.Duration
	// Env is added to $_SERVER and getenv(). Default: none.
	Env map[string]string
	// Host is the PHP host that runs it, as a Worker's. Default "jobs".
	Host string
	// MemoryLimit is PHP's memory_limit for the script. Default "": that of the host.
	MemoryLimit string
	// Ini are settings for the script, as a Worker's. Default: none.
	Ini map[string]string
}

// Admin is the section [admin].
type Admin struct {
	// Listen is the address of status, health and the API, host:port; port 0 takes a
	// free one. One that is not on loopback wants TLS and a token, unless Insecure.
	// Default "127.0.0.1:8082".
	Listen string
	// TLS are the files of the endpoint's certificate. Default: no TLS.
	TLS TLS
	// Tokens say who may ask; with one, all but health and readiness takes a token. No
	// name twice. Default: none.
	Tokens []AdminToken
	// Insecure lets Listen be any address without TLS and a token. Of Options alone.
	Insecure bool
}

// AdminToken is who has a token of the admin endpoint. The token itself is nowhere.
type AdminToken struct {
	// Name obeys CheckName and is unique: the log names it.
	Name string
	// Role is "read", "operate" or "admin", each with what those before it may.
	Role string
	// Hash is "sha256:" and the 64 hexadecimal digits of the token's hash.
	Hash string
}

// Cluster is the section [cluster]. It has an effect on a node whose data
// directory belongs to a cluster.
type Cluster struct {
	// Listen is the address of the cluster's port, host:port, TLS both ways;
	// port 0 takes a free one. Default "127.0.0.1:8083".
	Listen string
	// Advertise is the address at which the other nodes reach this one. Default:
	// Listen, whose port 0 then stands for the port that was taken.
	Advertise string
	// Join are addresses to look for members at, beside those that the node
	// knows; none twice. Default: none.
	Join []string
}

// Options says what Load reads.
type Options struct {
	// File is the configuration file; "" means none.
	File string
	// Data overrides [node] data_dir; "" does not.
	Data string
	// App overrides [php] app; "" does not.
	App string
	// Advertise overrides [cluster] advertise; "" does not.
	Advertise string
	// Env looks up a variable of the environment; nil is os.LookupEnv. An empty
	// POGOD_ variable counts as absent.
	Env func(name string) (value string, ok bool)
	// Names are those of the environment's variables, among which misspelt ones are looked
	// for; nil are those of os.Environ, or none when Env is not nil.
	Names []string
	// Unset lets ${NAME} stand for itself where the environment has no such variable: for
	// a command that needs an address or a directory of a configuration whose secrets are
	// in the environment of the node alone. Files with secrets are not read, and misspelt
	// variables not looked for.
	Unset bool
	// Insecure lets [admin] listen be any address without TLS and a token.
	Insecure bool
	// Dir is what relative paths of the options and the environment are
	// relative to; "" is the working directory.
	Dir string
}

// Load reads the configuration, puts the environment and the flags over it, and
// checks it. What is wrong with a value is an *Error, for which errors.Is says
// ErrInvalid; a file that cannot be read is another error, for which errors.Is
// says fs.ErrNotExist when there is none.
func Load(o Options) (*Config, error) {
	d, err := load(o)
	if err != nil {
		return nil, err
	}
	return d.cfg, nil
}

func load(o Options) (*decoder, error) {
	if o.Env == nil {
		o.Env = os.LookupEnv
		if o.Names == nil {
			for _, kv := range os.Environ() {
				name, _, _ := strings.Cut(kv, "=")
				o.Names = append(o.Names, name)
			}
		}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("the working directory is not known: %w", err)
	}
	o.Dir = dir
	if o.File == "" {
		return decode(o, nil)
	}
	data, err := read(resolve(o.Dir, o.File))
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return decode(o, &document{name: o.File, data: data})
}

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than 1 MiB: it is not a configuration file", path)
	}
	return data, err
}

// build makes a Config of a file's bytes, or of none.
func build(o Options, doc *document) (*Config, error) {
	d, err := decode(o, doc)
	if err != nil {
		return nil, err
	}
	return d.cfg, nil
}

// decode is build that keeps where the values came from.
func decode(o Options, doc *document) (*decoder, error) {
	c, base := defaults(doc != nil), o.Dir
	d := &decoder{doc: doc, cfg: c, at: map[string]span{}, noted: map[string]bool{}, said: map[place]source{}, look: o.Env, unset: o.Unset, dir: o.Dir}
	if doc != nil {
		c.File = resolve(o.Dir, o.File)
		base = filepath.Dir(c.File)
		if err := d.document(); err != nil {
			return nil, err
		}
	}
	if err := d.override(o, base); err != nil {
		return nil, err
	}
	if err := d.complete(base); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if !o.Unset {
		if err := d.misspelt(o.Names); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// resolve makes a path absolute without following symbolic links.
func resolve(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
