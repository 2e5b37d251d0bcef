package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Check is Load that also looks whether what the values name is on this machine:
// the application, the web's root, scripts with threads, and a data directory that can
// be written to or made. It changes nothing, and does not care whether a node runs.
// All that is missing is in the error, one *Error each.
func Check(o Options) (*Config, error) {
	d, err := load(o)
	if err != nil {
		return nil, err
	}
	return d.cfg, d.machine()
}

func (d *decoder) machine() error {
	c := d.cfg
	var all []error
	look := func(p place, err error) {
		if err != nil {
			all = append(all, d.blamePlace(p, err))
		}
	}
	look(place{"[node]", 0, "data_dir"}, canWrite(c.Node.DataDir))
	if dir := filepath.Dir(c.Node.Socket); dir != c.Node.DataDir {
		look(place{"[node]", 0, "socket"}, cmp.Or(isDirectory(dir), canWrite(dir)))
	}
	app := isDirectory(c.PHP.App)
	look(place{"[php]", 0, "app"}, app)
	if app == nil { // else all that is in it would be named too
		key, err := c.pages()
		look(place{"[web]", 0, key}, err)
	}
	if c.PHP.ExtensionDir != "" {
		look(place{"[php]", 0, "extension_dir"}, isDirectory(c.PHP.ExtensionDir))
	}
	if to := c.Web.AccessLog; to != AccessOff && to != AccessLog {
		look(place{"[web]", 0, "access_log"}, cmp.Or(isDirectory(filepath.Dir(to)), canWrite(filepath.Dir(to))))
	}
	script := func(list string, i int, path string, threads int) {
		if within, err := filepath.Rel(c.PHP.App, path); threads > 0 && (app == nil || err != nil || !filepath.IsLocal(within)) {
			look(place{list, i, "script"}, isFile(path))
		}
	}
	for i, w := range c.Workers {
		script("[[worker]]", i, w.Script, w.Threads)
	}
	for i, p := range c.Pools {
		script("[[pool]]", i, p.Script, p.Threads)
	}
	return errors.Join(all...)
}

// MissingPages says, in a line, which paths cannot be answered as things are on this
// machine, because [web] root, worker or index is not there. nil: all can.
func (c *Config) MissingPages() error {
	if key, err := c.pages(); err != nil {
		return fmt.Errorf("no page can be answered: [web] %s %w", key, err)
	}
	if index := filepath.Join(c.Web.Root, c.Web.Index); c.Web.Worker == "" {
		if err := isFile(index); err != nil {
			return fmt.Errorf("paths that are no file are answered with 404: [web] index %w", err)
		}
	}
	return nil
}

// pages looks for what the web side cannot do without, and returns the key that is to
// blame. An index is not among it: a site may consist of files.
func (c *Config) pages() (key string, err error) {
	if err := isDirectory(c.Web.Root); err != nil {
		return "root", err
	}
	if c.Web.Worker != "" {
		return "worker", isFile(c.Web.Worker)
	}
	return "", nil
}

// blamePlace is blame for a value that may be of one of the tables of a list.
func (d *decoder) blamePlace(p place, err error) error {
	name := p.table + " " + p.key
	s, ok := d.said[p]
	switch {
	case !ok:
		return (*document)(nil).fault(span{}, "%s %v", name, err)
	case s.val == nil:
		return (*document)(nil).fault(span{}, "%s %v (%s says so)", name, err, s.where)
	}
	return d.doc.fault(s.val.at, "%s %v", name, err)
}

func isDirectory(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("must be a directory, but there is no %s: make it, or name another", path)
	case err != nil:
		return fmt.Errorf("must be a directory that can be read, but: %w", err)
	case !info.IsDir():
		return fmt.Errorf("must be a directory, but %s is none: name another", path)
	}
	return nil
}

func isFile(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() {
		err = unix.Access(path, unix.R_OK)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("must be a PHP file, but there is no %s: write it, or name another", path)
	case err != nil:
		return fmt.Errorf("must be a PHP file that can be read, but %s cannot: %w", path, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("must be a PHP file, but %s is none: name another", path)
	}
	return nil
}

// canWrite returns nil for a directory that can be written to, or that can be made.
func canWrite(path string) error {
	dir := path
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("must be a directory, but %s is none: name another", dir)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) || dir == filepath.Dir(dir) {
			return fmt.Errorf("must be a directory that can be written to, but: %w", err)
		}
		dir = filepath.Dir(dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		what := "write to it"
		if dir != path {
			what = "make it in " + dir
		}
		return fmt.Errorf("must be a directory that can be written to, but this user cannot %s (%w): change its rights, or name another", what, err)
	}
	return nil
}
