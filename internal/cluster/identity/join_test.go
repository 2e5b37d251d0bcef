package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
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

// The joining node trusts the token's CA alone, and says nothing to anybody else.
func TestForeignMemberNeverSeesTheSecret(t *testing.T) {
	t.Parallel()
	a := found(t)
	token, _ := NewTokens(a, time.Now).Issue()
	x := found(t)
	fake, err := newAuthority(a.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	forged := enrol(t, fake)
	with := func(key *ecdsa.PrivateKey, certs ...*x509.Certificate) *tls.Config {
		c := config(ProtoJoin)
		c.Certificates = []tls.Certificate{{PrivateKey: key}}
		for _, cert := range certs {
			c.Certificates[0].Certificate = append(c.Certificates[0].Certificate, cert.Raw)
		}
		return c
	}
	// A certificate of the true CA's public key that the forger signed: its hash is right.
	mixed, err := certify(&x509.Certificate{
		Subject: fake.cert.Subject, NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
	}, fake.cert, a.ca.cert.PublicKey.(*ecdsa.PublicKey), fake.key)
	if err != nil {
		t.Fatal(err)
	}
	// A member's certificate proves nothing without its key; a member is no CA.
	member := enrol(t, a.ca)
	under, err := certify(&x509.Certificate{
		DNSNames: []string{certName(newID(), a.Cluster)}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, member.leaf, &forged.key.PublicKey, member.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, server := range map[string]*tls.Config{
		"of another cluster":           x.ServerTLS(),
		"forged, with the true CA":     with(forged.key, forged.leaf, a.ca.cert),
		"forged, with both CAs":        with(forged.key, forged.leaf, fake.cert, a.ca.cert),
		"forged, with the CA's key":    with(forged.key, forged.leaf, mixed),
		"forged alone":                 with(forged.key, forged.leaf),
		"forged by a member":           with(forged.key, under, member.leaf, a.ca.cert),
		"the cluster's, without a CA":  with(a.key, a.leaf),
		"the true CA, without its key": with(forged.key, mixed),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, errs := accept(t, server, func(c *tls.Conn) error {
				b := make([]byte, maxRequest)
				n, _ := c.Read(b)
				t.Errorf("it was told %q", b[:n])
				return nil
			})
			dir := newDir(t)
			_, _, err := Join(t.Context(), dir, addr, token, advertised)
			if err == nil {
				t.Error("it joined")
			}
			if name == "of another cluster" && (!errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "the token was made in another")) {
				t.Error(err)
			}
			if <-errs == nil {
				t.Error("the handshake went well")
			}
			untouched(t, dir)
		})
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

// csr makes a certificate request that asks for all that it should not get.
func csr(t *testing.T, key any) []byte {
	t.Helper()
	b, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root"},
		DNSNames: []string{certName("ffffffffffffffff", "ffffffffffffffff"), "example.com"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// converse joins by hand: it sends body and returns the answer.
func converse(t *testing.T, g *gate, body []byte) (*joinAnswer, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", g.addr, credulous(nil, ProtoJoin))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := readMessage(conn, maxAnswer)
	if err != nil {
		return nil, err
	}
	a := new(joinAnswer)
	return a, json.Unmarshal(b, a)
}

func TestOnlyTheKeyOfARequestIsTaken(t *testing.T) {
	t.Parallel()
	a := found(t)
	g := open(t, a, time.Now, admitAll)
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	r := validRequest()
	r.Secret, r.CSR = issue(t, g.tokens), csr(t, key)
	var b bytes.Buffer
	if err := writeMessage(&b, r); err != nil {
		t.Fatal(err)
	}
	answer, err := converse(t, g, b.Bytes())
	if err != nil || answer.Error != "" {
		t.Fatal(answer, err)
	}
	leaf, err := x509.ParseCertificate(answer.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if node, err := a.ca.verify(leaf); node != r.Node || err != nil || strings.Contains(leaf.Subject.String(), "root") || leaf.IsCA || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("%s %s %v: %v", node, leaf.Subject, leaf.DNSNames, err)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	a := found(t)
	g := open(t, a, time.Now, func(context.Context, Peer) ([]Peer, error) {
		t.Error("admitted")
		return nil, nil
	})
	secret := issue(t, g.tokens)
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, key)
	message := func(change func(r *joinRequest)) []byte {
		r := validRequest()
		r.Secret, r.CSR = secret, good
		change(r)
		var b bytes.Buffer
		if err := writeMessage(&b, r); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	length := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	whole := message(func(*joinRequest) {})
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"nothing":        {nil, "read the request"},
		"half":           {whole[:len(whole)/2], "unexpected EOF"},
		"no JSON":        {append(length(3), "GET"...), "damaged"},
		"too long":       {length(maxRequest + 1), "more than 65536"},
		"far too long":   {[]byte("GET / HTTP/1.1\r\n\r\n"), "more than 65536"},
		"null":           {append(length(4), "null"...), "version 0"},
		"newer":          {message(func(r *joinRequest) { r.Version = 2 }), "run the same pogod on both"},
		"odd node":       {message(func(r *joinRequest) { r.Node = "x.y" }), "hexadecimal"},
		"upper case":     {message(func(r *joinRequest) { r.Node = "0123456789ABCDEF" }), "hexadecimal"},
		"long secret":    {message(func(r *joinRequest) { r.Secret = append(r.Secret, 0) }), "secret of 17 bytes"},
		"no secret":      {message(func(r *joinRequest) { r.Secret = nil }), "secret of 0 bytes"},
		"no address":     {message(func(r *joinRequest) { r.Address = "" }), "host:port"},
		"no CSR":         {message(func(r *joinRequest) { r.CSR = nil }), "certificate request is damaged"},
		"unsigned CSR":   {message(func(r *joinRequest) { r.CSR = forge(good) }), "certificate request is damaged"},
		"RSA":            {message(func(r *joinRequest) { r.CSR = csr(t, rsaKey) }), "P-256"},
		"another curve":  {message(func(r *joinRequest) { r.CSR = csr(t, p384) }), "P-256"},
		"the same node":  {message(func(r *joinRequest) { r.Node = a.Node }), "cannot join itself"},
		"another secret": {message(func(r *joinRequest) { r.Secret = make([]byte, secretSize) }), "token is wrong"},
	} {
		answer, err := converse(t, g, c.body)
		if err != nil || !strings.Contains(answer.Error, c.want) {
			t.Errorf("%s: told %+v %v", name, answer, err)
		} else if answer.Error = ""; answer.CAKey != nil || answer.Certificate != nil {
			t.Errorf("%s: handed over %+v", name, answer)
		}
		if err := <-g.errs; err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: returned %v", name, err)
		}
	}
	// None of that has used the token up, nor was more than one a guess.
	if k, err := g.tokens.claim(secret); err != nil || g.tokens.failures != 1 {
		t.Error(k, err, g.tokens.failures)
	}
}

// forge changes the name in a certificate request, which leaves it well formed.
func forge(csr []byte) []byte { return bytes.Replace(csr, []byte("root"), []byte("boot"), 1) }

// The CA's key leaves over a joining connection only.
func TestAdmitWantsAJoiningConnection(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := enrol(t, a.ca)
	tokens := NewTokens(a, time.Now)
	admit := func(c net.Conn) error { return a.Admit(t.Context(), c, tokens, admitAll) }
	near, far := net.Pipe()
	defer near.Close()
	far.Close()
	if err := admit(near); err == nil || !strings.Contains(err.Error(), ProtoJoin) {
		t.Error(err)
	}
	addr, errs := accept(t, a.ServerTLS(), func(c *tls.Conn) error { return admit(c) })
	conn, err := tls.Dial("tcp", addr, b.ClientTLS(a.Node, ProtoLink))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-errs; err == nil || !strings.Contains(err.Error(), ProtoJoin) {
		t.Error(err)
	}
	if got, err := io.ReadAll(conn); len(got) > 0 || err != nil {
		t.Errorf("%q %v", got, err)
	}
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

// piped runs the two ends of a joining connection without a network, in a synctest
// bubble: member at one, ask at the other.
func piped(t *testing.T, a *Identity) (member *tls.Conn, joining net.Conn) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	return tls.Server(near, a.ServerTLS()), far
}

func TestSilenceEndsAfter15Seconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := found(t)
		member, far := piped(t, a)
		joining := tls.Client(far, credulous(nil, ProtoJoin))
		shaken := make(chan error)
		go func() { shaken <- joining.HandshakeContext(t.Context()) }() // ends with the handshake
		if err := errors.Join(member.HandshakeContext(t.Context()), <-shaken); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		go func() { _, _ = io.Copy(io.Discard, joining) }() // ended by Close
		err := a.Admit(t.Context(), member, NewTokens(a, time.Now), admitAll)
		if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != joinTime {
			t.Error(err, "after", took)
		}
	})
}

// The cluster's part has less time than the whole, so that its failure is still told,
// and the token lives on.
func TestSlowAdmissionIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := found(t)
		tokens := NewTokens(a, time.Now)
		member, far := piped(t, a)
		line, _ := tokens.Issue()
		wanted, secret, err := parseToken(line)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { // ends with the connection
			err := member.HandshakeContext(t.Context())
			if err == nil {
				err = a.Admit(t.Context(), member, tokens, func(ctx context.Context, _ Peer) ([]Peer, error) {
					<-ctx.Done()
					return nil, errFake
				})
			}
			done <- err
		}()
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		r := validRequest()
		r.Secret, r.CSR = secret, csr(t, key)
		start := time.Now()
		_, err = ask(t.Context(), far, wanted, r)
		if took := time.Since(start); err == nil || !strings.Contains(err.Error(), errFake.Error()) || took != admitTime {
			t.Error(err, "after", took)
		}
		if err := <-done; !errors.Is(err, errFake) {
			t.Error(err)
		}
		if _, err := tokens.claim(secret); err != nil {
			t.Error(err)
		}
	})
}

// An answer that is lost leaves a member without a certificate: it joins once more.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	a := found(t)
	dir := newDir(t)
	tokens := NewTokens(a, time.Now)
	line, _ := tokens.Issue()
	wanted, secret, err := parseToken(line)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	member := tls.Server(near, a.ServerTLS())
	done := make(chan error, 1)
	go func() { // ends with the connection
		err := member.HandshakeContext(t.Context())
		if err == nil {
			err = a.Admit(t.Context(), member, tokens, func(context.Context, Peer) ([]Peer, error) {
				far.Close()
				return nil, nil
			})
		}
		done <- err
	}()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	r := validRequest()
	r.Node, r.Secret, r.CSR = dir.NodeID(), secret, csr(t, key)
	if _, err := ask(t.Context(), far, wanted, r); err == nil || !strings.Contains(err.Error(), "join again with a new one") {
		t.Error("the joining node:", err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "the answer was lost") {
		t.Error("the member:", err)
	}
	if _, err := tokens.claim(secret); !errors.Is(err, errUsed) {
		t.Error("the token:", err)
	}
	var again []string
	g := open(t, a, time.Now, func(_ context.Context, p Peer) ([]Peer, error) {
		again = append(again, p.ID)
		return nil, nil
	})
	line, _ = g.tokens.Issue()
	i, _, err := Join(t.Context(), dir, g.addr, line, advertised)
	if err := errors.Join(err, <-g.errs); err != nil {
		t.Fatal(err)
	}
	if i.Node != r.Node || !slices.Equal(again, []string{r.Node}) {
		t.Error(i, again)
	}
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
