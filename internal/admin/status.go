package admin

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"time"

	"pogod/queue"
)

// Status is the document at /status. Times are RFC 3339, absent ones null; lists
// are never null.
type Status struct {
	Read      Read        `json:"read"`
	Node      Node        `json:"node"`
	Notes     []string    `json:"notes"` // what is wrong with a node that serves all the same, for people
	Raft      Raft        `json:"raft"`
	Clock     Clock       `json:"clock"`
	Queues    []Queue     `json:"queues"`      // sorted by name
	Defined   Definitions `json:"definitions"` // of the queues
	Workers   []Worker    `json:"workers"`     // in the order of the configuration
	Pools     []Pool      `json:"pools"`       // in the order of the configuration
	Schedules []struct{}  `json:"schedules"`   // empty: not built yet
	Hub       *Hub        `json:"hub"`         // null: there is none, for no [[websocket.app]] is configured
	Web       Web         `json:"web"`
	PHP       PHP         `json:"php"`
	Storage   Storage     `json:"storage"`
	Build     Build       `json:"build"`
}

// Read says whose state the document shows, and how old it may be.
type Read struct {
	Node         string `json:"node"`          // id of the node whose state it is
	Consistent   bool   `json:"consistent"`    // it has all that was answered before the request, by whichever node
	AppliedIndex uint64 `json:"applied_index"` // last index of the log that it has
	AgeMS        *int64 `json:"age_ms"`        // milliseconds since a leader confirmed it; null: none has yet
}

// Node is the process that answers.
type Node struct {
	ID        string    `json:"id"`         // stable; not an address
	Role      string    `json:"role"`       // "leader", "follower" or "candidate"; "rebuilding" while it fetches another node's data file
	Mode      string    `json:"mode"`       // "development" or "production"
	Version   string    `json:"version"`    // of pogod
	StartedAt time.Time `json:"started_at"` // of this process
	PID       int       `json:"pid"`
	DataDir   string    `json:"data_dir"` // absolute path
	// RestartFor are the keys of the configuration, as "[web] listen", that differ from what
	// the node runs with and count at its next start. They were seen by its last reload.
	RestartFor []string `json:"restart_for"`
	// CertificateExpiresAt is when the certificate that the node shows the others ends,
	// unless it is renewed before; null: it is part of no cluster.
	CertificateExpiresAt *time.Time `json:"certificate_expires_at"`
}

// Raft is this node's view of its Raft group.
type Raft struct {
	State          string   `json:"state"`           // "Leader", "Follower", "Candidate" or "Shutdown"
	Leader         string   `json:"leader"`          // the leader's id; "" when none is known
	Term           uint64   `json:"term"`            //
	CommitIndex    uint64   `json:"commit_index"`    // last index on a quorum
	AppliedIndex   uint64   `json:"applied_index"`   // last index applied, perhaps in an open transaction
	CommittedIndex uint64   `json:"committed_index"` // last index that the data file holds, fsynced
	Members        []Member `json:"members"`         // sorted by id
	FeatureLevel   uint64   `json:"feature_level"`   // of the cluster: commands above it are held back until all members know them
	KnownLevel     uint64   `json:"known_level"`     // of this node's pogod
}

// Member is one node of the Raft group, as the node that answers sees it.
type Member struct {
	ID           string     `json:"id"`
	Address      string     `json:"address"`       // host:port of its cluster port; "" on a node without one
	Voter        bool       `json:"voter"`         //
	Worker       bool       `json:"worker"`        // it joined as one, and never votes
	Leader       bool       `json:"leader"`        //
	Self         bool       `json:"self"`          // it is the node that answers
	Up           bool       `json:"up"`            // the link to it is up, or it is the node that answers
	LastHeardAt  *time.Time `json:"last_heard_at"` // null: never, or the node that answers
	AppliedIndex uint64     `json:"applied_index"` // last index that it applied, by its own last word
	Lag          uint64     `json:"lag"`           // entries behind the leader's commit index, as far as this node knows
	RoundTripMS  float64    `json:"round_trip_ms"` // of the link, in milliseconds; 0: not measured
}

// Queue is one queue, as in pogo_queue_status.
type Queue = queue.Status

// Worker is one [[worker]] of this node, or the quarantine of one: its single thread, in a
// PHP host of its own, for jobs that ran in a PHP host that crashed. A quarantine is
// listed behind the workers, while it has something to do.
type Worker struct {
	Name        string     `json:"name"`
	Script      string     `json:"script"`        // absolute path
	Queues      []string   `json:"queues"`        // the most urgent first
	Host        string     `json:"host"`          // name of the PHP host that runs it
	Threads     int        `json:"threads"`       // as configured
	Waiting     int        `json:"waiting"`       // threads that wait for a job
	Running     int        `json:"running"`       // threads in an attempt
	Restarts    int64      `json:"restarts"`      // of its script, since the node started
	LastError   string     `json:"last_error"`    // why the script last ended; "" if it never failed
	LastErrorAt *time.Time `json:"last_error_at"` // null if it never failed
	Quarantine  bool       `json:"quarantine,omitempty"`
}

// Pool is one [[pool]] of this node. Counters are since the node started.
type Pool struct {
	Name        string     `json:"name"`
	Script      string     `json:"script"`        // absolute path; "" when its threads come from outside
	Host        string     `json:"host"`          // name of the PHP host that runs it; "" likewise
	Threads     int        `json:"threads"`       // as configured
	Waiting     int        `json:"waiting"`       // threads that wait for a task
	Running     int        `json:"running"`       // tasks that run
	Queued      int        `json:"queued"`        // tasks that wait for a thread
	Done        uint64     `json:"done"`          // tasks whose envelope says ok
	Failed      uint64     `json:"failed"`        // whose envelope does not, or whose worker failed; the pool was full
	TimedOut    uint64     `json:"timed_out"`     // past the caller's time-out, or max_wait
	Cancelled   uint64     `json:"cancelled"`     // not awaited when their script ended
	WaitMS      float64    `json:"wait_ms"`       // for a thread, on average, in milliseconds
	RunMS       float64    `json:"run_ms"`        // in a thread, on average, in milliseconds
	Restarts    int64      `json:"restarts"`      // of its script
	LastError   string     `json:"last_error"`    // why the script last ended; "" if it never failed
	LastErrorAt *time.Time `json:"last_error_at"` // null if it never failed
}

// Hub is this node's WebSocket hub. Counters are since the node started.
type Hub struct {
	Listen      string `json:"listen"`      // host:port
	Connections int    `json:"connections"` // sockets
	Channels    int    `json:"channels"`    // with a subscriber
	Messages    uint64 `json:"messages"`    // events published here, one for each channel
	SlowClosed  uint64 `json:"slow_closed"` // sockets closed because their client did not read
}

// Web is the pages of this node, a second old at most. Counters are since the node started.
type Web struct {
	Mode         string     `json:"mode"`          // "classic" or "worker"; "" in a node built without PHP
	Script       string     `json:"script"`        // absolute path of the worker; "" in classic mode
	Threads      int        `json:"threads"`       // as configured
	Ready        int        `json:"ready"`         // threads that can answer: in worker mode, whose script has started
	Busy         int        `json:"busy"`          // threads that answer a request
	Waiting      int        `json:"waiting"`       // requests that wait for a thread
	Requests     uint64     `json:"requests"`      // that PHP answers or has answered
	Restarts     uint64     `json:"restarts"`      // of the worker, which ended by itself or by exit
	Crashes      uint64     `json:"crashes"`       // ends of the worker by a fatal error, or an exit with a status
	FailedStarts uint64     `json:"failed_starts"` // ends of the worker before it asked for a request
	LastError    string     `json:"last_error"`    // why it did not start; "" if it always did
	LastErrorAt  *time.Time `json:"last_error_at"` // null if it always did
}

// PHP is this node's PHP.
type PHP struct {
	Hosts   []Host `json:"hosts"`
	Version string `json:"version"` // "8.4.16"; "" in a node built without PHP, or before a host is up
}

// Host is one PHP host, a supervised process. While it is replaced there are several of
// its name, first the one that new work goes to.
type Host struct {
	Name      string     `json:"name"`       // "web", "jobs", or as [[worker]] host says
	PID       int        `json:"pid"`        // 0 while it is down
	State     string     `json:"state"`      // "starting", "ready", "draining", "waiting to restart", "on demand" or "stopped"
	StartedAt *time.Time `json:"started_at"` // of the process; null while there is none
	Restarts  int64      `json:"restarts"`   // since the node started; reloads are none
	LastExit  string     `json:"last_exit"`  // how the host's last process ended; "" if none has
}

// Storage is what the node holds on disk. Sizes are in bytes.
type Storage struct {
	FileBytes       int64  `json:"file_bytes"`         // size of the data file
	FreeBytesInFile int64  `json:"free_bytes_in_file"` // of these, pages that are free for reuse
	LogFirstIndex   uint64 `json:"log_first_index"`    // 0: the log is empty
	LogLastIndex    uint64 `json:"log_last_index"`     //
	LogBytes        int64  `json:"log_bytes"`          // size of the log's files
	SnapshotIndex   uint64 `json:"snapshot_index"`     // 0: there is none
	DiskFreeBytes   int64  `json:"disk_free_bytes"`    // free for this user on the data directory's file system, a second ago at most
	MinFreeBytes    int64  `json:"min_free_bytes"`     // [node] min_free_bytes; 0: no floor
	LowSpace        bool   `json:"low_space"`          // less than that is free: while this node leads, the cluster takes no pushes

	Syncs           Syncs    `json:"syncs"`
	Failure         string   `json:"failure,omitempty"` // what the disk refused: the node takes nothing until it can be written again, and starts anew then
	Damage          string   `json:"damage,omitempty"`  // why the node does not serve but fetches another one's data file
	Streams         []Stream `json:"streams"`           // data files on their way now, from this node or to it
	StreamsSent     uint64   `json:"streams_sent"`      // that came to their end, since the node started
	StreamsReceived uint64   `json:"streams_received"`  //
	Scrub           Scrub    `json:"scrub"`

	// Only with ?hash=1.
	StateHash      string `json:"state_hash,omitempty"`       // SHA-256 of the replicated state, hexadecimal; nodes at one index have the same
	StateHashIndex uint64 `json:"state_hash_index,omitempty"` // last index that is in it
}

// Stream is a data file that is sent to a node which lags behind the log, or whose own
// cannot be used.
type Stream struct {
	Node    string    `json:"node"`    // the other one; "" when it is not known
	Sending bool      `json:"sending"` // else this node receives it
	Bytes   int64     `json:"bytes"`   // so far
	Total   int64     `json:"total"`   // 0: not known yet
	Since   time.Time `json:"since"`
}

// Syncs is how long the syncs of the log take: a push waits for one on the node that leads,
// and for one on another node.
type Syncs struct {
	Slow         bool         `json:"slow"`          // the median is 100 ms, or was and is not yet below 50
	Recent       int          `json:"recent"`        // of the last 16 syncs, those within the last 30 s, of which are
	MedianMS     float64      `json:"median_ms"`     // the median, in milliseconds
	LongestMS    float64      `json:"longest_ms"`    // and the longest
	Count        uint64       `json:"count"`         // since the node started
	TotalSeconds float64      `json:"total_seconds"` // that all of them took
	Buckets      []SyncBucket `json:"buckets"`       // a cumulative histogram of all of them
}

// SyncBucket is how many syncs took at most so long.
type SyncBucket struct {
	Seconds float64 `json:"seconds"`
	Count   uint64  `json:"count"`
}

// Scrub is the reading of everything on the disk, once a day, that finds flipped bits.
type Scrub struct {
	Running   bool       `json:"running"`
	Runs      uint64     `json:"runs"`        // that came to their end, since the node started
	Bytes     uint64     `json:"bytes"`       // read, since the node started
	LastEndAt *time.Time `json:"last_end_at"` // null: no run has come to its end
}

// Build is how this binary was made.
type Build struct {
	Version  string `json:"version"`  // of pogod
	Go       string `json:"go"`       // version of Go, as "go1.26.0"
	PHP      bool   `json:"php"`      // whether PHP is built in
	Revision string `json:"revision"` // of the source, with "-dirty" when it was changed; "" when unknown
}

// ReadBuild returns how the running binary was made, with the version and the
// presence of PHP that its maker states.
func ReadBuild(version string, php bool) Build {
	b := Build{Version: version, Go: runtime.Version(), PHP: php}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed && b.Revision != "" {
		b.Revision += "-dirty"
	}
	return b
}

// MarshalJSON writes the document with empty lists where the fields are nil.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status // without this method
	p := plain(s)
	p.Notes = list(p.Notes)
	p.Node.RestartFor = list(p.Node.RestartFor)
	p.Raft.Members = list(p.Raft.Members)
	p.Clock.Nodes = list(p.Clock.Nodes)
	p.Queues = list(p.Queues)
	p.Pools = list(p.Pools)
	p.Schedules = list(p.Schedules)
	p.PHP.Hosts = list(p.PHP.Hosts)
	p.Storage.Streams = list(p.Storage.Streams)
	p.Storage.Syncs.Buckets = list(p.Storage.Syncs.Buckets)
	p.Workers = append([]Worker{}, p.Workers...) // a copy: the caller's stay as they are
	for i := range p.Workers {
		p.Workers[i].Queues = list(p.Workers[i].Queues)
	}
	return json.Marshal(p)
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
