package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pogod/internal/admin"
	"pogod/internal/clock"
	"pogod/internal/cluster"
	"pogod/internal/cluster/identity"
	"pogod/internal/command"
	"pogod/internal/config"
	"pogod/internal/datadir"
	"pogod/internal/link"
	"pogod/internal/systemd"
	"pogod/phpext/api"
	"pogod/queue"
	"pogod/raftfsm"
	"pogod/raftfsm/clocks"
	"pogod/raftfsm/disk"
	"pogod/raftfsm/leader"
	"pogod/workers"
	"pogod/wshub"
)

// node is a running pogod: its rooms, from the bottom up.
type node struct {
	build   Build
	cfg     *config.Config // of the start; what may change meanwhile is read from now
	now     atomic.Pointer[config.Config]
	log     *slog.Logger
	logging *logging
	manager *systemd.Notifier
	started time.Time

	dir      *datadir.Dir
	cluster  *cluster.Cluster   // nil: a node alone
	id       *identity.Identity // of a member; nil: a node alone
	tokens   *identity.Tokens   // of cluster
	space    *disk.Space
	group    *raftfsm.Group
	clocks   *clocks.Clocks
	leader   *leader.Leader
	way      way
	proposer *raftfsm.Proposer
	queue    *queue.Client
	pools    *workers.Pools
	tasks    *workers.Dispatch
	hosts    *workers.Hosts
	link     *link.Server
	admin    *admin.Server
	hub      *wshub.Hub       // nil without a [[websocket.app]]
	sockets  net.Addr         // where it listens
	web      *net.TCPListener // nil without PHP
	webFile  *os.File         // the same socket, as it is handed to each web host

	unwritable atomic.Pointer[string] // why the disk that failed could not be written at the last look

	life       context.Context
	cancel     context.CancelFunc // ends life: calls that are under way
	leaving    atomic.Bool
	departure  departure
	reporter   sync.WaitGroup
	background sync.WaitGroup // what reloads the PHP hosts and the configuration

	reread        func() (*config.Config, error) // the configuration, as it is now
	reconfiguring sync.Mutex                     // held while the node goes over to another configuration
	restartFor    atomic.Pointer[[]string]       // keys that count at the next start; nil: none do
	hangups       chan os.Signal                 // SIGHUP; holds one
	rewatch       chan struct{}                  // holds one signal: which files are watched may have changed
}

// way is how the node reaches whoever leads: its own leader when it is alone, else the
// cluster, which knows.
type way interface {
	raftfsm.Submitter
	workers.Offers
	// ReadIndex returns an entry that holds all that was answered before the call.
	ReadIndex(ctx context.Context) (uint64, error)
	// ResetTime sets cluster time back to the median of the voters' clocks.
	ResetTime(ctx context.Context) (leader.Reset, error)
	// Redefine puts definitions of the queues in force, though they were superseded.
	Redefine(ctx context.Context, definitions []byte, hash string) error
}

// gatherFor is the longest that a batch waits for the callers that the last one answered,
// on a disk that is slow to sync.
const gatherFor = time.Millisecond

// reportEvery is how often what never reached the log is counted through it.
const reportEvery = time.Second

// Build is what the binary is.
type Build struct {
	Version string // of pogod, as "0.1.0"
	PHP     bool   // it runs PHP hosts, by its command php-host
}

// Serve runs a node until ctx ends, or until it can no longer go on. reread reads its
// configuration again.
func Serve(ctx context.Context, build Build, cfg *config.Config, reread func() (*config.Config, error)) error {
	log, logging := newLogger(os.Stderr, cfg.Node.LogLevel, cfg.Node.LogFormat)
	n := &node{
		build: build, cfg: cfg, log: log, logging: logging, started: time.Now(), reread: reread, manager: systemd.New(), departure: newDeparture(),
		hangups: make(chan os.Signal, 1), rewatch: make(chan struct{}, 1),
	}
	n.now.Store(cfg)
	signal.Notify(n.hangups, syscall.SIGHUP) // one that comes during the start is for afterwards
	defer signal.Stop(n.hangups)
	if err := n.start(ctx); err != nil {
		if n.group == nil || n.group.Err() == nil {
			n.stop(context.Background())
		}
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return nil // ended while it waited for another node's data file
		}
		if os.Getenv(outlastedEnv) != "" && raftfsm.Refused(err) {
			return n.outlastStart(ctx, err)
		}
		return err
	}
	n.banner(os.Stdout)
	n.supervised(n.life)
	failed := n.group.Failed()
	var gone error
	select {
	case <-ctx.Done():
	case <-n.departure.asked:
	case <-n.removed():
		gone = n.wasRemoved()
	case <-failed:
		if errors.Is(n.group.Err(), raftfsm.ErrDisk) {
			return n.outlast(ctx)
		}
		// Nothing can be closed well: the process ends, and its hosts with it.
		n.tell(n.manager.Status("the node cannot go on: " + n.group.Err().Error()))
		return fmt.Errorf("the node cannot go on: %w", n.group.Err())
	}
	within := n.now.Load().Node.ShutdownTimeout
	leave, hurry := context.WithTimeout(context.Background(), within)
	defer hurry()
	second := make(chan os.Signal, 1)
	signal.Notify(second, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(second)
	go func() { // ended by a second signal or by the end of leaving
		select {
		case <-second:
			hurry()
		case <-leave.Done():
		}
	}()
	log.Info("leaving: jobs and requests that run may end", "within", within)
	n.tell(n.manager.Stopping("leaving: jobs and requests that run may end", within+refusedFor+interruptedFor+waitFurther))
	n.stop(leave)
	return gone
}

// start opens the rooms from the bottom up.
func (n *node) start(ctx context.Context) (err error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n.life, n.cancel = life, cancel
	if n.dir, err = datadir.Open(n.cfg.Node.DataDir); err != nil {
		return err
	}
	if err := n.addressesFree(); err != nil {
		return err
	}
	access, err := n.readAccess()
	if err != nil {
		return err
	}
	if err := n.startGroup(ctx); err != nil {
		return err
	}
	if err := n.startHub(); err != nil {
		return err
	}
	if err := n.startPHP(life); err != nil {
		return err
	}
	if err := n.serveAdmin(access); err != nil {
		return err
	}
	n.reporter.Add(1)
	go n.report(life) // ended by stop, which cancels life
	n.reloads(life)
	return nil
}

// addressesFree finds out that an address is in use before anything is stored: a node that
// is started again and again must not write to its log each time. The addresses are taken
// later, when there is something behind them.
func (n *node) addressesFree() error {
	keys := []struct{ addr, key string }{{n.cfg.Admin.Listen, "[admin] listen"}}
	if n.build.PHP {
		keys = append(keys, struct{ addr, key string }{n.cfg.Web.Listen, "[web] listen"})
	}
	if len(n.cfg.Websocket.Apps) > 0 {
		keys = append(keys, struct{ addr, key string }{n.cfg.Websocket.Listen, socketsKey})
	}
	for _, k := range keys {
		ln, err := bind(k.addr, k.key)
		if err != nil {
			return err
		}
		_ = ln.Close() // nobody connected
	}
	return nil
}

// startGroup starts what replicates: alone, or as a member of a cluster.
func (n *node) startGroup(ctx context.Context) (err error) {
	group := raftfsm.Config{Dir: n.dir, Clock: clock.System(), Log: n.log}
	var ttl time.Duration // of sessions: nobody ends that of a node alone
	if identity.Exists(n.dir) {
		ttl = sessionTTL
		if err := n.openCluster(&group); err != nil {
			return err
		}
	}
	group.Rebuilding = n.showRebuilding
	n.group, err = raftfsm.Open(ctx, group)
	n.rebuilt(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	n.watchSpace()
	n.clocks = clocks.New(clocks.Config{Clock: clock.System(), Node: n.dir.NodeID(), Voters: n.voters, Log: n.log})
	definitions := definitions(n.cfg)
	encoded, hash := definitions.Encode()
	n.leader = leader.New(leader.Config{
		Raft: n.group.Raft, State: n.group.FSM, Clock: clock.System(), Clocks: n.clocks, Definitions: encoded, Hash: hash,
		Node: n.dir.NodeID(), SessionTTL: ttl, Room: n.space.Room, Log: n.log,
	})
	if n.way = n.leader; n.cluster != nil {
		n.way = n.cluster
	} else if err := n.lead(ctx); err != nil {
		return err
	}
	n.proposer = raftfsm.NewProposer(raftfsm.ProposerConfig{
		Node: n.dir.NodeID(), NextOpening: n.dir.NextOpening, Submitter: n.way, Level: n.group.FSM.Level,
		Clock: clock.System(), Gather: gatherFor, SessionTTL: ttl, Timeout: n.cfg.Node.PushTimeout, Log: n.log,
	})
	n.queue = queue.NewClient(n.proposer, n.group.FSM)
	if n.cluster != nil {
		n.serveCluster()
	}
	return nil
}

// lead waits until a node alone leads its group of one.
func (n *node) lead(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	go func() { // ended by the return, or by the failure
		select {
		case <-n.group.Failed():
			stop()
		case <-ctx.Done():
		}
	}()
	err := n.leader.WaitReady(ctx)
	if err == nil && n.group.FSM.Level() < command.MaxLevel() {
		err = n.leader.Raise(command.MaxLevel())
	}
	if err != nil {
		return fmt.Errorf("the node did not come to lead its group: %w", errors.Join(err, n.group.Err()))
	}
	return nil
}

// startPHP starts the link, the pools, and the PHP hosts where PHP is built in.
func (n *node) startPHP(life context.Context) (err error) {
	var all []workers.Host
	if n.build.PHP {
		if err := n.openWeb(); err != nil {
			return err
		}
		all = hosts(n.cfg, n.webFile)
		if err := n.cfg.MissingPages(); err != nil {
			n.log.Warn(err.Error())
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	n.hosts = workers.NewHosts(workers.HostsConfig{
		Command: []string{self, "php-host"}, Hosts: all, Clock: clock.System(), Log: n.log,
		Named:   func(lease uint64) (workers.Named, bool) { return n.pools.Named(lease) },
		Printed: n.queue.Printed,
		Leave: func(pid int) {
			n.pools.Leave(pid)
			n.tasks.Retire(pid)
		},
		Left: func(pid int) {
			n.pools.Left(pid)
			n.tasks.Left(pid)
		},
	})
	n.pools = workers.NewPools(workers.Config{
		Pools: n.poolsOf(n.cfg), Reservations: n.group.FSM, Session: n.proposer, Attempts: n.queue, Offers: n.way, Processes: n.hosts,
		Quarantine: n.hosts, KillGrace: n.cfg.PHP.KillGrace, Clock: clock.System(), Log: n.log,
	})
	n.tasks = workers.NewDispatch(workers.DispatchConfig{Pools: n.taskPoolsOf(n.cfg), Processes: n.hosts, Clock: clock.System(), Log: n.log})
	handler := api.New(life, n.queue, n.pools, n.hosts, func() bool { return n.ready() == nil })
	handler.ServeTasks(n.tasks)
	if n.hub != nil {
		handler.ServeHub(n.hub)
	}
	if n.link, err = link.Listen(n.cfg.Node.Socket, handler, n.log); err != nil {
		return err
	}
	n.hosts.Start()
	return nil
}

// bindFor is how long an address that is in use is tried again: the PHP hosts of a killed
// node take a moment to go.
const bindFor = 2 * time.Second

// bind listens on an address, which key of the configuration names.
func bind(addr, key string) (*net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // such a socket takes no filter, which the last web host wants (phpext/web/lastcall.go)
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		ln, err := lc.Listen(context.Background(), "tcp", addr)
		if err == nil {
			return ln.(*net.TCPListener), nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(begin) > bindFor {
			return nil, fmt.Errorf("%s = %q: %w; end what uses it, or choose another address", key, addr, err)
		}
	}
}

// poolsOf returns the pools of workers in a configuration.
func (n *node) poolsOf(cfg *config.Config) []workers.Pool {
	all := make([]workers.Pool, 0, len(cfg.Workers))
	for _, w := range cfg.Workers {
		pool := workers.Pool{Name: w.Name, Queues: w.Queues, MaxJobs: w.MaxJobs}
		if n.build.PHP && w.Threads > 0 {
			pool.Script = w.Script
		}
		all = append(all, pool)
	}
	return workers.WithQuarantine(all)
}

func definitions(cfg *config.Config) queue.Definitions {
	d := queue.Definitions{Default: definition(cfg.Queue.Defaults), AutoCreate: cfg.Queue.AutoCreate, Queues: map[string]queue.Definition{}}
	for _, q := range cfg.Queue.Declared {
		d.Queues[q.Name] = definition(q)
	}
	return d
}

func definition(q config.Queue) queue.Definition {
	return queue.Definition{
		MaxMessages: uint64(q.MaxMessages), MaxBytes: uint64(q.MaxBytes), MaxPayloadBytes: uint64(q.MaxPayloadBytes),
		MaxAttempts: uint64(q.MaxAttempts), VisibilityTimeout: q.VisibilityTimeout, Backoff: q.Backoff,
		MaxCrashes: uint64(q.MaxCrashes),
	}
}

// report counts what never reached the log, through the log, and says what is wrong.
func (n *node) report(life context.Context) {
	defer n.reporter.Done()
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	var said told
	for {
		select {
		case <-t.C:
			n.tellTime(&said)
			n.tellDisk(&said)
			if done, err := n.proposer.Probe(life); done || err != nil {
				n.log.Info("probed with a command of a newer level", "done", done, "error", err)
			}
			if err := n.queue.Report(life); err != nil && life.Err() == nil {
				n.log.Debug("counters were not reported", "error", err)
			}
		case <-life.Done():
			return
		}
	}
}

// ready says why the node does not serve, nil when it does.
func (n *node) ready() error {
	switch {
	case n.leaving.Load():
		return errors.New("the node is shutting down")
	case n.failure() != nil:
		return n.failure()
	case n.cluster == nil && !n.leader.Leading():
		return errors.New("the node does not lead its group")
	case n.cluster != nil && !n.knowsLeader():
		return errors.New("no leader is known")
	case n.proposer.Session() == 0:
		return errors.New("the node has no session yet")
	case n.proposer.Standing(n.group.FSM.Applied()) != raftfsm.Fresh:
		return errors.New("the node has not heard from the leader of late, or lags behind it")
	}
	if missing := n.hosts.NotReady(); missing != "" {
		return errors.New(missing)
	}
	return nil
}

// A job that outlives shutdown_timeout sees its pushes refused for refusedFor; once it
// was interrupted its host has interruptedFor to end.
const (
	refusedFor     = 5 * time.Second
	interruptedFor = 2 * time.Second
	answeredWithin = 5 * time.Second // for calls that were taken before the node refuses them
)

// banner says where everything is.
func (n *node) banner(w io.Writer) {
	fmt.Fprintf(w, "pogod %s, %s mode\n", n.build.Version, n.cfg.Node.Mode)
	if n.web != nil {
		scheme := "http"
		if n.cfg.Web.TLS != (config.TLS{}) {
			scheme = "https"
		}
		mode := ""
		if n.cfg.Web.Worker != "" {
			mode = " (worker mode)"
		}
		fmt.Fprintf(w, "  pages    %s://%s%s\n", scheme, n.web.Addr(), mode)
	} else {
		fmt.Fprintln(w, "  pages    none: this pogod was built without PHP")
	}
	if n.hub != nil {
		fmt.Fprintf(w, "  sockets  ws://%s\n", n.sockets)
	}
	scheme := "http"
	if n.cfg.Admin.TLS != (config.TLS{}) {
		scheme = "https"
	}
	fmt.Fprintf(w, "  status   %s://%s/status, or pogod status\n", scheme, n.admin.Addr())
	fmt.Fprintf(w, "  data     %s\n", n.dir.Path)
	if n.cluster != nil {
		fmt.Fprintf(w, "  cluster  node %s at %s\n", n.dir.NodeID(), n.cfg.Cluster.Advertise)
	}
	fmt.Fprintln(w, "  end it with Ctrl-C")
}
