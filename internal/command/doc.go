// Package command is the codec of the log: what a node asks of the state machine,
// how a node's commands travel to the leader as one numbered batch, and how the
// leader writes that batch, stamped with the time, as one log entry.
//
// # Bytes
//
// Fields are encoded by package tagged: with a tag, zero values left out, so that
// an option of a later version changes no byte of an entry without it.
//
//	entry     version (1) | CRC32C of the rest (4, little-endian) | head | batch | commands of the leader
//	head      uvarint length | fields: 1 time
//	batch     uvarint length | head | commands of one node's session      length 0: none
//	  head    uvarint length | fields: 1 session, 2 number, 3 watermark
//	command   op (1) | uvarint length | fields
//
// The leader does not decode a batch: it copies the node's bytes. Its own commands
// (Reserve for the jobs of that very batch, Tick, Define, sessions) follow.
//
// # Commands
//
//	op              fields
//	OpenSession     node, number           ends the node's earlier session
//	EndSession      session                its reservations are free at once
//	Define          definitions, hash      of the queues, from the leader's configuration
//	Tick                                   promote delayed jobs, free lost leases: 1,000 at most
//	Reserve         session, queue, pool, count         queue may name a line of suspects
//	SetTime         time                   cluster time is that from here on, ahead or back, and leases move with it
//	SetLevel        number                 commands up to that feature level may come from here on
//	Push            queue, payload, delay
//	Ack             queue, job, lease
//	Release         queue, job, lease, delay, reason, cause, output
//	Fail            queue, job, lease, reason, output
//	RetryFailed     queue, job
//	ForgetFailed    queue, job
//	PurgeFailed     queue                  1,000 at most; answers whether more is left
//	Count           queue, three counters  of what never reached the log
//	Pause           queue                  nothing is reserved from it
//	Resume          queue
//	Clear           queue, from            deletes waiting jobs, 1,000 at most; answers where to go on
//	Delete          queue, job, from       one that waits at that place, or has failed
//	RetryAll        queue, reason, delay, from, to  failed jobs, 1,000 at most are looked at; answers where to go on
//
// Numbers of commands and of fields are append-only. A command or a field that this
// version does not know stops the node: it must not guess.
package command
