//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// BenchmarkPHPDispatch is dispatch and await of a trivial job on a pool of 4 threads, by
// pages that each have a batch of jobs under way.
func BenchmarkPHPDispatch(b *testing.B) {
	s := startBench(b, "[[pool]]\nthreads = 4\n")
	for _, x := range []struct{ callers, batch int }{{1, 1}, {1, 100}, {3, 100}} {
		b.Run(fmt.Sprintf("callers=%d/batch=%d", x.callers, x.batch), func(b *testing.B) {
			each := max(b.N/x.callers/x.batch, 1) * x.batch
			s.dispatch(b, x.callers, min(each, 20*x.batch), x.batch) // warm
			node0, php0 := s.cpu(b)
			begin := time.Now()
			took := s.dispatch(b, x.callers, each, x.batch)
			elapsed := time.Since(begin)
			node1, php1 := s.cpu(b)
			pairs := float64(each * x.callers)
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(pairs/elapsed.Seconds(), "pairs/s")
			b.ReportMetric(float64(took[len(took)/2]), "p50-us/batch")
			b.ReportMetric(float64(took[(len(took)-1)*99/100]), "p99-us/batch")
			b.ReportMetric((node1-node0)*1e6/pairs, "node-cpu-us/pair")
			b.ReportMetric((php1-php0)*1e6/pairs, "php-cpu-us/pair")
		})
	}
}

// dispatch has pages dispatch n jobs each in batches, and returns what each batch took.
func (s *benchSite) dispatch(b *testing.B, callers, n, batch int) []int {
	b.Helper()
	all := make(chan []int, callers)
	for range callers {
		go func() { // ended by the page
			var took []int
			r, err := http.Get(fmt.Sprintf("http://%s/dispatch.php?n=%d&batch=%d", s.web, n, batch))
			if err == nil {
				err = json.NewDecoder(r.Body).Decode(&took)
				_ = r.Body.Close()
			}
			if err != nil {
				b.Error(err)
			}
			all <- took
		}()
	}
	var took []int
	for range callers {
		took = append(took, <-all...)
	}
	if len(took) == 0 {
		b.FailNow()
	}
	return took
}
