package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"pogod/internal/cluster/identity"
)

// A node that does not serve yet gets the data file of whichever member has one.
func TestFetch(t *testing.T) {
	t.Parallel()
	a, b, c := three(t)
	file := bytes.Repeat([]byte("state "), 100_000)
	var asked string
	b.send = func(node string, w io.Writer) error {
		asked = node
		_, err := w.Write(file)
		return err
	}
	b.Close()
	b.open() // with send
	a.Close()
	linked(t, b, c)
	var got []byte
	var from string
	take := func(node string, r io.Reader) (err error) {
		if from = node; node == b.id {
			got, err = io.ReadAll(r)
			return err
		}
		_, err = r.Read(make([]byte, 1))
		return err
	}
	if err := c.Fetch(t.Context(), take); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, file) || from != b.id || asked != c.id {
		t.Errorf("%d bytes of %s for %s", len(got), from, asked)
	}
	// What is wrong with each is said; what take does not want is asked of the next.
	no := errors.New("not that one")
	err := c.Fetch(t.Context(), func(string, io.Reader) error { return no })
	if !errors.Is(err, no) || !errors.Is(err, errNoState) || !strings.Contains(err.Error(), a.way.address()) {
		t.Error(err)
	}
}

// One that stops in the middle of a file holds nobody up, and the end of the context ends
// it at once.
func TestFetchOfOneThatFallsSilent(t *testing.T) {
	t.Parallel()
	a := found(t)
	b := newNode(t).join(a)
	stop := make(chan struct{})
	defer close(stop)
	a.send = func(_ string, w io.Writer) error {
		_, _ = w.Write([]byte("begin"))
		<-stop
		return nil
	}
	a.Close()
	a.open()
	linked(t, a, b)
	read := func(_ string, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	if err := b.Fetch(t.Context(), read); err == nil || !strings.Contains(err.Error(), "nothing heard") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	done := make(chan error, 1)
	go func() { // ended by cancel
		done <- b.Fetch(ctx, func(_ string, r io.Reader) error {
			_, err := io.ReadFull(r, make([]byte, 5))
			close(begun)
			_, err2 := io.Copy(io.Discard, r)
			return errors.Join(err, err2)
		})
	}()
	<-begun
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it has it all")
		}
	case <-time.After(patience):
		t.Error("it waits on")
	}
}

// Nobody without a certificate gets it.
func TestStateIsForMembers(t *testing.T) {
	t.Parallel()
	a, stranger := found(t), found(t)
	k, err := stranger.dial(a.listens, "", identity.ProtoState, dialFor)
	if err == nil {
		_ = k.Close()
		t.Error("a node of another cluster is answered")
	}
}
