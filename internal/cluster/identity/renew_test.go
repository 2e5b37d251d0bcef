package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pogod/internal/datadir"
)

// put writes a certificate and a key to the files of a node.
func put(t *testing.T, dir *datadir.Dir, leaf *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{nodeFile: encodePEM(pemCertificate, leaf.Raw), nodeKeyFile: encodePEM(pemKey, der)} {
		if err := datadir.WriteFile(filepath.Join(dir.File(folder), name), content); err != nil {
			t.Fatal(err)
		}
	}
}

// living signs a certificate of a node that is good from begin to end.
func (a *authority) living(t *testing.T, node string, key *ecdsa.PrivateKey, begin, end time.Time) *x509.Certificate {
	t.Helper()
	leaf, err := certify(&x509.Certificate{
		DNSNames: []string{certName(node, a.cluster)}, NotBefore: begin, NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// A certificate is renewed when a year of it is left, or a third of a short one, with the
// same key, and not when it would live no longer.
func TestACertificateIsRenewedWhenItIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := newDir(t)
		i, err := Init(dir)
		if err != nil {
			t.Fatal(err)
		}
		refresh := func(want, when string) {
			t.Helper()
			if did, err := i.Refresh(dir); did != want || err != nil {
				t.Errorf("%s: it was %q, not %q: %v", when, did, want, err)
			}
		}
		refresh("", "at first")
		former := i.leaf
		time.Sleep(time.Until(former.NotAfter.Add(-leastLeft - time.Hour)))
		refresh("", "an hour before it is due")
		time.Sleep(time.Hour)
		refresh("renewed", "when a year is left")
		refresh("", "and then")
		if j, err := Load(dir); err != nil || j.leaf.Equal(former) || !j.leaf.Equal(i.leaf) || !j.key.Equal(i.key) || !i.Expires().After(former.NotAfter.AddDate(1, 0, 0)) {
			t.Errorf("loaded %+v, renewed %+v: %v", j, i, err)
		}
		if !i.leaf.NotBefore.Equal(i.ca.cert.NotBefore) {
			t.Error("it is good only from", i.leaf.NotBefore)
		}

		now := time.Now()
		put(t, dir, i.ca.living(t, i.Node, i.key, now, now.Add(30*time.Second)), i.key)
		refresh("taken from its files", "a short one")
		time.Sleep(20*time.Second - time.Nanosecond)
		refresh("", "just before its last third")
		time.Sleep(time.Nanosecond)
		refresh("renewed", "in its last third")

		time.Sleep(time.Until(i.ca.cert.NotAfter.AddDate(0, 0, -1)))
		refresh("renewed", "on the last day but one of its CA")
		refresh("", "when it would live no longer")
	})
}

// What is put into the files is shown on connections from then on, without a restart. What
// is no certificate of this node and cluster, or has ended, is not: the one from before is.
func TestTheCertificateIsTakenFromItsFilesWhenTheyChange(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	a, err := Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, foreign := enrol(t, a.ca), found(t)
	server := a.ServerTLS()
	shows := func(leaf *x509.Certificate) {
		t.Helper()
		_, c := meet(t, server, b.ClientTLS(a.Node, ProtoLink))
		if c.err != nil || !c.state.PeerCertificates[0].Equal(leaf) {
			t.Error("another certificate is shown:", c.err)
		}
		s, _ := meet(t, b.ServerTLS(), a.ClientTLS(b.Node, ProtoLink))
		if s.err != nil || !s.state.PeerCertificates[0].Equal(leaf) {
			t.Error("another certificate is shown by who dials:", s.err)
		}
	}
	first, firstKey := a.leaf, a.key
	shows(first)
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	day, now := 24*time.Hour, time.Now()
	for name, c := range map[string]struct {
		leaf *x509.Certificate
		key  *ecdsa.PrivateKey
		want string
	}{
		"foreign":        {foreign.leaf, foreign.key, "is of cluster " + foreign.Cluster},
		"forged":         {foreign.ca.living(t, a.Node, key, now, now.Add(day)), key, "is of cluster"},
		"another node's": {b.leaf, b.key, "is of node " + b.Node},
		"ended":          {a.ca.living(t, a.Node, key, now.Add(-2*day), now.Add(-day)), key, "is not valid by this machine's clock"},
		"of another key": {first, key, "key is not that of its certificate"},
		"not yet good":   {a.ca.living(t, a.Node, key, now.Add(day), now.Add(2*day)), key, "is not valid by this machine's clock"},
	} {
		put(t, dir, c.leaf, c.key)
		if did, err := a.Refresh(dir); did != "" || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q %v", name, did, err)
		}
		shows(first)
	}
	next := a.ca.living(t, a.Node, key, now, now.Add(day))
	put(t, dir, next, key)
	if err := os.Chmod(filepath.Join(dir.File(folder), nodeKeyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Refresh(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
	shows(first)
	put(t, dir, next, key)
	if did, err := a.Refresh(dir); did != "taken from its files" || err != nil {
		t.Error(did, err)
	}
	shows(next)
	put(t, dir, first, firstKey)
	if did, err := a.Refresh(dir); did == "" || err != nil {
		t.Error(did, err)
	}
	shows(first)
}
