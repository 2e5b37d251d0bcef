package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Effect is when a changed value comes to count in a running node that reads its
// configuration again.
type Effect string

// Values of Effect.
const (
	Live    Effect = "live"    // at once
	NewPHP  Effect = "php"     // for what new PHP hosts do, which the reload starts
	Restart Effect = "restart" // at the node's next start
)

// effects are those of each table, and of the keys that differ from their table.
var effects = map[string]Effect{
	"[node]":          Live,
	"[node] data_dir": Restart,
	"[node] socket":   Restart,

	"[php]":            NewPHP,
	"[php] kill_grace": Live,
	"[php] watch":      Live,

	"[web]":        NewPHP,
	"[web] listen": Restart,

	"[queue]": Live,

	"[[worker]]":          NewPHP,
	"[[worker]] queues":   Live,
	"[[worker]] max_jobs": Live,

	"[[pool]]":          NewPHP,
	"[[pool]] max_wait": Live,

	"[admin]":        Restart,
	"[admin] tokens": Live,

	"[websocket]": Restart,
	appTable:      Restart,

	"[cluster]": Restart,
}

// effect of a key; "" of one of a table that effects does not have.
func effect(table, key string) Effect {
	if strings.HasPrefix(table, "[queue.") {
		table = "[queue]"
	}
	if e, ok := effects[table+" "+key]; ok {
		return e
	}
	return effects[table]
}

// Change is a value, or a whole table, in which two configurations differ. It never has the
// value itself, which may be a secret.
type Change struct {
	// Name is as `[web] threads`, `[queue.mail] max_attempts` or `[[worker]] "mail" script`;
	// of a table that came or went as `[[worker]] "mail"`.
	Name   string
	Effect Effect
}

// String is the name.
func (c Change) String() string { return c.Name }

// Changes are the differences of two configurations, in the order of the documentation.
func Changes(before, after *Config) (all []Change) {
	was, is := flat(before), flat(after)
	for _, name := range is.order {
		t := is.tables[name]
		old, ok := was.tables[name]
		if !ok {
			all = append(all, Change{name, effect(t.of, "")})
			continue
		}
		for _, key := range sortedKeys(t.keys) {
			now, then := t.keys[key].get(), old.keys[key].get()
			if reflect.DeepEqual(now, then) || inherited(name, key, now, then, is, was) {
				continue
			}
			all = append(all, Change{name + " " + key, effect(t.of, key)})
		}
	}
	for _, name := range was.order {
		if _, ok := is.tables[name]; !ok {
			all = append(all, Change{name, effect(was.tables[name].of, "")})
		}
	}
	return all
}

// inherited reports whether a queue's value has changed just because the default of all
// queues has.
func inherited(name, key string, now, then any, is, was flattened) bool {
	if !strings.HasPrefix(name, "[queue.") {
		return false
	}
	d, old := is.tables["[queue]"].keys[key].get(), was.tables["[queue]"].keys[key].get()
	return reflect.DeepEqual(now, d) && reflect.DeepEqual(then, old)
}

// flattened is a configuration as named tables.
type flattened struct {
	order  []string
	tables map[string]flatTable
}

type flatTable struct {
	of   string // as "[[worker]]"
	keys fields // those that are built
}

func flat(c *Config) flattened {
	f := flattened{tables: map[string]flatTable{}}
	add := func(name, of string, keys fields) {
		built := fields{}
		for key, k := range keys {
			if k.get != nil {
				built[key] = k
			}
		}
		f.order = append(f.order, name)
		f.tables[name] = flatTable{of, built}
	}
	for _, t := range tables(c) {
		add(t.name, t.name, t.keys)
	}
	for i := range c.Queue.Declared {
		q := &c.Queue.Declared[i]
		add(TableHeader("[queue."+q.Name+"]"), "[queue]", queueFields(q))
	}
	for i := range c.Workers {
		add(fmt.Sprintf("[[worker]] %q", c.Workers[i].Name), "[[worker]]", workerFields(&c.Workers[i]))
	}
	for i := range c.Pools {
		add(fmt.Sprintf("[[pool]] %q", c.Pools[i].Name), "[[pool]]", poolFields(&c.Pools[i]))
	}
	for i := range c.Websocket.Apps {
		add(fmt.Sprintf("%s %q", appTable, c.Websocket.Apps[i].ID), appTable, websocketAppFields(&c.Websocket.Apps[i]))
	}
	return f
}

func sortedKeys(f fields) []string {
	keys := make([]string, 0, len(f))
	for key := range f {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Over returns the configuration that a node which runs with running goes over to when c
// was read: c, but for the values that need a restart, and their names. Neither is changed.
func (c *Config) Over(running *Config) (next *Config, restart []string) {
	for _, x := range Changes(running, c) {
		if x.Effect == Restart {
			restart = append(restart, x.Name)
		}
	}
	kept := *c
	kept.Node.DataDir, kept.Node.Socket = running.Node.DataDir, running.Node.Socket
	kept.Web.Listen = running.Web.Listen
	kept.Admin, kept.Websocket, kept.Cluster = running.Admin, running.Websocket, running.Cluster
	kept.Admin.Tokens = c.Admin.Tokens
	return &kept, restart
}
