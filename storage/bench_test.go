package storage

import (
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkReceive sends a file of 200,000 values of 700 bytes to another one, without a
// network, and checks that. It says how long each step took.
func BenchmarkReceive(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 700)
	for i := range uint64(200_000) {
		tx, err := s.Tx()
		if err != nil {
			b.Fatal(err)
		}
		bucket, err := tx.Bucket([]byte("jobs"))
		if err != nil {
			b.Fatal(err)
		}
		if err := bucket.Put(binary.BigEndian.AppendUint64(nil, i), value); err != nil {
			b.Fatal(err)
		}
		if i%10_000 == 9_999 {
			if err := s.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
	var written, synced, verified time.Duration
	for b.Loop() {
		c, err := s.Copy()
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(c.Size())
		in, err := Receive(filepath.Join(b.TempDir(), "received"))
		if err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		if _, err := c.WriteTo(in); err != nil {
			b.Fatal(err)
		}
		written += time.Since(begin)
		begin = time.Now()
		if err := in.sync(); err != nil {
			b.Fatal(err)
		}
		synced += time.Since(begin)
		begin = time.Now()
		if err := in.Finish(); err != nil {
			b.Fatal(err)
		}
		verified += time.Since(begin)
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	for unit, d := range map[string]time.Duration{"write-ms": written, "sync-ms": synced, "verify-ms": verified} {
		b.ReportMetric(d.Seconds()*1000/float64(b.N), unit)
	}
}
