package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"pogod/internal/datadir"
)

// leastLeft is how much of a certificate's life is left when it is renewed; of one that
// lives for less than three times that, a third.
const leastLeft = 365 * 24 * time.Hour

// due is when a certificate is to be renewed.
func due(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-min(leastLeft, leaf.NotAfter.Sub(leaf.NotBefore)/3))
}

// Expires returns when the node's certificate ends.
func (i *Identity) Expires() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.leaf.NotAfter
}

// Refresh takes over the certificate and the key of the node's files, if they are others
// than those in use and good, and signs a new certificate when that is due: connections
// that are made from now on show it. It returns what it did, "" for nothing. On an error
// what is in use stays.
func (i *Identity) Refresh(dir *datadir.Dir) (did string, err error) {
	path := dir.File(folder)
	leaf, err := readCertificate(filepath.Join(path, nodeFile))
	if err != nil {
		return "", err
	}
	key, err := readKey(filepath.Join(path, nodeKeyFile))
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	same := leaf.Equal(i.leaf) && key.Equal(i.key)
	i.mu.Unlock()
	if !same {
		o, err := assemble(i.ca, leaf, key)
		if err == nil && o.Node != i.Node {
			err = fmt.Errorf("the certificate is of node %s, and this is node %s", o.Node, i.Node)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", filepath.Join(path, nodeFile), err)
		}
		did = "taken from its files"
	}
	if now := time.Now(); !now.Before(due(leaf)) && i.ca.cert.NotAfter.After(leaf.NotAfter) {
		if leaf, err = i.ca.renew(path, leaf, key); err != nil {
			return "", err
		}
		did = "renewed"
	}
	if did != "" {
		i.mu.Lock()
		i.leaf, i.key = leaf, key
		i.mu.Unlock()
	}
	return did, nil
}

// renew signs a new certificate in place of one that this CA signed, whatever the time, and
// writes it to the node's file in the folder. The key stays: one file changes, at once, and
// who could read the node's key could read the CA's as well.
func (a *authority) renew(path string, leaf *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	node, cluster, ok := parseName(leaf)
	if !ok || cluster != a.cluster || leaf.CheckSignatureFrom(a.cert) != nil || !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the node's certificate has ended and is not one of this cluster and of the node's key, so it is not renewed")
	}
	renewed, err := a.sign(node, &key.PublicKey)
	if err == nil {
		err = datadir.WriteFile(filepath.Join(path, nodeFile), encodePEM(pemCertificate, renewed.Raw))
	}
	if err != nil {
		return nil, fmt.Errorf("renew the node's certificate, which ends at %s: %w", leaf.NotAfter.UTC().Format(time.RFC3339), err)
	}
	return renewed, nil
}
