package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"pogod/internal/datadir"
)

// ErrExists is returned when the data directory belongs to a cluster already.
var ErrExists = errors.New("this node is in a cluster already")

// ErrNone is returned when the data directory belongs to no cluster.
var ErrNone = errors.New("this node is in no cluster")

// ErrHasData is returned by Join when the data directory holds a node's jobs.
var ErrHasData = errors.New("a node joins with an empty data directory")

// Identity is a node's membership of a cluster. It does not change, but for the certificate
// that Refresh replaces.
type Identity struct {
	Cluster string // the cluster's id, 16 hexadecimal digits
	Node    string // this node's id, 16 hexadecimal digits
	Joined  bool   // it was admitted by a member; else it began the cluster
	Worker  bool   // it was admitted as a worker, which never has a vote

	ca   *authority
	mu   sync.Mutex // guards the rest
	leaf *x509.Certificate
	key  *ecdsa.PrivateKey // of leaf
}

// The files; doc.go says what is in them.
const (
	folder      = "cluster"
	unfinished  = "cluster.tmp"
	caFile      = "ca.pem"
	caKeyFile   = "ca-key.pem"
	nodeFile    = "node.pem"
	nodeKeyFile = "node-key.pem"
	clusterFile = "cluster.json"
)

// clusterDoc is the content of cluster.json.
type clusterDoc struct {
	ID     string `json:"id"`
	Joined bool   `json:"joined,omitempty"`
	Worker bool   `json:"worker,omitempty"`
}

// Types of PEM blocks.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// Exists says whether the data directory belongs to a cluster.
func Exists(dir *datadir.Dir) bool {
	_, err := os.Lstat(dir.File(folder))
	return !errors.Is(err, os.ErrNotExist)
}

// Init makes a new cluster with this node as its first member. What else is in the
// directory stays as it is. It fails with ErrExists.
func Init(dir *datadir.Dir) (*Identity, error) {
	if err := joinable(dir); err != nil {
		return nil, err
	}
	ca, err := newAuthority(newID())
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	leaf, err := ca.sign(dir.NodeID(), &key.PublicKey)
	if err != nil {
		return nil, err
	}
	i, err := assemble(ca, leaf, key)
	if err != nil {
		return nil, err
	}
	tmp, err := stage(dir)
	if err != nil {
		return nil, err
	}
	if err := i.store(dir, tmp); err != nil {
		return nil, err
	}
	return i, nil
}

// Load reads and checks the identity of a node that is in a cluster. A certificate that has
// ended is renewed. It fails with ErrNone when the node is in no cluster, and with ErrLeft
// when it has left it.
func Load(dir *datadir.Dir) (*Identity, error) {
	if !Exists(dir) {
		return nil, fmt.Errorf("%w: `pogod cluster init` makes one, `pogod cluster join` enters one (%s)", ErrNone, dir.Path)
	}
	if _, left := hasLeft(dir); left {
		return nil, fmt.Errorf("%w, and its data in %s is kept but not used: to bring the machine in again, as a new node, run `pogod cluster token` on a member and `pogod cluster join` here", ErrLeft, dir.Path)
	}
	path := dir.File(folder)
	doc, err := readCluster(path)
	if err != nil {
		return nil, err
	}
	ca := &authority{cluster: doc.ID}
	if ca.cert, err = readCertificate(filepath.Join(path, caFile)); err != nil {
		return nil, err
	}
	if ca.key, err = readKey(filepath.Join(path, caKeyFile)); err != nil {
		return nil, err
	}
	leaf, err := readCertificate(filepath.Join(path, nodeFile))
	if err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(path, nodeKeyFile))
	if err != nil {
		return nil, err
	}
	if time.Now().After(leaf.NotAfter) { // the node was down for so long
		if leaf, err = ca.renew(path, leaf, key); err != nil {
			return nil, damaged(path, err)
		}
	}
	i, err := assemble(ca, leaf, key)
	if err != nil {
		return nil, damaged(path, err)
	}
	if node := dir.NodeID(); i.Node != node {
		return nil, fmt.Errorf("%s is of node %s, but this data directory is of node %s: it was copied from another node. Give node %s its own folder back; to make this a new member, use an empty data directory and `pogod cluster join`", path, i.Node, node, i.Node)
	}
	i.Joined, i.Worker = doc.Joined, doc.Worker
	return i, nil
}

// assemble makes an identity of its parts, if they belong together. The node is the one
// that the certificate names.
func assemble(ca *authority, leaf *x509.Certificate, key *ecdsa.PrivateKey) (*Identity, error) {
	if !ca.key.PublicKey.Equal(ca.cert.PublicKey) {
		return nil, errors.New("the CA's key is not that of its certificate")
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the node's key is not that of its certificate")
	}
	node, err := ca.verify(leaf)
	if err != nil {
		return nil, fmt.Errorf("the node's certificate: %w", err)
	}
	return &Identity{Cluster: ca.cluster, Node: node, ca: ca, leaf: leaf, key: key}, nil
}

// certificate is what the node shows: its own and, for those who know but the CA's hash,
// the CA's.
func (i *Identity) certificate() tls.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return tls.Certificate{Certificate: [][]byte{i.leaf.Raw, i.ca.cert.Raw}, PrivateKey: i.key, Leaf: i.leaf}
}

// joinable says what forbids that the node becomes a member of a cluster.
func joinable(dir *datadir.Dir) error {
	if Exists(dir) {
		return fmt.Errorf("%w: see %s", ErrExists, dir.File(folder))
	}
	if !validID(dir.NodeID()) {
		return fmt.Errorf("%s is damaged: the node's id %q is not 16 hexadecimal digits", dir.File("node.json"), dir.NodeID())
	}
	return nil
}

// stage makes an empty folder, for store, in place of what an earlier attempt left over.
func stage(dir *datadir.Dir) (string, error) {
	tmp := dir.File(unfinished)
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		return "", fmt.Errorf("make the cluster's folder: %w", err)
	}
	return tmp, nil
}

// store writes the identity to the staged folder and gives it its name.
func (i *Identity) store(dir *datadir.Dir, tmp string) error {
	err := i.write(tmp)
	if err == nil {
		err = os.Rename(tmp, dir.File(folder))
	}
	if err == nil {
		err = datadir.SyncDir(dir.Path)
	}
	if err != nil {
		return fmt.Errorf("write the cluster's folder: %w", err)
	}
	return nil
}

func (i *Identity) write(path string) error {
	caKey, err := x509.MarshalPKCS8PrivateKey(i.ca.key)
	if err != nil {
		return err
	}
	nodeKey, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return err
	}
	doc, err := json.Marshal(clusterDoc{i.Cluster, i.Joined, i.Worker})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{caFile, encodePEM(pemCertificate, i.ca.cert.Raw)},
		{caKeyFile, encodePEM(pemKey, caKey)},
		{nodeFile, encodePEM(pemCertificate, i.leaf.Raw)},
		{nodeKeyFile, encodePEM(pemKey, nodeKey)},
		{clusterFile, append(doc, '\n')},
	} {
		if err := datadir.WriteFile(filepath.Join(path, f.name), f.content); err != nil {
			return err
		}
	}
	return nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func readCluster(path string) (doc clusterDoc, err error) {
	path = filepath.Join(path, clusterFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return doc, damaged(path, err)
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return doc, damaged(path, err)
	}
	if !validID(doc.ID) {
		return doc, damaged(path, fmt.Errorf("the id %q is not 16 hexadecimal digits", doc.ID))
	}
	return doc, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, pemCertificate)
	if err != nil {
		return nil, damaged(path, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, damaged(path, err)
	}
	return c, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, damaged(path, err)
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the key %s can be used by more than its owner (mode %04o): run `chmod 600 %s`", path, mode, path)
	}
	der, err := readPEM(path, pemKey)
	if err != nil {
		return nil, damaged(path, err)
	}
	k, err := parseKey(der)
	if err != nil {
		return nil, damaged(path, err)
	}
	return k, nil
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("it is not one PEM block of the type %s", kind)
	}
	return block.Bytes, nil
}

func damaged(path string, err error) error {
	return fmt.Errorf("%s is damaged: %w; restore it from a copy, or bring the node in anew with an empty data directory and `pogod cluster join`", path, err)
}

func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// validID says whether s is the id of a node or of a cluster.
func validID(s string) bool {
	if len(s) != 16 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
