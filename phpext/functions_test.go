//go:build php

package phpext

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pogod/internal/link"
)

func TestSignatures(t *testing.T) {
	const script = `foreach ((new ReflectionExtension('pogo'))->getFunctions() as $f) {
		$p = array_map(fn ($p) => $p->getType() . ' $' . $p->getName() . ($p->isOptional() ? ' = ' . var_export($p->getDefaultValue(), true) : ''), $f->getParameters());
		echo $f->getName(), '(', implode(', ', $p), '): ', $f->getReturnType(), $f->isDeprecated() ? ' deprecated' : '', "\n";
	}`
	const want = `pogo_queue_push(string $queue, string $payload, int $delaySeconds = 0): string
pogo_queue_ack(string $queue, string $deliveryId): int
pogo_queue_release(string $queue, string $deliveryId, int $delaySeconds = 0): int
pogo_queue_fail(string $queue, string $deliveryId, string $reason = ''): int
pogo_queue_status(?string $queue = NULL): string
pogo_queue(string $data): int
pogo_queue_failed(string $queue, int $limit = 100): string
pogo_queue_retry_failed(string $queue, string $failedId): string
pogo_queue_forget_failed(string $queue, string $failedId): string
pogo_queue_purge_failed(string $queue): string
pogo_dispatch(string $class, array $args = array (
), string $pool = 'default'): int
pogo_await(int $handle, float $timeout = 5.0): mixed
pogo_pool_size(string $pool = 'default'): int
pogo_spawn(string $class, array $args = array (
), string $pool = 'default'): int
pogo_queue_reserve(array $queues, float $wait = 0.0): string
pogo_websocket_publish(string $appId, string $channel, string $event, string $data): int
pogo_websocket_broadcast_multi(string $appId, string $channels, string $event, string $data): int
pogo_websocket_publish_with(string $appId, array $channels, string $event, string $data, array $options): int
frankenphp_handle_request(callable $callback): bool
`
	if got := run(t, php(t, "", "-r", script)); got != want {
		t.Errorf("on the command line:\n%s\nwant:\n%s", got, want)
	}
}

func TestReserveArguments(t *testing.T) {
	n := newNode(t)
	got := run(t, php(t, n.path, "-r", `
		$name = 'b'; $refs = ['a', &$name];
		foreach ([[['q'], 0], [$refs, 1.5], [['q'], 0.0001], [['x' => 'é'], 86400]] as $args) echo pogo_queue_reserve(...$args), "\n";
		foreach ([[[]], [['q'], -1], [['q'], NAN], [['q'], INF], [['q', null]], [[''], 1]] as $args) {
			try { echo pogo_queue_reserve(...$args); } catch (Error $e) { echo $e::class, ' '; }
		}`))
	if want := `{"queues":"q","wait":0}
{"queues":"a\nb","wait":1500}
{"queues":"q","wait":1}
{"queues":"é","wait":86400000}
ValueError ValueError ValueError ValueError TypeError ValueError `; got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
}

// noNode is what each function answers when no node is reachable.
const noNode = `
	echo pogo_queue_push('q', 'p'), "\n", pogo_queue_push('q', str_repeat('x', 20 << 20)), "\n", pogo_queue_ack('q', 'd'), pogo_queue_release('q', 'd', 1), pogo_queue_fail('q', 'd'), pogo_queue('p'),
		pogo_queue_ack('', 'd'), pogo_queue_ack('q', ''), pogo_queue_release('', 'd'), pogo_queue_release('q', ''), pogo_queue_fail('', 'd'), pogo_queue_fail('q', ''), "\n",
		pogo_queue_status(), pogo_queue_status('q'), "\n", pogo_queue_failed('q'), "\n", pogo_queue_retry_failed('q', 'i'), "\n", pogo_queue_forget_failed('q', 'i'), "\n", pogo_queue_purge_failed('q'), "\n";
	foreach (['push', 'failed', 'retry_failed', 'forget_failed', 'purge_failed'] as $f) {
		$r = json_decode(("pogo_queue_$f")(...($f === 'failed' || $f === 'purge_failed' ? ['q'] : ['q', 'x'])), true, 5, JSON_THROW_ON_ERROR);
		if ($r['ok'] !== false || $r['code'] !== 2 || $r['message'] === '') echo "wrong: $f\n";
	}`

func TestNoNode(t *testing.T) {
	dir := t.TempDir()
	for name, cmd := range map[string][]string{
		"nothing there":        {filepath.Join(dir, `no"such`), "no node is reachable at " + dir + `/no\"such: No such file or directory`},
		"nothing named":        {"", "no node is reachable: neither pogo.socket nor POGOD_SOCKET names its socket"},
		"a path that is long":  {"/" + strings.Repeat("x", 200), "no node is reachable: neither pogo.socket nor POGOD_SOCKET names its socket"},
		"a file, not a socket": {"/dev/null", "no node is reachable at /dev/null: Connection refused"},
	} {
		fail := `{"ok":false,"code":2,"message":"` + cmd[1] + `"}` + "\n"
		empty := `{"ready":false,"queues":[]}`
		want := fail + fail + "2222555555\n" + empty + empty + "\n" + fail + fail + fail + fail
		if got := run(t, php(t, cmd[0], "-r", noNode)); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
}

func TestSocketPath(t *testing.T) {
	n := newNode(t)
	const ask = `echo json_decode(pogo_queue_status('q'))->asked ?? 'none';`
	if got := run(t, php(t, "/nonexistent", "-d", "pogo.socket="+n.path, "-r", ask)); got != "q" {
		t.Error("by ini:", got)
	}
	cmd := php(t, "", "-r", ask)
	if err := os.Mkdir(filepath.Join(cmd.Dir, ".pogod"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(n.path, filepath.Join(cmd.Dir, ".pogod", "pogod.sock")); err != nil {
		t.Fatal(err)
	}
	if got := run(t, cmd); got != "q" {
		t.Error("under the working directory:", got)
	}
}

func TestRefusedGreeting(t *testing.T) {
	n := newNode(t)
	n.stop()
	// A node of another version: the greeting is answered with a code and a sentence.
	ln := rawListener(t, n.path, func(c rawConn) {
		c.readFrame()
		c.answer(5, `speak "2"`)
	})
	defer ln()
	if got, want := run(t, php(t, n.path, "-r", `echo pogo_queue_push('q', 'p'), pogo_queue_ack('q', 'd');`)),
		`{"ok":false,"code":2,"message":"the node refused: speak \"2\""}2`; got != want {
		t.Error(got)
	}
}

func TestArguments(t *testing.T) {
	n := newNode(t)
	const tenYears = 10 * 365 * 86400
	got := run(t, php(t, n.path, "-r", fmt.Sprintf(`
		foreach ([-1, PHP_INT_MIN, %[1]d + 1, PHP_INT_MAX] as $delay) {
			foreach (['pogo_queue_push', 'pogo_queue_release'] as $f) {
				try { $f('', '', $delay); echo "no error\n"; } catch (ValueError $e) { echo $e->getMessage(), "\n"; }
			}
		}
		try { pogo_queue_push('q'); } catch (ArgumentCountError $e) { echo "count\n"; }
		try { pogo_queue_push([], 'p'); } catch (TypeError $e) { echo "type\n"; }
		pogo_queue_push('q', 'p', %[1]d);
		pogo_queue_push(queue: 'named', payload: "a\0b");
		echo pogo_queue('v1'), "\n", pogo_queue_failed('a'), pogo_queue_failed('a', -5), pogo_queue_retry_failed("\0", 'é'),
			pogo_queue_forget_failed('b', 'c'), pogo_queue_purge_failed('d'), pogo_queue_status(null), pogo_queue_status(''), pogo_queue_status('x');
	`, tenYears)))
	const bound = "(): Argument #3 ($delaySeconds) must be between 0 and 315360000 seconds (ten years)\n"
	want := strings.Repeat("pogo_queue_push"+bound+"pogo_queue_release"+bound, 4) + "count\ntype\n1\n" +
		`{"ok":true,"queue":"a","limit":100,"code":1}{"ok":true,"queue":"a","limit":-5,"code":1}{"op":7,"queue":"\x00","id":"é"}` +
		`{"op":8,"queue":"b","id":"c"}{"op":9,"queue":"d"}` +
		`{"ready":true,"queues":[],"asked":""}{"ready":true,"queues":[],"asked":""}{"ready":true,"queues":[],"asked":"x"}`
	if got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	wantPushes := []push{{"q", "p", tenYears, 0}, {"named", "a\x00b", 0, 0}, {"default", "v1", 0, 0}}
	for i, p := range n.pushes {
		if p.pid = 0; p != wantPushes[i] {
			t.Error(p, "want", wantPushes[i])
		}
	}
	if len(n.pushes) != len(wantPushes) {
		t.Error("refused arguments were sent:", n.pushes)
	}
}

func TestLargePayloads(t *testing.T) {
	n := newNode(t)
	got := run(t, php(t, n.path, "-d", "memory_limit=1G", "-r", `
		foreach ([0, 1, 4087, 4088, 4089, 65536, 1 << 20, 15 << 20, (17 << 20) - 27 - 1] as $n) {
			$p = $n ? random_bytes($n) : '';
			if (pogo_queue_push('echo', $p) !== $p) echo "$n came back changed\n";
		}
		$p = str_repeat('x', (17 << 20) - 20);
		echo pogo_queue_push('echo', $p), "\n", pogo_queue($p), pogo_queue_ack('q', $p), pogo_queue_fail('q', 'd', $p), "\n";
		echo memory_get_peak_usage() > 0, "\n";`))
	// 1 (op) + 8 (queue) + 4 (the payload's length) + 12 (delay)
	want := fmt.Sprintf(`{"ok":false,"code":3,"message":"the request has %d bytes and %d fit: the payload is too large"}`, 17<<20-20+25, 17<<20) + "\n355\n1\n"
	if got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	n.event(t, "ack")
	if e := n.event(t, "fail"); len(e.reason) != 64<<10 {
		t.Error(len(e.reason))
	}
}

// The link is lost at each point of a call: 5 and "unknown" once all was sent.
func TestLinkLost(t *testing.T) {
	n := newNode(t)
	n.onFrame(func(c *link.Conn, op link.Op, _ *link.Fields) (bool, error) {
		return true, errors.New("lost")
	})
	const message = `"message":"the link to the node was lost: it closed the connection: the outcome is unknown"}`
	got := run(t, php(t, n.path, "-r", `echo pogo_queue_push('q', 'p'), "\n", pogo_queue_ack('q', 'd'), pogo_queue('p'), pogo_queue_status(), "\n", pogo_queue_purge_failed('q');`))
	if want := `{"ok":false,"code":5,` + message + "\n55" + `{"ready":false,"queues":[]}` + "\n" + `{"ok":false,"code":5,` + message; got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	n.stop()

	sent := make(chan int, 10)
	ln := rawListener(t, n.path, func(c rawConn) {
		c.readFrame()
		c.answer(1, "")
		sent <- len(c.readFrame())
		c.write("\x00\x01\x00") // a part of an answer
	})
	defer ln()
	if got := run(t, php(t, n.path, "-r", `echo pogo_queue_ack('q', 'd'), json_decode(pogo_queue_push('q', 'p'))->code;`)); got != "55" {
		t.Error("a part of an answer:", got)
	}
	if len(sent) != 2 {
		t.Error("a call was made twice")
	}
}

// A node that closes while a frame is being written has not executed it: the call
// is made again on a new connection, and only then.
func TestHalfARequest(t *testing.T) {
	n := newNode(t)
	n.stop()
	var connections int
	ln := rawListener(t, n.path, func(c rawConn) {
		connections++
		c.readFrame()
		c.answer(1, "")
		if connections == 1 {
			c.readFrame() // a first call, answered: the second one finds a used connection
			c.answer(1, "first")
			c.read(1 << 20) // a part of the second
			return
		}
		c.answer(1, fmt.Sprint(len(c.readFrame())))
	})
	defer ln()
	got := run(t, php(t, n.path, "-d", "memory_limit=1G", "-r", `echo pogo_queue_push('q', 'p'), ' ', pogo_queue_push('q', str_repeat('x', 15 << 20));`))
	if want := fmt.Sprint("first ", 15<<20+1+5+4+12); got != want {
		t.Errorf("%.200s want %s", got, want)
	}
}

func TestNodeRestartBetweenCalls(t *testing.T) {
	n := newNode(t)
	restart := make(chan struct{})
	again := make(chan struct{})
	n.onFrame(func(c *link.Conn, op link.Op, f *link.Fields) (bool, error) {
		if op != link.PurgeFailed {
			return false, nil
		}
		go func() { // ended by the restart
			<-restart
			n.stop()
			n.start()
			close(again)
		}()
		return true, c.Answer(1, nil)
	})
	cmd := php(t, n.path, "-r", `pogo_queue_purge_failed('q'); echo "purged\n"; fgets(STDIN); echo pogo_queue('after');`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ended by the restart
		close(restart)
		<-again
		_, _ = in.Write([]byte("go on\n"))
	}()
	if got := run(t, cmd); got != "purged\n1" {
		t.Error(got)
	}
}

func TestFork(t *testing.T) {
	n := newNode(t)
	got := run(t, php(t, n.path, "-r", `
		pogo_queue_push('q', 'before');
		$pids = [];
		for ($c = 0; $c < 4; $c++) {
			$pid = pcntl_fork();
			if ($pid === 0) {
				for ($i = 0; $i < 50; $i++) if (pogo_queue_push('echo', "child $c $i") !== "child $c $i") exit(1);
				exit(0);
			}
			$pids[] = $pid;
		}
		for ($i = 0; $i < 200; $i++) if (pogo_queue_push('echo', "parent $i") !== "parent $i") echo "mixed up\n";
		foreach ($pids as $pid) { pcntl_waitpid($pid, $status); echo pcntl_wexitstatus($status); }
		echo pogo_queue('after');`))
	if got != "00001" {
		t.Error(got)
	}
	pids := map[int]int{}
	for _, p := range n.pushes {
		pids[p.pid]++
	}
	if len(n.pushes) != 1+4*50+200+1 || len(pids) != 5 {
		t.Error(len(n.pushes), pids)
	}
}

func TestPHPInfo(t *testing.T) {
	n := newNode(t)
	got := run(t, php(t, n.path, "-r", `pogo_queue('x'); (new ReflectionExtension('pogo'))->info();`))
	for _, want := range []string{"version => ", "socket => " + n.path, "link => open", "pogo.socket => no value"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
