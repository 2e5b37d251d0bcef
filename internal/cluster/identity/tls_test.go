package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMembersTalk(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := enrol(t, a.ca)
	for _, proto := range []string{ProtoRaft, ProtoLink} {
		for _, pair := range [][2]*Identity{{a, b}, {b, a}} {
			server, client := pair[0], pair[1]
			for _, wanted := range []string{server.Node, ""} { // "": any member
				s, c := meet(t, server.ServerTLS(), client.ClientTLS(wanted, proto))
				if s.err != nil || c.err != nil {
					t.Fatal(proto, s.err, c.err)
				}
				if s.state.NegotiatedProtocol != proto || c.state.NegotiatedProtocol != proto || c.state.Version != tls.VersionTLS13 {
					t.Errorf("%q %q %x", s.state.NegotiatedProtocol, c.state.NegotiatedProtocol, c.state.Version)
				}
				if node, err := server.Peer(s.state); node != client.Node || err != nil {
					t.Error("at the server:", node, err)
				}
				if node, err := client.Peer(c.state); node != server.Node || err != nil {
					t.Error("at the client:", node, err)
				}
			}
		}
	}
}

func TestClientWithoutCertificate(t *testing.T) {
	t.Parallel()
	a := found(t)
	for _, proto := range []string{ProtoRaft, ProtoLink} {
		if s, c := meet(t, a.ServerTLS(), credulous(nil, proto)); s.err == nil || !strings.Contains(s.err.Error(), "certificate") || c.err == nil {
			t.Error(proto, s.err, c.err)
		}
	}
	// To join it needs none, and whatever it has counts for nothing.
	for _, i := range []*Identity{nil, enrol(t, a.ca), found(t)} {
		s, c := meet(t, a.ServerTLS(), credulous(i, ProtoJoin))
		if s.err != nil || c.err != nil {
			t.Error(s.err, c.err)
		}
		if node, err := a.Peer(s.state); !errors.Is(err, ErrForeign) {
			t.Error("a joining node is taken for", node, err)
		}
	}
}

func TestWrongNodeAnswers(t *testing.T) {
	t.Parallel()
	a := found(t)
	b, c := enrol(t, a.ca), enrol(t, a.ca)
	atServer, atClient := meet(t, b.ServerTLS(), a.ClientTLS(c.Node, ProtoRaft))
	if atServer.err == nil {
		t.Error("the server did not notice")
	}
	if err := atClient.err; err == nil || errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "node "+b.Node+" answers at this address, not node "+c.Node) {
		t.Error(err)
	}
}

// strangers are nodes that are not of a's cluster, with what is said of them.
func strangers(t *testing.T, a *Identity) map[string]struct {
	*Identity
	words []string
} {
	x := found(t)
	fake, err := newAuthority(a.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	forged := enrol(t, fake)
	strayed := enrol(t, &authority{cluster: x.Cluster, cert: a.ca.cert, key: a.ca.key})
	nameless := enrol(t, &authority{cluster: "UPPER", cert: a.ca.cert, key: a.ca.key})
	return map[string]struct {
		*Identity
		words []string
	}{
		"of another cluster":        {x, []string{x.Node, x.Cluster, a.Cluster}},
		"of another CA":             {forged, []string{forged.Node, "CA did not sign"}},
		"of this CA, other cluster": {strayed, []string{strayed.Node, x.Cluster, a.Cluster}},
		"of this CA, odd name":      {nameless, []string{"not that of a pogod node"}},
	}
}

func TestStrangersAreRefusedBothWays(t *testing.T) {
	t.Parallel()
	a := found(t)
	for name, x := range strangers(t, a) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused := func(err error) {
				t.Helper()
				if !errors.Is(err, ErrForeign) {
					t.Error(err)
					return
				}
				for _, w := range x.words {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("%q does not say %q", err, w)
					}
				}
			}
			for _, proto := range []string{ProtoRaft, ProtoLink} {
				s, c := meet(t, a.ServerTLS(), credulous(x.Identity, proto))
				refused(s.err)
				if c.err == nil {
					t.Error("the client did not notice")
				}
				for _, wanted := range []string{x.Node, ""} {
					server := credulous(x.Identity, proto)
					s, c := meet(t, server, a.ClientTLS(wanted, proto))
					refused(c.err)
					if s.err == nil {
						t.Error("the server did not notice")
					}
				}
			}
			_, err := a.Peer(tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{x.leaf}})
			refused(err)
		})
	}
}

func TestPeerOfUnfinishedHandshake(t *testing.T) {
	t.Parallel()
	a := found(t)
	if _, err := a.Peer(tls.ConnectionState{PeerCertificates: []*x509.Certificate{a.leaf}}); err == nil {
		t.Error("it has proved nothing yet")
	}
}

func TestServerWantsOneProtocol(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := enrol(t, a.ca)
	for _, protos := range [][]string{
		nil,
		{"h2", "http/1.1"},
		{"pogod-raft/2"},
		{"http/1.1"},
		{ProtoJoin, ProtoRaft},
		{ProtoRaft, ProtoJoin},
		{ProtoLink, "h2"},
		{ProtoJoin, ProtoJoin},
	} {
		for _, i := range []*Identity{nil, b} {
			if s, c := meet(t, a.ServerTLS(), credulous(i, protos...)); s.err == nil || c.err == nil {
				t.Errorf("%q: %v, %v", protos, s.err, c.err)
			}
		}
	}
	// A newer protocol is refused with the alert that says so.
	if _, c := meet(t, a.ServerTLS(), credulous(b, "pogod-raft/2")); c.err == nil || !strings.Contains(c.err.Error(), "no application protocol") {
		t.Error(c.err)
	}
}

// Each of the server's configurations also holds by itself.
func TestServerChecksTheProtocolTwice(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := enrol(t, a.ca)
	for _, proto := range []string{ProtoRaft, ProtoLink, ProtoJoin} {
		c, err := a.ServerTLS().GetConfigForClient(&tls.ClientHelloInfo{SupportedProtos: []string{proto}})
		if err != nil {
			t.Fatal(err)
		}
		if s, _ := meet(t, c, credulous(b)); s.err == nil || !strings.Contains(s.err.Error(), proto) {
			t.Error(proto, s.err)
		}
	}
}

func TestClientWantsItsProtocol(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := enrol(t, a.ca)
	server := &tls.Config{Certificates: []tls.Certificate{b.certificate()}} // a member, but no ALPN
	if _, c := meet(t, server, a.ClientTLS(b.Node, ProtoLink)); c.err == nil || !strings.Contains(c.err.Error(), ProtoLink) {
		t.Error(c.err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := enrol(t, a.ca)
	old := b.ClientTLS(a.Node, ProtoLink)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if s, c := meet(t, a.ServerTLS(), old); s.err == nil || c.err == nil {
		t.Error(s.err, c.err)
	}
	server := credulous(b, ProtoLink)
	server.MaxVersion = tls.VersionTLS12
	if s, c := meet(t, server, a.ClientTLS(b.Node, ProtoLink)); s.err == nil || c.err == nil {
		t.Error(s.err, c.err)
	}
}

func TestNoSessionIsResumed(t *testing.T) {
	t.Parallel()
	a := found(t)
	server := a.ServerTLS()
	client := enrol(t, a.ca).ClientTLS(a.Node, ProtoLink)
	client.SessionTicketsDisabled = false
	client.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	for range 3 {
		s, c := meet(t, server, client)
		if s.err != nil || c.err != nil || s.state.DidResume || c.state.DidResume {
			t.Error(s.err, c.err, s.state.DidResume, c.state.DidResume)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	a := found(t)
	right := certName(a.Node, a.Cluster)
	for _, names := range [][]string{
		nil,
		{right, right},
		{a.Node + "." + a.Cluster},
		{right + ".example"},
		{"x." + right},
		{a.Node + "." + a.Cluster + ".other"},
		{"*." + a.Cluster + ".pogod"},
		{strings.ToUpper(right)},
	} {
		leaf, err := certify(&x509.Certificate{
			DNSNames: names, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, a.ca.cert, &a.key.PublicKey, a.ca.key)
		if err != nil {
			t.Fatal(err)
		}
		if node, err := a.ca.verify(leaf); !errors.Is(err, ErrForeign) {
			t.Errorf("%q is taken for node %q: %v", names, node, err)
		}
	}
	if node, err := a.ca.verify(a.ca.cert); !errors.Is(err, ErrForeign) {
		t.Errorf("the CA is taken for node %q: %v", node, err)
	}
	if node, err := a.ca.verify(a.leaf); node != a.Node || err != nil {
		t.Error(node, err)
	}
}

func TestValidity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := newDir(t)
		i, err := Init(dir)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for _, c := range []*x509.Certificate{i.ca.cert, i.leaf} {
			if start.AddDate(-1, 0, 0).Before(c.NotBefore) {
				t.Error("a clock that is a year late refuses", c.Subject)
			}
		}
		time.Sleep(start.AddDate(nodeYears, 0, -1).Sub(start))
		if _, err := Load(dir); err != nil {
			t.Error("on its last day:", err)
		}
		time.Sleep(48 * time.Hour)
		j, err := Load(dir) // the node was down on its last day
		if err != nil || !j.Expires().After(time.Now().AddDate(nodeYears, 0, -1)) || !j.key.Equal(i.key) {
			t.Fatal("after its last day:", err)
		}
		if k, err := Load(dir); err != nil || !k.leaf.Equal(j.leaf) {
			t.Error("it was not kept:", err)
		}
		time.Sleep(time.Until(i.ca.cert.NotAfter.AddDate(-1, 0, 0)))
		late := enrol(t, i.ca)
		if !late.leaf.NotAfter.Equal(i.ca.cert.NotAfter) {
			t.Error("a certificate that outlives its CA:", late.leaf.NotAfter)
		}
		if _, err := i.ca.verify(late.leaf); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * 366 * 24 * time.Hour)
		_, err = Load(dir)
		if err == nil || errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "this machine's clock") {
			t.Error("after the last day of its CA:", err)
		}
	})
}
