package config

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// What a value came from, in Setting.From.
const (
	FromDefault     = "default"
	FromFile        = "file"
	FromEnvironment = "environment"
	FromFlag        = "flag"
)

// place is where a value of the configuration belongs: a table, which of the tables of
// a list, from 0, and the key.
type place struct {
	table string // "[node]", "[queue.mail]", "[[worker]]"
	nth   int
	key   string
}

// source is what says a value.
type source struct {
	from  string // FromFile, FromEnvironment or FromFlag
	where string // "pogod.toml:3", "POGOD_LOG_LEVEL", "--data"
	val   *value // in the file
}

// Setting is one value of a configuration, and what says it.
type Setting struct {
	Table string `json:"table"` // as "[node]", "[queue.mail]", "[[worker]]"
	Entry int    `json:"entry"` // which of the tables of a list, from 1; 0 in others
	Key   string `json:"key"`
	// Value is a string, an int64, a bool, a []string, a map[string]string or a list of such. Durations are
	// strings. "" and an empty map say that nothing is set.
	Value any `json:"value"`
	// Redacted says that Value, or a value in it, is Redacted in place of a secret.
	Redacted bool   `json:"redacted"`
	From     string `json:"from"`  // FromDefault, FromFile, FromEnvironment or FromFlag
	Where    string `json:"where"` // as "pogod.toml:3", "POGOD_LOG_LEVEL" or "--data"; "" of a default
}

// Redacted stands where a secret is.
const Redacted = "(redacted)"

// Explain is Load that also lists every value with what says it, tables in a fixed
// order, keys sorted. Secrets are redacted, and what may be one: in env and ini the value of a
// name that speaks of one, one that came out of a ${VARIABLE}, and a URL with a
// password.
func Explain(o Options) (*Config, []Setting, error) {
	d, err := load(o)
	if err != nil {
		return nil, nil, err
	}
	return d.cfg, d.settings(), nil
}

func (d *decoder) settings() []Setting {
	c := d.cfg
	var all []Setting
	for _, t := range tables(c) {
		all = append(all, d.listed(t, 0, "")...)
		if t.name == "[websocket]" {
			for i := range c.Websocket.Apps {
				all = append(all, d.listed(table{appTable, websocketAppFields(&c.Websocket.Apps[i])}, i+1, "")...)
			}
		}
		if t.name != "[queue]" {
			continue
		}
		for i := range c.Queue.Declared {
			q := &c.Queue.Declared[i]
			all = append(all, d.listed(table{"[queue." + q.Name + "]", queueFields(q)}, 0, "[queue]")...)
		}
		for i := range c.Workers {
			all = append(all, d.listed(table{"[[worker]]", workerFields(&c.Workers[i])}, i+1, "")...)
		}
		for i := range c.Pools {
			all = append(all, d.listed(table{"[[pool]]", poolFields(&c.Pools[i])}, i+1, "")...)
		}
	}
	return all
}

// listed lists a table whose values come from another one where it does not say them.
func (d *decoder) listed(t table, entry int, otherwise string) []Setting {
	var list []Setting
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		f := t.keys[key]
		if f.set == nil {
			continue
		}
		s := Setting{Table: t.name, Entry: entry, Key: key, Value: plainly(f.get()), From: FromDefault}
		from, ok := d.said[place{t.name, max(0, entry-1), key}]
		if !ok && otherwise != "" {
			from, ok = d.said[place{otherwise, 0, key}]
		}
		if ok {
			s.From, s.Where = from.from, printable(from.where)
		}
		s.redact(from.val)
		list = append(list, s)
	}
	return list
}

func (s *Setting) redact(said *value) {
	if secretKeys[s.Table+" "+s.Key] {
		if s.Value != "" {
			s.Value, s.Redacted = Redacted, true
		}
		return
	}
	m, ok := s.Value.(map[string]string)
	if !ok || s.Key == "tls" { // names of files
		return
	}
	shown := maps.Clone(m)
	for name, text := range m {
		if text != "" && (secretName(name) || withPassword(text) || said.expandedIn(name)) {
			shown[name], s.Redacted = Redacted, true
		}
	}
	s.Value = shown
}

// expandedIn reports whether the value of a name in a table, or in tables in it whose
// names are joined by dots, had a ${VARIABLE}.
func (v *value) expandedIn(name string) bool {
	if v == nil {
		return false
	}
	for _, e := range v.entries {
		if e.key == name && e.val.expanded {
			return true
		}
		if rest, ok := strings.CutPrefix(name, e.key+"."); ok && e.val.expandedIn(rest) {
			return true
		}
	}
	return false
}

func secretName(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"pass", "pwd", "secret", "token", "key", "credential", "auth", "dsn", "salt", "private"},
		func(word string) bool { return strings.Contains(name, word) })
}

// withPassword reports whether a text looks like a URL with a user and a password.
func withPassword(text string) bool {
	_, rest, ok := strings.Cut(text, "://")
	if !ok {
		return false
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && !strings.Contains(rest[i:], "@") {
		rest = rest[:i]
	}
	user, _, ok := strings.Cut(rest, "@")
	return ok && strings.Contains(user, ":")
}

// plainly makes of a field's value one of those that Setting.Value may be.
func plainly(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return short(v)
	case []time.Duration:
		list := make([]string, 0, len(v))
		for _, d := range v {
			list = append(list, short(d))
		}
		return list
	case []string:
		return append([]string{}, v...)
	}
	return v
}
