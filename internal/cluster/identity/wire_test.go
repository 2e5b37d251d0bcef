package identity

import (
	"bytes"
	"encoding/json"
	"net"
	"reflect"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"127.0.0.1:1", "[::1]:65535", "node-1.example_x:8083", "[2001:db8::1]:8083"} {
		if err := checkAddress(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{
		"", "host", "host:", ":8083", "host:0", "host:65536", "host:-1", "host:http", "host:8083:1", "0.0.0.0:8083", "[::]:8083", "[::ffff:0.0.0.0]:8083",
		"::1:8083", "[fe80::1%eth0]:8083", "224.0.0.1:8083", "ho st:8083", "höst:8083", "host\n:8083", "h/o:80", strings.Repeat("a", 254) + ":8083",
	} {
		if err := checkAddress(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestLoopbackIsNotAdvertisedOverTheNetwork(t *testing.T) {
	t.Parallel()
	near, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 5000}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 5000}
	for _, s := range []string{"127.0.0.1:8083", "[::1]:8083", "localhost:8083", "[::ffff:127.0.0.1]:8083"} {
		if err := checkReach(s, near); err != nil {
			t.Error(err)
		}
		if err := checkReach(s, far); err == nil || !strings.Contains(err.Error(), "10.0.0.7:8083") {
			t.Error(s, err)
		}
	}
	for _, s := range []string{"10.0.0.7:8083", "node1:8083"} {
		if err := checkReach(s, far); err != nil {
			t.Error(err)
		}
	}
}

func validRequest() *joinRequest {
	return &joinRequest{Version: joinVersion, Node: "0123456789abcdef", Secret: make([]byte, secretSize), Address: advertised}
}

func TestMessageLimits(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := writeMessage(&b, "0123456789"); err != nil { // 12 bytes with the quotes
		t.Fatal(err)
	}
	whole := b.Bytes()
	if got, err := readMessage(bytes.NewReader(whole), 12); string(got) != `"0123456789"` || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := readMessage(bytes.NewReader(whole), 11); err == nil {
		t.Error("over the limit")
	}
	for n := range whole {
		if _, err := readMessage(bytes.NewReader(whole[:n]), 12); err == nil {
			t.Error("cut after", n)
		}
	}
}

// FuzzDecodeRequest wants of any bytes an error, or a request that is well formed and
// means the same when it is written again; and of any CSR a key or an error.
func FuzzDecodeRequest(f *testing.F) {
	r := validRequest()
	r.CSR = []byte{0x30}
	for _, seed := range []any{r, validRequest(), &joinRequest{Version: 2}, nil, "x", []int{1}, map[string]any{"version": "1"}} {
		b, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"version":1,"VERSION":1}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			if r != nil {
				t.Error("an error and a request")
			}
			return
		}
		if r.Version != joinVersion || !validID(r.Node) || len(r.Secret) != secretSize || checkAddress(r.Address) != nil {
			t.Errorf("%+v", r)
		}
		if key, err := publicKey(r.CSR); (key == nil) == (err == nil) {
			t.Error(key, err)
		}
		var out bytes.Buffer
		if err := writeMessage(&out, r); err != nil {
			t.Fatal(err)
		}
		body, err := readMessage(&out, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeRequest(body); err != nil || !reflect.DeepEqual(again, r) && len(r.CSR) > 0 {
			t.Errorf("%+v %v, was %+v", again, err, r)
		}
	})
}
