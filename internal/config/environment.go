package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// table is a table of the configuration and its keys.
type table struct {
	name string
	keys fields
}

// tables are those of which the file can have one alone: what the environment can
// override.
func tables(c *Config) []table {
	q := queueFields(&c.Queue.Defaults)
	q["auto_create"] = boolean(&c.Queue.AutoCreate)
	return []table{
		{"[node]", nodeFields(&c.Node)},
		{"[php]", phpFields(&c.PHP)},
		{"[web]", webFields(&c.Web)},
		{"[queue]", q},
		{"[websocket]", websocketFields(&c.Websocket)},
		{"[admin]", adminFields(&c.Admin)},
		{"[cluster]", clusterFields(&c.Cluster)},
	}
}

// variable names the variable of the environment that goes over a key, "" when none
// does.
func variable(name, key string, f field) string {
	switch {
	case f.set == nil, strings.HasPrefix(f.typ, "list"), strings.HasPrefix(f.typ, "table"):
		return ""
	case name == "[node]" && key == "socket":
		return "" // POGOD_SOCKET tells PHP which node to connect to
	case name == "[node]":
		return "POGOD_" + strings.ToUpper(key)
	}
	return "POGOD_" + strings.ToUpper(strings.Trim(name, "[]")+"_"+key)
}

// environment puts the variables of one table's keys over the file.
func (d *decoder) environment(name string, keys fields) error {
	c := d.cfg
	paths := map[string]*string{
		"[node] data_dir": &c.Node.DataDir, "[php] app": &c.PHP.App, "[php] extension_dir": &c.PHP.ExtensionDir, "[web] access_log": &c.Web.AccessLog,
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		f, env := keys[key], variable(name, key, keys[key])
		if env == "" {
			continue
		}
		text, ok := d.look(env)
		if !ok || text == "" {
			continue
		}
		from := "the environment's " + env
		v := &value{kind: kindString, text: text}
		switch f.typ {
		case typeInteger:
			if _, err := strconv.ParseInt(text, 10, 64); err != nil {
				return (*document)(nil).fault(span{}, "%s must be an integer, not %q", from, text)
			}
			v.kind = kindInteger
		case typeBoolean:
			if text != "true" && text != "false" {
				return (*document)(nil).fault(span{}, "%s must be true or false, not %q", from, text)
			}
			v.kind = kindBool
		}
		if err := f.set(&decoder{cfg: c}, from, v); err != nil { // without a document to blame
			return err
		}
		if to := paths[name+" "+key]; to != nil && text != AccessOff && text != AccessLog {
			*to = resolve(d.dir, *to)
		}
		d.over(name+" "+key, source{from: FromEnvironment, where: env})
	}
	return nil
}

// over notes that something else than the file says a value: the file is not to blame
// for it any more.
func (d *decoder) over(key string, s source) {
	delete(d.at, key)
	name, key, _ := strings.Cut(key, " ")
	d.said[place{name, 0, key}] = s
}

// expand replaces ${NAME} in every string of a value by the environment's variable,
// and $${ by ${.
func (d *decoder) expand(v *value) error {
	for _, e := range v.entries {
		if err := d.expand(e.val); err != nil {
			return err
		}
	}
	for _, i := range v.items {
		if err := d.expand(i); err != nil {
			return err
		}
	}
	if v.kind != kindString || !strings.Contains(v.text, "${") {
		return nil
	}
	var b strings.Builder
	for rest := v.text; ; {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			b.WriteString(rest)
			break
		}
		if literal, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(literal + "${")
			rest = after
			continue
		}
		name, behind, closed := strings.Cut(after, "}")
		if !closed || !isVariable(name) {
			return d.doc.fault(d.within(v.at, "${"), "a variable of the environment is written ${NAME}, of letters, digits and _: write $${ where the text is to have ${")
		}
		text, ok := d.look(name)
		if !ok && d.unset {
			text, ok = "${"+name+"}", true
		}
		if !ok {
			return d.doc.fault(d.within(v.at, "${"+name+"}"), "the environment has no variable %s: set it, or write $${ where the text is to have ${", name)
		}
		b.WriteString(before + text)
		v.expanded = true
		rest = behind
	}
	v.text = b.String()
	return nil
}

// within finds a text in a span of the document. One that is written with escapes is
// not found; then the whole span is to blame.
func (d *decoder) within(at span, text string) span {
	whole := string(d.doc.data[at.from:at.to])
	for from := 0; ; {
		i := strings.Index(whole[from:], text)
		if i < 0 {
			return at
		}
		if from += i; from == 0 || whole[from-1] != '$' {
			return span{at.from + from, at.from + from + len(text)}
		}
		from += len(text)
	}
}

// isVariable reports whether a variable of the environment can be called so.
func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
