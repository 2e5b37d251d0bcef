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
)

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
