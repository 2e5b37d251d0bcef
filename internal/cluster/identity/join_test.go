package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pogod/internal/command"
	"pogod/internal/datadir"
)

// untouched wants that nothing of a failed attempt to join is left.
func untouched(t *testing.T, dir *datadir.Dir) {
	t.Helper()
	if got := names(t, dir.Path); Exists(dir) || slices.Contains(got, unfinished) {
		t.Error("left over:", got)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	a := found(t)
	peers := []Peer{{ID: a.Node, Address: "10.0.0.1:8083", Version: 7}, {ID: newID(), Address: "node-2:8083", Version: 1 << 60}}
	var admitted []Peer
	g := open(t, a, time.Now, func(ctx context.Context, p Peer) ([]Peer, error) {
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > admitTime {
			t.Error("the cluster's part has no limit")
		}
		admitted = append(admitted, p)
		return peers, nil
	})
	dir := newDir(t)
	if err := os.Mkdir(dir.File(unfinished), 0o700); err != nil { // an earlier attempt's
		t.Fatal(err)
	}
	if err := os.WriteFile(dir.File(unfinished+"/stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	token, _ := g.tokens.Issue()
	b, got, err := Join(t.Context(), dir, g.addr, token, advertised)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-g.errs; err != nil {
		t.Error(err)
	}
	if want := []Peer{{ID: dir.NodeID(), Address: advertised, Level: command.MaxLevel()}}; !slices.Equal(admitted, want) || !slices.Equal(got, peers) {
		t.Errorf("admitted %v, told %v", admitted, got)
	}
	if b.Cluster != a.Cluster || b.Node != dir.NodeID() || !b.Joined {
		t.Errorf("%+v", b)
	}
	if got := names(t, dir.Path); !slices.Equal(got, []string{folder, "lock", "node.json"}) {
		t.Error(got)
	}
	if got := names(t, dir.File(folder)); !slices.Equal(got, allFiles) {
		t.Error(got)
	}
	if b, err = Load(dir); err != nil || !b.Joined {
		t.Fatal(b, err)
	}
	if s, c := meet(t, a.ServerTLS(), b.ClientTLS(a.Node, ProtoRaft)); s.err != nil || c.err != nil {
		t.Error(s.err, c.err)
	}
	if s, c := meet(t, b.ServerTLS(), a.ClientTLS(b.Node, ProtoLink)); s.err != nil || c.err != nil {
		t.Error(s.err, c.err)
	}

	// Any member can invite.
	third := newDir(t)
	g = open(t, b, time.Now, admitAll)
	token, _ = g.tokens.Issue()
	c, _, err := Join(t.Context(), third, g.addr, token, advertised)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ca.verify(c.leaf); err != nil {
		t.Error(err)
	}
	// A member joins no second time.
	if _, _, err := Join(t.Context(), third, g.addr, token, advertised); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
}

func TestJoinWithASpentToken(t *testing.T) {
	t.Parallel()
	h := new(hands)
	a := found(t)
	g := open(t, a, h.now, admitAll)
	used, _ := g.tokens.Issue()
	if _, _, err := Join(t.Context(), newDir(t), g.addr, used, advertised); err != nil {
		t.Fatal(err)
	}
	expired, _ := g.tokens.Issue()
	h.advance(tokenLife)
	unknown, _ := NewTokens(a, h.now).Issue() // made at another node of the cluster
	if err := <-g.errs; err != nil {
		t.Error(err)
	}
	for token, want := range map[string]error{used: errUsed, expired: errExpired, unknown: errUnknown} {
		dir := newDir(t)
		if _, _, err := Join(t.Context(), dir, g.addr, token, advertised); err == nil || !strings.Contains(err.Error(), want.Error()) || !strings.Contains(err.Error(), g.addr) {
			t.Errorf("told %v, want %v", err, want)
		}
		if err := <-g.errs; !errors.Is(err, want) {
			t.Errorf("returned %v, want %v", err, want)
		}
		untouched(t, dir)
	}
}

func TestJoinIsRefusedBeforeItDials(t *testing.T) {
	t.Parallel()
	g := open(t, found(t), time.Now, admitAll)
	token, _ := g.tokens.Issue()
	try := func(dir *datadir.Dir, addr, token, advertise string) error {
		_, _, err := Join(t.Context(), dir, addr, token, advertise)
		return err
	}
	for _, name := range []string{"state.db", "log"} {
		dir := newDir(t)
		if err := os.Mkdir(dir.File(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := try(dir, g.addr, token, advertised); !errors.Is(err, ErrHasData) || !strings.Contains(err.Error(), dir.File(name)) {
			t.Error(err)
		}
		untouched(t, dir)
	}
	dir := newDir(t)
	if err := try(dir, g.addr, token[:70], advertised); err == nil || !strings.Contains(err.Error(), "not a whole token") {
		t.Error(err)
	}
	if err := try(dir, "nowhere", token, advertised); err == nil || !strings.Contains(err.Error(), `"nowhere" is not host:port`) {
		t.Error(err)
	}
	if err := try(dir, g.addr, token, "0.0.0.0:8083"); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Error(err)
	}
	untouched(t, dir)
	if err := os.WriteFile(dir.File(folder), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := try(dir, g.addr, token, advertised); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if len(g.errs) > 0 {
		t.Error("it dialed:", <-g.errs)
	}
}

func TestJoinAtNoClusterPort(t *testing.T) {
	t.Parallel()
	a := found(t)
	token, _ := NewTokens(a, time.Now).Issue()
	l := listen(t)
	go func() { // ends with its one connection
		if conn, err := l.Accept(); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			conn.Close()
		}
	}()
	dir := newDir(t)
	if _, _, err := Join(t.Context(), dir, l.Addr().String(), token, advertised); err == nil || !strings.Contains(err.Error(), "[cluster] listen") {
		t.Error(err)
	}
	untouched(t, dir)

	noALPN := &tls.Config{Certificates: []tls.Certificate{a.certificate()}}
	addr, errs := accept(t, noALPN, func(*tls.Conn) error { return nil })
	if _, _, err := Join(t.Context(), dir, addr, token, advertised); err == nil || !strings.Contains(err.Error(), ProtoJoin) {
		t.Error(err)
	}
	if <-errs == nil {
		t.Error("the handshake went well")
	}
}

func TestTwoJoinWithOneToken(t *testing.T) {
	t.Parallel()
	entered, goOn := make(chan string, 2), make(chan error)
	g := open(t, found(t), time.Now, func(_ context.Context, p Peer) ([]Peer, error) {
		entered <- p.ID
		return nil, <-goOn
	})
	token, _ := g.tokens.Issue()
	first, second := newDir(t), newDir(t)
	joined := make(chan error, 1)
	join := func() { // ended by goOn
		_, _, err := Join(t.Context(), first, g.addr, token, advertised)
		joined <- err
	}
	loses := func() {
		t.Helper()
		if _, _, err := Join(t.Context(), second, g.addr, token, advertised); err == nil || !strings.Contains(err.Error(), errClaimed.Error()) {
			t.Error("the second:", err)
		}
	}
	go join()
	<-entered
	loses()
	goOn <- errFake
	if err := <-joined; err == nil || !strings.Contains(err.Error(), errFake.Error()) {
		t.Error("the reason was not told:", err)
	}
	untouched(t, first)
	// The token is free again, and whoever is first has it.
	go join()
	<-entered
	loses()
	goOn <- nil
	if err := <-joined; err != nil {
		t.Error(err)
	}
	if _, _, err := Join(t.Context(), second, g.addr, token, advertised); err == nil || !strings.Contains(err.Error(), errUsed.Error()) {
		t.Error("the second, afterwards:", err)
	}
	if len(entered) > 0 {
		t.Error("the second was admitted")
	}
	untouched(t, second)
}

func TestSelfJoin(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	a, err := Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	g := open(t, a, time.Now, func(context.Context, Peer) ([]Peer, error) {
		t.Error("admitted")
		return nil, nil
	})
	token, _ := g.tokens.Issue()
	if err := os.Rename(dir.File(folder), dir.File("away")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Join(t.Context(), dir, g.addr, token, advertised); err == nil || !strings.Contains(err.Error(), "was copied") {
		t.Error(err)
	}
	untouched(t, dir)
}

// What a member hands over is checked, too: nothing is written that does not fit.
func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	a, x := found(t), found(t)
	der := func(key any) []byte {
		b, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *joinRequest, n *joinAnswer){
		"nothing":          func(_ *joinRequest, n *joinAnswer) { *n = joinAnswer{} },
		"another CA":       func(_ *joinRequest, n *joinAnswer) { n.CA, n.CAKey = x.ca.cert.Raw, der(x.ca.key) },
		"another CA's key": func(_ *joinRequest, n *joinAnswer) { n.CAKey = der(x.ca.key) },
		"no ECDSA key":     func(_ *joinRequest, n *joinAnswer) { n.CAKey = der(rsaKey) },
		"another cluster":  func(_ *joinRequest, n *joinAnswer) { n.Cluster = x.Cluster },
		"another key":      func(_ *joinRequest, n *joinAnswer) { n.Certificate = a.leaf.Raw },
		"another node": func(r *joinRequest, n *joinAnswer) {
			pub, err := publicKey(r.CSR)
			if err != nil {
				t.Error(err)
			}
			leaf, err := a.ca.sign(newID(), pub)
			if err != nil {
				t.Error(err)
			}
			n.Certificate = leaf.Raw
		},
		"another signer": func(r *joinRequest, n *joinAnswer) {
			pub, err := publicKey(r.CSR)
			if err != nil {
				t.Error(err)
			}
			leaf, err := (&authority{cluster: a.Cluster, cert: x.ca.cert, key: x.ca.key}).sign(r.Node, pub)
			if err != nil {
				t.Error(err)
			}
			n.Certificate = leaf.Raw
		},
		"all of another": func(r *joinRequest, n *joinAnswer) {
			pub, err := publicKey(r.CSR)
			if err != nil {
				t.Error(err)
			}
			leaf, err := x.ca.sign(r.Node, pub)
			if err != nil {
				t.Error(err)
			}
			*n = joinAnswer{Cluster: x.Cluster, Certificate: leaf.Raw, CA: x.ca.cert.Raw, CAKey: der(x.ca.key)}
		},
		"right": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tokens := NewTokens(a, time.Now)
			addr, errs := accept(t, a.ServerTLS(), func(c *tls.Conn) error {
				b, err := readMessage(c, maxRequest)
				if err != nil {
					return err
				}
				r, err := decodeRequest(b)
				if err != nil {
					return err
				}
				pub, err := publicKey(r.CSR)
				if err != nil {
					return err
				}
				leaf, err := a.ca.sign(r.Node, pub)
				if err != nil {
					return err
				}
				n := &joinAnswer{Cluster: a.Cluster, Certificate: leaf.Raw, CA: a.ca.cert.Raw, CAKey: der(a.ca.key)}
				if change != nil {
					change(r, n)
				}
				return writeMessage(c, n)
			})
			dir := newDir(t)
			token, _ := tokens.Issue()
			_, _, err := Join(t.Context(), dir, addr, token, advertised)
			if err := <-errs; err != nil {
				t.Error(err)
			}
			if change == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "is wrong") {
				t.Error(err)
			}
			untouched(t, dir)
		})
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a := found(t)
	ctx, cancel := context.WithCancel(t.Context())
	reached := make(chan struct{})
	addr, errs := accept(t, a.ServerTLS(), func(c *tls.Conn) error {
		_, _ = readMessage(c, maxRequest)
		cancel() // and no answer
		<-reached
		return nil
	})
	token, _ := NewTokens(a, time.Now).Issue()
	dir := newDir(t)
	if _, _, err := Join(ctx, dir, addr, token, advertised); err == nil || !strings.Contains(err.Error(), "join again") {
		t.Error(err)
	}
	close(reached)
	if err := <-errs; err != nil {
		t.Error(err)
	}
	untouched(t, dir)
}

// A directory that cannot be written is found before the token is used up.
func TestUnwritableDirectoryKeepsTheToken(t *testing.T) {
	t.Parallel()
	g := open(t, found(t), time.Now, admitAll)
	dir := newDir(t)
	if err := os.RemoveAll(dir.Path); err != nil {
		t.Fatal(err)
	}
	token, _ := g.tokens.Issue()
	if _, _, err := Join(t.Context(), dir, g.addr, token, advertised); err == nil || !strings.Contains(err.Error(), "make the cluster's folder") {
		t.Error(err)
	}
	if len(g.errs) > 0 {
		t.Error("it dialed")
	}
}
