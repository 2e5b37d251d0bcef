package link

import "net/netip"

// HostSpec is all that a PHP host is told at its start: the node passes it as
// JSON in the environment variable HostSpecEnv, which the host removes before
// PHP starts. A web host finds its listener at descriptor 3.
type HostSpec struct {
	Name   string            `json:"name"`           // "web", "jobs", or another's
	Socket string            `json:"socket"`         // path of the node's socket
	App    string            `json:"app"`            // absolute path, the working directory of PHP
	Ini    map[string]string `json:"ini,omitempty"`  // php.ini settings, over all files
	Web    *WebSpec          `json:"web,omitempty"`  // nil: this host serves no pages
	Jobs   []WorkerSpec      `json:"jobs,omitempty"` // worker scripts that this host runs
}

// WebSpec is the web side of a host.
type WebSpec struct {
	Root    string `json:"root"`    // absolute path of what the web may see
	Index   string `json:"index"`   // script for every path that is no file
	Threads int    `json:"threads"` // PHP threads for pages
	// Worker is the absolute path of the script that each thread runs once for many
	// requests, in the place of Index; "": classic mode.
	Worker string `json:"worker,omitempty"`
	// AccessLog is the absolute path of the file that requests are noted in,
	// AccessToNode, or "": they are not.
	AccessLog string `json:"access_log,omitempty"`
	// TrustedProxies are believed what they say of a request's client by X-Forwarded-*.
	TrustedProxies []netip.Prefix `json:"trusted_proxies,omitempty"`
	// Cert and Key are absolute paths of PEM files; "" both: pages are served without TLS.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// AccessToNode has the requests of pages noted in the node's log.
const AccessToNode = "log"

// WorkerSpec is one worker script and its threads.
type WorkerSpec struct {
	Name      string            `json:"name"`
	Script    string            `json:"script"`             // absolute path
	Threads   int               `json:"threads"`            // each runs the script by itself
	FirstSlot int               `json:"first_slot"`         // its threads have slots FirstSlot ... FirstSlot+Threads-1 in this host
	Env       map[string]string `json:"env,omitempty"`      // added to $_SERVER and getenv()
	Dispatch  bool              `json:"dispatch,omitempty"` // it serves the pool of that name: NextTask in place of Next
	Ini       map[string]string `json:"ini,omitempty"`      // settings of its script, over the host's; only what can change while PHP runs
}

// HostSpecEnv names the environment variable that holds a HostSpec.
const HostSpecEnv = "POGOD_HOST_SPEC"
