package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// decoder fills a Config from a document, whose places it keeps for the checks
// that come after.
type decoder struct {
	doc   *document       // nil without a file
	cfg   *Config         // what is filled
	at    map[string]span // "[node] socket": where the file says it
	noted map[string]bool // what is in Inert

	nth   int              // of [[worker]], [[pool]] or [[websocket.app]]: which of them is decoded
	said  map[place]source // what says a value that is no default
	look  func(name string) (value string, ok bool)
	unset bool   // Options.Unset
	dir   string // what a path of the environment is relative to
}

// document decodes the whole file.
func (d *decoder) document() error {
	root, err := parse(d.doc)
	if err != nil {
		return err
	}
	if err := d.expand(root); err != nil {
		return err
	}
	c := d.cfg
	for _, e := range root.entries {
		s, ok := sections[e.key]
		if !ok {
			return d.unknown("", e, slices.Collect(maps.Keys(sections)))
		}
		if err := d.shape(e, s.list); err != nil {
			return err
		}
		switch name := header(e.key); {
		case s.keys != nil:
			err = d.unbuilt(name, e, s)
		case e.key == "queue":
			err = d.queues(e.val)
		case e.key == "worker":
			err = d.workers(e.val)
		case e.key == "pool":
			err = d.pools(e.val)
		case e.key == "node":
			err = d.table(name, e.val, nodeFields(&c.Node))
		case e.key == "php":
			err = d.table(name, e.val, phpFields(&c.PHP))
		case e.key == "web":
			err = d.table(name, e.val, webFields(&c.Web))
		case e.key == "admin":
			err = d.table(name, e.val, adminFields(&c.Admin))
		case e.key == "websocket":
			err = d.websocket(e.val)
		case e.key == "cluster":
			err = d.table(name, e.val, clusterFields(&c.Cluster))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shape refuses [name] where [[name]] is meant, and the other way round. An
// empty list of tables may also be written as name = [].
func (d *decoder) shape(e *entry, list bool) error {
	switch {
	case list && (e.val.kind == kindTables || e.val.kind == kindArray && allTables(e.val)):
		return nil
	case list:
		return d.doc.fault(e.at, "%q is a list of tables, not %s: write [[%s]]", e.key, e.val.kind, e.key)
	case e.val.kind != kindTable:
		return d.doc.fault(e.at, "%q is a table, not %s: write [%s]", e.key, e.val.kind, e.key)
	}
	return nil
}

func allTables(v *value) bool {
	return !slices.ContainsFunc(v.items, func(i *value) bool { return i.kind != kindTable })
}

// table takes every key of a table, in the order of the file.
func (d *decoder) table(name string, t *value, known fields) error {
	for _, e := range t.entries {
		if base, ok := secretOf(name, e.key); ok {
			var err error
			if e, err = d.secret(name, t, e, base); err != nil {
				return err
			}
		}
		f, ok := known[e.key]
		if !ok {
			return d.unknown(name, e, withSecrets(name, slices.Collect(maps.Keys(known))))
		}
		key := name + " " + e.key
		if f.set == nil {
			d.note(key, e.at)
			continue
		}
		if err := f.set(d, key, e.val); err != nil {
			return err
		}
		d.at[key] = e.val.at
		d.said[place{name, d.nth, e.key}] = source{from: FromFile, where: fmt.Sprintf("%s:%d", d.doc.name, d.doc.line(e.at.from)), val: e.val}
	}
	return nil
}

// unknown is the error for a key that no part of pogod has.
func (d *decoder) unknown(name string, e *entry, known []string) error {
	where := "in " + name
	if name == "" {
		where = "outside of a section"
		if e.val.kind == kindTable || e.val.kind == kindTables {
			return d.doc.fault(e.at, "unknown section %q: %s", e.key, hint(e.key, known, "the sections are"))
		}
	}
	if own := owners(e.key); len(own) > 0 && nearest(e.key, slices.Clone(known)) == "" {
		return d.doc.fault(e.at, "unknown key %q %s: it belongs in %s", e.key, where, strings.Join(own, ", "))
	}
	if name == "" {
		return d.doc.fault(e.at, "unknown key %q outside of a section: write it below the [section] that it belongs in", e.key)
	}
	return d.doc.fault(e.at, "unknown key %q %s: %s", e.key, where, hint(e.key, known, "the keys are"))
}

func hint(key string, known []string, list string) string {
	if best := nearest(key, known); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	slices.Sort(known)
	return list + " " + strings.Join(known, ", ")
}

// unbuilt notes a section that is not built yet; its keys must still be known.
func (d *decoder) unbuilt(name string, e *entry, s section) error {
	tables := []*value{e.val}
	if s.list {
		tables = e.val.items
	}
	for _, t := range tables {
		d.note(name, t.at)
		for _, k := range t.entries {
			if _, ok := s.keys[k.key]; !ok {
				return d.unknown(name, k, slices.Collect(maps.Keys(s.keys)))
			}
		}
	}
	return nil
}

// note reports, once, what is accepted but has no effect.
func (d *decoder) note(what string, at span) {
	if d.noted[what] {
		return
	}
	d.noted[what] = true
	d.cfg.Inert = append(d.cfg.Inert, printable(fmt.Sprintf("%s:%d: %s is not built yet and has no effect", d.doc.name, d.doc.line(at.from), what)))
}

// queues decodes [queue]: first what goes for every queue, then the tables.
func (d *decoder) queues(t *value) error {
	q := &d.cfg.Queue
	known := queueFields(&q.Defaults)
	known["auto_create"] = boolean(&q.AutoCreate)
	scalars := &value{kind: kindTable}
	for _, e := range t.entries {
		if e.val.kind != kindTable {
			scalars.entries = append(scalars.entries, e)
		}
	}
	if err := d.table("[queue]", scalars, known); err != nil {
		return err
	}
	if err := d.environment("[queue]", known); err != nil { // before the tables take their defaults from it
		return err
	}
	for _, e := range t.entries {
		if e.val.kind != kindTable {
			continue
		}
		if err := CheckName(e.key); err != nil {
			return d.doc.fault(e.at, "the name of a queue %v", err)
		}
		one := q.Defaults
		one.Name, one.Backoff = e.key, slices.Clone(one.Backoff)
		if err := d.table("[queue."+e.key+"]", e.val, queueFields(&one)); err != nil {
			return err
		}
		q.Declared = append(q.Declared, one)
	}
	return nil
}

// newWorker is a worker of which nothing was said.
func newWorker() Worker {
	return Worker{
		Name: defaultName, Script: defaultScript, Queues: []string{defaultName}, Threads: unsaid, Host: defaultHost,
		Env: map[string]string{}, Ini: map[string]string{},
	}
}

// workers decodes every [[worker]]. Threads that are not said stay unsaid here.
func (d *decoder) workers(list *value) error {
	names := map[string]bool{}
	for i, t := range list.items {
		d.nth = i
		w := newWorker()
		if err := d.table("[[worker]]", t, workerFields(&w)); err != nil {
			return err
		}
		if names[w.Name] {
			at := t.at
			if e := t.entry("name"); e != nil {
				at = e.val.at
			}
			return d.doc.fault(at, "[[worker]] name must be unique, but an earlier one is %q too: give each a name of its own", w.Name)
		}
		if _, ok := w.Ini["memory_limit"]; ok && w.MemoryLimit != "" {
			return d.doc.fault(t.entry("memory_limit").val.at, "[[worker]] memory_limit must not be in its ini too: take one out")
		}
		names[w.Name] = true
		d.cfg.Workers = append(d.cfg.Workers, w)
	}
	return nil
}

// pools decodes every [[pool]]. Threads that are not said stay unsaid here.
func (d *decoder) pools(list *value) error {
	names := map[string]bool{}
	for i, t := range list.items {
		d.nth = i
		p := newPool()
		if err := d.table("[[pool]]", t, poolFields(&p)); err != nil {
			return err
		}
		if names[p.Name] {
			at := t.at
			if e := t.entry("name"); e != nil {
				at = e.val.at
			}
			return d.doc.fault(at, "[[pool]] name must be unique, but an earlier one is %q too: give each a name of its own", p.Name)
		}
		if _, ok := p.Ini["memory_limit"]; ok && p.MemoryLimit != "" {
			return d.doc.fault(t.entry("memory_limit").val.at, "[[pool]] memory_limit must not be in its ini too: take one out")
		}
		names[p.Name] = true
		d.cfg.Pools = append(d.cfg.Pools, p)
	}
	return nil
}

func newPool() Pool {
	return Pool{
		Name: defaultName, Script: defaultPoolScript, Threads: unsaid, MaxWait: defaultMaxWait, Host: defaultHost,
		Env: map[string]string{}, Ini: map[string]string{},
	}
}

// override puts the environment and the flags over the file. base is what the
// file's paths are relative to.
func (d *decoder) override(o Options, base string) error {
	c := d.cfg
	c.Node.DataDir = resolve(base, c.Node.DataDir)
	c.PHP.App = resolve(base, c.PHP.App)
	for _, t := range tables(c) {
		if err := d.environment(t.name, t.keys); err != nil {
			return err
		}
	}
	if err := d.reverb(); err != nil {
		return err
	}
	for _, v := range []struct {
		name, key, path string
		to              *string
	}{
		{"--data", "[node] data_dir", o.Data, &c.Node.DataDir},
		{"--app", "[php] app", o.App, &c.PHP.App},
	} {
		if v.path == "" {
			continue
		}
		if err := checkPath(v.path); err != nil {
			return (*document)(nil).fault(span{}, "%s %v", v.name, err)
		}
		*v.to = resolve(o.Dir, v.path)
		d.over(v.key, source{from: FromFlag, where: v.name})
	}
	c.Admin.Insecure = o.Insecure
	if o.Advertise != "" {
		if err := CheckAddress(o.Advertise); err != nil {
			return (*document)(nil).fault(span{}, "--advertise %v", err)
		}
		c.Cluster.Advertise = o.Advertise
		d.over("[cluster] advertise", source{from: FromFlag, where: "--advertise"})
	}
	return nil
}

// complete fills in what depends on other values, and checks what does.
func (d *decoder) complete(base string) error {
	c := d.cfg
	blamed := "[node] socket"
	if c.Node.Socket == "" {
		c.Node.Socket, blamed = filepath.Join(c.Node.DataDir, defaultSocket), "[node] data_dir"
	}
	c.Node.Socket = resolve(base, c.Node.Socket)
	if err := checkSocket(c.Node.Socket); err != nil {
		return d.blame(blamed, "[node] socket", err)
	}
	if c.PHP.ExtensionDir != "" {
		c.PHP.ExtensionDir = resolve(base, c.PHP.ExtensionDir)
	}
	c.Web.Root = resolve(c.PHP.App, c.Web.Root)
	if err := checkWithin(c.PHP.App, c.Web.Root); err != nil {
		return d.blame("[web] root", "[web] root", err)
	}
	if c.Web.Worker != "" {
		c.Web.Worker = resolve(c.PHP.App, c.Web.Worker)
		if err := checkWithin(c.PHP.App, c.Web.Worker); err != nil {
			return d.blame("[web] worker", "[web] worker", err)
		}
	}
	switch c.Web.AccessLog {
	case AccessOff, AccessLog:
	case "":
		if c.Web.AccessLog = AccessOff; c.Node.Mode == ModeDevelopment {
			c.Web.AccessLog = AccessLog
		}
	default:
		c.Web.AccessLog = resolve(base, c.Web.AccessLog)
	}
	if c.Web.TLS != (TLS{}) {
		c.Web.TLS.Cert, c.Web.TLS.Key = resolve(base, c.Web.TLS.Cert), resolve(base, c.Web.TLS.Key)
	}
	if c.Admin.TLS != (TLS{}) {
		c.Admin.TLS.Cert, c.Admin.TLS.Key = resolve(base, c.Admin.TLS.Cert), resolve(base, c.Admin.TLS.Key)
	}
	if err := checkExposed(&c.Admin); err != nil {
		return d.blame("[admin] listen", "[admin] listen", err)
	}
	if err := checkApart(c.Admin.Listen, "[web] listen", c.Web.Listen); err != nil {
		return d.blame("[admin] listen", "[admin] listen", err)
	}
	if err := checkClusterApart(c); err != nil {
		return d.blame("[cluster] listen", "[cluster] listen", err)
	}
	if err := checkWebsocketApart(c); err != nil {
		return d.blame("[websocket] listen", "[websocket] listen", err)
	}
	if c.Cluster.Advertise == "" {
		if err := checkOwn(c.Cluster.Listen); err != nil {
			return d.blame("[cluster] listen", "[cluster] listen", err)
		}
		c.Cluster.Advertise = c.Cluster.Listen
	}
	if _, ok := c.PHP.Ini["memory_limit"]; ok && c.PHP.MemoryLimit != "" {
		return d.blame("[php] memory_limit", "[php] memory_limit", errors.New("must not be in [php] ini too: take one out"))
	}
	if c.File == "" {
		if info, err := os.Stat(filepath.Join(c.PHP.App, defaultScript)); err == nil && info.Mode().IsRegular() {
			c.Workers = []Worker{newWorker()}
		}
		if info, err := os.Stat(filepath.Join(c.PHP.App, defaultPoolScript)); err == nil && info.Mode().IsRegular() {
			c.Pools = []Pool{newPool()}
		}
	}
	threads := defaultThreads
	if c.Node.Mode == ModeDevelopment {
		threads = defaultThreadsDevelopment
	}
	for i := range c.Pools {
		p := &c.Pools[i]
		p.Script = resolve(c.PHP.App, p.Script)
		if p.Threads == unsaid {
			p.Threads = threads
		}
	}
	declare := func(name string) {
		if _, ok := c.Queue.Lookup(name); !ok {
			q := c.Queue.Defaults
			q.Name, q.Backoff = name, slices.Clone(q.Backoff)
			c.Queue.Declared = append(c.Queue.Declared, q)
		}
	}
	declare(defaultName)
	for i := range c.Workers {
		w := &c.Workers[i]
		w.Script = resolve(c.PHP.App, w.Script)
		if w.Threads == unsaid {
			w.Threads = threads
		}
		for _, q := range w.Queues {
			declare(q)
		}
	}
	slices.SortFunc(c.Queue.Declared, func(a, b Queue) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// blame makes the error of a value that is wrong together with others, at the
// place where the file says the key, if it does.
func (d *decoder) blame(key, name string, err error) error {
	at, ok := d.at[key]
	if !ok {
		return (*document)(nil).fault(span{}, "%s %v", name, err)
	}
	return d.doc.fault(at, "%s %v", name, err)
}
