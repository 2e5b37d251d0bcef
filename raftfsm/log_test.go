package raftfsm

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A follower whose last entries another leader does not have cuts them off. What is
// before them must be there after a restart, too.
func TestALogThatWasCutIsReadAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reopen := func() *logStore {
		t.Helper()
		s, err := openLog(dir, defaultLogBytes, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := reopen()
	for i := range uint64(10) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: []byte("first")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteRange(8, 10); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(2) {
		if err := s.StoreLog(&raft.Log{Index: 8 + i, Term: 2, Data: []byte("second")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if first, last, err := s.indexes(); err != nil || first != 1 || last != 9 {
		t.Fatal(first, last, err)
	}
	var l raft.Log
	for i := uint64(1); i <= 9; i++ {
		if err := s.GetLog(i, &l); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		if want := uint64(1); i >= 8 && l.Term != want+1 || i < 8 && l.Term != want {
			t.Errorf("entry %d is of term %d", i, l.Term)
		}
	}
}
