// Package identity holds what makes a node a member of one cluster and of no other: the
// cluster's private certificate authority (CA), the node's own certificate, the TLS
// configurations made of both, and the way in for a new node.
//
// # Files
//
// A data directory belongs to a cluster when it has the folder cluster/ (mode 0700):
//
//	ca.pem         the CA's certificate, ECDSA P-256, 20 years
//	ca-key.pem     the CA's key
//	node.pem       this node's certificate, 3 years
//	node-key.pem   this node's key: made here, never sent
//	cluster.json   {"id": the cluster's id, 16 hexadecimal digits,
//	                "joined": true unless this node began the cluster,
//	                "worker": true if it joined as one}
//
// Each file has mode 0600, and a key that its group or others can read is refused. Init
// and Join write them all to cluster.tmp/, synced, and rename that: after a crash there
// is a whole folder or none, and the next attempt removes what was left over.
// (peers.json, where the members are, is internal/cluster's.)
//
// # Certificates
//
// A node's certificate bears one name, "<node id>.<cluster id>.pogod". Addresses are not
// in it, so they may change. Who dials asks for the node that it wants and refuses every
// other; who accepts reads the peer's id from its certificate. Both refuse a certificate
// that the cluster's CA did not sign.
//
// All are good from a year before the cluster began, and a node's is renewed, by the node
// itself and with the same key, when a year of it is left, or a third of one whose life is
// shorter: a node whose clock is a year off, either way, is refused by nobody and refuses
// nobody. Refresh does it, and takes over what else is put into the files; connections that
// are made from then on show it. A node that was down until after the end renews it when
// it starts. The CA's own certificate is not renewed: a cluster lives for 20 years.
//
// A connection is TLS 1.3 and says with ALPN, in exactly one name, what it carries:
// ProtoRaft, ProtoLink and ProtoState between members, and ProtoJoin, for which a client needs no
// certificate and which can do nothing but join. Sessions are never resumed, so every
// connection is verified whole.
//
// # Joining
//
// Tokens.Issue makes a token at a member, "pogod1_" and base64url of
//
//	0                                32               48
//	+--------------------------------+----------------+
//	| sha256 of the CA's public key  | secret, random |
//	+--------------------------------+----------------+
//
// The first part, the pin, tells the new node which CA to believe before it says
// anything: a node that does not show that CA, and a certificate signed by it, gets no
// byte of the request. The second part tells the member whom to believe. A token brings
// in one node, within 15 minutes, at the node that made it, which keeps a hash of the
// secret in memory only.
//
// On the connection there is one request and one answer, each a little-endian length of
// four bytes and JSON (joinRequest, at most 64 KiB; joinAnswer, at most 1 MiB), within 15
// seconds in all.
//
// # Every member has the CA's key
//
// A node that joins is given the CA's key, so that any member can invite the next one
// and none is special. It also means that who reads one member's data directory, or gets
// hold of one unused token in its 15 minutes, can make certificates for any node of the
// cluster, and that a node cannot be shut out by taking its certificate back. Members
// trust each other wholly; the CA keeps strangers and other clusters out.
package identity
