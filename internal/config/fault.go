package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrInvalid is returned when the configuration says something that cannot be:
// an unknown key, a value of the wrong type, a bad value.
var ErrInvalid = errors.New("invalid configuration")

// Error is what is wrong with a configuration, and where.
type Error struct {
	File    string // as it was named; "" when the value came from elsewhere
	Line    int    // from 1; 0 when no line is to blame
	Column  int    // from 1, in characters
	Text    string // the line, made printable
	Width   int    // how many characters the caret spans, at least 1
	Message string // one line, ends with what to do
}

// Error returns `file:line:column: message`, and below it the line with a
// caret. The first line can stand alone.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	if e.Line == 0 {
		return b.String()
	}
	text, column := window([]rune(e.Text), e.Column-1)
	width := max(1, min(e.Width, len(text)-column))
	pad := strings.Map(func(r rune) rune { // tabs stay, so that the caret is below its text
		if r == '\t' {
			return r
		}
		return ' '
	}, string(text[:column]))
	n := fmt.Sprint(e.Line)
	fmt.Fprintf(&b, "\n  %s | %s\n  %*s | %s%s", n, string(text), len(n), "", pad, strings.Repeat("^", width))
	return b.String()
}

// Unwrap returns ErrInvalid.
func (e *Error) Unwrap() error { return ErrInvalid }

const (
	maxShown   = 120 // characters of a line that are shown
	maxMessage = 600 // characters of a message
)

// window cuts a long line around a column, which it returns anew.
func window(text []rune, column int) ([]rune, int) {
	column = max(0, min(column, len(text)))
	if len(text) <= maxShown {
		return text, column
	}
	from := max(0, min(column-maxShown/4, len(text)-maxShown))
	to := min(len(text), from+maxShown)
	shown := slices.Clone(text[from:to])
	if from > 0 {
		shown[0] = '…'
	}
	if to < len(text) {
		shown[len(shown)-1] = '…'
	}
	return shown, column - from
}

// document is a file's bytes and the name it is called by in messages.
type document struct {
	name string
	data []byte
}

// span is a range of a document; the zero span is nowhere.
type span struct{ from, to int }

// line returns the number, from 1, of the line that holds an offset.
func (d *document) line(offset int) int {
	return 1 + strings.Count(string(d.data[:min(offset, len(d.data))]), "\n")
}

// fault makes the error of a place in the document; a nil document or the zero
// span blames no line.
func (d *document) fault(s span, format string, args ...any) *Error {
	e := &Error{Message: printable(fmt.Sprintf(format, args...)), Width: 1}
	if r := []rune(e.Message); len(r) > maxMessage { // someone else's text may be in it
		e.Message = string(r[:maxMessage]) + "…"
	}
	if d == nil {
		return e
	}
	e.File = d.name
	if s == (span{}) {
		return e
	}
	s.from = max(0, min(s.from, len(d.data)))
	s.to = max(s.from, min(s.to, len(d.data)))
	start := 1 + strings.LastIndexByte(string(d.data[:s.from]), '\n')
	end := len(d.data)
	if i := strings.IndexByte(string(d.data[s.from:]), '\n'); i >= 0 {
		end = s.from + i
	}
	e.Line = d.line(s.from)
	e.Column = 1 + utf8.RuneCount(d.data[start:s.from])
	e.Width = max(1, utf8.RuneCount(d.data[s.from:min(s.to, end)]))
	e.Text = strings.TrimRight(printable(masked(string(d.data[start:end]))), " ")
	return e
}

// printable replaces what could move a terminal's cursor, character for
// character; tabs stay, a carriage return at the end goes.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, strings.TrimSuffix(s, "\r"))
}

// nearest returns the candidate that a misspelt word probably means, or "".
func nearest(word string, candidates []string) string {
	word = strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	if len(word) > 64 {
		return ""
	}
	best, least := "", 1+max(1, len(word)/3)
	slices.Sort(candidates)
	for _, c := range candidates {
		d := distance(word, c)
		if len(word) >= 4 && strings.HasPrefix(c, word) || len(c) >= 4 && strings.HasPrefix(word, c) {
			d = 1 // "warning" is "warn", "memory" is "memory_limit"
		}
		if d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, change or swap with their
// neighbour between two words.
func distance(a, b string) int {
	prior, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prior[j-2]+1)
			}
		}
		prior, last, row = last, row, prior
	}
	return last[len(b)]
}
