//go:build php

package cluster_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// BenchmarkPHPPublish is publishing 200 bytes from PHP pages, one after the other on each
// thread, to a channel without a subscriber and to one with a socket that reads.
func BenchmarkPHPPublish(b *testing.B) {
	s := startBench(b, "[[websocket.app]]\nid = \"bench\"\nkey = \"key\"\nsecret = \"s\"\n[websocket]\nlisten = \"127.0.0.1:0\"\n")
	var doc struct{ Hub struct{ Listen string } }
	r, err := http.Get("http://" + s.admin + "/status")
	if err == nil {
		err = json.NewDecoder(r.Body).Decode(&doc)
		_ = r.Body.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+doc.Hub.Listen+"/app/key?protocol=7", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer ws.Close()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"event":"pusher:subscribe","data":{"channel":"heard"}}`)); err != nil {
		b.Fatal(err)
	}
	for range 2 { // the greeting and the subscription
		if _, _, err := ws.ReadMessage(); err != nil {
			b.Fatal(err)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, ws.NetConn()) }() // ended by Close
	for _, channel := range []string{"unheard", "heard"} {
		for _, threads := range []int{1, 4} {
			b.Run(fmt.Sprintf("channel=%s/threads=%d", channel, threads), func(b *testing.B) {
				s.publish(b, threads, 2000, channel) // warm
				node0, php0 := s.cpu(b)
				begin := time.Now()
				took := s.publish(b, threads, max(b.N/threads, 1), channel)
				elapsed := time.Since(begin)
				node1, php1 := s.cpu(b)
				events := float64(len(took))
				slices.Sort(took)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(events/elapsed.Seconds(), "events/s")
				for name, q := range map[string]float64{"p50-us": .5, "p99-us": .99, "p999-us": .999} {
					b.ReportMetric(float64(took[int(float64(len(took)-1)*q)]), name)
				}
				b.ReportMetric((node1-node0)*1e6/events, "node-cpu-us/event")
				b.ReportMetric((php1-php0)*1e6/events, "php-cpu-us/event")
			})
		}
	}
}

// publish has pages publish n events each, and returns what each took.
func (s *benchSite) publish(b *testing.B, threads, n int, channel string) []int {
	b.Helper()
	took := onThreads(b, threads, func() (took []int, err error) {
		r, err := http.Get(fmt.Sprintf("http://%s/publish.php?n=%d&channel=%s", s.web, n, channel))
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Body.Close() }()
		text, err := io.ReadAll(r.Body)
		if json.Unmarshal(text, &took) != nil {
			err = fmt.Errorf("%s %.200s", r.Status, strings.TrimSpace(string(text)))
		}
		return took, err
	})
	if len(took) == 0 {
		b.FailNow()
	}
	return took
}
