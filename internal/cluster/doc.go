// Package cluster is a node's port to the other nodes: one TCP port, TLS both ways (package
// identity), over which raft talks, nodes forward to the one that leads, and new nodes
// join. DESIGN.md says why it is as it is.
//
// # The port
//
// ALPN says what an accepted connection carries: raft's messages go to a
// raft.NetworkTransport, links are served here, joining nodes are answered by
// identity.Admit. In raft a node's address is its id; where that is, the book knows.
//
// # Links
//
// Each node keeps one link to every other that it knows of, on which it asks; the other
// answers on the same link and asks on its own. All integers are little-endian:
//
//	0        4    5            13
//	+--------+----+------------+----------+
//	| length | op | request id | body ... |    length = 9 + the body's bytes, at most 64 MiB
//	+--------+----+------------+----------+
//
// A body is its fields, one after the other: numbers are uvarints, bytes and lists are
// behind their length. The request id is 0 for what has no answer.
//
//	op              body
//	hello         1 version (1 byte), applied, list of peers    each side's first frame; applied: the entry applied last
//	ping          2 applied, sent                               each side, at first and every 500 ms
//	pong          3 applied, sent, wall, tight (0 or 1)         sent is the ping's; wall: the clock, unix microseconds; tight: its disk has little room
//	book          4 list of peers                               whenever it has changed
//	offer         5 credits
//	answer        6 class, text, value, index, status, last, list of results
//	submit       16 list of (queue, count), batch, and credits or nothing
//	open session 17 number                                      the node is that of the certificate
//	end session  18 session
//	read index   19
//	admit        20 peer
//	reset time   21
//	define       22 definitions, hash
//	transfer     23 node id, or nothing for the best
//	remove       24 node id, check, force (0 or 1)
//	admit worker 25 peer
//
//	peer      id, address, version; the greatest version is that of a node that was removed
//	credits   session, applied, follows (0 or 1), list of pools
//	pool      name, free, list of queues
//	class     0 no error, 1 surely not done, 2 session refused, 3 other, 4 that node cannot join, 5 time was not set back,
//	          6 the leader has no room for pushes, 7 declined
//
// A request of an op that the node does not know is a newer node's, and is declined. Whatever
// else is not of this form closes the link, with a line in the log. So does silence of two
// seconds, in either direction.
package cluster
