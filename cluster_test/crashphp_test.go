//go:build php

package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pogod/internal/command"
)

const withPHP = true

// phpBin is the node that POGOD_BIN names.
func phpBin(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("POGOD_BIN")
	if bin == "" {
		t.Skip("needs POGOD_BIN, a pogod with PHP: make test-php sets it")
	}
	return bin
}

// runPHP gives a node a jobs host that runs testdata/worker.php as the consumer of one of
// the queues, and returns the path of what the script records.
func (n *node) runPHP() (record string) {
	n.t.Helper()
	app, record := filepath.Join(n.home, "app"), filepath.Join(n.t.TempDir(), "php")
	script, err := os.ReadFile(filepath.Join("testdata", "worker.php"))
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Join(app, "public"), 0o700), os.WriteFile(filepath.Join(app, "worker.php"), script, 0o600))
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.php = fmt.Sprintf("\n[php]\napp = %q\n\n[web]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n"+
		"\n[[worker]]\nname = \"php\"\nscript = \"worker.php\"\nqueues = [%q]\nthreads = 4\nenv = { RECORD = %q }\n", app, queuePHP, record)
	return record
}

// TestCrashPHP is TestCrash with a PHP worker. Its host dies with its node.
func TestCrashPHP(t *testing.T) {
	n := newNode(t, phpBin(t), "")
	record := n.runPHP()
	tr := trial{rounds: envInt(t, "POGOD_CRASH_ROUNDS", 3), seed: newSeed(t), php: 5}
	handled := 0
	tr.extra = func(h *history) (err error) {
		handled, err = readPHP(h, record)
		return err
	}
	r, err := tr.run(t, n)
	if err != nil {
		t.Error(err)
	}
	r.require(t)
	t.Logf("deliveries to PHP: %d", handled)
	if handled == 0 {
		t.Error("PHP has handled nothing")
	}
}

// phpConns is the first connection's number of PHP's deliveries, each of which stands
// for a connection of its own.
const phpConns = 1_000_000

// readPHP adds what the PHP workers of some nodes recorded, in the order of their times.
// An ack without an answer is one of unknown outcome: the host died with its node. So is
// one that answered 5, which PHP gets for a lost lease and for a link that was lost after
// sending: the host may live a moment longer than its node, long enough to note it.
func readPHP(h *history, paths ...string) (deliveries int, err error) {
	var lines [][]string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if len(w) != 5 {
				return 0, fmt.Errorf("not a line of testdata/worker.php: %q", line)
			}
			lines = append(lines, w)
		}
	}
	slices.SortStableFunc(lines, func(a, b []string) int { return strings.Compare(a[0], b[0]) }) // of one length
	conns := map[string]int{}                                                                    // by delivery id
	for _, w := range lines {
		n, _, _ := parsePayload(w[1])
		attempts, err := strconv.Atoi(w[2])
		job, number, _ := strings.Cut(w[4], ":")
		lease, err2 := strconv.ParseUint(number, 10, 64)
		if err := errors.Join(err, err2); err != nil {
			return 0, err
		}
		settle := event{what: evSettle, at: h.at, verb: "ack", job: job, lease: lease}
		if w[3] == "-" {
			deliveries++
			settle.conn = phpConns + deliveries
			conns[w[4]] = settle.conn
			h.add(event{what: evGot, at: h.at, conn: settle.conn, n: n, queue: queuePHP, job: job, lease: lease, attempts: attempts, asked: h.at})
			h.add(settle)
			continue
		}
		settle.what, settle.conn = evSettled, conns[w[4]]
		if settle.code, err = strconv.Atoi(w[3]); err != nil {
			return 0, err
		}
		if settle.code == int(command.Failure) {
			continue
		}
		h.add(settle)
	}
	return deliveries, nil
}
