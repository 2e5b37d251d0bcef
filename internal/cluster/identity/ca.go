package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrForeign is returned when a peer is no member of this cluster.
var ErrForeign = errors.New("the peer is not of this cluster")

const (
	caYears   = 20
	nodeYears = 3
	early     = 366 * 24 * time.Hour // how far a node's clock may be behind; leastLeft is how far it may be ahead
)

// authority is the CA of one cluster.
type authority struct {
	cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newAuthority(cluster string) (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "pogod cluster " + cluster},
		NotBefore:             now.Add(-early),
		NotAfter:              now.AddDate(caYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs nodes, no further CAs
	}
	cert, err := certify(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &authority{cluster: cluster, cert: cert, key: key}, nil
}

// sign makes the certificate of a node.
func (a *authority) sign(node string, pub *ecdsa.PublicKey) (*x509.Certificate, error) {
	now := time.Now()
	end := now.AddDate(nodeYears, 0, 0)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	return certify(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "pogod node " + node},
		DNSNames:              []string{certName(node, a.cluster)},
		NotBefore:             a.cert.NotBefore, // so that a clock that is ahead signs nothing that is good later only
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, a.cert, pub, a.key)
}

func certify(template, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// verify returns whose certificate it is, and ErrForeign if not that of a member.
func (a *authority) verify(leaf *x509.Certificate) (node string, err error) {
	node, cluster, ok := parseName(leaf)
	if !ok {
		return "", fmt.Errorf("%w: its certificate is not that of a pogod node", ErrForeign)
	}
	if cluster != a.cluster {
		return "", fmt.Errorf("%w: node %s is of cluster %s, this node is of cluster %s", ErrForeign, node, cluster, a.cluster)
	}
	err = verifyLeaf(a.cert, leaf)
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "", fmt.Errorf("the certificate of node %s is not valid by this machine's clock: %w", node, err)
	}
	if err != nil {
		return "", fmt.Errorf("%w: node %s says that it is, but this cluster's CA did not sign its certificate (%w)", ErrForeign, node, err)
	}
	return node, nil
}

// pin identifies a CA: the hash of its public key.
func pin(ca *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(ca.RawSubjectPublicKeyInfo) }

// verifyLeaf says whether ca signed the certificate, itself and for now. Every node's
// certificate is good for both ends of a connection, so one end is asked for.
func verifyLeaf(ca, leaf *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

const domain = "pogod"

func certName(node, cluster string) string { return node + "." + cluster + "." + domain }

// parseName takes the one name of a node's certificate apart. It is not to be believed
// before the certificate is verified, but can be printed.
func parseName(leaf *x509.Certificate) (node, cluster string, ok bool) {
	if len(leaf.DNSNames) != 1 {
		return "", "", false
	}
	parts := strings.Split(leaf.DNSNames[0], ".")
	if len(parts) != 3 || !validID(parts[0]) || !validID(parts[1]) || parts[2] != domain {
		return "", "", false
	}
	return parts[0], parts[1], true
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a key of type %T, not ECDSA", k)
	}
	return key, nil
}

// publicKey takes the key out of a certificate request whose sender has proved that it
// has the private one. Nothing else in the request matters.
func publicKey(csr []byte) (*ecdsa.PublicKey, error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate request is damaged: %w", err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate request is not for an ECDSA P-256 key")
	}
	return key, nil
}
