//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testDispatchTimeouts(t *testing.T, s *site) {
	s.settled(t, "default", "one")
	before := s.pool(t, "default")
	for i, class := range []string{"Spin", "Sleep"} {
		name := fmt.Sprintf("timeout%d", i)
		s.evals(t, fmt.Sprintf(`
			$h = pogo_dispatch('%s', ['%s']);
			while (!file_exists(getenv('E2E_RECORD') . '/%[2]s')) { usleep(2000); clearstatcache(); }
			$began = microtime(true);
			$said = thrown(fn () => pogo_await($h, 0.2));
			$took = microtime(true) - $began;
			return [$said, $took >= 0.19, thrown(fn () => pogo_await($h)) === "RuntimeException: handle $h is unknown, or was awaited already"];`, class, name),
			`["RuntimeException: no result within the time-out of 200ms: its job runs, and is cancelled",true,true]`)
	}
	s.settled(t, "default") // both were interrupted
	if after := s.pool(t, "default"); after.TimedOut != before.TimedOut+2 || after.Failed != before.Failed || after.Cancelled != before.Cancelled {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	// A task that awaits another one is interrupted, too, and the other with it.
	s.settled(t, "one")
	one := s.pool(t, "one")
	s.evals(t, `
		$h = pogo_dispatch('Nest', ['class' => 'Sleep', 'args' => ['nested'], 'pool' => 'default'], 'one');
		while (!file_exists(getenv('E2E_RECORD') . '/nested')) { usleep(2000); clearstatcache(); }
		return thrown(fn () => pogo_await($h, 0.1));`, `"RuntimeException: no result within the time-out of 100ms: its job runs, and is cancelled"`)
	s.settled(t, "default", "one")
	if after, nested := s.pool(t, "one"), s.pool(t, "default"); after.TimedOut != one.TimedOut+1 || nested.Cancelled != before.Cancelled+1 {
		t.Errorf("%+v\n%+v", after, nested)
	}
	// 0 asks whether the result is there.
	s.evals(t, `
		$gate = pogo_dispatch('Gate', ['poll'], 'one');
		$queued = pogo_dispatch('Touch', ['never'], 'one');
		$poll = [thrown(fn () => pogo_await($queued, 0)), thrown(fn () => pogo_await($gate, 0.0))];
		return $poll;`, `["RuntimeException: no result within the time-out of 0s: its job waits for a thread of pool \"one\", and is cancelled",`+
		`"RuntimeException: no result within the time-out of 0s: its job runs, and is cancelled"]`)
	s.settled(t, "one")
	if _, err := os.Stat(filepath.Join(s.record, "never")); err == nil {
		t.Error("a job that was cancelled while it waited has run")
	}
	s.evals(t, `
		$a = pogo_dispatch('Echo', ['a'], 'one');
		$b = pogo_dispatch('Echo', ['b'], 'one');
		return [pogo_await($b), pogo_await($a, 0)];`, `[["b"],["a"]]`) // one thread: a is done before b
}

// testDispatchInterrupts cancels tasks of a pool of one thread again and again, in the
// moment that they end by themselves: the interrupt never hits the next task.
func testDispatchInterrupts(t *testing.T, s *site) {
	s.settled(t, "one")
	before := s.pool(t, "one")
	s.evals(t, `
		$wrong = [];
		for ($i = 0; $i < 1000; $i++) {
			$late = pogo_dispatch('Busy', [random_int(0, 300)], 'one');
			$next = pogo_dispatch('Echo', [$i], 'one');
			if ($i % 3 === 0) usleep(random_int(0, 150));
			$late = thrown(fn () => pogo_await($late, 0));
			if ($late !== 'nothing' && !str_contains($late, 'and is cancelled')) $wrong[] = $late;
			try {
				if (pogo_await($next) !== [$i]) $wrong[] = "another's result";
			} catch (RuntimeException $e) {
				$wrong[] = $e->getMessage();
			}
		}
		return $wrong;`, `[]`)
	s.settled(t, "one")
	after := s.pool(t, "one")
	t.Logf("cancelled %d of 1000 in their moment; %d scripts were stopped", after.TimedOut-before.TimedOut, after.Restarts-before.Restarts)
	if stopped := after.Restarts - before.Restarts; stopped == int64(after.TimedOut-before.TimedOut) || after.TimedOut == before.TimedOut {
		t.Log("no interrupt came late: this run says little")
	}
	if after.Failed != before.Failed || after.Done < before.Done+1000 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

func testDispatchMaxWait(t *testing.T, s *site) {
	s.settled(t, "one")
	before := s.pool(t, "one")
	s.evals(t, `
		$gate = pogo_dispatch('Gate', ['maxwait'], 'one');
		$began = microtime(true);
		$waits = [pogo_dispatch('Touch', ['toolate'], 'one'), pogo_dispatch('Touch', ['toolate'], 'one')];
		$said = [thrown(fn () => pogo_await($waits[0], 30)), thrown(fn () => pogo_await($waits[1], 30))];
		$took = microtime(true) - $began;
		touch(getenv('E2E_RECORD') . '/maxwait.open');
		return [$said, $took > 0.45 && $took < 20, pogo_await($gate) > 0];`,
		`[["RuntimeException: no thread of pool \"one\" was free within 500ms (its max_wait)","RuntimeException: no thread of pool \"one\" was free within 500ms (its max_wait)"],true,true]`)
	s.settled(t, "one")
	if _, err := os.Stat(filepath.Join(s.record, "toolate")); err == nil {
		t.Error("a job that waited too long has run")
	}
	if after := s.pool(t, "one"); after.TimedOut != before.TimedOut+2 || after.Done != before.Done+1 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	// A pool whose threads come from outside, and none has.
	if got := s.thrown(t, `pogo_await(pogo_dispatch('Echo', [], 'outside'), 30)`); got != `RuntimeException: no thread of pool "outside" was free within 500ms (its max_wait)` {
		t.Error(got)
	}
}

func testDispatchPageEnds(t *testing.T, s *site) {
	s.settled(t, "default", "one")
	before, one := s.pool(t, "default"), s.pool(t, "one")
	s.evals(t, `
		pogo_dispatch('Sleep', ['pageends']);
		pogo_dispatch('Gate', ['pagegate'], 'one');
		pogo_dispatch('Touch', ['afterpage'], 'one');
		while (!file_exists(getenv('E2E_RECORD') . '/pageends') || !file_exists(getenv('E2E_RECORD') . '/pagegate')) { usleep(2000); clearstatcache(); }
		return true;`, `true`)
	s.settled(t, "default", "one") // nothing opens the gate, and nobody wakes the sleeper
	if after := s.pool(t, "default"); after.Cancelled != before.Cancelled+1 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if after := s.pool(t, "one"); after.Cancelled != one.Cancelled+2 || after.Done != one.Done {
		t.Errorf("before %+v\nafter %+v", one, after)
	}
	if _, err := os.Stat(filepath.Join(s.record, "afterpage")); err == nil {
		t.Error("a task that waited has run after its page")
	}
	// So it is when the page ends badly.
	if err := s.tryEval(new(any), `
		pogo_dispatch('Sleep', ['fatal']);
		while (!file_exists(getenv('E2E_RECORD') . '/fatal')) { usleep(2000); clearstatcache(); }
		str_repeat('x', 1 << 30);`); err == nil {
		t.Error("no fatal error")
	}
	s.settled(t, "default")
}

func testDispatchTaskEnds(t *testing.T, s *site) {
	s.settled(t, "default")
	before := s.pool(t, "default")
	s.evals(t, `return pogo_await(pogo_dispatch('Leave', ['left'], 'one'), 30);`, `null`)
	s.settled(t, "default", "one")
	if after := s.pool(t, "default"); after.Cancelled != before.Cancelled+1 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// testDispatchAttemptEnds has a job of a queue leave a task behind: it is cancelled when
// the job has ended, not when its script does.
func testDispatchAttemptEnds(t *testing.T, s *site) {
	s.settled(t, "default")
	before := s.pool(t, "default")
	job := s.push(t, "leaves", always(step{"call", "pogo_dispatch", "Sleep", []string{"attempt"}}, step{"gate", "attempt"}, step{"ack"}))
	s.recorded(t, "attempt")
	if p := s.pool(t, "default"); p.Running != 1 {
		t.Errorf("%+v", p)
	}
	s.open(t, "attempt")
	s.await(t, "leaves", job, "ack", 1)
	s.settled(t, "default")
	if after := s.pool(t, "default"); after.Cancelled != before.Cancelled+1 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if w := s.document(t).worker(t, "leaves"); w.Restarts != 0 {
		t.Errorf("%+v", w)
	}
}

// testDispatchPageInterrupted has PHP's own time limit end a wait.
func testDispatchPageInterrupted(t *testing.T, s *site) {
	s.settled(t, "default")
	before := s.pool(t, "default")
	began := time.Now()
	err := s.tryEval(new(any), `set_time_limit(1); pogo_await(pogo_dispatch('Sleep', ['interrupted']), 600);`)
	if err == nil || time.Since(began) > readyWithin/2 {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	s.settled(t, "default")
	if after := s.pool(t, "default"); after.Cancelled != before.Cancelled+1 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

func testDispatchHostDies(t *testing.T, s *site) {
	for _, signal := range []string{"SIGKILL", "SIGSEGV"} {
		s.settled(t, "default", "one")
		got := s.thrown(t, `pogo_await(pogo_dispatch('Kill', [`+signal+`]), 30)`)
		if want := `RuntimeException: the worker of pool "default" failed: its PHP host ended by ` + signal; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	// The pools are back, and the tasks that waited meanwhile were done.
	s.evals(t, `return pogo_await(pogo_dispatch('Echo', ['back']), 60);`, `["back"]`)
}

// TestE2EDispatchShutdown has a page await a task while the node is told to leave: the
// task ends, its result arrives, and so does that of a task that it dispatches only then.
func TestE2EDispatchShutdown(t *testing.T) {
	t.Parallel()
	s := startSite(t, pool(t, "default", 2, "")+pool(t, "other", 1, ""))
	result := make(chan error, 1)
	go func() { // ended by the page
		var got []any
		err := s.tryEval(&got, `return [pogo_await(pogo_dispatch('Gate', ['leave'], 'other'), 60) > 0, pogo_await(pogo_dispatch('Nest', ['class' => 'Echo', 'args' => [1], 'pool' => 'other']), 60)];`)
		if b, _ := json.Marshal(got); err == nil && string(b) != `[true,{"result":[1]}]` {
			err = fmt.Errorf("the page got %s", b)
		}
		result <- err
	}()
	s.recorded(t, "leave")
	go func() { // ended by the node's word that it leaves
		eventually(t, "the node leaves", func() bool { return strings.Contains(s.log(t), "leaving: ") })
		s.open(t, "leave")
	}()
	s.stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{"level=ERROR", "level=WARN"} {
		if log := s.log(t); strings.Contains(log, wrong) {
			t.Errorf("%s in the log:\n%s", wrong, log)
		}
	}
}

// TestE2EDispatchCut has tasks outlive shutdown_timeout: their callers are told.
func TestE2EDispatchCut(t *testing.T) {
	t.Parallel()
	s := startSite(t, pool(t, "default", 1, ""), `shutdown_timeout = "500ms"`)
	result := make(chan error, 1)
	go func() { // ended by the page
		var got []string
		err := s.tryEval(&got, `
			$h = [pogo_dispatch('Sleep', ['cut']), pogo_dispatch('Echo')];
			return [thrown(fn () => pogo_await($h[0], 60)), thrown(fn () => pogo_await($h[1], 60))];`)
		if err == nil && (len(got) != 2 || got[0] != "RuntimeException: the node was shut down while the job ran" || got[1] != "RuntimeException: the node was shut down before a thread was free") {
			err = fmt.Errorf("the page got %q", got)
		}
		result <- err
	}()
	s.recorded(t, "cut")
	s.stop()
	if err := <-result; err != nil {
		t.Log(err) // the page itself may be cut off
	}
}
