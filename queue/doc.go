// Package queue is the job queue: a pure, deterministic state machine over a
// transaction (State), and the typed client of the node (Client).
//
// A job is in one state at a time:
//
//	push(delay)            push
//	    │                    │
//	    ▼      due           ▼     reserve
//	delayed ────────────► ready ────────────► reserved ──ack──► gone
//	    ▲                    ▲                 │  │  │
//	    │    back-off, delay │   at once       │  │  └── fail, or its last
//	    └────────────────────┴──── release ◄───┘  │      attempt was spent
//	                                              ▼
//	                         ready ◄── retry ── failed ── forget, purge ──► gone
//
// An operator may delete what is delayed or ready (Clear, Delete), and pause a queue:
// then nothing is reserved from it.
//
// A ready job may be a suspect: its PHP host crashed, perhaps by it. Suspects wait in a
// line of their own and are reserved, under another name, to run alone.
//
// State has no clock, no randomness, no goroutine and no log line in it: the time,
// the counter and the transaction come with each command (Env), so every replica
// that applies the same log has the same state. DESIGN.md says how it is laid out
// and why.
package queue
