package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"pogod/internal/command"
	"pogod/internal/datadir"
)

const (
	joinTime  = 15 * time.Second // for all of it, at each end
	admitTime = 10 * time.Second // for the cluster's part, so that a failure can still be told
)

// Admit answers one joining connection, whose handshake has ended with ProtoJoin: it
// checks the token, signs the certificate, calls admit, and hands over what makes the
// node a member. The caller closes the connection. Errors are told to the joining node,
// and returned.
//
// admit makes the node a member and returns the peers that are known. Its context ends
// after 10 seconds. It must be idempotent: when the answer is lost the node is a member
// without a certificate, and joins once more, with the same id and a new token. A token
// is used up when admit succeeded, and else free again.
func (i *Identity) Admit(ctx context.Context, conn net.Conn, t *Tokens, admit func(ctx context.Context, p Peer) ([]Peer, error)) error {
	// The CA's key goes out here: over nothing else.
	if c, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); !ok || c.ConnectionState().NegotiatedProtocol != ProtoJoin {
		return errors.New("a connection that is not one of " + ProtoJoin)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	defer cutOff(ctx, conn)()

	a, err := i.answer(ctx, conn, t, admit)
	if err != nil {
		_ = writeMessage(conn, &joinAnswer{Error: err.Error()}) // it may be gone
		return err
	}
	if err := writeMessage(conn, a); err != nil {
		return fmt.Errorf("the answer was lost; the node must join again, with a new token: %w", err)
	}
	return nil
}

func (i *Identity) answer(ctx context.Context, conn net.Conn, t *Tokens, admit func(ctx context.Context, p Peer) ([]Peer, error)) (*joinAnswer, error) {
	b, err := readMessage(conn, maxRequest)
	if err != nil {
		return nil, fmt.Errorf("read the request to join: %w", err)
	}
	r, err := decodeRequest(b)
	if err != nil {
		return nil, err
	}
	k, err := t.claim(r.Secret)
	if err != nil {
		return nil, err
	}
	admitted := false
	defer func() { t.release(k, admitted) }()

	if r.Node == i.Node {
		return nil, fmt.Errorf("node %s cannot join itself: the data directory was copied from it; start with an empty one", r.Node)
	}
	pub, err := publicKey(r.CSR)
	if err != nil {
		return nil, err
	}
	// All that can fail comes before admit.
	leaf, err := i.ca.sign(r.Node, pub)
	if err != nil {
		return nil, err
	}
	caKey, err := x509.MarshalPKCS8PrivateKey(i.ca.key)
	if err != nil {
		return nil, err
	}
	admitCtx, cancel := context.WithTimeout(ctx, admitTime)
	defer cancel()
	peers, err := admit(admitCtx, Peer{ID: r.Node, Address: r.Address, Worker: k.worker, Level: r.Level})
	if err != nil {
		return nil, fmt.Errorf("the cluster did not admit node %s: %w", r.Node, err)
	}
	admitted = true
	return &joinAnswer{Cluster: i.Cluster, Certificate: leaf.Raw, CA: i.ca.cert.Raw, CAKey: caKey, Peers: peers, Worker: k.worker}, nil
}

// Join brings the node into the cluster of the member at addr, with a token of that
// member. advertise is where the members shall reach this node. It returns the members
// that are known. It fails with ErrExists if the node is in a cluster, ErrHasData if the
// directory holds a node's jobs, and ErrForeign if addr is not of the token's cluster. A
// node that got no answer can join again, with a new token.
func Join(ctx context.Context, dir *datadir.Dir, addr, token, advertise string) (*Identity, []Peer, error) {
	wanted, secret, err := parseToken(token)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(checkAddress(addr), checkAddress(advertise)); err != nil {
		return nil, nil, err
	}
	if err := putAway(dir); err != nil {
		return nil, nil, err
	}
	if err := joinable(dir); err != nil {
		return nil, nil, err
	}
	if err := empty(dir); err != nil {
		return nil, nil, err
	}
	// Before the token is used up: a directory that cannot be written is found now.
	tmp, err := stage(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // it has its other name when all went well
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := checkReach(advertise, conn.LocalAddr()); err != nil {
		return nil, nil, err
	}
	a, err := ask(ctx, conn, wanted, &joinRequest{Version: joinVersion, Node: dir.NodeID(), Secret: secret, CSR: csr, Address: advertise, Level: command.MaxLevel()})
	if err != nil {
		return nil, nil, fmt.Errorf("join at %s: %w", addr, err)
	}
	i, err := a.identity(wanted, key)
	if err == nil && i.Node != dir.NodeID() {
		err = fmt.Errorf("it is for node %s, not for node %s", i.Node, dir.NodeID())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the answer of %s is wrong: %w", addr, err)
	}
	i.Joined, i.Worker = true, a.Worker
	if err := i.store(dir, tmp); err != nil {
		return nil, nil, err
	}
	return i, a.Peers, nil
}

// empty refuses a directory with the data of a node that has run.
func empty(dir *datadir.Dir) error {
	for _, name := range []string{"state.db", "log"} { // as raftfsm names them
		if _, err := os.Lstat(dir.File(name)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: %s is there; name another directory, or move this one away if its jobs are not needed", ErrHasData, dir.File(name))
		}
	}
	return nil
}

// ask is the joining node's side of a connection. The request is sent to a member of the
// cluster with that CA only.
func ask(ctx context.Context, conn net.Conn, wanted [sha256.Size]byte, r *joinRequest) (*joinAnswer, error) {
	defer cutOff(ctx, conn)()
	c := config(ProtoJoin)
	c.InsecureSkipVerify = true // VerifyConnection does it, by the pin: there is no CA to begin with
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if err := carries(s, ProtoJoin); err != nil {
			return err
		}
		return pinned(s.PeerCertificates, wanted)
	}
	t := tls.Client(conn, c)
	if err := t.HandshakeContext(ctx); err != nil {
		if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
			return nil, fmt.Errorf("this is no cluster port (see [cluster] listen of the node there): %w", err)
		}
		return nil, err
	}
	if err := writeMessage(t, r); err != nil {
		return nil, fmt.Errorf("send the request: %w", err)
	}
	b, err := readMessage(t, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("no whole answer came, so the token may be used up; join again with a new one: %w", noEOF(err))
	}
	var a joinAnswer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("the answer is damaged; join again with a new token: %w", err)
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return &a, nil
}

// pinned wants the CA with that pin among the certificates, and the first signed by it.
func pinned(shown []*x509.Certificate, wanted [sha256.Size]byte) error {
	for _, c := range shown {
		if c.IsCA && pin(c) == wanted {
			return verifyLeaf(c, shown[0])
		}
	}
	return fmt.Errorf("%w: the token was made in another; use a token of a node of that one", ErrForeign)
}

// identity is what a member has handed over, checked.
func (a *joinAnswer) identity(wanted [sha256.Size]byte, key *ecdsa.PrivateKey) (*Identity, error) {
	ca := &authority{cluster: a.Cluster}
	var err error
	if ca.cert, err = x509.ParseCertificate(a.CA); err != nil {
		return nil, err
	}
	if pin(ca.cert) != wanted {
		return nil, errors.New("the CA is not that of the token")
	}
	if ca.key, err = parseKey(a.CAKey); err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return nil, err
	}
	return assemble(ca, leaf, key)
}

// cutOff ends reading from and writing to the connection when the context ends, until
// the returned function is called.
func cutOff(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}
