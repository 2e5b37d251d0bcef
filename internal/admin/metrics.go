package admin

import (
	"bytes"
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
	"github.com/valyala/fasthttp"
)

// maxQueueSeries is how many queues have series of their own, the first by name:
// queues that a push makes have no bound.
const maxQueueSeries = 1000

// process are the figures of Go's runtime and of the process; they cost nothing until
// they are asked for.
var process = func() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}()

// metrics answers the status of the node in Prometheus's text format. Gauges and
// counters of queues are the cluster's, the same on every node: ask one for them, or
// take the maximum.
func (s *Server) metrics(ctx *fasthttp.RequestCtx) {
	bounded, cancel := context.WithTimeout(s.ctx, statusTimeout)
	defer cancel()
	st, err := s.src.Status(bounded, StatusOptions{})
	if err != nil {
		problem(ctx, fasthttp.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	r := prometheus.NewRegistry()
	err = r.Register(&collector{status: st, ready: s.src.Ready() == nil})
	var body bytes.Buffer
	if err == nil {
		err = encode(&body, prometheus.Gatherers{process, r})
	}
	if err != nil {
		problem(ctx, fasthttp.StatusInternalServerError, "the metrics cannot be put together: "+err.Error(), nil)
		return
	}
	ctx.SetContentType(string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	ctx.SetBody(body.Bytes())
}

func encode(to *bytes.Buffer, from prometheus.Gatherer) error {
	families, err := from.Gather()
	if err != nil {
		return err
	}
	e := expfmt.NewEncoder(to, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := e.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

// collector turns one Status into metrics.
type collector struct {
	status *Status
	ready  bool
}

// metric describes one family: its name behind "pogod_", its help, and its labels.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("pogod_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("pogod_"+name+"_total", help, labels, nil), prometheus.CounterValue}
}

var (
	buildInfo = gauge("build_info", "How this binary was made; always 1.", "version", "go", "php", "revision")
	ready     = gauge("ready", "1 when the node takes pushes and its PHP is up, as /readyz says.")
	readAge   = gauge("read_age_seconds", "How old the figures of queues may be: time since a leader confirmed the state of this node.")

	raftLeader    = gauge("raft_is_leader", "1 on the node that leads.")
	raftTerm      = gauge("raft_term", "The present term.")
	raftCommitted = gauge("raft_commit_index", "Last index of the log that a quorum has.")
	raftApplied   = gauge("raft_applied_index", "Last index of the log that this node has applied.")
	memberUp      = gauge("member_up", "1 when the link to the member is up, or it is this node.", "member")
	memberLag     = gauge("member_lag_entries", "Entries that the member is behind, as far as this node knows.", "member")

	clockOffset        = gauge("clock_offset_seconds", "How far the clock of a node is ahead of the median of the voters' clocks, by the measurements of this one; absent while it is not known.", "member")
	certificateExpires = gauge("certificate_expiry_timestamp_seconds", "When the certificate that this node shows the others ends, which is renewed a year before; absent on a node in no cluster.")
	clockAhead         = gauge("cluster_time_ahead_seconds", "How far cluster time is ahead of the median of the voters' clocks: it goes on at half speed then.")

	definitionsDiffer = gauge("definitions_differ", "1 while the queues are defined as the configuration of another node says, not as this one's.")

	queueJobs      = gauge("queue_jobs", "Jobs in the queue, by state, in the cluster.", "queue", "state")
	queueSuspects  = gauge("queue_suspects", "Of the ready jobs, those that ran in a PHP host that crashed: each runs next alone.", "queue")
	queueOldest    = gauge("queue_oldest_pending_timestamp_seconds", "When the job that is next in line was pushed; absent while none is ready.", "queue")
	queueEnqueued  = counter("queue_enqueued", "Jobs accepted.", "queue")
	queueDelivered = counter("queue_deliveries", "Jobs handed to a worker.", "queue")
	queueAcked     = counter("queue_acked", "Jobs acked.", "queue")
	queueReleased  = counter("queue_released", "Jobs released, by their handler or by the node.", "queue")
	queueFailed    = counter("queue_failed", "Jobs that failed.", "queue")
	queueDropped   = counter("queue_dropped", "Pushes refused.", "queue", "reason")
	queuePaused    = gauge("queue_paused", "1 while the queue is paused: it takes jobs and hands none out.", "queue")
	queueDeleted   = counter("queue_deleted", "Jobs deleted while they waited.", "queue")
	queuePurged    = counter("queue_purged", "Failed jobs deleted.", "queue")
	queueRetried   = counter("queue_retried", "Failed jobs made fresh ones.", "queue")
	queueErrors    = counter("queue_backend_errors", "Calls that answered 5 for the node's own reasons.", "queue")
	queuesOmitted  = gauge("queues_omitted", "Queues that have no series here: only the first 1,000 by name have.")

	workerThreads  = gauge("worker_threads", "Threads of the worker on this node, by what they do.", "worker", "state")
	workerRestarts = counter("worker_script_restarts", "Times that the worker's script has ended, on this node.", "worker")
	poolThreads    = gauge("pool_threads", "Threads of the dispatch pool on this node, by what they do.", "pool", "state")
	poolQueued     = gauge("pool_queued_tasks", "Tasks that wait for a thread of the pool.", "pool")
	poolTasks      = counter("pool_tasks", "Tasks that ended, by how.", "pool", "outcome")
	poolWait       = gauge("pool_mean_wait_seconds", "For a thread of the pool, the mean of all tasks.", "pool")
	poolRun        = gauge("pool_mean_run_seconds", "In a thread of the pool, the mean of all tasks.", "pool")
	poolRestarts   = counter("pool_script_restarts", "Times that the pool's script has ended, on this node.", "pool")
	hubConnections = gauge("websocket_connections", "Sockets that are connected to this node.")
	hubChannels    = gauge("websocket_channels", "Channels with a subscriber on this node.")
	hubMessages    = counter("websocket_messages", "Events published on this node, one for each channel.")
	hubSlow        = counter("websocket_slow_closed", "Sockets closed because their client did not read.")
	webThreads     = gauge("web_threads", "Threads of pages on this node that can answer requests (ready), and those that do (busy).", "state")
	webWaiting     = gauge("web_waiting_requests", "Requests of pages that wait for a thread.")
	webRequests    = counter("web_requests", "Requests that PHP has answered, or answers; files are not among them.")
	webRestarts    = counter("web_worker_restarts", "Ends of the script that answers pages in worker mode, on this node: by itself, by a fatal error, or before it had started.", "cause")
	hostUp         = gauge("php_host_up", "1 while the PHP host is ready.", "host")
	hostRestarts   = counter("php_host_restarts", "Times that the PHP host has ended and was started again.", "host")

	dataBytes   = gauge("data_file_bytes", "Size of the data file.")
	dataFree    = gauge("data_file_free_bytes", "Of the data file, pages that are free for reuse.")
	logBytes    = gauge("log_bytes", "Size of the log's files.")
	streams     = counter("streams", "Data files that were sent or received whole, by direction.", "direction")
	streamBytes = gauge("stream_bytes", "Of the data file that is on its way, bytes so far.", "direction", "member")
	streamTotal = gauge("stream_total_bytes", "Size of the data file that is on its way.", "direction", "member")
	scrubRuns   = counter("scrub_runs", "Times that everything on the disk was read and found whole.")
	scrubBytes  = counter("scrub_bytes", "Bytes that the scrubber has read.")
	scrubEnd    = gauge("scrub_last_end_timestamp_seconds", "When everything was last found whole; absent before.")
	diskFree    = gauge("disk_free_bytes", "Free on the file system of the data directory.")
	diskFloor   = gauge("disk_min_free_bytes", "Below so much free space the cluster takes no pushes while this node leads; 0: no floor.")
	logSync     = gauge("log_sync_seconds", "How long the syncs of the log took.") // a histogram
	diskSlow    = gauge("disk_slow", "1 while the median of the last syncs of the log is 100 ms or more.")
	diskFailed  = gauge("disk_failed", "1 while the node takes nothing because its disk refused a write or a sync.")
	diskLow     = gauge("disk_low_space", "1 while less is free than that, or was and not yet a quarter more is.")
)

// Describe implements prometheus.Collector: what there is depends on the status.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	out := sink(to)
	st := c.status
	b := st.Build
	out.put(buildInfo, 1, b.Version, b.Go, yes(b.PHP), b.Revision)
	out.put(ready, flag(c.ready))
	if st.Read.AgeMS != nil {
		out.put(readAge, (time.Duration(*st.Read.AgeMS) * time.Millisecond).Seconds())
	}
	out.put(raftLeader, flag(st.Raft.Leader != "" && st.Raft.Leader == st.Node.ID))
	out.put(raftTerm, float64(st.Raft.Term))
	out.put(raftCommitted, float64(st.Raft.CommitIndex))
	out.put(raftApplied, float64(st.Raft.AppliedIndex))
	for _, m := range st.Raft.Members {
		out.put(memberUp, flag(m.Up), m.ID)
		out.put(memberLag, float64(m.Lag), m.ID)
	}
	for _, k := range st.Clock.Nodes {
		if k.OffsetMS != nil {
			out.put(clockOffset, *k.OffsetMS/1000, k.Node)
		}
	}
	if at := st.Node.CertificateExpiresAt; at != nil {
		out.put(certificateExpires, float64(at.Unix()))
	}
	out.put(clockAhead, float64(st.Clock.AheadMS)/1000)
	out.put(definitionsDiffer, flag(st.Defined.Differ))
	out.queues(st.Queues)
	for _, w := range st.Workers {
		out.put(workerThreads, float64(w.Waiting), w.Name, "waiting")
		out.put(workerThreads, float64(w.Running), w.Name, "running")
		out.put(workerRestarts, float64(w.Restarts), w.Name)
	}
	for _, p := range st.Pools {
		out.pool(p)
	}
	if st.Hub != nil {
		out.put(hubConnections, float64(st.Hub.Connections))
		out.put(hubChannels, float64(st.Hub.Channels))
		out.put(hubMessages, float64(st.Hub.Messages))
		out.put(hubSlow, float64(st.Hub.SlowClosed))
	}
	if st.Web.Mode != "" {
		out.web(st.Web)
	}
	for i, h := range st.PHP.Hosts {
		if i > 0 && st.PHP.Hosts[i-1].Name == h.Name {
			continue // it only finishes what it runs
		}
		out.put(hostUp, flag(h.State == "ready"), h.Name)
		out.put(hostRestarts, float64(h.Restarts), h.Name)
	}
	out.put(dataBytes, float64(st.Storage.FileBytes))
	out.put(dataFree, float64(st.Storage.FreeBytesInFile))
	out.put(logBytes, float64(st.Storage.LogBytes))
	out.put(diskFree, float64(st.Storage.DiskFreeBytes))
	out.put(diskFloor, float64(st.Storage.MinFreeBytes))
	out.syncs(&st.Storage.Syncs)
	out.put(diskSlow, flag(st.Storage.Syncs.Slow))
	out.put(diskFailed, flag(st.Storage.Failure != ""))
	out.put(diskLow, flag(st.Storage.LowSpace))
	out.streams(&st.Storage)
	out.put(scrubRuns, float64(st.Storage.Scrub.Runs))
	out.put(scrubBytes, float64(st.Storage.Scrub.Bytes))
	if at := st.Storage.Scrub.LastEndAt; at != nil {
		out.put(scrubEnd, float64(at.UnixMilli())/1000)
	}
}

// sink takes metrics.
type sink chan<- prometheus.Metric

func (s sink) put(m metric, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

func (s sink) queues(all []Queue) {
	kept := all[:min(len(all), maxQueueSeries)]
	s.put(queuesOmitted, float64(len(all)-len(kept)))
	for _, q := range kept {
		s.put(queueJobs, float64(q.Pending), q.Queue, "ready")
		s.put(queueJobs, float64(q.Delayed), q.Queue, "delayed")
		s.put(queueJobs, float64(q.Reserved), q.Queue, "reserved")
		s.put(queueJobs, float64(q.Failed), q.Queue, "failed")
		s.put(queueSuspects, float64(q.Suspects), q.Queue)
		if q.OldestPendingAt != nil {
			s.put(queueOldest, float64(q.OldestPendingAt.UnixMilli())/1000, q.Queue)
		}
		s.put(queueEnqueued, float64(q.Enqueued), q.Queue)
		s.put(queueDelivered, float64(q.ReservedTotal), q.Queue)
		s.put(queueAcked, float64(q.Acked), q.Queue)
		s.put(queueReleased, float64(q.Released), q.Queue)
		s.put(queueFailed, float64(q.FailedTotal), q.Queue)
		s.put(queueDropped, float64(q.DroppedFull), q.Queue, "full")
		s.put(queueDropped, float64(q.DroppedPayloadTooLarge), q.Queue, "payload_too_large")
		s.put(queueDropped, float64(q.DroppedShutdown), q.Queue, "shutdown")
		s.put(queuePaused, flag(q.Paused), q.Queue)
		s.put(queueDeleted, float64(q.Deleted), q.Queue)
		s.put(queuePurged, float64(q.Purged), q.Queue)
		s.put(queueRetried, float64(q.Retried), q.Queue)
		s.put(queueErrors, float64(q.BackendErrors), q.Queue)
	}
}

func (s sink) pool(p Pool) {
	s.put(poolThreads, float64(p.Waiting), p.Name, "waiting")
	s.put(poolThreads, float64(p.Running), p.Name, "running")
	s.put(poolQueued, float64(p.Queued), p.Name)
	s.put(poolTasks, float64(p.Done), p.Name, "done")
	s.put(poolTasks, float64(p.Failed), p.Name, "failed")
	s.put(poolTasks, float64(p.TimedOut), p.Name, "timed_out")
	s.put(poolTasks, float64(p.Cancelled), p.Name, "cancelled")
	s.put(poolWait, p.WaitMS/1000, p.Name)
	s.put(poolRun, p.RunMS/1000, p.Name)
	s.put(poolRestarts, float64(p.Restarts), p.Name)
}

func (s sink) syncs(all *Syncs) {
	buckets := make(map[float64]uint64, len(all.Buckets))
	for _, b := range all.Buckets {
		buckets[b.Seconds] = b.Count
	}
	s <- prometheus.MustNewConstHistogram(logSync.desc, all.Count, all.TotalSeconds, buckets)
}

func (s sink) streams(st *Storage) {
	s.put(streams, float64(st.StreamsSent), "sent")
	s.put(streams, float64(st.StreamsReceived), "received")
	put := map[[2]string]bool{} // a member may be sent one while another is being given up
	for _, r := range st.Streams {
		direction := "received"
		if r.Sending {
			direction = "sent"
		}
		if k := [2]string{direction, r.Node}; !put[k] {
			put[k] = true
			s.put(streamBytes, float64(r.Bytes), direction, r.Node)
			s.put(streamTotal, float64(r.Total), direction, r.Node)
		}
	}
}

func (s sink) web(w Web) {
	s.put(webThreads, float64(w.Ready), "ready")
	s.put(webThreads, float64(w.Busy), "busy")
	s.put(webWaiting, float64(w.Waiting))
	s.put(webRequests, float64(w.Requests))
	if w.Script != "" {
		s.put(webRestarts, float64(w.Restarts), "itself")
		s.put(webRestarts, float64(w.Crashes), "crash")
		s.put(webRestarts, float64(w.FailedStarts), "failed_start")
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
