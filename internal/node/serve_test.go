package node

import (
	"net"
	"strings"
	"testing"
)

// The PHP hosts of a killed node hold its listener for a moment: the next node waits.
func TestBindWaitsForAnAddressThatIsGivenUp(t *testing.T) {
	t.Parallel()
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := held.Addr().String()
	if _, err := bind(addr, "[web] listen"); err == nil || !strings.Contains(err.Error(), `[web] listen = "`+addr) {
		t.Fatal(err)
	}
	bound := make(chan error, 1)
	go func() { // ended by bindFor at the latest
		ln, err := bind(addr, "[web] listen")
		if err == nil {
			err = ln.Close()
		}
		bound <- err
	}()
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-bound; err != nil {
		t.Error(err)
	}
	if _, err := bind("no address", "[web] listen"); err == nil {
		t.Error("bound to no address")
	}
}
