package leader

import (
	"errors"
	"testing"

	"pogod/internal/command"
	"pogod/raftfsm"
)

func TestDefinitionsAreProposedOnlyWhenTheyDiffer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.state.set(func() { b.state.hash = "old" })
	b.raft.lead <- true
	b.barrier().resolve(nil, nil)
	e := b.entry()
	if len(e.commands) != 1 || e.commands[0].Op != command.Define || e.commands[0].Hash != "h" || string(e.commands[0].Definitions) != "\x01" {
		t.Fatalf("%+v", e.commands)
	}
	if b.Leading() {
		t.Error("it leads before the queues are defined")
	}
	b.state.set(func() { b.state.hash = "h" })
	b.apply(e)
	if err := b.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.raft.lead <- false
	b.settle()
	b.raft.lead <- true
	b.barrier().resolve(nil, nil)
	b.quiet("they are the same")
}

// defines waits for an entry that defines the queues so.
func (b *bench) defines(hash string) *entry {
	b.t.Helper()
	e := b.entry()
	if len(e.commands) != 1 || e.commands[0].Op != command.Define || e.commands[0].Hash != hash {
		b.t.Fatalf("%+v, want a definition with the hash %s", e.commands, hash)
	}
	b.state.set(func() { b.state.hash = hash })
	return e
}

func TestSupersededDefinitionsAreProposedOnlyByAnExplicitReload(t *testing.T) {
	t.Parallel()
	b := newBenchTTL(t, ttl)
	b.state.set(func() { b.state.hash, b.state.old = "new", []string{"older", "h"} })
	b.lead()
	b.quiet("its file is the old one")
	if !b.Differs() {
		t.Error("it does not know that its file differs")
	}
	type answer struct {
		leads bool
		err   error
	}
	done := make(chan answer, 1)
	define := func() {
		leads, err := b.Define([]byte{1}, "h")
		done <- answer{leads, err}
	}
	go define() // ended by the entry's outcome
	b.apply(b.defines("h"))
	if a := <-done; !a.leads || a.err != nil || b.Differs() {
		t.Error(a)
	}
	go define() // at once
	if a := <-done; !a.leads || a.err != nil {
		t.Error(a)
	}
	b.quiet("they are in force")
	go func() { // ended by the entry's outcome
		done <- answer{false, b.Redefine(t.Context(), []byte{2}, "of another node")}
	}()
	b.apply(b.defines("of another node"))
	if a := <-done; a.err != nil || !b.Differs() {
		t.Error(a)
	}
	// Others came first.
	b.state.set(func() { b.state.old = append(b.state.old, "new") })
	b.depose()
	b.lead()
	b.quiet("its file is still the old one")
}

// A node alone has nobody to differ from: its file was changed back.
func TestANodeAloneDefinesTheQueuesAsItsFileSays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.state.set(func() { b.state.hash, b.state.old = "new", []string{"h"} })
	b.raft.lead <- true
	b.barrier().resolve(nil, nil)
	b.apply(b.defines("h"))
	b.until("it leads", b.Leading)
}

func TestDefinitionsReadAgainAreProposedByWhoComesToLead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if leads, err := b.Define([]byte{3}, "later"); leads || err != nil {
		t.Error(leads, err)
	}
	if err := b.Redefine(t.Context(), []byte{3}, "later"); !errors.Is(err, raftfsm.ErrNotSent) {
		t.Error(err)
	}
	b.quiet("it does not lead")
	b.raft.lead <- true
	b.barrier().resolve(nil, nil)
	e := b.defines("later")
	// Others come while these are on their way.
	if leads, err := b.Define([]byte{4}, "last"); leads || err != nil {
		t.Error(leads, err)
	}
	b.apply(e)
	b.clock.await(t, retryPause)
	b.clock.Advance(retryPause)
	b.barrier().resolve(nil, nil)
	b.apply(b.defines("last"))
	b.until("it leads", b.Leading)
}

func TestANodeThatKnowsNoDefinitionsDoesNotDiffer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.state.set(func() { b.state.hash = "" })
	if b.Differs() {
		t.Error("it differs from nothing")
	}
}
