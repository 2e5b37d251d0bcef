package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pogod/internal/datadir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newDir(t testing.TB) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// found makes a cluster of one node.
func found(t testing.TB) *Identity {
	t.Helper()
	i, err := Init(newDir(t))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// enrol makes a node of that CA without the join protocol.
func enrol(t testing.TB, ca *authority) *Identity {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.sign(newID(), &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	node, _, _ := parseName(leaf)
	return &Identity{Cluster: ca.cluster, Node: node, ca: ca, leaf: leaf, key: key}
}

// credulous is a client of that protocols which believes any server and shows i's
// certificate, or none.
func credulous(i *Identity, protos ...string) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, NextProtos: protos}
	if i != nil {
		c.Certificates = []tls.Certificate{i.certificate()}
	}
	return c
}

// end is how a connection went at one end.
type end struct {
	state tls.ConnectionState
	err   error
}

// meet makes one connection over loopback and sends a byte each way.
func meet(t *testing.T, server, client *tls.Config) (atServer, atClient end) {
	t.Helper()
	l := listen(t)
	var done sync.WaitGroup
	done.Go(func() { // ends with its one connection
		conn, err := l.Accept()
		if err != nil {
			atServer.err = err
			return
		}
		defer conn.Close()
		atServer = greet(t, tls.Server(conn, server))
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	atClient = greet(t, tls.Client(conn, client))
	conn.Close()
	done.Wait()
	return atServer, atClient
}

func greet(t *testing.T, c *tls.Conn) (e end) {
	if e.err = c.HandshakeContext(t.Context()); e.err != nil {
		return e
	}
	e.state = c.ConnectionState()
	if _, e.err = c.Write([]byte{1}); e.err == nil {
		_, e.err = io.ReadFull(c, make([]byte, 1))
	}
	return e
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// gate is a member that answers joining connections.
type gate struct {
	addr   string
	tokens *Tokens
	errs   chan error // one for each connection: of the handshake or of Admit
}

type admitFunc = func(context.Context, Peer) ([]Peer, error)

// open lets nodes join at i, on the clock now.
func open(t *testing.T, i *Identity, now func() time.Time, admit admitFunc) *gate {
	t.Helper()
	g := &gate{tokens: NewTokens(i, now)}
	g.addr, g.errs = accept(t, i.ServerTLS(), func(c *tls.Conn) error {
		return i.Admit(t.Context(), c, g.tokens, admit)
	})
	return g
}

// accept gives each connection to handle when its handshake has ended.
func accept(t *testing.T, config *tls.Config, handle func(*tls.Conn) error) (addr string, errs chan error) {
	t.Helper()
	l := listen(t)
	errs = make(chan error, 100)
	var done sync.WaitGroup
	done.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() { // ends with its connection, which its client closes
				defer conn.Close()
				c := tls.Server(conn, config)
				err := c.HandshakeContext(t.Context())
				if err == nil {
					err = handle(c)
				}
				errs <- err
			})
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String(), errs
}

func admitAll(context.Context, Peer) ([]Peer, error) { return nil, nil }

const advertised = "10.0.0.7:8083"

var errFake = errors.New("the voters are on strike")
