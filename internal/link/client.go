package link

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
)

var (
	// ErrNotSent is returned by Client when the request did not leave: nothing
	// happened. Its code towards PHP is 2.
	ErrNotSent = errors.New("link: no node is reachable")
	// ErrLost is returned by Client when the link was lost after sending: the
	// outcome is unknown. Its code towards PHP is 5.
	ErrLost = errors.New("link: the link was lost after sending, the outcome is unknown")
)

// Client is one connection to a node, for tools and tests. It carries one call at
// a time and is not safe for use by several goroutines at once, Close excepted.
type Client struct {
	nc  net.Conn
	r   *bufio.Reader
	buf []byte
}

// Dial connects and says Hello. Errors wrap ErrNotSent, or hold the node's refusal.
func Dial(ctx context.Context, path string, role Role, name string) (*Client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrNotSent, path, err)
	}
	c := &Client{nc: nc, r: bufio.NewReader(nc)}
	code, body, err := c.Call(Request(nil, Hello).Int(Version).Int(int64(role)).String(name))
	if err == nil && code != 1 {
		err = fmt.Errorf("link: the node refused: %s", body)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Call sends a request and waits for its answer. After an error the connection is
// of no further use. Errors wrap ErrNotSent or ErrLost.
func (c *Client) Call(f Builder) (code int32, body []byte, err error) {
	b, err := f.Frame()
	if err != nil {
		return 0, nil, errors.Join(ErrNotSent, err)
	}
	if _, err := c.nc.Write(b); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrNotSent, err) // the node does nothing for half a frame
	}
	code, body, err = readAnswer(c.r)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	return code, body, nil
}

// Send sends a frame that has no answer: control connections only.
func (c *Client) Send(f Builder) error {
	b, err := f.Frame()
	if err != nil {
		return err
	}
	_, err = c.nc.Write(b)
	return err
}

// Receive waits for a frame of the node: control connections only. The fields
// are valid until the next call.
func (c *Client) Receive() (Op, *Fields, error) {
	op, body, buf, err := readFrame(c.r, c.buf)
	c.buf = buf
	return op, NewFields(body), err
}

// Close ends the connection; a call that waits returns ErrLost.
func (c *Client) Close() { _ = c.nc.Close() }
