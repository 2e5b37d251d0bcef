package main

import (
	"fmt"
	"time"
)

// kind is what a work does. A fresh cluster serves all works of one kind.
type kind string

const (
	kindPush  kind = "push"  // durable pushes, each answered before its connection's next
	kindAsync kind = "async" // durable pushes, many outstanding
	kindCycle kind = "cycle" // push, delivery, ack
	kindWake  kind = "wake"  // one push at a time to a consumer that waits
	kindIdle  kind = "idle"  // nothing
)

// work is one measurement.
type work struct {
	name     string
	id       string // of its queue, its stream, its worker
	kind     kind
	conns    int           // that push; a cycle has as many that consume
	depth    int           // outstanding on each, where the side can: else so many times the connections
	from, to int           // node of the first connection that pushes, that consumes; 0 leads
	pinned   bool          // all are on that node, not spread
	plain    bool          // acks are sent and not answered
	side     string        // "": both
	beside   string        // name of the other side's work that it is compared with; "": its own
	length   time.Duration // of the measurement
}

// groups returns the works, by kind.
func groups(o *options) [][]*work {
	follower, other := min(1, o.nodes-1), min(2, o.nodes-1)
	all := [][]*work{
		{
			{name: "push, c = 1 at the leader", conns: 1},
			{name: "push, c = 1 at a follower", conns: 1, from: follower},
			{name: "push, c = 64", conns: 64},
			{name: "push, c = 256", conns: 256},
		},
		{
			{name: "push, 256 outstanding", conns: o.nodes, depth: (256 + o.nodes - 1) / o.nodes},
			{name: "push, 1,024 outstanding", conns: o.nodes, depth: (1024 + o.nodes - 1) / o.nodes},
		},
		{
			{name: "cycle, 1 + 1", conns: 1, from: follower},
			{name: "cycle, 32 + 32", conns: 32},
			{name: "cycle, 128 + 128", conns: 128},
			{name: "cycle, 32 + 32, acks not answered", conns: 32, plain: true, side: "nats", beside: "cycle, 32 + 32"},
			{name: "cycle, 128 + 128, acks not answered", conns: 128, plain: true, side: "nats", beside: "cycle, 128 + 128"},
		},
		{
			{name: "wake, leader to follower", conns: 1, to: follower, pinned: true},
			{name: "wake, follower to leader", conns: 1, from: follower, pinned: true},
			{name: "wake, follower to follower", conns: 1, from: follower, to: other, pinned: true},
		},
		{{name: "idle"}},
	}
	kinds := []kind{kindPush, kindAsync, kindCycle, kindWake, kindIdle}
	var picked [][]*work
	for i, g := range all {
		var some []*work
		for j, w := range g {
			w.kind, w.id = kinds[i], fmt.Sprintf("%s%d", kinds[i], j)
			w.depth = max(w.depth, 1)
			if w.length = o.seconds; w.kind == kindWake || w.kind == kindIdle {
				w.length *= 4
			}
			alone := o.nodes == 1 && (j > 0 && w.kind == kindWake || w.name == "push, c = 1 at a follower")
			if o.only.MatchString(w.name) && !alone {
				some = append(some, w)
			}
		}
		if len(some) > 0 {
			picked = append(picked, some)
		}
	}
	return picked
}
