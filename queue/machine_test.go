package queue_test

import (
	"os"
	"path/filepath"
	"testing"

	"pogod/internal/command"
	"pogod/queue"
	"pogod/storage"

	bolt "go.etcd.io/bbolt"
)

// tester is what testing.TB and rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// machine is a State over a Store, with what raftfsm keeps beside them: the time,
// the counter and the sessions.
type machine struct {
	t       tester
	path    string
	store   *storage.Store
	state   *queue.State
	now     int64
	counter uint64
	live    map[uint64]bool
	buf     []byte
}

func newMachine(t tester, path string) *machine {
	t.Helper()
	m := &machine{t: t, path: path, state: queue.NewState(), live: map[uint64]bool{}}
	m.open()
	return m
}

func (m *machine) open() {
	m.t.Helper()
	var err error
	if m.store, err = storage.Open(m.path); err != nil {
		m.t.Fatalf("%v", err)
	}
}

func (m *machine) close() {
	m.t.Helper()
	m.ok(m.store.Close())
}

func (m *machine) ok(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%v", err)
	}
}

func (m *machine) tx() *storage.Tx {
	m.t.Helper()
	tx, err := m.store.Tx()
	m.ok(err)
	return tx
}

func (m *machine) env() *queue.Env {
	m.t.Helper()
	return &queue.Env{Tx: m.tx(), Now: m.now, Counter: &m.counter, Live: m.isLive}
}

func (m *machine) isLive(session uint64) bool { return m.live[session] }

// apply takes c through the codec, as the log does, and overwrites the encoded bytes
// afterwards: a state that kept a reference to them would show it.
func (m *machine) apply(c *command.Command) command.Result {
	m.t.Helper()
	var err error
	m.buf, err = c.Append(m.buf[:0])
	m.ok(err)
	var d command.Command
	rest, err := d.Decode(m.buf)
	m.ok(err)
	if len(rest) > 0 {
		m.t.Fatalf("%d bytes follow a command", len(rest))
	}
	r, err := m.state.Apply(m.env(), &d)
	m.ok(err)
	for i := range m.buf {
		m.buf[i] = 0xAA
	}
	return r
}

func (m *machine) openSession() uint64 {
	m.counter++
	m.live[m.counter] = true
	return m.counter
}

func (m *machine) endSession(session uint64) {
	m.t.Helper()
	delete(m.live, session)
	m.ok(m.state.EndSession(m.env()))
}

func (m *machine) commit() {
	m.t.Helper()
	m.ok(m.state.Flush(m.tx()))
	m.ok(m.store.Commit())
}

// load makes the state anew from what is committed.
func (m *machine) load() {
	m.t.Helper()
	m.state = queue.NewState()
	m.ok(m.store.View(func(tx *storage.Tx) error { return m.state.Load(tx, m.isLive) }))
}

// restart commits, then comes back from the file.
func (m *machine) restart() {
	m.t.Helper()
	m.commit()
	m.crash()
}

// crash drops what is not committed and comes back from the file.
func (m *machine) crash() {
	m.t.Helper()
	m.close()
	m.open()
	m.load()
}

// define applies the definitions of all queues.
func (m *machine) define(d *queue.Definitions) {
	m.t.Helper()
	b, hash := d.Encode()
	m.apply(&command.Command{Op: command.Define, Definitions: b, Hash: hash})
}

func (m *machine) push(name, payload string) command.JobID {
	m.t.Helper()
	r := m.apply(&command.Command{Op: command.Push, Queue: name, Payload: []byte(payload)})
	if r.Code != command.Accepted {
		m.t.Fatalf("push to %s: code %d", name, r.Code)
	}
	return r.Job
}

// reserve returns the deliveries of one Reserve.
func (m *machine) reserve(name string, session, n uint64) []queue.Delivery {
	m.t.Helper()
	before := m.counter
	m.apply(&command.Command{Op: command.Reserve, Queue: name, Session: session, Count: n, Pool: "jobs"})
	return m.newer(session, before)
}

// newer lists the deliveries of a session with a lease over last, oldest first.
func (m *machine) newer(session, last uint64) (fresh []queue.Delivery) {
	for _, d := range m.state.Reserved(nil, session) {
		if d.Lease > last {
			fresh = append(fresh, d)
		}
	}
	return fresh
}

func (m *machine) tick(now int64) uint64 {
	m.t.Helper()
	m.now = now
	return m.apply(&command.Command{Op: command.Tick}).Count
}

func (m *machine) stats(name string) queue.Stats {
	m.t.Helper()
	st, _, err := m.state.Stats(m.tx(), name)
	m.ok(err)
	return st
}

// failed lists the failed jobs that are committed.
func (m *machine) failed(name string, limit int) (jobs []*queue.Job) {
	m.t.Helper()
	id, ok := m.state.Table().Number(name)
	if !ok {
		m.t.Fatalf("queue %q is not known", name)
	}
	m.ok(m.store.View(func(tx *storage.Tx) (err error) {
		jobs, err = queue.Failed(tx, id, limit)
		return err
	}))
	return jobs
}

func (m *machine) check() {
	m.t.Helper()
	m.ok(m.state.Check(m.tx()))
}

// settle builds a settling command for a delivery.
func settle(op command.Op, d *queue.Delivery) *command.Command {
	return &command.Command{Op: op, Queue: d.Queue, Job: d.Job, Lease: d.Lease}
}

// machineOf returns a machine in a directory of its own, with queue "q" as defined.
func machineOf(t testing.TB, def queue.Definition) *machine {
	t.Helper()
	m := newMachine(t, filepath.Join(t.TempDir(), "data"))
	t.Cleanup(func() { _ = m.store.Close() })
	m.now = 1_000_000
	m.define(&queue.Definitions{Queues: map[string]queue.Definition{"q": def}})
	return m
}

// dump returns every key and value of a closed data file, a line each. An empty
// bucket has no line: whether one was made depends on who looked.
func dump(t tester, path string) []byte {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer db.Close()
	var out []byte
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			out = dumpBucket(out, string(name), b)
			return nil
		})
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

func dumpBucket(out []byte, path string, b *bolt.Bucket) []byte {
	_ = b.ForEach(func(k, v []byte) error {
		if v == nil {
			out = dumpBucket(out, path+"/"+hexOf(k), b.Bucket(k))
			return nil
		}
		out = append(out, path+" "+hexOf(k)+" = "+hexOf(v)+"\n"...)
		return nil
	})
	return out
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	s := make([]byte, 0, 2*len(b))
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

func remove(path string) { _ = os.Remove(path) }
