package identity

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

const (
	joinVersion = 1
	maxRequest  = 64 << 10 // from anybody
	maxAnswer   = 1 << 20  // from a member, some 10000 peers
)

// Peer is where a member says it can be reached.
type Peer struct {
	ID      string `json:"id"`
	Address string `json:"address"` // host:port
	// Version is the number of the start at which the member said it: the greater is
	// the newer. A node that joins has not started: 0.
	Version uint64 `json:"version"`
	// Worker is said of a node that joins, by its token: it never has a vote. Of a member
	// raft's configuration says so.
	Worker bool `json:"-"`
	// Level is the feature level that a node knows which joins; 0: it does not say.
	Level uint64 `json:"-"`
}

type joinRequest struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	Secret  []byte `json:"secret"`
	CSR     []byte `json:"csr"` // DER; only its public key is taken
	Address string `json:"address"`
	Level   uint64 `json:"level,omitempty"` // command.MaxLevel of the pogod that asks
}

// joinAnswer has an Error, or all of the rest.
type joinAnswer struct {
	Error       string `json:"error,omitempty"`
	Cluster     string `json:"cluster,omitempty"`
	Certificate []byte `json:"certificate,omitempty"` // DER, as the next
	CA          []byte `json:"ca,omitempty"`
	CAKey       []byte `json:"ca_key,omitempty"` // PKCS #8
	Peers       []Peer `json:"peers,omitempty"`
	Worker      bool   `json:"worker,omitempty"` // by the token
}

// decodeRequest reads a request that anybody may have sent. What it returns is well
// formed, but for the CSR.
func decodeRequest(b []byte) (*joinRequest, error) {
	var r joinRequest
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("the request to join is damaged: %w", err)
	}
	if r.Version != joinVersion {
		return nil, fmt.Errorf("the request to join has version %d, this node speaks version %d: run the same pogod on both", r.Version, joinVersion)
	}
	if !validID(r.Node) {
		return nil, fmt.Errorf("the request to join is damaged: the node's id %q is not 16 hexadecimal digits", r.Node)
	}
	if len(r.Secret) != secretSize {
		return nil, fmt.Errorf("the request to join is damaged: a secret of %d bytes", len(r.Secret))
	}
	if err := checkAddress(r.Address); err != nil {
		return nil, err
	}
	return &r, nil
}

// writeMessage writes the length and the JSON of m in one piece.
func writeMessage(w io.Writer, m any) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// readMessage reads what writeMessage wrote, of at most limit bytes.
func readMessage(r io.Reader, limit uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > limit {
		return nil, fmt.Errorf("a message of %d bytes, more than %d", n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("in a message of %d bytes: %w", n, noEOF(err))
	}
	return body, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkAddress says what is wrong with an address at which others shall reach a node.
func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("the address %q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the address %q has no port of 1 to 65535", s)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Unmap().IsUnspecified() || ip.Unmap().IsMulticast() || ip.Zone() != "" {
			return fmt.Errorf("the address %q cannot be reached from elsewhere: name the host or its address in the network", s)
		}
		return nil
	}
	if !validHost(host) {
		return fmt.Errorf("the address %q has no valid host", s)
	}
	return nil
}

func validHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

// checkReach refuses a loopback address for a node that reaches the cluster over the
// network: there, it would be the address of each member's own machine.
func checkReach(address string, local net.Addr) error {
	from, err := netip.ParseAddrPort(local.String())
	if err != nil || from.Addr().Unmap().IsLoopback() {
		return nil
	}
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return fmt.Errorf("the members cannot reach this node at %s, which is on their own machines: set [cluster] advertise, perhaps to %s", address, net.JoinHostPort(from.Addr().Unmap().String(), port(address)))
	}
	return nil
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}
