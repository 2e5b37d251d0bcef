package config

import (
	"bytes"
	"errors"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is the type of a TOML value, as it is called in messages.
type kind string

const (
	kindString  kind = "a string"
	kindInteger kind = "an integer"
	kindFloat   kind = "a float"
	kindBool    kind = "a boolean"
	kindTime    kind = "a date or time"
	kindArray   kind = "a list"
	kindTable   kind = "a table"
	kindTables  kind = "a list of tables" // [[header]]
)

// value is a TOML value and its place in the document.
type value struct {
	kind    kind
	text    string   // of a scalar; of a string without quotes
	at      span     // of the value, or of the header's key
	entries []*entry // of a table, in the order of the document
	items   []*value // of a list

	expanded bool // a ${VARIABLE} was in it
}

// entry is one key of a table. Its value is never nil.
type entry struct {
	key string
	at  span // of the key
	val *value
}

func (v *value) entry(key string) *entry {
	for _, e := range v.entries {
		if e.key == key {
			return e
		}
	}
	return nil
}

// parse reads a document into a tree that keeps the place of every key and
// value, which toml.Unmarshal alone does not. Unmarshal goes first: it holds
// the grammar, and refuses what is defined twice.
func parse(doc *document) (*value, error) {
	doc.data = bytes.TrimPrefix(doc.data, []byte("\xEF\xBB\xBF"))
	var all map[string]any
	if err := toml.Unmarshal(doc.data, &all); err != nil {
		var de *toml.DecodeError
		if !errors.As(err, &de) {
			return nil, doc.fault(span{}, "%v", err)
		}
		row, column := de.Position()
		from := 0
		for range row - 1 {
			from += 1 + bytes.IndexByte(doc.data[from:], '\n')
		}
		from += column - 1
		why := strings.TrimPrefix(de.Error(), "toml: ")
		if strings.Contains(why, "expected newline") || strings.Contains(why, "at start of value") || strings.Contains(why, "expected keyword") {
			why += ": put text in quotes"
		}
		return nil, doc.fault(span{from, from + 1}, "this is not TOML: %s", why)
	}
	root := &value{kind: kindTable}
	table := root
	var p unstable.Parser
	p.Reset(doc.data)
	for p.NextExpression() {
		n := p.Expression()
		var err error
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, err = root.header(n, n.Kind == unstable.ArrayTable)
		case unstable.KeyValue:
			err = table.assign(doc.data, n)
		}
		if err != nil {
			return nil, doc.fault(span{}, "%v", err)
		}
	}
	if err := p.Error(); err != nil {
		return nil, doc.fault(span{}, "this is not TOML: %v", err)
	}
	return root, nil
}

// errShape is returned when a key runs through something that is no table,
// which Unmarshal has already refused.
var errShape = errors.New("a key has two meanings")

// header finds or makes the table of a [header] or [[header]].
func (v *value) header(n *unstable.Node, list bool) (*value, error) {
	t := v
	for it := n.Key(); it.Next(); {
		k := it.Node()
		key, at := string(k.Data), raw(k)
		e := t.entry(key)
		last := it.IsLast()
		switch {
		case e == nil && last && list:
			e = &entry{key, at, &value{kind: kindTables, at: at}}
			t.entries = append(t.entries, e)
		case e == nil:
			e = &entry{key, at, &value{kind: kindTable, at: at}}
			t.entries = append(t.entries, e)
		}
		switch {
		case last && list && e.val.kind == kindTables:
			t = &value{kind: kindTable, at: at}
			e.val.items = append(e.val.items, t)
		case e.val.kind == kindTables && len(e.val.items) > 0:
			t = e.val.items[len(e.val.items)-1]
		case e.val.kind == kindTable:
			t = e.val
		default:
			return nil, errShape
		}
		if last && !list {
			t.at = at
		}
	}
	return t, nil
}

// assign puts a key = value line into its table.
func (v *value) assign(data []byte, n *unstable.Node) error {
	t := v
	for it := n.Key(); it.Next(); {
		k := it.Node()
		key, at := string(k.Data), raw(k)
		e := t.entry(key)
		if it.IsLast() {
			if e != nil {
				return errShape
			}
			from := at.to // of the value: behind the equals sign
			from += 1 + bytes.IndexByte(data[from:], '=')
			from += len(data[from:]) - len(bytes.TrimLeft(data[from:], " \t"))
			val, err := plain(data, n.Value(), span{from, int(n.Raw.Offset + n.Raw.Length)})
			if err != nil {
				return err
			}
			t.entries = append(t.entries, &entry{key, at, val})
			return nil
		}
		if e == nil {
			e = &entry{key, at, &value{kind: kindTable, at: at}}
			t.entries = append(t.entries, e)
		}
		if e.val.kind != kindTable {
			return errShape
		}
		t = e.val
	}
	return errShape
}

// plain copies a node out of the parser; at is its place.
func plain(data []byte, n *unstable.Node, at span) (*value, error) {
	v := &value{at: at, text: string(n.Data)}
	switch n.Kind {
	case unstable.String:
		v.kind = kindString
	case unstable.Integer:
		v.kind = kindInteger
	case unstable.Float:
		v.kind = kindFloat
	case unstable.Bool:
		v.kind = kindBool
	case unstable.Array:
		v.kind = kindArray
		for it := n.Children(); it.Next(); {
			c := it.Node()
			place := at // a list or table in a list has no place of its own
			if c.Raw.Length > 1 || c.Kind == unstable.Integer {
				place = raw(c)
			}
			item, err := plain(data, c, place)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, item)
		}
	case unstable.InlineTable:
		v.kind = kindTable
		for it := n.Children(); it.Next(); {
			if err := v.assign(data, it.Node()); err != nil {
				return nil, err
			}
		}
	default:
		v.kind = kindTime
	}
	return v, nil
}

func raw(n *unstable.Node) span {
	return span{int(n.Raw.Offset), int(n.Raw.Offset + n.Raw.Length)}
}
