package cluster_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pemFile reads the one block of a file of the node's cluster folder.
func (n *node) pemFile(name string) []byte {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "cluster", name))
	if err != nil {
		n.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		n.t.Fatalf("%s of the node is no PEM file", name)
	}
	return block.Bytes
}

// ownCertificate is that in the node's file.
func (n *node) ownCertificate() *x509.Certificate {
	n.t.Helper()
	c, err := x509.ParseCertificate(n.pemFile("node.pem"))
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// signed makes a certificate like the node's own, by its cluster's authority, that is good
// from begin to end.
func (n *node) signed(pub *ecdsa.PublicKey, begin, end time.Time) *x509.Certificate {
	n.t.Helper()
	ca, err := x509.ParseCertificate(n.pemFile("ca.pem"))
	if err != nil {
		n.t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(n.pemFile("ca-key.pem"))
	if err != nil {
		n.t.Fatal(err)
	}
	own := n.ownCertificate()
	if pub == nil {
		pub = own.PublicKey.(*ecdsa.PublicKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject: own.Subject, DNSNames: own.DNSNames, KeyUsage: own.KeyUsage, ExtKeyUsage: own.ExtKeyUsage, BasicConstraintsValid: true,
		NotBefore: begin, NotAfter: end,
	}, ca, pub, key)
	if err != nil {
		n.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// putCertificate replaces the node's file at once.
func (n *node) putCertificate(c *x509.Certificate) {
	n.t.Helper()
	path := filepath.Join(n.dir, "cluster", "node.pem")
	err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// greets connects to the node's cluster port with a certificate, and returns the one that
// the node shows, and how it ended that connection if it did.
func (n *node) greets(own tls.Certificate) (shown *x509.Certificate, err error) {
	n.t.Helper()
	var nc net.Conn
	if err := n.within(func() (err error) { nc, err = net.Dial("tcp", n.addr); return err }); err != nil {
		n.t.Fatal(err)
	}
	defer nc.Close()
	c := tls.Client(nc, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"pogod-link/1"}, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{own},
		VerifyConnection: func(s tls.ConnectionState) error {
			shown = s.PeerCertificates[0]
			return nil
		},
	})
	if err := nc.SetDeadline(time.Now().Add(time.Second)); err != nil {
		n.t.Fatal(err)
	}
	if err := c.Handshake(); err != nil {
		return shown, err
	}
	_, err = c.Read(make([]byte, 1)) // whether it was accepted
	return shown, err
}

// turnsAway checks that the node refuses who shows that certificate, and says why in its log,
// which has such a line every ten seconds at most.
func (n *node) turnsAway(c tls.Certificate, why string) {
	n.t.Helper()
	eventually(n.t, "its log says: "+why, func() bool {
		if _, err := n.greets(c); err == nil || !strings.Contains(err.Error(), "bad certificate") {
			n.t.Fatalf("who is refused as %q is told: %v", why, err)
		}
		b, err := os.ReadFile(n.logPath())
		return err == nil && strings.Contains(string(b), why)
	})
}

// TestClusterCertificatesAreRenewedWithoutAStop gives the nodes certificates that live for
// seconds, under load. They take them over as they run, renew them before they end, and go on
// beyond the end: a node that is restarted then links with the others both ways. No call
// fails for it, and there is no election. Who shows a certificate that has ended, or one of
// elsewhere, is refused by the others, who say why.
func TestClusterCertificatesAreRenewedWithoutAStop(t *testing.T) {
	notTwice(t)
	t.Parallel()
	c := newCluster(t, build(t, ""), nil)
	l := c.startLoad(loadSpec{Seed: newSeed(t), Producers: producers, Consumers: consumers, Late: lates, Outstanding: outstanding, Rate: pushRate})
	term := c.term()
	const life = 9 * time.Second // renewed with three left
	begin := time.Now().Truncate(time.Second)
	end := begin.Add(life)
	short := map[*node]*x509.Certificate{}
	for _, n := range c.nodes {
		short[n] = n.signed(nil, begin, end)
		n.putCertificate(short[n])
	}
	for i, n := range c.nodes {
		eventually(t, fmt.Sprint("node ", i, " shows the short one"), func() bool {
			shown, _ := n.greets(tls.Certificate{})
			return shown != nil && shown.Equal(short[n])
		})
	}
	for i, n := range c.nodes {
		eventually(t, fmt.Sprint("node ", i, " has renewed it, and shows that"), func() bool {
			shown, _ := n.greets(tls.Certificate{})
			return shown != nil && !shown.Equal(short[n]) && shown.Equal(n.ownCertificate())
		})
		if st, err := os.Stat(filepath.Join(n.dir, "cluster", "node.pem")); err != nil || !st.ModTime().Before(end) {
			t.Errorf("node %d renewed it only after its end, at %s: %v", i, st.ModTime(), err)
		}
		if left := time.Until(n.ownCertificate().NotAfter); left < 2*365*24*time.Hour {
			t.Errorf("the new one of node %d lives for %s", i, left)
		}
		n.logged(t, "the certificate of this node was renewed")
	}
	pause(t.Context(), time.Until(end)+time.Second)

	// One that has ended is not taken over; the node says so as long as it is there.
	own := c.nodes[0].ownCertificate()
	c.nodes[0].putCertificate(short[c.nodes[0]])
	c.nodes[0].logged(t, "cannot be taken from its files or renewed: the one from before stays", "is not valid by this machine's clock")
	if note := c.nodes[0].note(); !strings.Contains(note, "the certificate of this node, which ends at ") {
		t.Errorf("it is not in the notes: %q", note)
	}
	if shown, _ := c.nodes[0].greets(tls.Certificate{}); !shown.Equal(own) {
		t.Error("it is shown")
	}
	if doc, err := c.nodes[0].document(t.Context(), ""); err != nil || !doc.Node.CertificateExpiresAt.Equal(own.NotAfter) {
		t.Errorf("it is said to end at %s, not %s: %v", doc.Node.CertificateExpiresAt, own.NotAfter, err)
	}
	c.nodes[0].putCertificate(own)

	i := (c.leader() + 1) % 3
	n := c.nodes[i]
	if err := l.tell(fmt.Sprint("fault 1 ", faultLeave, " ", i)); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if line, err := l.ask(fmt.Sprint("killed ", i, " 1"), nil); err != nil || !strings.HasPrefix(line, "cut ") {
		t.Fatal(line, err)
	}
	n.start()
	c.whole()
	if err := l.tell("heal 1"); err != nil {
		t.Fatal(err)
	}
	if now := c.term(); now != term {
		t.Errorf("there was an election: term %d, and %d before", now, term)
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ended := n.signed(&key.PublicKey, begin, end)
	foreign := *ended // the names of a member, signed by itself
	foreign.NotAfter = time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &foreign, &foreign, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[(i+1)%3].turnsAway(tls.Certificate{Certificate: [][]byte{ended.Raw}, PrivateKey: key}, "the certificate of node "+n.id()+" is not valid by this machine's clock")
	c.nodes[(i+2)%3].turnsAway(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, "the peer is not of this cluster: node "+n.id()+" says that it is")

	r, err := c.judge(l, nil)
	r.consistent(t, err)
	r.unhurt(t)
}
