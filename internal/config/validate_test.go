package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	pool := newPool()
	pool.Script = "/s"
	for name, spoil := range map[string]func(*Config){
		"data_dir":  func(c *Config) { c.Node.DataDir = "relative" },
		"socket":    func(c *Config) { c.Node.Socket = "/" + strings.Repeat("s", 107) },
		"mode":      func(c *Config) { c.Node.Mode = "" },
		"push":      func(c *Config) { c.Node.PushTimeout = 0 },
		"floor":     func(c *Config) { c.Node.MinFreeBytes = -1 },
		"ini":       func(c *Config) { c.PHP.Ini["a\nb"] = "1" },
		"root":      func(c *Config) { c.Web.Root = "/etc" },
		"threads":   func(c *Config) { c.Web.Threads = 0 },
		"in worker": func(c *Config) { c.Web.Worker = "/etc/worker.php" },
		"admin":     func(c *Config) { c.Admin.Listen = ":1" },
		"cluster":   func(c *Config) { c.Cluster.Listen, c.Cluster.Advertise = "0.0.0.0:1", "0.0.0.0:1" },
		"advertise": func(c *Config) { c.Cluster.Advertise = "" },
		"join":      func(c *Config) { c.Cluster.Join = []string{":8083"} },
		"payload":   func(c *Config) { c.Queue.Defaults.MaxPayloadBytes = MaxPayloadBytes + 1 },
		"attempts":  func(c *Config) { c.Queue.Declared[0].MaxAttempts = -1 },
		"crashes":   func(c *Config) { c.Queue.Declared[0].MaxCrashes = 1_000_001 },
		"backoff":   func(c *Config) { c.Queue.Declared[0].Backoff = []time.Duration{-1} },
		"default":   func(c *Config) { c.Queue.Declared = nil },
		"sorted":    func(c *Config) { c.Queue.Declared = append(c.Queue.Declared, c.Queue.Declared[0]) },
		"worker":    func(c *Config) { c.Workers = append(c.Workers, Worker{Name: "w", Script: "/s", Threads: 1}) },
		"undefined": func(c *Config) { c.Workers[0].Queues = []string{"nobody"} },
		"env":       func(c *Config) { c.Workers[0].Env["a=b"] = "" },
		"pool":      func(c *Config) { c.Pools = append(c.Pools, Pool{Name: "p", Script: "/s", Threads: 1}) },
		"pool name": func(c *Config) { p := pool; p.Name = ""; c.Pools = []Pool{p} },
		"pools":     func(c *Config) { c.Pools = []Pool{pool, pool} },
		"pool path": func(c *Config) { p := pool; p.Script = "s"; c.Pools = []Pool{p} },
		"pool host": func(c *Config) { p := pool; p.Host = "web"; c.Pools = []Pool{p} },
		"pool size": func(c *Config) { p := pool; p.MemoryLimit = "1T"; c.Pools = []Pool{p} },
		"pool ini":  func(c *Config) { p := pool; p.Ini = map[string]string{"post_max_size": "1M"}; c.Pools = []Pool{p} },
	} {
		c := parsed(t, "[[worker]]\n", nil)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(c)
		if err := c.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
