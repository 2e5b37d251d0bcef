package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsConsumerName is the consumer of each stream that has one. The stream, its subject and the work have one name.
const natsConsumerName = "c"

// natsSide is three servers of NATS with JetStream.
type natsSide struct {
	bin   string
	nodes []*natsNode
	conn  *nats.Conn
	js    jetstream.JetStream
	group string // of the work that was prepared last: its stream's Raft group
}

type natsNode struct {
	name, home, listen, monitor, route string
	process                            *process
}

func newNATS(o *options, home string) (cluster, error) {
	bin, err := filepath.Abs(o.nats)
	if err != nil {
		return nil, err
	}
	c := &natsSide{bin: bin}
	var routes []string
	for i := range o.nodes {
		n := &natsNode{name: fmt.Sprintf("n%d", i), home: filepath.Join(home, fmt.Sprint(i))}
		for _, a := range []*string{&n.listen, &n.monitor, &n.route} {
			if *a, err = freeAddress(); err != nil {
				return nil, err
			}
		}
		c.nodes = append(c.nodes, n)
		routes = append(routes, "nats-route://"+n.route)
	}
	for _, n := range c.nodes {
		if err := os.MkdirAll(n.home, 0o700); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("server_name: %s\nlisten: %q\nhttp: %q\njetstream { store_dir: %q, sync_interval: always, max_file_store: 50GB }\n",
			n.name, n.listen, n.monitor, n.home)
		if o.nodes > 1 {
			text += fmt.Sprintf("cluster { name: peers, listen: %q, routes: [%s] }\n", n.route, strings.Join(routes, ", "))
		}
		if err := os.WriteFile(filepath.Join(n.home, "nats.conf"), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *natsSide) start(ctx context.Context) (err error) {
	for _, n := range c.nodes {
		n.process, err = startProcess(filepath.Join(n.home, "log"), c.bin, "-c", filepath.Join(n.home, "nats.conf"))
		if err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := until(ctx, "node "+n.home, func() error { return getJSON(ctx, "http://"+n.monitor+"/healthz", nil) }); err != nil {
			return err
		}
	}
	if c.conn, err = nats.Connect("nats://" + c.nodes[0].listen); err != nil {
		return err
	}
	if c.js, err = jetstream.New(c.conn); err != nil {
		return err
	}
	return until(ctx, "JetStream", func() error { // that there is a leader does not mean that it knows all nodes
		_, err := c.stream(ctx, "begin", jetstream.LimitsPolicy)
		return err
	})
}

// stream makes a stream on all nodes and waits until they have it. It returns which node leads it.
func (c *natsSide) stream(ctx context.Context, name string, keep jetstream.RetentionPolicy) (leader string, err error) {
	s, err := c.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{name}, Retention: keep, Storage: jetstream.FileStorage, Replicas: len(c.nodes),
	})
	if err != nil || len(c.nodes) == 1 {
		return c.nodes[0].name, err
	}
	return leader, until(ctx, "stream "+name, func() error {
		i, err := s.Info(ctx)
		switch {
		case err != nil:
			return err
		case i.Cluster == nil || i.Cluster.Leader == "" || len(i.Cluster.Replicas) != len(c.nodes)-1:
			return errors.New("it has no leader, or not all nodes")
		}
		leader, c.group = i.Cluster.Leader, i.Cluster.RaftGroup
		for _, r := range i.Cluster.Replicas {
			if !r.Current {
				return fmt.Errorf("%s is behind", r.Name)
			}
		}
		return nil
	})
}

func (c *natsSide) prepare(ctx context.Context, w *work) ([]node, error) {
	keep := jetstream.LimitsPolicy
	if w.kind == kindCycle || w.kind == kindWake {
		keep = jetstream.WorkQueuePolicy
	}
	leader, err := c.stream(ctx, w.id, keep)
	if err == nil && keep == jetstream.WorkQueuePolicy {
		err = c.consumer(ctx, w, leader)
	}
	if err != nil {
		return nil, err
	}
	var nodes []node
	for _, n := range c.nodes {
		known := node{"nats://" + n.listen, n.process.pid()}
		if n.name == leader {
			nodes = append([]node{known}, nodes...)
		} else {
			nodes = append(nodes, known)
		}
	}
	return nodes, nil
}

// consumer makes the stream's consumer, again and again until the stream's leader leads it too, as in pogod one node leads
// all. Otherwise every delivery would take one more hop, or one less, as it falls.
func (c *natsSide) consumer(ctx context.Context, w *work, leader string) error {
	cfg := jetstream.ConsumerConfig{Durable: natsConsumerName, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000}
	return until(ctx, "a consumer led by "+leader, func() error {
		var info *jetstream.ConsumerInfo
		if w.kind == kindWake {
			cfg.DeliverSubject = "to." + w.id
			k, err := c.js.CreateOrUpdatePushConsumer(ctx, w.id, cfg)
			if err != nil {
				return err
			}
			info = k.CachedInfo()
		} else {
			k, err := c.js.CreateOrUpdateConsumer(ctx, w.id, cfg)
			if err != nil {
				return err
			}
			info = k.CachedInfo()
		}
		if len(c.nodes) == 1 || info.Cluster != nil && info.Cluster.Leader == leader {
			return nil
		}
		return errors.Join(errors.New("another node leads it"), c.js.DeleteConsumer(ctx, w.id, natsConsumerName))
	})
}

// entries is the length of the log of the stream's group. A consumer has a log of its own.
func (c *natsSide) entries(ctx context.Context, _ *work) uint64 {
	var z map[string]map[string]struct{ PIndex uint64 }
	if c.group == "" || getJSON(ctx, "http://"+c.nodes[0].monitor+"/raftz?acc=$G&group="+c.group, &z) != nil {
		return 0
	}
	return z["$G"][c.group].PIndex
}

func (c *natsSide) stop() {
	if c.conn != nil {
		c.conn.Close()
	}
	var all []*process
	for _, n := range c.nodes {
		if n.process != nil {
			all = append(all, n.process)
		}
	}
	endAll(all)
}
