package wshub

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// request is a message of a client. Data is an object, or that object in a string.
type request struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel"`
	Data    json.RawMessage `json:"data"`
}

// subscribeData is the data of pusher:subscribe and pusher:unsubscribe.
type subscribeData struct {
	Channel string `json:"channel"`
	Auth    string `json:"auth"`
}

func (r *request) subscribe() (d subscribeData, err error) {
	raw := []byte(r.Data)
	if len(raw) > 0 && raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return d, err
		}
		raw = []byte(text)
	}
	err = json.Unmarshal(raw, &d)
	return d, err
}

// appendEvent appends the frame of an event: {"event","channel","data"}, the data as a
// string. Without a channel it has none.
func appendEvent[S ~string | ~[]byte](b []byte, event, channel, data S) []byte {
	at := len(b)
	b = append(b, make([]byte, maxHeader)...) // the length is known when all is written
	b = append(b, `{"event":`...)
	b = appendString(b, event)
	if len(channel) > 0 {
		b = append(b, `,"channel":`...)
		b = appendString(b, channel)
	}
	b = append(b, `,"data":`...)
	b = appendString(b, data)
	b = append(b, '}')
	payload := b[at+maxHeader:]
	head := appendHeader(b[at:at], opText, len(payload)) // never longer than the room for it
	return append(b[:at+len(head)], payload...)
}

// errorData is the data of pusher:error. Clients know the codes that end a connection; others
// are null.
func errorData(code int, message string) string {
	number := "null"
	if code != 0 {
		number = strconv.Itoa(code)
	}
	return `{"code":` + number + `,"message":` + string(appendString(nil, message)) + `}`
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string. What is not UTF-8 becomes U+FFFD: a text frame that is
// not UTF-8 would end the client's connection.
func appendString[S ~string | ~[]byte](b []byte, s S) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\uFFFD"...)
				from = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
