package queue

import "time"

// Status is one queue in the JSON of pogo_queue_status and of the admin endpoint.
// Gauges count jobs; counters go on since the queue was made. Both are the cluster's. No
// job goes missing between them:
//
//	enqueued     = pending + delayed + reserved + acked + failed_total + deleted
//	failed_total = failed + purged + retried
type Status struct {
	Queue                  string     `json:"queue"`
	Ready                  bool       `json:"ready"`    // the node is ready and the queue declared
	Pending                uint64     `json:"pending"`  // ready jobs
	Delayed                uint64     `json:"delayed"`  // jobs that are not due yet
	Reserved               uint64     `json:"reserved"` // jobs in an attempt
	Failed                 uint64     `json:"failed"`
	Enqueued               uint64     `json:"enqueued"`       // jobs accepted
	ReservedTotal          uint64     `json:"reserved_total"` // deliveries
	Acked                  uint64     `json:"acked"`
	Released               uint64     `json:"released"`
	FailedTotal            uint64     `json:"failed_total"`
	DroppedFull            uint64     `json:"dropped_full"`              // pushes answered 0
	DroppedPayloadTooLarge uint64     `json:"dropped_payload_too_large"` // pushes answered 3
	DroppedShutdown        uint64     `json:"dropped_shutdown"`          // pushes answered 4
	BackendErrors          uint64     `json:"backend_errors"`            // calls answered 5 for the node's own reasons
	MaxPayloadBytes        uint64     `json:"max_payload_bytes"`         // bytes; 0: no limit of the queue's own
	OldestPendingAt        *time.Time `json:"oldest_pending_at"`         // push of the job that is next in line, null: none is ready
	Suspects               uint64     `json:"suspects"`                  // of pending, jobs that ran in a PHP host that crashed: each runs next alone
	Paused                 bool       `json:"paused"`                    // no job is handed out; pushes are accepted
	Deleted                uint64     `json:"deleted"`                   // jobs deleted while they waited
	Purged                 uint64     `json:"purged"`                    // failed jobs deleted
	Retried                uint64     `json:"retried"`                   // failed jobs made fresh ones, which count as enqueued again
}

// Status turns the figures of a queue into their JSON.
func (st *Stats) Status(nodeReady bool) Status {
	g, n := st.Gauges, st.Counters
	s := Status{
		Queue: st.Name, Ready: nodeReady && st.Declared,
		Pending: g.Ready, Delayed: g.Delayed, Reserved: g.Reserved, Failed: g.Failed,
		Enqueued: n.Enqueued, ReservedTotal: n.ReservedTotal, Acked: n.Acked, Released: n.Released, FailedTotal: n.FailedTotal,
		DroppedFull: n.DroppedFull, DroppedPayloadTooLarge: n.DroppedPayloadTooLarge, DroppedShutdown: n.DroppedShutdown,
		BackendErrors: n.BackendErrors, MaxPayloadBytes: st.MaxPayloadBytes, Suspects: g.Suspects, Paused: st.Paused,
		Deleted: n.Deleted, Purged: n.Purged, Retried: n.Retried,
	}
	if !st.OldestPending.IsZero() {
		at := st.OldestPending.UTC()
		s.OldestPendingAt = &at
	}
	return s
}
