//go:build php

package phpext

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"testing"
)

// rawConn is a connection of which a test says every byte.
type rawConn struct {
	t testing.TB
	net.Conn
}

// rawListener is a node that is only bytes: serve is called for each connection,
// one after the other, and the connection is closed when it returns. The function
// that it returns ends it.
func rawListener(t testing.TB, path string, serve func(rawConn)) func() {
	t.Helper()
	_ = os.Remove(path)
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { // ended by the listener's end
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(rawConn{t, c})
			_ = c.Close()
		}
	})
	return func() {
		_ = ln.Close()
		wg.Wait()
	}
}

func (c rawConn) read(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Error("read:", err)
	}
	return b
}

// readFrame returns op and fields.
func (c rawConn) readFrame() []byte { return c.read(int(binary.LittleEndian.Uint32(c.read(4)))) }

func (c rawConn) write(s string) {
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Error("write:", err)
	}
}

func (c rawConn) answer(code int32, body string) {
	b := binary.LittleEndian.AppendUint32(nil, uint32(4+len(body)))
	c.write(string(binary.LittleEndian.AppendUint32(b, uint32(code))) + body)
}
