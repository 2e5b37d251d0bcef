//go:build php

package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dispatchTests share one site, one after the other: their pools count what they do.
var dispatchTests = []struct {
	name string
	test func(t *testing.T, s *site)
}{
	{"the message", testDispatchMessage},
	{"a hundred at once", testDispatchMany},
	{"values", testDispatchValues},
	{"depth", testDispatchDepth},
	{"size", testDispatchSize},
	{"refusals", testDispatchRefusals},
	{"envelopes", testDispatchEnvelopes},
	{"handles", testDispatchHandles},
	{"a worker that fails", testDispatchBroken},
	{"time-outs", testDispatchTimeouts},
	{"an interrupt and the next task", testDispatchInterrupts},
	{"max_wait", testDispatchMaxWait},
	{"its own full pool", testDispatchOwnPool},
	{"the end of a page", testDispatchPageEnds},
	{"the end of a task", testDispatchTaskEnds},
	{"the end of a queue's attempt", testDispatchAttemptEnds},
	{"many pages", testDispatchPages},
	{"a page that is interrupted", testDispatchPageInterrupted},
	{"the command line", testDispatchCommandLine},
	{"a forked child", testDispatchFork},
	{"a pool of the command line", testDispatchOutside},
	{"output", testDispatchOutput},
	{"the pool's host dies", testDispatchHostDies},
}

func TestE2EDispatch(t *testing.T) {
	t.Parallel()
	s := startSite(t, pool(t, "default", 4, `env = { FLAVOUR = "salt" }`)+pool(t, "one", 1, `max_wait = "500ms"`)+pool(t, "outside", 0, `max_wait = "500ms"`)+
		worker(t, "leaves", "plan.php", 1))
	eventually(t, "the threads wait", func() bool { return s.pool(t, "default").Waiting == 4 && s.pool(t, "one").Waiting == 1 })
	for _, x := range dispatchTests {
		t.Run(strings.ReplaceAll(x.name, " ", "-"), func(t *testing.T) { x.test(t, s) })
	}
}

func testDispatchMessage(t *testing.T, s *site) {
	s.evals(t, `return pogo_await(pogo_dispatch('Message', ['a' => 1, 'b/é' => [true, null, "\0\u{2028}"]]));`,
		`"{\"class\":\"Message\",\"args\":{\"a\":1,\"b\/\u00e9\":[true,null,\"\\u0000\\u2028\"]}}"`)
	s.evals(t, `return [pogo_await(pogo_dispatch('Message')), pogo_await(pogo_spawn('Message', pool: ''))];`,
		`["{\"class\":\"Message\",\"args\":[]}","{\"class\":\"Message\",\"args\":[]}"]`)
	s.evals(t, `return [pogo_pool_size(), pogo_pool_size(''), pogo_pool_size('one'), pogo_pool_size('outside')];`, `[4,4,1,0]`)
	s.evals(t, `return pogo_await(pogo_dispatch('Environment'));`, `["default",null,"salt","salt"]`)
	s.evals(t, `return pogo_await(pogo_dispatch('Environment', [], 'one'));`, `["one",null,null,false]`)
}

// testDispatchMany awaits in every order, over all pools' threads: each handle has its own
// result.
func testDispatchMany(t *testing.T, s *site) {
	for order, code := range map[string]string{
		"as dispatched": ``, "reverse": `$handles = array_reverse($handles, true);`, "random": `$keys = array_keys($handles); shuffle($keys); $handles = array_replace(array_flip($keys), $handles);`,
	} {
		s.evals(t, `
			$handles = [];
			for ($i = 0; $i < 100; $i++) $handles[$i] = [pogo_dispatch('Echo', [$i, 'x']), pogo_spawn('Text', ['i' => $i])];
			`+code+`
			$wrong = [];
			foreach ($handles as $i => [$a, $b]) {
				if (pogo_await($b) !== ['i' => $i]) $wrong[] = $b;
				if (pogo_await($a) !== [$i, 'x']) $wrong[] = $a;
			}
			return [count($handles), count(array_unique(array_merge(...$handles))), $wrong];`, `[100,200,[]]`)
		if t.Failed() {
			t.Fatal(order)
		}
	}
}

func testDispatchValues(t *testing.T, s *site) {
	s.evals(t, `
		$values = [PHP_INT_MAX, PHP_INT_MIN, 9007199254740993, 0.1 + 0.2, 1e22, 1.0, -0.0, 2.5e-308, M_PI, '', "\0", 'é😀', true, false, null, [], ['a' => ['b' => []]], [1 => 'x']];
		ini_set('serialize_precision', '5');
		$wrong = [];
		foreach ($values as $v) {
			foreach (['Echo', 'Text'] as $class) {
				if (($got = pogo_await(pogo_dispatch($class, ['v' => $v]))) !== ['v' => $v]) $wrong[] = [$class, var_export($v, true), var_export($got, true)];
			}
		}
		return $wrong;`, `[]`)
	s.evals(t, `return pogo_await(pogo_dispatch('Raw', ['envelope' => '{"ok":true,"result":{"a":{"b":[{"c":9223372036854775807}]}}}']))['a']['b'][0]['c'] === PHP_INT_MAX;`, `true`)
	// What json_last_error says is the script's own.
	s.evals(t, `json_decode('{'); $before = json_last_error(); pogo_await(pogo_dispatch('Echo', [1])); return $before === json_last_error() && $before !== 0;`, `true`)
	// Objects are encoded as json_encode does.
	s.evals(t, `return pogo_await(pogo_dispatch('Echo', [(object) ['a' => 1], new ArrayObject([2])]));`, `[{"a":1},[2]]`)
}

func testDispatchDepth(t *testing.T, s *site) {
	for _, depth := range []int{500, 2000} {
		s.evals(t, fmt.Sprintf(`
			$depth = function (mixed $v): int { for ($n = 0; is_array($v); $n++) $v = $v[0]; return $n; };
			for ($deep = 1, $i = 0; $i < %[1]d; $i++) $deep = [$deep];
			return [$depth(pogo_await(pogo_dispatch('Deep', [%[1]d]))), $depth(pogo_await(pogo_dispatch('Echo', $deep))), $depth(pogo_await(pogo_dispatch('Text', $deep)))];`, depth),
			fmt.Sprintf(`[%d,%d,%d]`, depth, depth, depth))
	}
	if got := s.thrown(t, `pogo_await(pogo_dispatch('Deep', [3000]))`); got != "RuntimeException: the result cannot be encoded: it is nested too deep" {
		t.Error(got)
	}
}

func testDispatchSize(t *testing.T, s *site) {
	s.evals(t, `
		ini_set('memory_limit', '512M');
		$small = pogo_dispatch('Echo', ['small']);
		$big = [pogo_dispatch('Big', [10 << 20]), pogo_dispatch('Big', [10 << 20]), pogo_dispatch('Big', [100_000])];
		$args = pogo_dispatch('Echo', [str_repeat('x', 10 << 20)]);
		return [strlen(pogo_await($big[2])), strlen(pogo_await($big[1])), pogo_await($small), strlen(pogo_await($big[0])), strlen(pogo_await($args)[0])];`,
		`[100000,10485760,["small"],10485760,10485760]`)
	if got := s.thrown(t, `[ini_set('memory_limit', '512M'), pogo_dispatch('Echo', [str_repeat('x', 18 << 20)])]`); !strings.HasPrefix(got, "RuntimeException: the arguments are too large: the request has 18874") {
		t.Error(got)
	}
	if got := s.thrown(t, `pogo_await(pogo_dispatch('Big', [18 << 20]))`); !strings.HasPrefix(got, "RuntimeException: the result is too large: its envelope has 18874") {
		t.Error(got)
	}
}

func testDispatchRefusals(t *testing.T, s *site) {
	before := s.pool(t, "default")
	for expression, want := range map[string]string{
		`pogo_dispatch('Echo', [], 'nosuch')`:                    `no pool is called "nosuch": name it with [[pool]] in pogod.toml`,
		`pogo_dispatch('Echo', [], 'defaul')`:                    `no pool is called "defaul": name it with [[pool]] in pogod.toml`,
		`pogo_pool_size('nosuch')`:                               `no pool is called "nosuch": name it with [[pool]] in pogod.toml`,
		`pogo_dispatch('')`:                                      `the name of the class is empty`,
		`pogo_dispatch("\xff")`:                                  `the name of the class cannot be encoded: a string in it is not UTF-8`,
		`pogo_dispatch('Echo', ["\xff"])`:                        `the arguments cannot be encoded: a string in it is not UTF-8`,
		`pogo_dispatch('Echo', [NAN])`:                           `the arguments cannot be encoded: INF and NAN have no JSON`,
		`pogo_dispatch('Echo', [fopen('php://memory', 'r')])`:    `the arguments cannot be encoded: a resource or a closure has no JSON`,
		`pogo_await(pogo_dispatch('Unencodable', ['bytes']))`:    `the result cannot be encoded: a string in it is not UTF-8`,
		`pogo_await(pogo_dispatch('Unencodable', ['nan']))`:      `the result cannot be encoded: INF and NAN have no JSON`,
		`pogo_await(pogo_dispatch('Unencodable', ['resource']))`: `the result cannot be encoded: a resource or a closure has no JSON`,
		`pogo_await(pogo_dispatch('Unencodable', ['loop']))`:     `the result cannot be encoded: its jsonSerialize() threw an exception`,
		`pogo_await(1 << 40)`:                                    `handle 1099511627776 is unknown, or was awaited already`,
		`pogo_await(-1)`:                                         `handle -1 is unknown, or was awaited already`,
		`pogo_await(0, -1)`:                                      `the time-out must be 0 or more seconds`,
		`pogo_await(0, NAN)`:                                     `the time-out must be 0 or more seconds`,
	} {
		if got := s.thrown(t, expression); got != "RuntimeException: "+want {
			t.Errorf("%s\ngot  %s\nwant %s", expression, got, want)
		}
	}
	if got := s.thrown(t, `pogo_dispatch('Echo', [new class implements JsonSerializable { function jsonSerialize(): mixed { throw new LogicException('mine'); } }])`); got != "RuntimeException: the arguments cannot be encoded: an exception was thrown" {
		t.Error(got)
	}
	// What could not be encoded has not stopped the worker.
	if after := s.pool(t, "default"); after.Restarts != before.Restarts {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

func testDispatchEnvelopes(t *testing.T, s *site) {
	for _, x := range []struct{ envelope, want string }{
		{`['ok' => false, 'error' => 'my message %s']`, `RuntimeException: my message %s`},
		{`'{"ok":false,"error":"as text"}'`, `RuntimeException: as text`},
		{`' { "ok" : false, "error" : "spaced" } '`, `RuntimeException: spaced`},
		{`['ok' => false, 'error' => '']`, `RuntimeException: `},
		{`['ok' => false]`, `RuntimeException: the job failed, and its envelope has no "error"`},
		{`['ok' => true]`, `nothing`},
		{`' {"ok":true}'`, `nothing`},
		{`'{"ok":true,"result":'`, `RuntimeException: the worker returned an invalid envelope: it is malformed`},
		{`['ok' => 1]`, `invalid, of type array`},
		{`[]`, `invalid, of type array`},
		{`'[]'`, `invalid, of type string`},
		{`'null'`, `invalid, of type string`},
		{`'nonsense'`, `invalid, of type string`},
		{`''`, `invalid, of type string`},
		{`null`, `invalid, of type null`},
		{`5`, `invalid, of type int`},
		{`true`, `invalid, of type bool`},
	} {
		if kind, ok := strings.CutPrefix(x.want, "invalid, "); ok {
			x.want = "RuntimeException: the worker returned an invalid envelope, " + kind + ": return ['ok' => true, 'result' => ...] or ['ok' => false, 'error' => 'message']"
		}
		if got := s.thrown(t, `pogo_await(pogo_dispatch('Raw', ['envelope' => `+x.envelope+`]))`); got != x.want {
			t.Errorf("%s\ngot  %s\nwant %s", x.envelope, got, x.want)
		}
	}
	s.evals(t, `return pogo_await(pogo_dispatch('Raw', ['envelope' => ['ok' => true]]));`, `null`)
}

func testDispatchHandles(t *testing.T, s *site) {
	s.evals(t, `
		$h = pogo_dispatch('Echo', ['kept']);
		$first = thrown(fn () => pogo_await($h, -0.001));
		$kept = pogo_await($h);
		$again = thrown(fn () => pogo_await($h)) === "RuntimeException: handle $h is unknown, or was awaited already";
		return [$first, $kept, $again];`, `["RuntimeException: the time-out must be 0 or more seconds",["kept"],true]`)
	s.evals(t, `
		ini_set('memory_limit', '256M');
		for ($n = 0; ($said = thrown(fn () => pogo_dispatch('Echo', [], 'outside'))) === 'nothing' && $n < 100000; $n++);
		return [$n, $said];`, `[65536,"RuntimeException: 65536 jobs of this script were dispatched and not awaited: await some first"]`)
	eventually(t, "they are cancelled with their page", func() bool { return s.pool(t, "outside").Queued == 0 })
	// Not even the handle of another page's task: handles are unique in the host.
	var h int64
	s.eval(t, &h, `return pogo_dispatch('Echo', ['of another page']);`)
	for range 20 {
		if got := s.thrown(t, fmt.Sprintf(`pogo_await(%d)`, h)); got != fmt.Sprintf("RuntimeException: handle %d is unknown, or was awaited already", h) {
			t.Fatal(got)
		}
	}
}

func testDispatchBroken(t *testing.T, s *site) {
	s.settled(t, "default")
	before := s.pool(t, "default")
	const worker = `RuntimeException: the worker of pool "default" failed: `
	for expression, want := range map[string]string{
		`('Throw', ["my\nmessage"])`: "RuntimeException: the worker of pool \"default\" failed: DomainException: my\nmessage in " + inApp(t, "workers/dispatch.php") + ":",
		`('Exit', [0])`:              worker + `exit(0)`,
		`('Exit', [7])`:              worker + `exit(7)`,
		`('Memory')`:                 worker + `Allowed memory size of `,
	} {
		if got := s.thrown(t, `pogo_await(pogo_dispatch`+expression+`)`); !strings.HasPrefix(got, want) {
			t.Errorf("%s\ngot  %s\nwant %s", expression, got, want)
		}
	}
	s.settled(t, "default")
	if after := s.pool(t, "default"); after.Failed != before.Failed+4 || after.Restarts != before.Restarts+4 || after.LastError == "" {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

func testDispatchOwnPool(t *testing.T, s *site) {
	s.evals(t, `return pogo_await(pogo_dispatch('Nest', ['class' => 'Echo', 'args' => [1], 'pool' => 'one'], 'one'), 30);`,
		`{"thrown":"RuntimeException: no thread of pool \"one\" was free within 500ms (its max_wait)"}`)
	s.evals(t, `return pogo_await(pogo_dispatch('Nest', ['class' => 'Echo', 'args' => [1], 'pool' => 'default'], 'one'));`, `{"result":[1]}`)
	s.evals(t, `return pogo_await(pogo_dispatch('Nest', ['class' => 'Echo', 'args' => [1], 'pool' => 'nosuch'], 'one'));`,
		`{"thrown":"RuntimeException: no pool is called \"nosuch\": name it with [[pool]] in pogod.toml"}`)
}

// testDispatchPages has many pages dispatch at once: none gets another's result.
func testDispatchPages(t *testing.T, s *site) {
	const pages = 12
	errs := make(chan error, pages) // one each
	for p := range pages {
		go func() { // ended by its page
			var wrong []any
			err := s.tryEval(&wrong, fmt.Sprintf(`
				$wrong = [];
				for ($round = 0; $round < 5; $round++) {
					$handles = [];
					for ($i = 0; $i < 40; $i++) $handles[$i] = pogo_dispatch('Echo', [%d, $round, $i]);
					foreach (array_reverse($handles, true) as $i => $h) if (pogo_await($h, 30) !== [%[1]d, $round, $i]) $wrong[] = $h;
				}
				return $wrong;`, p))
			if err == nil && len(wrong) > 0 {
				err = fmt.Errorf("page %d got wrong results: %v", p, wrong)
			}
			errs <- err
		}()
	}
	for range pages {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func testDispatchCommandLine(t *testing.T, s *site) {
	var got []any
	output(t, s.php(t, s.socket(), "-r", `
		$h = [pogo_dispatch('Echo', [1]), pogo_spawn('Text', ['a' => 2.0])];
		pcntl_async_signals(true);
		$alarms = 0;
		pcntl_signal(SIGALRM, function () use (&$alarms) {
			$alarms++;
			try { pogo_dispatch('Echo'); } catch (RuntimeException $e) { $GLOBALS['said'] = $e->getMessage(); }
			file_put_contents(getenv('E2E_RECORD') . '/cli.open', '');
		});
		pcntl_alarm(1);
		$gate = pogo_await(pogo_dispatch('Gate', ['cli']), 60) > 0;
		echo json_encode([pogo_await($h[1]), pogo_await($h[0]), $gate, $alarms, $said, pogo_pool_size()]);`), &got)
	requireEqual(t, "results", got, []any{map[string]any{"a": 2}, []any{1}, true, 1, "a signal handler cannot dispatch while it interrupts a wait for the node", 4})
	nobody := s.php(t, filepath.Join(s.home, "nobody"), "-r", `
		foreach ([fn () => pogo_dispatch('Echo'), fn () => pogo_pool_size(), fn () => pogo_await(1)] as $f) {
			try { $f(); $all[] = 'nothing'; } catch (RuntimeException $e) { $all[] = $e->getMessage(); }
		}
		echo json_encode($all);`)
	var said []string
	output(t, nobody, &said)
	if !strings.HasPrefix(said[0], "no node is reachable at ") || said[1] != said[0] || said[2] != "handle 1 is unknown, or was awaited already" {
		t.Errorf("%q", said)
	}
}

func testDispatchFork(t *testing.T, s *site) {
	s.settled(t, "default")
	before := s.pool(t, "default")
	var got []any
	output(t, s.php(t, s.socket(), "-r", `
		$h = pogo_dispatch('Gate', ['fork']);
		$mine = pogo_dispatch('Echo', ['parent']);
		$pid = pcntl_fork();
		if ($pid === 0) {
			$said = '';
			try { pogo_await($h, 0); } catch (RuntimeException $e) { $said = $e->getMessage(); }
			$own = pogo_await(pogo_dispatch('Echo', ['child']));
			pogo_dispatch('Echo', ['left by the child']);
			exit($said === "handle $h is unknown, or was awaited already" && $own === ['child'] ? 0 : 1);
		}
		pcntl_waitpid($pid, $status);
		touch(getenv('E2E_RECORD') . '/fork.open');
		echo json_encode([pcntl_wexitstatus($status), pogo_await($mine), pogo_await($h, 60) > 0]);`), &got)
	requireEqual(t, "results", got, []any{0, []any{"parent"}, true})
	if after := s.pool(t, "default"); after.TimedOut != before.TimedOut {
		t.Errorf("the child cancelled what its parent has dispatched: %+v", after)
	}
}

// testDispatchOutside has a process of the command line serve a pool, and leave with it.
func testDispatchOutside(t *testing.T, s *site) {
	cmd := s.php(t, s.socket(), inApp(t, "workers/dispatch.php"))
	cmd.Env = append(cmd.Env, "POGO_POOL=outside")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits", func() bool { return s.pool(t, "outside").Waiting == 1 })
	s.evals(t, `return [pogo_await(pogo_dispatch('Echo', [1], 'outside')), pogo_await(pogo_dispatch('Nest', ['class' => 'Text', 'args' => [2], 'pool' => 'default'], 'outside'))];`,
		`[[1],{"result":[2]}]`)
	if got := s.thrown(t, `pogo_await(pogo_dispatch('Kill', [SIGKILL], 'outside'))`); got != `RuntimeException: the worker of pool "outside" failed: its connection was lost` {
		t.Error(got)
	}
	_ = cmd.Wait() // it was killed
	if p := s.pool(t, "outside"); p.Waiting != 0 || p.Running != 0 {
		t.Errorf("%+v", p)
	}
}

func testDispatchOutput(t *testing.T, s *site) {
	s.evals(t, `return pogo_await(pogo_dispatch('Print', ['printed by a task']));`, `null`)
	eventually(t, "it is in the log", func() bool { return strings.Contains(s.log(t), `msg="printed by a task" worker="pool default"`) })
}

// TestE2EDispatchWithoutFile has the application's dispatch-worker.php serve the pool
// "default".
func TestE2EDispatchWithoutFile(t *testing.T) {
	t.Parallel()
	app := t.TempDir()
	for name, text := range map[string]string{
		"dispatch-worker.php": `<?php while (frankenphp_handle_request(fn (string $m) => ['ok' => true, 'result' => json_decode($m)->class])) {}`,
		"public/index.php":    `<?php echo pogo_pool_size(), pogo_await(pogo_dispatch('App\\Job'));`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(app, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(app, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t, app, "")
	s.args = []string{"serve", "--app", app}
	s.env = []string{"POGOD_WEB_LISTEN=127.0.0.1:0", "POGOD_ADMIN_LISTEN=127.0.0.1:0"}
	if err := os.Remove(s.config()); err != nil {
		t.Fatal(err)
	}
	s.serve(t)
	if _, body := s.page(t, "/"); body != `2App\Job` {
		t.Error(body)
	}
}
