// Package admin is the node's endpoint for people and probes, on fasthttp:
//
//	GET /healthz   200 "ok" while the process lives
//	GET /readyz    200 {"ready":true}, or 503 with the reason. "notes" says what is wrong
//	               with a node that serves all the same
//	GET /status    the document Status
//	               ?consistent=1  with all that was answered before, by whichever
//	                              node; 503 when that cannot be had
//	               ?hash=1        with the hash of the replicated state
//	GET /metrics   the same in Prometheus's text format, and Go's own figures
//
//	GET  /api/v1/cluster/members   {"members":[...]}, each a Member
//	POST /api/v1/cluster/tokens    {"token":"...","expires_at":"..."}: a token with
//	                               which one more node may join; ?worker=1: one that
//	                               never has a vote
//	POST /api/v1/cluster/transfer  {"leader":"..."}, who leads then; ?node= says who shall,
//	                               else the best follower. 409 when that cannot be
//	POST /api/v1/cluster/leave     {"left":"..."}: the node that answers, "", has left and
//	                               ends, or the one of ?node=, which is dead, was removed.
//	                               409 when the rest could not go on; ?force=1 takes risks
//	GET  /api/v1/cluster/clock     a Clock; of a node that is part of no cluster, too
//	POST /api/v1/cluster/clock/reset  sets cluster time back to the clocks; a ClockReset,
//	                               or 409 when it is not ahead of them
//	POST /api/v1/cluster/backup    a backup of the node's state, as bytes; of a node that is
//	                               part of no cluster, too. 503 when two are under way
//	POST /api/v1/php/reload        {"reloaded":true} once new PHP hosts have taken over
//	                               from all that ran; 503 when one did not start, and the
//	                               old one goes on
//
//	GET    /api/v1/queues                           {"queues":[...]}, each as in the status
//	GET    /api/v1/queues/{queue}                   one of them
//	GET    /api/v1/queues/{queue}/jobs              a JobPage; ?limit= and ?cursor= as below,
//	                                                ?state= ready, suspect, delayed or reserved
//	POST   /api/v1/queues/{queue}/jobs              {"payload":"...","delay":seconds} is pushed;
//	                                                {"queue":"...","id":"..."}
//	DELETE /api/v1/queues/{queue}/jobs              deletes all that wait; {"queue":"...","count":3}
//	DELETE /api/v1/queues/{queue}/jobs/{id}         deletes one that waits or has failed; likewise
//	POST   /api/v1/queues/{queue}/pause             {"queue":"...","paused":true}
//	POST   /api/v1/queues/{queue}/resume            {"queue":"...","paused":false}
//	GET    /api/v1/queues/{queue}/failed            a FailedPage, the newest first
//	                                                ?limit=   1 to 1000, else 100; fewer when they
//	                                                          are large
//	                                                ?cursor=  the next_cursor of the page before
//	DELETE /api/v1/queues/{queue}/failed            deletes all; {"queue":"...","count":3}
//	POST   /api/v1/queues/{queue}/failed/retry      makes fresh jobs of all, or those of
//	                                                {"error":"...","before":seconds}; {"queue":"...","count":3}
//	POST   /api/v1/queues/{queue}/failed/{id}/retry makes a fresh job; {"queue":"...","id":"..."}
//	DELETE /api/v1/queues/{queue}/failed/{id}       deletes one; {"queue":"...","count":1}
//
// There, 404 is an unknown queue or job, 409 a job to delete that is reserved, 413 a payload that is too large, 507 a full queue,
// 503 a node that is shutting down, or finds no leader or one without room: nothing was changed; 504 says that
// the outcome is unknown. What is read is this node's state, with all that it answered.
//
// HEAD is answered like GET, without a body; ?pretty indents a document. Every
// error is a problem document of RFC 9457 (application/problem+json); its detail
// says what to do. On a node without a cluster members and tokens answer 409, and so does
// /api/v1/php/ on one without PHP.
//
// The package declares what it needs of the node, Source, Cluster and Queues, and knows
// nothing else of it.
//
// # Who may ask
//
// Without bearers, whoever can connect: the configuration keeps the listener on loopback
// then. With them, all but health and readiness takes a token of the role that the path and
// the method need: reading read, changing operate, and the cluster admin (access.go). Whoever
// sends ten wrong ones within a minute is not listened to for the rest of it. Each request
// that was to change something is told to the log.
//
// A web page of anywhere can make a browser ask on loopback, and with a name
// that it rebinds to 127.0.0.1 could read the answer: a listener on loopback
// therefore refuses, with 403, every request whose Host is not localhost or a
// loopback address. What changes something takes Content-Type:
// application/json, which a page of elsewhere cannot send unasked, and refuses
// an Origin that is not of this machine.
//
// # Bounds
//
// Reading a request 10 s, writing an answer 10 s, idle 60 s, headers 8 KiB, body
// 4 KiB and that of a push 16 MiB and 4 KiB, all long bodies together 64 MiB, 256
// connections, 128 of one address, one Status 5 s, one reload or change 2 min. Over them a
// request is refused or its connection closed; nothing waits in a queue. A
// request with both Content-Length and Transfer-Encoding is refused.
package admin
