package link

import (
	"bufio"
	"net"
	"testing"
)

// dialRaw connects without Hello.
func dialRaw(t *testing.T, path string) (*Client, error) {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &Client{nc: nc, r: bufio.NewReader(nc)}, nil
}
