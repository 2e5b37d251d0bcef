// Package datadir holds a node's data directory: who has it, and which node it is.
package datadir

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned when another process holds the directory.
var ErrInUse = errors.New("the data directory is in use")

// whatToDo ends the message about a directory that this user cannot use.
const whatToDo = "it must be a directory that this user may write to: change its rights, or name another with --data or [node] data_dir"

// Dir is a locked data directory.
type Dir struct {
	Path string

	lock *os.File
	mu   sync.Mutex // guards id
	id   identity
}

// identity is the content of node.json.
type identity struct {
	ID       string `json:"id"`            // of the node, random, for ever
	Openings uint64 `json:"openings"`      // sessions that this node has opened or tried to
	Log      string `json:"log,omitempty"` // id of the log that is here; "" before the first start
}

// Open makes the directory with mode 0700 if it is missing, locks it until Close, and
// reads which node it is, or makes a new one. It fails with ErrInUse, naming the
// holder.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w; %s", err, whatToDo)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w; %s", err, whatToDo)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lock.Name())
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s belongs to the running pogod with process id %s; end it, or give this one another --data", ErrInUse, path, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("lock the data directory %s: %w", path, err)
	}
	d := &Dir{Path: path, lock: lock}
	if err := errors.Join(lock.Truncate(0), writeAt(lock, fmt.Sprintln(os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("write the lock: %w", err), d.Close())
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func (d *Dir) load() error {
	b, err := os.ReadFile(d.File("node.json"))
	if errors.Is(err, os.ErrNotExist) {
		d.id.ID = newID()
		return d.save()
	}
	if err != nil {
		return fmt.Errorf("read the node's identity: %w", err)
	}
	if err := json.Unmarshal(b, &d.id); err != nil || d.id.ID == "" {
		return fmt.Errorf("%s is damaged: restore it from a copy (it holds the node's id)", d.File("node.json"))
	}
	return nil
}

func (d *Dir) save() error {
	b, err := json.Marshal(d.id)
	if err != nil {
		return err
	}
	if err := WriteFile(d.File("node.json"), append(b, '\n')); err != nil {
		return fmt.Errorf("write the node's identity: %w", err)
	}
	return nil
}

// File returns the path of a file in the directory.
func (d *Dir) File(name string) string { return filepath.Join(d.Path, name) }

// NodeID returns the node's id: 16 hexadecimal digits, made once.
func (d *Dir) NodeID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.ID
}

// Renew makes it the directory of a new node, with an id of its own.
func (d *Dir) Renew() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	former := d.id
	d.id = identity{ID: newID()}
	if err := d.save(); err != nil {
		d.id = former
		return err
	}
	return nil
}

func newID() string {
	raw := make([]byte, 8)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// NextOpening returns a number that is greater than any it returned before, in this
// process or an earlier one.
func (d *Dir) NextOpening() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id.Openings++
	return d.id.Openings, d.save()
}

// LogID returns what SetLogID was given, "" before that.
func (d *Dir) LogID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Log
}

// SetLogID keeps the id of the log that belongs to this node's id.
func (d *Dir) SetLogID(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id.Log = id
	return d.save()
}

// Close gives the directory up.
func (d *Dir) Close() error { return d.lock.Close() }

// WriteFile replaces the file at path, with mode 0600, so that after a crash or a
// power loss it has the old content or the new, whole.
func WriteFile(path string, content []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
