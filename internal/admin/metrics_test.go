package admin

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// pogods are the lines of the node's own metrics.
func pogods(body string) string {
	var b strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "pogod_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{status: some})
	r, body := send(t, s, get("/metrics"))
	if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatal(r.Status, r.Header)
	}
	const golden = "testdata/metrics.txt"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(pogods(body)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := pogods(body); got != string(want) {
		t.Errorf("got:\n%s\nUPDATE_GOLDEN=1 writes it to %s", got, golden)
	}
	if !strings.Contains(body, "\ngo_goroutines ") || !strings.Contains(body, "\nprocess_open_fds ") {
		t.Error("the figures of the process are missing")
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "pogod_") { // Go's own are not ours to name
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// A host that is replaced is two processes for a while, and one in the metrics.
func TestMetricsWhileAHostIsReplaced(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{status: func(ctx context.Context, o StatusOptions) (*Status, error) {
		st, err := some(ctx, o)
		st.PHP.Hosts = append(st.PHP.Hosts, Host{Name: st.PHP.Hosts[len(st.PHP.Hosts)-1].Name, PID: 9, State: "draining"})
		return st, err
	}})
	r, body := send(t, s, get("/metrics"))
	if r.StatusCode != http.StatusOK || !strings.Contains(body, `pogod_php_host_up{host="jobs"} 1`) {
		t.Error(r.Status, body)
	}
}

// Queues that pushes make have no bound, series have.
func TestMetricsOfManyQueues(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{status: func(context.Context, StatusOptions) (*Status, error) {
		st := &Status{}
		for i := range maxQueueSeries + 7 {
			st.Queues = append(st.Queues, Queue{Queue: fmt.Sprintf("q%04d\"\n", i)})
		}
		return st, nil
	}})
	_, body := send(t, s, get("/metrics"))
	if n := strings.Count(body, "pogod_queue_acked_total{"); n != maxQueueSeries {
		t.Error(n, "queues have series")
	}
	if !strings.Contains(body, "\npogod_queues_omitted 7\n") {
		t.Error("it is not said how many have none")
	}
}

func TestMetricsWithoutStatus(t *testing.T) {
	t.Parallel()
	s := serve(t, &fake{status: func(context.Context, StatusOptions) (*Status, error) { return nil, fmt.Errorf("the file is closed") }})
	if r, body := send(t, s, get("/metrics")); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "the file is closed") {
		t.Error(r.Status, body)
	}
}
