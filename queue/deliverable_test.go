package queue

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// What is accepted can be delivered: the bound is that of the JSON that workers get.
func TestDeliverableIsTheSizeAsJSON(t *testing.T) {
	t.Parallel()
	for name, unit := range map[string]string{
		"text": "abcdef", "quotes": `"\`, "lines": "\n\r\t\b\f", "control": "\x00\x1f", "separators": "\u2028\u2029", "umlauts": "äöü", "delete": "\x7f",
	} {
		payload := []byte(strings.Repeat(unit, maxQuoted*3/4/len(unit)))
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(string(payload)); err != nil {
			t.Fatal(err)
		}
		quoted := b.Len() - len("\"\"\n")
		if got, want := deliverable(payload), quoted <= maxQuoted; got != want {
			t.Errorf("%s: %d bytes quoted, deliverable: %v", name, quoted, got)
		}
		cut := payload[:len(payload)*maxQuoted/max(quoted, maxQuoted)/len(unit)*len(unit)]
		if !deliverable(cut) {
			t.Errorf("%s: just within the bound is refused", name)
		}
		if quoted > maxQuoted && deliverable(payload[:len(cut)+2*len(unit)]) {
			t.Errorf("%s: just over the bound is taken", name)
		}
	}
}
