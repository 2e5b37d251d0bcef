package cluster_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pogod/internal/link"
)

// TestStreamOfManyJobs says how long it takes to send a new node POGOD_STREAM_JOBS jobs,
// 5,000 without, while others push, and what their pushes take before it and meanwhile. It
// prints figures and judges the states alone.
func TestStreamOfManyJobs(t *testing.T) {
	notTwice(t)
	t.Parallel()
	jobs := envInt(t, "POGOD_STREAM_JOBS", 5000)
	var c *cluster
	if jobs < 500_000 {
		c = newShortLog(t) // or the log would still have its beginning
	} else {
		c = newCluster(t, build(t, ""), nil)
	}
	begin := time.Now()
	c.push(jobs)
	t.Logf("jobs=%d pushed-per-s=%.0f", jobs, float64(jobs)/time.Since(begin).Seconds())
	lead := c.leader()
	i := (lead + 1) % 3
	c.nodes[i].kill()
	c.wipe(i)
	before := c.pushesFor(lead, 2*time.Second)
	ctx, stop := context.WithCancel(t.Context())
	var during []time.Duration
	var pushing sync.WaitGroup
	pushing.Go(func() { during = c.pushesUntil(ctx, lead) }) // ended by stop
	begin = time.Now()
	c.nodes[i].start()
	until(t, func() bool {
		doc, err := c.nodes[i].document(t.Context(), "")
		return err == nil && doc.Storage.Received > 0
	}, func() string { return "no stream ends" })
	streamed := time.Since(begin)
	stop()
	pushing.Wait()
	doc, err := c.nodes[lead].document(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("jobs=%d file-bytes=%d start-to-received-s=%.2f pushes-before=%d p50-before-us=%d p99-before-us=%d pushes-during=%d p50-during-us=%d p99-during-us=%d max-during-us=%d",
		jobs, doc.Storage.File, streamed.Seconds(), len(before), quantile(before, .5), quantile(before, .99),
		len(during), quantile(during, .5), quantile(during, .99), quantile(during, 1))
	c.whole()
	c.same()
}

// quantile of durations, in microseconds.
func quantile(all []time.Duration, q float64) int64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(float64(len(all)-1)*q)].Microseconds()
}

func (c *cluster) pushesFor(i int, d time.Duration) []time.Duration {
	ctx, stop := context.WithTimeout(c.t.Context(), d)
	defer stop()
	return c.pushesUntil(ctx, i)
}

// pushesUntil pushes 300 jobs a second on a node, from three callers, until ctx ends, and
// returns what each took.
func (c *cluster) pushesUntil(ctx context.Context, i int) (took []time.Duration) {
	const callers = 3
	var mu sync.Mutex
	var all sync.WaitGroup
	payload := strings.Repeat("x", 300)
	for range callers {
		k := c.nodes[i].caller(link.RoleTool, "test")
		all.Go(func() { // ended by ctx
			for t := time.NewTicker(callers * time.Second / pushRate); ; {
				select {
				case <-t.C:
				case <-ctx.Done():
					t.Stop()
					return
				}
				a := k.push(queueNow, payload)
				if a.code != 1 {
					c.t.Errorf("a push was answered %+v", a)
				}
				mu.Lock()
				took = append(took, a.took)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return took
}
