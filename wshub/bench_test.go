package wshub

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The clients of the benchmarks are a process of their own, this test binary started once
// more: that theirs and the hub's work are not one figure.
const benchClients = "POGOD_BENCH_CLIENTS"

func init() {
	if spec := os.Getenv(benchClients); spec != "" {
		runClients(spec)
		os.Exit(0)
	}
}

// runClients opens sockets, subscribes each, and parses every frame that comes. It prints a
// line when all have subscribed, and one with the latencies whenever every socket has got as
// many events as standard input says.
func runClients(spec string) {
	var addr string
	var n int
	var own bool // each socket has a channel of its own
	if _, err := fmt.Sscan(spec, &addr, &n, &own); err != nil {
		panic(err)
	}
	var got, want atomic.Int64
	done := make(chan struct{}, 1)
	var mu sync.Mutex // guards took
	var took []time.Duration
	for i := range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			panic(err)
		}
		r := bufio.NewReaderSize(c, 4096)
		_, err = c.Write([]byte("GET /app/key?protocol=7 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
		if err != nil {
			panic(err)
		}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				panic(err)
			}
			if line == "\r\n" {
				break
			}
		}
		channel := "bench"
		if own {
			channel = fmt.Sprint("bench", i)
		}
		if _, err := c.Write(masked(0x81, subscribe(channel, ""))); err != nil {
			panic(err)
		}
		next := func() []byte {
			var head [4]byte
			if _, err := io.ReadFull(r, head[:2]); err != nil {
				panic(err)
			}
			size := int(head[1])
			if size == 126 {
				if _, err := io.ReadFull(r, head[2:]); err != nil {
					panic(err)
				}
				size = int(binary.BigEndian.Uint16(head[2:]))
			}
			b := make([]byte, size)
			if _, err := io.ReadFull(r, b); err != nil {
				panic(err)
			}
			return b
		}
		for range 2 { // the greeting and the subscription
			next()
		}
		go func() { // ended by the process
			for {
				_, at, ok := bytes.Cut(next(), []byte(`"{\"at\":`))
				if !ok {
					panic("another message came")
				}
				var ns int64
				for _, c := range at {
					if c < '0' || c > '9' {
						break
					}
					ns = 10*ns + int64(c-'0')
				}
				if ns != 0 { // a sample
					mu.Lock()
					took = append(took, time.Duration(time.Now().UnixNano()-ns))
					mu.Unlock()
				}
				if got.Add(1) == want.Load() {
					done <- struct{}{}
				}
			}
		}()
	}
	fmt.Println("ready")
	for in := bufio.NewReader(os.Stdin); ; {
		var events int64
		if _, err := fmt.Fscan(in, &events); err != nil {
			return
		}
		mu.Lock()
		took = nil
		mu.Unlock()
		want.Add(events * int64(n))
		fmt.Println("go")
		<-done
		mu.Lock()
		slices.Sort(took)
		var p50, p99 time.Duration
		if len(took) > 0 {
			p50, p99 = took[len(took)/2], took[len(took)*99/100]
		}
		mu.Unlock()
		fmt.Println("done", p50.Microseconds(), p99.Microseconds())
	}
}

// clients are the sockets of a benchmark.
type clients struct {
	in  io.Writer
	out *bufio.Reader
}

func startClients(b *testing.B, addr string, n int, own bool) *clients {
	b.Helper()
	exe, err := os.Executable()
	must(b, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %v", benchClients, addr, n, own))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	c := &clients{in, bufio.NewReader(out)}
	c.expect(b, "ready")
	return c
}

func (c *clients) expect(b *testing.B, what string) (line string) {
	b.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, what) {
		b.Fatal(line, err)
	}
	return line
}

// cpu is the processor time of this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkFanOut publishes events with 200 bytes of data to sockets of another process,
// which parses all of them: in a burst, as fast as the hub takes them, or at a pace. An
// operation is one event; a burst of over some thousand is more than clients may lag behind.
func BenchmarkFanOut(b *testing.B) {
	for _, x := range []struct {
		sockets int
		pace    time.Duration // between events; 0: a burst
	}{{1000, 0}, {5000, 0}, {1000, 100 * time.Millisecond}, {5000, 500 * time.Millisecond}} {
		how := "burst"
		if x.pace > 0 {
			how = "paced"
		}
		b.Run(fmt.Sprintf("sockets=%d/%s", x.sockets, how), func(b *testing.B) {
			h, addr := newHub(b, Config{})
			c := startClients(b, addr, x.sockets, false)
			fmt.Fprintln(c.in, b.N)
			c.expect(b, "go")
			cpu0 := cpu(b)
			b.ResetTimer()
			begin := time.Now()
			for i := range b.N {
				if x.pace > 0 {
					time.Sleep(time.Until(begin.Add(time.Duration(i) * x.pace)))
				}
				at := int64(0) // no sample of a burst: it would be the time to its end
				if x.pace > 0 {
					at = time.Now().UnixNano()
				}
				data := fmt.Sprintf(`{"at":%d,"pad":"`, at)
				data += strings.Repeat("x", 200-2-len(data)) + `"}`
				for publish(h, "bench", data) != nil { // full
					runtime.Gosched()
				}
			}
			var p50, p99 float64
			line := c.expect(b, "done")
			if _, err := fmt.Sscanf(line, "done %f %f", &p50, &p99); err != nil {
				b.Fatal(line, err)
			}
			elapsed, used := time.Since(begin), cpu(b)-cpu0
			deliveries := float64(b.N * x.sockets)
			b.ReportMetric(deliveries/elapsed.Seconds(), "deliveries/s")
			b.ReportMetric(float64(used.Nanoseconds())/deliveries, "hub-cpu-ns/delivery")
			if x.pace > 0 {
				b.ReportMetric(p50, "p50-us")
				b.ReportMetric(p99, "p99-us")
			} else {
				b.ReportMetric(elapsed.Seconds()*1000, "last-ms")
			}
			if h.Status().Slow > 0 {
				b.Fatalf("%d sockets were too slow", h.Status().Slow)
			}
		})
	}
}

// BenchmarkPublish is Publish alone: without a subscriber, and with one socket that reads.
func BenchmarkPublish(b *testing.B) {
	data := []byte(`{"pad":"` + strings.Repeat("x", 200-10) + `"}`)
	for _, sockets := range []int{0, 1} {
		b.Run(fmt.Sprintf("sockets=%d", sockets), func(b *testing.B) {
			h, addr := newHub(b, Config{})
			if sockets > 0 {
				c := connect(b, addr)
				c.join("bench")
				_ = c.SetReadDeadline(time.Time{})                      // next set one
				go func() { _, _ = io.Copy(io.Discard, c.NetConn()) }() // ended by the hub's Close
			}
			m := Message{App: []byte("shop"), Channels: [][]byte{[]byte("bench")}, Event: []byte("e"), Data: data}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				for h.Publish(m) != nil {
					runtime.Gosched()
				}
			}
		})
	}
}

// BenchmarkIdle is what a socket costs that has subscribed to a channel of its own and says
// nothing. An operation is one socket.
func BenchmarkIdle(b *testing.B) {
	h, addr := newHub(b, Config{Ping: time.Hour})
	before := resident(b)
	startClients(b, addr, b.N, true)
	after := resident(b)
	if n := h.Status().Connections; n != b.N {
		b.Fatal(n)
	}
	b.ReportMetric(float64(after-before)/float64(b.N), "rss-B/socket")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
}

// resident is the memory of the process after a collection.
func resident(b *testing.B) int {
	b.Helper()
	debug.FreeOSMemory()
	var pages, rss int
	raw, err := os.ReadFile("/proc/self/statm")
	must(b, err)
	if _, err := fmt.Sscan(string(raw), &pages, &rss); err != nil {
		b.Fatal(err)
	}
	return rss * os.Getpagesize()
}
