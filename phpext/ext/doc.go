// Package ext is the C extension "pogo" as a PHP host uses it: linked into the
// binary. phpize builds the same C files as pogo.so for the php command line.
//
//	link.c       one blocking call over the node's socket: connection, frames, waiting
//	functions.c  the functions of section Queue
//	dispatch.c   the functions of section Dispatch, the results of a pool's threads
//	reserve.c    pogo_queue_reserve
//	worker.c     frankenphp_handle_request, attempts, the end of a script
//	slots.c      how the node stops an attempt, and never another one
//	host.c       what is different inside a PHP host
//	pogo.c       the module
//
// The C files have the build tag php, as Go reads it in their first line.
package ext
