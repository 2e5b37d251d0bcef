package node

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pogod/internal/admin"
	"pogod/internal/command"
	"pogod/internal/config"
	"pogod/queue"
	"pogod/workers"
)

// source shows a node to its admin endpoint.
type source struct{ n *node }

// ownWritesWithin is how long a status waits for this node to apply what its callers were
// answered: one that lags is to be seen all the same.
const ownWritesWithin = time.Second

const noteLags = "this node lags: the figures of queues lack what its callers were answered last"

// Ready implements admin.Source.
func (s source) Ready() error { return s.n.ready() }

// Status implements admin.Source.
func (s source) Status(ctx context.Context, o admin.StatusOptions) (*admin.Status, error) {
	n := s.n
	if o.Consistent {
		if err := n.catchUp(ctx); err != nil {
			return nil, err
		}
	}
	doc := &admin.Status{Node: n.statusNode(), Read: n.statusRead(o.Consistent), Notes: n.notes(), Raft: n.statusRaft(), Clock: n.clock(), Defined: n.definitionsDoc(), Build: admin.ReadBuild(n.build.Version, n.build.PHP)}
	soon, cancel := context.WithTimeout(ctx, ownWritesWithin)
	defer cancel()
	all, err := n.queue.Stats(soon, "")
	if err != nil && soon.Err() != nil && ctx.Err() == nil && !o.Consistent {
		all, err = n.queue.Seen("")
		doc.Notes = append(doc.Notes, noteLags)
	}
	if err != nil {
		return nil, err
	}
	ready := n.ready() == nil
	doc.Queues = make([]queue.Status, 0, len(all))
	for i := range all {
		doc.Queues = append(doc.Queues, all[i].Status(ready))
	}
	doc.Workers = n.statusWorkers()
	doc.Pools = n.statusPools()
	doc.Hub = n.statusHub()
	doc.Web = n.statusWeb()
	for _, h := range n.hosts.Status() {
		if workers.IsQuarantine(h.Name) && h.PID == 0 && h.LastExit == "" {
			continue // it was never needed
		}
		doc.PHP.Version = cmp.Or(doc.PHP.Version, h.Version)
		doc.PHP.Hosts = append(doc.PHP.Hosts, admin.Host{
			Name: h.Name, PID: h.PID, State: h.State, StartedAt: timeOrNil(h.StartedAt), Restarts: int64(h.Restarts), LastExit: h.LastExit,
		})
	}
	if doc.Storage, err = n.statusStorage(); err != nil || !o.Hash {
		return doc, err
	}
	sum, at, err := n.group.FSM.Hash()
	doc.Storage.StateHash, doc.Storage.StateHashIndex = hex.EncodeToString(sum[:]), at
	return doc, err
}

// catchUp waits until this node has applied all that was answered, on whichever node.
func (n *node) catchUp(ctx context.Context) error {
	index, err := n.way.ReadIndex(ctx)
	if err != nil {
		return err
	}
	return n.group.FSM.WaitApplied(ctx, index)
}

// statusRead says whose state it is and how old it may be. It is taken before the state.
func (n *node) statusRead(consistent bool) admin.Read {
	r := admin.Read{Node: n.dir.NodeID(), Consistent: consistent, AppliedIndex: n.group.FSM.Applied()}
	age, known := n.proposer.Age(r.AppliedIndex)
	if n.cluster == nil || consistent {
		age, known = 0, true
	}
	if ms := age.Milliseconds(); known {
		r.AgeMS = &ms
	}
	return r
}

func (n *node) statusNode() admin.Node {
	role := strings.ToLower(n.group.Raft.State().String())
	doc := admin.Node{
		ID: n.dir.NodeID(), Role: role, Mode: n.now.Load().Node.Mode, Version: n.build.Version,
		StartedAt: n.started, PID: unix.Getpid(), DataDir: n.dir.Path,
	}
	if keys := n.restartFor.Load(); keys != nil {
		doc.RestartFor = *keys
	}
	if n.cluster != nil {
		expires, _ := n.cluster.Certificate()
		doc.CertificateExpiresAt = &expires
	}
	return doc
}

func (n *node) statusRaft() admin.Raft {
	r := n.group.Raft
	_, leaderID := r.LeaderWithID()
	applied, committed := n.group.FSM.Indexes()
	doc := admin.Raft{
		State: r.State().String(), Leader: string(leaderID), Term: r.CurrentTerm(),
		CommitIndex: r.CommitIndex(), AppliedIndex: applied, CommittedIndex: committed,
		FeatureLevel: n.group.FSM.Level(), KnownLevel: command.MaxLevel(),
	}
	doc.Members = n.members()
	return doc
}

func (n *node) statusWeb() admin.Web {
	if !n.build.PHP {
		return admin.Web{}
	}
	p, w := n.hosts.Pages(), n.now.Load().Web
	mode := "classic"
	if w.Worker != "" {
		mode = "worker"
	}
	return admin.Web{
		Mode: mode, Script: w.Worker, Threads: w.Threads, Ready: p.Ready, Busy: p.Busy, Waiting: p.Waiting, Requests: p.Requests,
		Restarts: p.Restarts, Crashes: p.Crashes, FailedStarts: p.Failed, LastError: p.LastError, LastErrorAt: timeOrNil(p.LastErrorAt),
	}
}

func (n *node) statusWorkers() []admin.Worker {
	configured := n.now.Load().Workers
	all := make([]admin.Worker, 0, len(configured))
	for _, p := range n.pools.Status() {
		if p.Quarantine && p.Threads == 0 && p.Suspects == 0 && p.LastError == "" {
			continue // it has nothing to do
		}
		w := admin.Worker{
			Name: p.Name, Script: p.Script, Queues: p.Queues, Quarantine: p.Quarantine,
			Waiting: p.Waiting, Running: p.Running, Restarts: int64(p.Restarts),
			LastError: p.LastError, LastErrorAt: timeOrNil(p.LastErrorAt),
		}
		if p.Quarantine {
			w.Threads, w.Host = 1, p.Name
		} else if i := slices.IndexFunc(configured, func(c config.Worker) bool { return c.Name == p.Name }); i >= 0 { // one that just came is not there yet
			if w.Threads = configured[i].Threads; n.build.PHP && w.Threads > 0 {
				w.Host = configured[i].Host
			}
		}
		all = append(all, w)
	}
	return all
}

func (n *node) statusStorage() (admin.Storage, error) {
	file, err := n.group.FSM.StoreStats()
	if err != nil {
		return admin.Storage{}, err
	}
	log, err := n.group.LogStats()
	if err != nil {
		return admin.Storage{}, err
	}
	doc := admin.Storage{
		FileBytes: file.FileBytes, FreeBytesInFile: file.FreeBytes,
		LogFirstIndex: log.First, LogLastIndex: log.Last, LogBytes: log.Bytes, SnapshotIndex: log.SnapshotIndex,
	}
	running, sent, received := n.group.Streams()
	doc.Streams, doc.StreamsSent, doc.StreamsReceived = streams(running), sent, received
	s := n.group.ScrubStats()
	doc.Scrub = admin.Scrub{Running: s.Running, Runs: s.Runs, Bytes: s.Bytes, LastEndAt: timeOrNil(s.LastEnd)}
	doc.Syncs = statusSyncs(n.group.Syncs())
	if err := n.failure(); err != nil {
		doc.Failure = err.Error()
	}
	space := n.space.Standing()
	doc.DiskFreeBytes, doc.MinFreeBytes, doc.LowSpace = space.Free, space.Floor, space.Low
	return doc, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
