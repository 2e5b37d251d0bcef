//go:build php

package cluster_test

import (
	"encoding/json"
	"testing"
)

// TestE2EPoolSettings has a pool with settings of its own in a host of its own: a task that
// ends that host ends no job and no task of the others.
func TestE2EPoolSettings(t *testing.T) {
	t.Parallel()
	s := startSite(t, pool(t, "default", 1, "")+pool(t, "own", 1, "host = \"tasks\"\nmemory_limit = \"96M\"\nini = { precision = 5, \"date.timezone\" = \"Asia/Tokyo\" }")+
		worker(t, "plain", "plan.php", 1))
	settings := func(pool string) (limit, precision, zone string, pid int) {
		t.Helper()
		var got []json.RawMessage
		s.eval(t, &got, `return pogo_await(pogo_dispatch('Settings', [], '`+pool+`'));`)
		for i, to := range []any{&limit, &precision, &zone, &pid} {
			if err := json.Unmarshal(got[i], to); err != nil {
				t.Fatalf("%s: %v", got, err)
			}
		}
		return limit, precision, zone, pid
	}
	limit, precision, zone, pid := settings("own")
	if limit != "96M" || precision != "5" || zone != "Asia/Tokyo" || pid != s.document(t).host(t, "tasks").PID {
		t.Errorf("%s %s %s in process %d, %+v", limit, precision, zone, pid, s.document(t).PHP.Hosts)
	}
	limit, precision, zone, other := settings("default")
	if limit != "64M" || precision == "5" || zone == "Asia/Tokyo" || other != s.document(t).host(t, "jobs").PID {
		t.Errorf("the other pool has %s %s %s in process %d", limit, precision, zone, other)
	}
	if p := s.pool(t, "own"); p.Host != "tasks" {
		t.Errorf("%+v", p)
	}
	job := s.push(t, "plain", always(step{"gate", "beside"}, step{"ack"}))
	s.await(t, "plain", job, "start", 1)
	if got := s.thrown(t, `pogo_await(pogo_dispatch('Kill', [9], 'own'))`); got != `RuntimeException: the worker of pool "own" failed: its PHP host ended by SIGKILL` {
		t.Error(got)
	}
	s.open(t, "beside")
	if n := s.await(t, "plain", job, "ack", 1); n.Attempts != 1 || n.code() != "1" {
		t.Errorf("%+v", n)
	}
	if j, own := s.document(t).host(t, "jobs"), s.document(t).host(t, "tasks"); j.PID != other || j.Restarts != 0 || own.Restarts != 1 {
		t.Errorf("%+v %+v", j, own)
	}
}
