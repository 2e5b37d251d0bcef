// Package admin is the node's endpoint for people and probes, on fasthttp:
//
//	GET /healthz   200 "ok" while the process lives
//	GET /readyz    200 {"ready":true}, or 503 with the reason
//	GET /status    the document Status; ?pretty indents it
//
// HEAD is answered like GET, without a body. Every error is a problem document
// of RFC 9457 (application/problem+json); its detail says what to do.
// ?consistent=1 is accepted: on a single node every answer is linearizable.
//
// The package declares what it needs of the node, Source, and knows nothing
// else of it.
//
// # Who may ask
//
// There are no tokens yet, so the configuration keeps the listener on loopback.
// A web page of anywhere can still make a browser ask there, and with a name
// that it rebinds to 127.0.0.1 could read the answer: a listener on loopback
// therefore refuses, with 403, every request whose Host is not localhost or a
// loopback address.
//
// # Bounds
//
// Reading a request 10 s, writing an answer 10 s, idle 60 s, headers 8 KiB, body
// 4 KiB, 256 connections, 128 of one address, one Status 5 s. Over them a
// request is refused or its connection closed; nothing waits in a queue. A
// request with both Content-Length and Transfer-Encoding is refused.
package admin
