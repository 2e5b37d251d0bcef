// Package link is the wire between a node and everything that is not the node:
// PHP threads, PHP hosts, the command line, load clients. It is a small binary
// protocol over the node's unix socket, and the only boundary between PHP and
// the rest. phpext/ext/link.c speaks it in C; keep the two in step.
//
// # Bytes
//
// All integers are little-endian. A client sends frames, each with an operation
// and its fields:
//
//	0        4    5
//	+--------+----+-------------------------+
//	| length | op | field | field | ...     |   length = 1 + the fields' bytes
//	+--------+----+-------------------------+
//
//	a field    +--------+-----------+
//	           | length | bytes ... |         an integer is a field of 8 bytes
//	           +--------+-----------+
//
// and gets, for every operation that has an answer (see Op), one answer:
//
//	0        4        8
//	+--------+--------+-----------+
//	| length |  code  | body ...  |           length = 4 + the body's bytes
//	+--------+--------+-----------+
//
// A frame or an answer is at most MaxFrame long; a longer length, a field that
// runs past its frame, or an operation that the peer does not know closes the
// connection. On one connection a client waits for an answer before it sends its
// next request.
//
// The first frame is Hello with the protocol's version; its answer has code 1,
// or another code and a sentence that says what is wrong.
//
// # Two kinds of connection
//
// A connection of role RolePHP, RoleWorker or RoleTool carries requests. One of
// role RoleHost is the control connection of a PHP host: both sides send frames
// that have no answer, and when it ends the host ends.
//
// # Operations
//
//	Hello         version, role, name        1, or a code and a sentence
//	Push          queue, payload, delay      code and JSON; delay in whole seconds
//	Ack           queue, delivery            code
//	Release       queue, delivery, delay     code
//	Fail          queue, delivery, reason    code
//	Status        queue ("" for all)         1 and JSON
//	Failed        queue, limit               code and JSON
//	RetryFailed   queue, failed id           code and JSON
//	ForgetFailed  queue, failed id           code and JSON
//	PurgeFailed   queue                      code and JSON
//	Next          worker, slot               1 and a delivery, or 0: leave the loop
//	Ended         worker, slot, lease, status, message   1
//	Dispatch      handle, pool, message      none: what is wrong is told to Await
//	Await         handle, microseconds       1 and results, or 5 and a sentence
//	Abandon                                  none: all handles of this connection are given up
//	NextTask      pool, slot, task, outcome, result              1 and a task, or 0: leave the loop
//	TaskEnded     pool, slot, task, outcome, result, status      1
//	Reserve       queues (one a line), wait  1 and a message, "null" for none; 0 and "null": the
//	                                         node gives out no more; 6 and a sentence; wait in ms
//	Publish       app, channel, event, data  a code of the WebSocket functions
//	Broadcast     app, channels, event, data           likewise; channels are a JSON list
//	PublishWith   app, channels, event, data, except   likewise; except is a socket id, "" for none
//
// on a control connection, node to host:
//
//	Interrupt     slot, lease                stop that attempt, if it still runs there
//	Drain                                    take no new work, end when idle: nobody takes over
//	Retire                                   the same, but another host takes over: its clients
//	                                         have more time to notice
//	Hurry                                    wait for no client that is idle
//	Synced        number                     all that the host sent before that Sync was taken
//
// and host to node:
//
//	Ready         PHP's version              PHP is up, the listener is served
//	Output        worker, slot, lease, bytes what an attempt printed (lease 0: outside one)
//	Sync          number                     asks for Synced
//	Access        lines                      requests of pages, an AccessLine each
//	Pages         figures                    what the threads of pages do: PageFigures
//
// The body of Next's answer is the lease (8 bytes) and the JSON string that the
// worker's closure gets. The lease is new at every reservation, so (slot, lease)
// names one attempt: an interrupt that comes late finds another lease in the
// slot, or none, and does nothing.
//
// # Dispatch
//
// Handles are the client's: it makes them, unique on its connection, so that
// Dispatch needs no answer. Await answers with the result of its handle first and
// perhaps those of other handles that are done, each three fields: handle,
// outcome (see Outcome), result. They are told once. The body of NextTask's answer is
// that of Next's, with the task's number, which has the highest bit, in place of
// a lease: no lease ever equals it. NextTask and TaskEnded carry the last task's
// number and how it ended; task 0 is none.
//
// The body of Hello's answer is fields, too. The first is the node's pools, in it two
// fields for each: name and threads. More may follow; a client reads those that it
// knows, and one that is older than the node ignores the body, as it sends none of
// these operations: that is why all of this is version 1 still.
package link
