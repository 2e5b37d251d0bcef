//go:build php

package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2ELeaveUnderLoad ends the node by SIGTERM while pages are asked for and jobs are
// pushed and run, and starts it again: no request fails, no job is lost, and no attempt is
// spent. A client that comes too late is refused before it has said anything. What runs
// may push its follow-up. POGOD_LEAVES says how often.
func TestE2ELeaveUnderLoad(t *testing.T) {
	t.Parallel()
	s := startSite(t, "[queue.busy]\nmax_attempts = 1\n[queue.next]\n"+worker(t, "busy", "plan.php", 3)+worker(t, "next", "plan.php", 1))
	leaves := envInt(t, "POGOD_LEAVES", 3)
	var asked int64
	var pushed, followed []string // jobs of busy; those that push another when the node leaves
	for round := range leaves {
		v := visitors{leaves: true}
		ctx, stop := context.WithCancel(t.Context())
		post := `[["str_repeat", "page", 3000]]`
		for _, keep := range []bool{true, false} {
			v.visit(ctx, s, fmt.Sprintf("GET, kept %v", keep), keep, "", 2*time.Millisecond)
			v.visit(ctx, s, fmt.Sprintf("POST, kept %v", keep), keep, post, 2*time.Millisecond)
		}
		v.visit(ctx, s, "GET, seldom", true, "", 400*time.Millisecond)
		v.visit(ctx, s, "POST, slow", true, `[["usleep", 300000], ["strval", "page"]]`, time.Millisecond)
		v.done.Go(func() { // ended by ctx, or with the node
			for i := 0; ctx.Err() == nil; i++ {
				plan := always(step{"ack"})
				if i%10 == 0 {
					plan = always(step{"call", "usleep", 200_000}, step{"ack"})
				}
				text, err := json.Marshal(plan)
				if err != nil {
					panic(err) // no plan that json cannot write
				}
				replies, err := s.tryCalls([]any{"pogo_queue_push", "busy", string(text)})
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err != nil {
					v.fail("push", err)
					continue
				}
				if a := replies[0].answer(t); a.OK {
					pushed = append(pushed, a.ID)
				} else {
					v.fail("push", fmt.Errorf("%+v", a))
				}
				pause(ctx, 5*time.Millisecond)
			}
		})
		gate := fmt.Sprintf("leave-%d", round)
		running := s.push(t, "busy", always(step{"gate", gate}, step{"call", "pogo_queue_push", "next", "follow-up"}, step{"ack"}))
		s.await(t, "busy", running, "start", 1)
		pause(ctx, time.Duration(100+37*round%300)*time.Millisecond)
		began := time.Now()
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the node is not ready", func() bool {
			_, err := s.get(t.Context(), "/readyz")
			return err != nil
		})
		s.open(t, gate)
		followed = append(followed, running)
		select {
		case <-s.exited:
		case <-time.After(endWithin):
			t.Fatal("the node does not end")
		}
		t.Logf("round %d: the node ended after %s", round, time.Since(began).Round(time.Millisecond))
		s.cmd = nil
		if s.err != nil {
			t.Errorf("it ended with %v", s.err)
		}
		v.done.Wait()
		stop()
		asked += v.asked.Load()
		for i, wrong := range v.wrong {
			if i < 5 {
				t.Errorf("round %d: %s", round, wrong)
			}
		}
		s.serve(t)
	}
	total := len(pushed) + leaves
	eventually(t, "all jobs are acked", func() bool {
		busy, next := s.queue(t, "busy"), s.queue(t, "next")
		return busy.Acked >= total && next.Acked >= leaves || busy.Failed > 0
	})
	for _, job := range followed {
		if n := s.notes(t, "busy", job, "call"); len(n) != 1 || !strings.Contains(string(n[0].Result), `\"code\":1}`) {
			t.Errorf("the push of a job that ran: %+v", n)
		}
	}
	acked := map[string]int{}
	for _, queue := range []string{"busy", "next"} {
		for _, n := range s.notes(t, queue, "", "start") {
			if n.Attempts != 1 {
				t.Errorf("an attempt was spent: %+v", n)
			}
		}
		for _, n := range s.notes(t, queue, "", "ack") {
			if acked[n.Job]++; n.code() != "1" || acked[n.Job] > 1 {
				t.Errorf("%+v", n)
			}
		}
	}
	for _, job := range append(pushed, followed...) {
		if acked[job] != 1 {
			t.Errorf("job %s was acked %d times", job, acked[job])
		}
	}
	for name, want := range map[string]int{"busy": total, "next": leaves} {
		if q := s.queue(t, name); q.Acked != want || q.Failed != 0 || q.Released != 0 || q.waiting() != 0 {
			t.Errorf("%s: %+v, want %d acked", name, q, want)
		}
	}
	t.Logf("%d times SIGTERM, %d requests, %d jobs, each attempt the first", leaves, asked, len(acked))
}
