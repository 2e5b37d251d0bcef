package wshub

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage is the largest message of a client, in bytes.
	maxMessage = 64 << 10
	// maxChannels is how many channels one socket may subscribe to.
	maxChannels = 1024
)

// receive reads once from a socket that has something; buf is the shard's. Whoever is not
// done is told of again by epoll.
func (c *conn) receive(buf []byte) {
	n := copy(buf, c.in)
	m, err := unix.Read(c.fd, buf[n:]) // the reader alone closes fd, and this is the reader
	if err == unix.EINTR || err == unix.EAGAIN {
		return
	}
	if err != nil || m <= 0 {
		c.gone = true
		return
	}
	c.seen.Store(c.shard.hub.time.Load())
	c.consume(buf[:n+m])
}

// consume handles the frames of b, which it may change, and keeps what is left.
func (c *conn) consume(b []byte) {
	for len(b) > 0 && !c.gone {
		f, size, err := parseFrame(b, maxMessage)
		if err != nil {
			c.fail(err)
			b = nil
			break
		}
		if size == 0 {
			break
		}
		b = b[size:]
		c.frame(f)
	}
	if c.in = append(c.in[:0], b...); len(c.in) == 0 {
		c.in = nil // most sockets say nothing for long
	}
}

func (c *conn) fail(err error) {
	code := closeMalformed
	if errors.Is(err, errOversized) {
		code = closeOversized
	}
	c.close(code, err.Error())
}

func (c *conn) frame(f frame) {
	c.mu.Lock()
	state := c.state
	c.mu.Unlock()
	if state != open && f.op != opClose {
		return // the close is on its way
	}
	switch f.op {
	case opPing:
		c.write(appendFrame(nil, opPong, f.payload))
	case opPong:
	case opClose:
		c.close(closeNormal, "") // an answer, unless the client answers ours
		c.gone = true
	case opBinary:
		c.close(closeBinary, "messages are text")
	case opText, opContinue:
		if (f.op == opContinue) != c.inside {
			c.fail(errMalformed)
			return
		}
		if !c.inside && f.fin {
			c.message(f.payload)
			return
		}
		if len(c.text)+len(f.payload) > maxMessage {
			c.fail(errOversized)
			return
		}
		c.text = append(c.text, f.payload...)
		if c.inside = !f.fin; f.fin {
			text := c.text
			c.text = nil
			c.message(text)
		}
	}
}

var pongFrame = appendEvent(nil, "pusher:pong", "", "{}")

// message handles one message of the client. What cannot be done is told, and the socket
// stays open.
func (c *conn) message(text []byte) {
	if !utf8.Valid(text) {
		c.close(closeNotUTF8, "messages are UTF-8")
		return
	}
	var r request
	if err := json.Unmarshal(text, &r); err != nil || r.Event == "" {
		c.tell("a message must be a JSON object with an event")
		return
	}
	switch r.Event {
	case "pusher:ping":
		c.write(pongFrame)
	case "pusher:pong":
	case "pusher:subscribe", "pusher:unsubscribe":
		d, err := r.subscribe()
		if err != nil {
			c.tell(r.Event + " must have a channel in its data")
			return
		}
		if r.Event == "pusher:unsubscribe" {
			c.shard.unsubscribe(c, d.Channel)
			return
		}
		c.subscribe(d)
	default:
		if strings.HasPrefix(r.Event, "client-") {
			c.tell("client events are not taken")
		} else {
			c.tell("the event " + clip(r.Event) + " is not known")
		}
	}
}

// clip shortens what a client sent.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return s
}

// tell sends an error that does not end the connection.
func (c *conn) tell(message string) {
	c.write(appendEvent(nil, "pusher:error", "", errorData(0, message)))
}

func (c *conn) subscribe(d subscribeData) {
	refuse := func(kind string, status int, message string) {
		data, _ := json.Marshal(struct { // of strings and a number
			Type   string `json:"type"`
			Error  string `json:"error"`
			Status int    `json:"status"`
		}{kind, message, status})
		c.write(appendEvent(nil, "pusher:subscription_error", d.Channel, string(data)))
	}
	switch kindOf(d.Channel) {
	case nameless:
		refuse("ChannelError", 400, "a channel's name has 1 to 256 of the characters A-Z a-z 0-9 _ - = @ , . ;")
	case unbuilt:
		refuse("ChannelError", 501, "presence, encrypted and cache channels are not built yet")
	case private:
		if !c.app.signed(d.Auth, c.socketID(), d.Channel) {
			refuse("AuthError", 401, "the signature is not that of this socket and this channel")
			return
		}
		fallthrough
	default:
		if !c.shard.subscribe(c, d.Channel) {
			refuse("LimitReached", 429, "one socket may subscribe to 1024 channels")
		}
	}
}
