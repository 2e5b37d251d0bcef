// Package phpwatch tells when a PHP file of an application changes, so that a node in
// development mode serves the new code without being asked to.
package phpwatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settled is how long nothing may change before a change is told: an editor writes a file
// in several steps, a tool many files.
const settled = 200 * time.Millisecond

// skipped are directories, at any depth, in which an application's own code is not, or
// which it writes to itself. Those whose names begin with a dot are skipped too.
var skipped = []string{"vendor", "node_modules", "storage", "var"}

// Watcher watches the PHP files under a directory.
type Watcher struct {
	root    string
	log     *slog.Logger
	files   *fsnotify.Watcher
	changed chan string // holds one name; while it is not taken, others are not told
}

// New watches a directory; what is missed between New and Run is not lost. Run must
// follow.
func New(root string, log *slog.Logger) (*Watcher, error) {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	files, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &Watcher{root: real, log: log, files: files, changed: make(chan string, 1)}
	if _, err := w.add(real); err != nil {
		_ = files.Close() // the error is the other one
		return nil, err
	}
	return w, nil
}

// Changed gets the name of a changed file, relative to the root: one name for all that
// changed at about that time.
func (w *Watcher) Changed() <-chan string { return w.changed }

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	defer func() { _ = w.files.Close() }() // nothing is lost with it
	var first string                       // that changed and was not told yet
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	note := func(name string) {
		if first == "" {
			first = name
		}
		quiet.Reset(settled)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.files.Events:
			if !ok {
				return
			}
			if name := w.concerns(e); name != "" {
				note(name)
			}
		case err := <-w.files.Errors:
			w.log.Warn("watching PHP files: changes may have been missed", "error", err)
		case <-quiet.C:
			select {
			case w.changed <- first:
			default: // one waits to be taken, and whoever takes it reads all files anew
			}
			first = ""
		}
	}
}

// concerns returns the PHP file that an event is about, "" for none. It watches what is
// new.
func (w *Watcher) concerns(e fsnotify.Event) string {
	if e.Op == fsnotify.Chmod {
		return ""
	}
	if e.Has(fsnotify.Create) {
		if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
			found, err := w.add(e.Name)
			if err != nil {
				w.log.Warn("watching PHP files: a directory is not watched", "error", err)
			}
			return found // files that were there before the watch was
		}
	}
	return w.php(e.Name)
}

// php returns the name of a PHP file as it is told, "" for another.
func (w *Watcher) php(path string) string {
	name := filepath.Base(path)
	if filepath.Ext(name) != ".php" || strings.HasPrefix(name, ".") {
		return ""
	}
	if rel, err := filepath.Rel(w.root, path); err == nil {
		return rel
	}
	return path
}

// add watches a directory and those in it, and returns one of their PHP files. A
// directory that is gone meanwhile is no error.
func (w *Watcher) add(dir string) (found string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			if name := w.php(path); name != "" {
				found = name
			}
			return nil
		case path != w.root && (slices.Contains(skipped, d.Name()) || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		}
		if err := w.files.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		return nil
	})
	return found, err
}
