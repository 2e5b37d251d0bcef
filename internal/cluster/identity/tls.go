package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// What a connection carries, as its ALPN says.
const (
	ProtoRaft  = "pogod-raft/1"  // raft, between members
	ProtoLink  = "pogod-link/1"  // the cluster link, between members
	ProtoState = "pogod-state/1" // a member's data file, for one whose own cannot be used
	ProtoJoin  = "pogod-join/1"  // a node that joins, which has no certificate yet
)

// ServerTLS is the configuration for connections that this node accepts. A client must
// ask for exactly one of these protocols and, but for ProtoJoin, be a member; the
// handshake fails with ErrForeign if it is none.
func (i *Identity) ServerTLS() *tls.Config {
	byProto := map[string]*tls.Config{}
	for _, proto := range []string{ProtoRaft, ProtoLink, ProtoState, ProtoJoin} {
		c := config(proto)
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			now := i.certificate()
			return &now, nil
		}
		if proto != ProtoJoin {
			// VerifyConnection verifies, for errors that name the clusters. ClientCAs
			// stays empty: else a foreign client would keep its certificate to itself.
			c.ClientAuth = tls.RequireAnyClientCert
		}
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if err := carries(s, proto); err != nil || proto == ProtoJoin {
				return err
			}
			_, err := i.member(s.PeerCertificates)
			return err
		}
		byProto[proto] = c
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if len(h.SupportedProtos) != 1 {
				return nil, fmt.Errorf("the client asks for the protocols %q, not for one of this cluster port", h.SupportedProtos)
			}
			if c := byProto[h.SupportedProtos[0]]; c != nil {
				return c, nil
			}
			return byProto[ProtoLink], nil // which refuses every other, with the alert for that
		},
	}
}

// ClientTLS is the configuration to dial the node with that id, whatever its address, or
// any member if the id is "". The handshake fails with ErrForeign at a node of another
// cluster.
func (i *Identity) ClientTLS(node, proto string) *tls.Config {
	c := config(proto)
	c.Certificates = []tls.Certificate{i.certificate()}
	if node != "" {
		c.ServerName = certName(node, i.Cluster)
	}
	c.InsecureSkipVerify = true // VerifyConnection does it, for errors that name nodes and clusters
	c.VerifyConnection = func(s tls.ConnectionState) error {
		// First who it is: a stranger does not speak the protocol either.
		got, err := i.member(s.PeerCertificates)
		if err != nil {
			return err
		}
		if node != "" && got != node {
			return fmt.Errorf("node %s answers at this address, not node %s", got, node)
		}
		return carries(s, proto)
	}
	return c
}

// Peer returns the id of the member at the other end of a connection whose handshake has
// ended. It fails with ErrForeign when that is none: it asks the certificate again, and
// does not rely on how the connection was configured.
func (i *Identity) Peer(s tls.ConnectionState) (node string, err error) {
	if !s.HandshakeComplete {
		return "", errors.New("the TLS handshake has not ended")
	}
	return i.member(s.PeerCertificates)
}

// member returns whose the shown certificates are.
func (i *Identity) member(shown []*x509.Certificate) (node string, err error) {
	if len(shown) == 0 {
		return "", fmt.Errorf("%w: it shows no certificate", ErrForeign)
	}
	return i.ca.verify(shown[0])
}

func carries(s tls.ConnectionState, proto string) error {
	if s.NegotiatedProtocol != proto {
		return fmt.Errorf("the connection carries the protocol %q, not %q", s.NegotiatedProtocol, proto)
	}
	return nil
}

// config is what all connections have in common.
func config(proto string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{proto},
		SessionTicketsDisabled: true,
	}
}
