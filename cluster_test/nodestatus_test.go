package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"pogod/internal/link"
)

// queueStatus is one queue in /status.
type queueStatus struct {
	Queue                      string
	Pending, Delayed, Reserved int
	Failed, Enqueued, Acked    int
	FailedTotal                int `json:"failed_total"`
	Deleted, Purged, Retried   int
	ReservedTotal              int `json:"reserved_total"`
	DroppedFull                int `json:"dropped_full"`
}

// waiting is how many jobs are not at their end.
func (q *queueStatus) waiting() int { return q.Pending + q.Delayed + q.Reserved }

// statusDoc is what these tests read of /status.
type statusDoc struct {
	Node struct {
		ID                   string
		PID                  int
		StartedAt            time.Time `json:"started_at"`
		CertificateExpiresAt time.Time `json:"certificate_expires_at"`
	}
	Read struct {
		Node       string
		Consistent bool
		AgeMS      *int64 `json:"age_ms"`
	}
	Raft struct {
		State     string
		Term      uint64
		Applied   uint64 `json:"applied_index"`
		Committed uint64 `json:"committed_index"`
		Level     int    `json:"feature_level"`
		Members   []member
	}
	Storage struct {
		Snapshot uint64 `json:"snapshot_index"`
		LogFirst uint64 `json:"log_first_index"`
		LogLast  uint64 `json:"log_last_index"`
		File     int64  `json:"file_bytes"`
		Damage   string
		Failure  string
		Low      bool `json:"low_space"`
		Streams  []struct {
			Node         string
			Sending      bool
			Bytes, Total int64
		}
		Received  uint64 `json:"streams_received"`
		Hash      string `json:"state_hash"`
		HashIndex uint64 `json:"state_hash_index"`
	}
	Notes  []string
	Queues []queueStatus
}

// member of a cluster, as a node sees it.
type member struct {
	ID, Address                     string
	Voter, Worker, Leader, Self, Up bool
}

// queue returns what is said of one.
func (d *statusDoc) queue(name string) queueStatus {
	i := slices.IndexFunc(d.Queues, func(q queueStatus) bool { return q.Queue == name })
	if i < 0 {
		return queueStatus{}
	}
	return d.Queues[i]
}

// document asks for /status, with options such as "?hash=1".
func (n *node) document(ctx context.Context, options string) (*statusDoc, error) {
	body, err := n.get(ctx, "/status"+options)
	if err != nil {
		return nil, err
	}
	doc := &statusDoc{}
	if err := json.Unmarshal(body, doc); err != nil {
		return nil, fmt.Errorf("%w: %s", err, body)
	}
	return doc, nil
}

// status asks for the queues, and checks that the document agrees with itself.
func (n *node) status() (map[string]queueStatus, error) {
	doc, err := n.document(context.Background(), "")
	if err != nil {
		return nil, err
	}
	if doc.Node.PID != n.cmd.Process.Pid {
		n.disagree("it is of process %d, not of %d", doc.Node.PID, n.cmd.Process.Pid)
	}
	if doc.Raft.Committed > doc.Raft.Applied {
		n.disagree("the file holds entry %d, and %d is applied", doc.Raft.Committed, doc.Raft.Applied)
	}
	if doc.Storage.Snapshot < n.snapshot {
		n.disagree("the snapshot went back from entry %d to %d", n.snapshot, doc.Storage.Snapshot)
	}
	if doc.Storage.Snapshot > n.snapshot {
		n.snapshot = doc.Storage.Snapshot
		n.snapshots++
	}
	all := map[string]queueStatus{}
	for _, q := range doc.Queues {
		all[q.Queue] = q
		// A job is in one place and was counted once.
		if q.Enqueued != q.Acked+q.FailedTotal+q.Deleted+q.waiting() {
			n.disagree("queue %s has taken %d jobs, and acked %d, failed %d, deleted %d, waiting %d do not make that", q.Queue, q.Enqueued, q.Acked, q.FailedTotal, q.Deleted, q.waiting())
		}
		if q.FailedTotal != q.Failed+q.Purged+q.Retried {
			n.disagree("in queue %s %d jobs have failed, and %d that are there, %d purged, %d retried do not make that", q.Queue, q.FailedTotal, q.Failed, q.Purged, q.Retried)
		}
		if min(q.Pending, q.Delayed, q.Reserved, q.Failed) < 0 {
			n.disagree("a gauge of queue %s is negative: %+v", q.Queue, q)
		}
	}
	for name := range queueRules {
		if _, ok := all[name]; !ok {
			n.disagree("queue %s is missing", name)
		}
	}
	return all, nil
}

// disagree notes something that status said and that cannot be.
func (n *node) disagree(format string, args ...any) {
	n.wrong = append(n.wrong, fmt.Sprintf(format, args...))
}

// drained waits until no job waits and none runs.
func (n *node) drained() (map[string]queueStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	for {
		all, err := n.status()
		if err != nil {
			return nil, err
		}
		left := 0
		for _, q := range all {
			left += q.waiting()
		}
		if left == 0 {
			return all, nil
		}
		if !pause(ctx, 4*pollPause) {
			return nil, fmt.Errorf("%d jobs are left after %s: %+v", left, drainWithin, all)
		}
	}
}

// takeFailed lists and forgets all failed jobs.
func (n *node) takeFailed() ([]failedJob, error) {
	c, err := link.Dial(context.Background(), n.socket(), link.RoleTool, "checker")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []failedJob
	for name := range queueRules {
		for {
			page, err := failedPage(c, name)
			if err != nil {
				return nil, err
			}
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
			if err := n.forget(page); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func failedPage(c *link.Client, name string) ([]failedJob, error) {
	code, body, err := c.Call(link.Request(nil, link.Failed).String(name).Int(1000))
	if err != nil {
		return nil, err
	}
	var page struct{ Failed []failedJob }
	if err := json.Unmarshal(body, &page); err != nil || code != 1 {
		return nil, fmt.Errorf("the failed jobs of %s: code %d: %s", name, code, body)
	}
	return page.Failed, nil
}

// forget deletes failed jobs, over many connections, so that they share the log's fsync.
func (n *node) forget(page []failedJob) error {
	const connections = 32
	work := make(chan failedJob, len(page)) // all of them, so that none waits
	for _, f := range page {
		work <- f
	}
	close(work)
	errs := make(chan error, connections) // one each
	for range connections {
		go func() { // ended by the end of work
			errs <- func() error {
				c, err := link.Dial(context.Background(), n.socket(), link.RoleTool, "checker")
				if err != nil {
					return err
				}
				defer c.Close()
				for f := range work {
					code, body, err := c.Call(link.Request(nil, link.ForgetFailed).String(f.Queue).String(f.ID))
					if err != nil {
						return err
					}
					var answer struct{ Count int }
					if json.Unmarshal(body, &answer) != nil || code != 1 || answer.Count != 1 {
						return fmt.Errorf("forget failed job %s: code %d: %s", f.ID, code, body)
					}
				}
				return nil
			}()
		}()
	}
	var err error
	for range connections {
		err = errors.Join(err, <-errs)
	}
	return err
}
